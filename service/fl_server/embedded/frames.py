"""Messages between the server and a site process: a JSON object and, when needed, npz bytes.

Promise: a frame is read whole or `Closed` is raised; an answer counts only for the very call it
was made for and from the very process that was asked: each frame carries the call's number, a
number drawn for that call alone, and its sender's process id. An answer that is stale, repeated or
from another process, a forked child's for one, is `Refused` with the cause. Nothing that a trainer
prints can get between two frames, since they travel on a socket of their own. What breaks the
promise: code in the site's own process that writes to that socket on purpose.

A frame is `HEAD`, all big-endian (call number, drawn number, process id, bytes of the JSON, bytes
of the rest), then the two. Needs the standard library alone.
"""

from __future__ import annotations

import json
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol

HEAD: Final = Struct("!QQIIQ")
MAX_JSON: Final = 64 * 2**20
MAX_BODY: Final = 16 * 2**30

Message = dict[str, Any]


class Closed(EOFError):
    """The other end is gone, in the middle of a frame or between two."""


class Refused(ValueError):
    """What came is no answer to the call that was made; the message says why."""


class FrameTooLarge(ValueError):
    """More than a frame carries."""


class Stamp(NamedTuple):
    """Which call a frame belongs to and who sent it. `nonce` is drawn anew for each call."""

    number: int
    nonce: int
    pid: int


class Source(Protocol):
    """What `read` reads from."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes; empty at the end."""


class FrameStream(Protocol):
    """What `read_async` reads from: asyncio's stream reader."""

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes."""


def encode(stamp: Stamp, message: Message, body: bytes = b"") -> tuple[bytes, bytes]:
    """A frame in two parts, so that a large body is not copied.

    Raises:
        FrameTooLarge: the message or the body is beyond what a frame carries.
    """
    text = json.dumps(message, separators=(",", ":")).encode()
    if len(text) > MAX_JSON:
        raise FrameTooLarge(
            f"names, metrics and config have {len(text)} bytes; at most {MAX_JSON} travel"
        )
    if len(body) > MAX_BODY:
        raise FrameTooLarge(f"the parameters have {len(body)} bytes; at most {MAX_BODY} travel")
    return HEAD.pack(*stamp, len(text), len(body)) + text, body


def read(source: Source) -> tuple[Stamp, Message, bytes]:
    """Read one frame; blocks.

    Raises:
        Closed: the other end closed.
    """
    stamp, text_bytes, body_bytes = _head(_exactly(source, HEAD.size))
    text = _exactly(source, text_bytes)
    return stamp, json.loads(text), _exactly(source, body_bytes)


async def read_async(stream: FrameStream, expected: Stamp) -> tuple[Message, bytes]:
    """Read the answer to the call with the stamp `expected`, whose `pid` is who was asked.

    Raises:
        Closed: the other end closed.
        Refused: what came is another call's answer, another process's, or no message.
    """
    try:
        stamp, text_bytes, body_bytes = _head(await stream.readexactly(HEAD.size))
        why = refusal(stamp, expected)
        if why is not None:
            raise Refused(why)
        if text_bytes > MAX_JSON or body_bytes > MAX_BODY:
            raise Refused("an answer is larger than any that is lawful")
        text = await stream.readexactly(text_bytes)
        body = await stream.readexactly(body_bytes) if body_bytes else b""
    except (EOFError, ConnectionError) as exc:
        raise Closed("the site's channel ended") from exc
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Refused("an answer is no JSON") from exc
    if not isinstance(message, dict):
        raise Refused("an answer is no JSON object")
    return message, body


def refusal(got: Stamp, expected: Stamp) -> str | None:
    """Why a frame with the stamp `got` does not answer the call `expected`; None when it does."""
    if got.number < expected.number and got.pid == expected.pid:
        return f"an answer to call {got.number} came during call {expected.number}: it is stale"
    if got.pid != expected.pid:
        return (
            f"an answer came from process {got.pid}, not from the site's own {expected.pid}:"
            " a process that the trainer forked must not return from its function"
        )
    if got.number != expected.number:
        return f"an answer to call {got.number} came, which was not made"
    if got.nonce != expected.nonce:
        return f"an answer to call {got.number} does not carry that call's number drawn"
    return None


def _head(raw: bytes) -> tuple[Stamp, int, int]:
    number, nonce, pid, text_bytes, body_bytes = HEAD.unpack(raw)
    return Stamp(number, nonce, pid), text_bytes, body_bytes


def _exactly(source: Source, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = source.read(min(count, 1 << 24))
        if not part:
            raise Closed("the server's end closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
