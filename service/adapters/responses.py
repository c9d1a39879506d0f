"""Sorting what an adapter answers, by code and by body, into what may be done next.

Promise: busy and overloaded are `Transient`, a refusal of the work itself is `Permanent`, and a response
after which the work may have been done is `Ambiguous`. Text from an adapter is bounded, on one line,
without control characters, without the query part of URLs (a presigned one is a credential) and without
the texts that the caller wants hidden. Nothing but these words is concluded from it.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from service.domain.enums import ReasonCode
from service.errors import Ambiguous, Permanent, ServiceError, Transient

MAX_DETAIL: Final = 300
_MAX_RETRY_AFTER: Final = 3600.0
_MIN_HIDDEN: Final = 3  #: shorter texts occur in any sentence

# A 500 with these words is about the app, unless it also says that the runtime could not be reached.
_BAD_APP: Final = ("invalid job definition", "flower run failed")
_RUNTIME_AWAY: Final = (
    "unavailable",
    "connection refused",
    "failed to connect",
    "connect timeout",
    "deadline exceeded",
)
_URL_QUERY: Final = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*")


@dataclass(frozen=True, slots=True)
class AdapterResponse:
    """What came back: the status, the body (bounded by the caller), and the headers that we read, by names in
    small letters."""

    status: int
    body: bytes
    retry_after: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, kw_only=True)
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Transient: it is something else.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as exc:
            raise Transient(
                "the adapter's response is not JSON: is the endpoint an FL-API?",
                code=ReasonCode.ADAPTER_UNAVAILABLE,
            ) from exc

    @property
    def says_bad_app(self) -> bool:
        """A 500 that blames the app itself."""
        if self.status != 500:
            return False
        text = detail_of(self.body, limit=4096).lower()
        return any(w in text for w in _BAD_APP) and not any(w in text for w in _RUNTIME_AWAY)

    def describe(self, call: str) -> str:
        """One line for people: the call, the status, the adapter's words."""
        detail = detail_of(self.body, hidden=self.hidden)
        return f"the adapter answered {call} with {self.status}" + (f": {detail}" if detail else "")


def read_error(call: str, response: AdapterResponse) -> Transient:
    """The error of a call that changes nothing, or of an abort: it is never the job's fault."""
    return Transient(
        response.describe(call),
        code=ReasonCode.ADAPTER_UNAVAILABLE,
        retry_after=retry_after(response.retry_after),
    )


def change_error(call: str, response: AdapterResponse) -> ServiceError:
    """The error of an upload or a submit. 409 means that another one is in flight, never a failure; after a
    5xx it may have been done; a redirect was not followed, so nothing was."""
    message, wait = response.describe(call), retry_after(response.retry_after)
    if response.says_bad_app:
        return Permanent(message, code=ReasonCode.ADAPTER_REJECTED)
    if response.status >= 500:
        return Ambiguous(message, code=ReasonCode.ADAPTER_UNAVAILABLE, retry_after=wait)
    if response.status < 400 or response.status in (408, 409, 429):
        return Transient(message, code=ReasonCode.ADAPTER_UNAVAILABLE, retry_after=wait)
    return Permanent(message, code=ReasonCode.ADAPTER_REJECTED)


def detail_of(body: bytes, *, hidden: Iterable[str] = (), limit: int = MAX_DETAIL) -> str:
    """The adapter's own words in an error: `detail` as text or as a list, else the body's beginning."""
    text = body[: 64 * 1024].decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        text = _words(content.get("detail"))
    elif isinstance(content, str):
        text = content
    for secret in hidden:
        if len(secret) >= _MIN_HIDDEN:
            text = text.replace(secret, "[hidden]")
    text = _URL_QUERY.sub(r"\1", text)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _words(detail: object) -> str:
    """`detail` is text, a list of validation errors (whose inputs are left out), or absent."""
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    words = []
    for entry in detail[:20]:
        if isinstance(entry, dict):
            loc = entry.get("loc")
            where = ".".join(map(str, loc)) if isinstance(loc, list) else ""
            words.append(f"{where}: {entry.get('msg', '')}".removeprefix(": "))
        elif isinstance(entry, str):
            words.append(entry)
    return "; ".join(words)


def retry_after(header: str | None) -> float | None:
    """The seconds that a `Retry-After` header asks for, at most an hour; None where it says nothing."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _MAX_RETRY_AFTER)
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)
