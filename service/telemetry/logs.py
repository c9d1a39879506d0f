"""Logging, set up once: lines for people on a terminal, one JSON object a line everywhere else.

Promise: no cohort query, project id, credential or presigned query string leaves through a log,
whatever the call that logs it says: they are dropped by name, and cut out of texts by pattern, here,
after everything else. What breaks it: a secret under an innocent name that looks like nothing.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

from service.telemetry.printable import line, lines

_HIDDEN: Final = "[hidden]"
_SECRET_NAMES: Final = re.compile(
    r"cohort_query|project_id|password|passwd|secret|token(?!s?_left)|authorization|credential"
    r"|api_?key|aes_key|access_key|presigned|signature",
    re.IGNORECASE,
)
#: A lease's fencing token is a number that debugging needs, and no secret.
_INNOCENT: Final = frozenset({"lease_token", "token"})
#: The query of a URL (a presigned one is a credential), and a URL's user and password.
_QUERY: Final = re.compile(
    r"(?P<url>\b[a-z][a-z0-9+.-]*://[^\s?\"'<>]+)\?[^\s\"'<>]+", re.IGNORECASE
)
_USERINFO: Final = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+@", re.IGNORECASE)
_BEARER: Final = re.compile(r"\b(?P<kind>Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAX_DEPTH: Final = 6
#: Traces, as they are made here.
_WITH_LINES: Final = frozenset({"exception", "stack"})


def clean_text(text: str) -> str:
    """A text without URL queries, passwords in URLs and authorization values."""
    if "://" in text:
        text = _QUERY.sub(rf"\g<url>?{_HIDDEN}", _USERINFO.sub(rf"\g<scheme>{_HIDDEN}@", text))
    return _BEARER.sub(rf"\g<kind> {_HIDDEN}", text)


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if depth >= _MAX_DEPTH or value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {k: _clean_member(str(k), v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each, depth + 1) for each in value]
    return clean_text(str(value))


def _clean_member(name: str, value: Any, depth: int) -> Any:
    innocent = name in _INNOCENT and isinstance(value, int)
    return _HIDDEN if _SECRET_NAMES.search(name) and not innocent else _clean(value, depth)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor that keeps this module's promise; it must stand right before the renderer."""
    return {name: _clean_member(name, value, 0) for name, value in event.items()}


def harmless(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The processor before a console's renderer: no text of others acts on the terminal."""
    return {
        name: value
        if value is None or isinstance(value, bool | int | float)
        else (lines if name in _WITH_LINES else line)(str(value))
        for name, value in event.items()
    }


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process, on standard error.

    `format`: json, console, or auto (console when the stream is a terminal). A second call replaces
    the first.
    """
    out = stream or sys.stderr
    console = format == "console" or (format == "auto" and out.isatty())
    number = LEVELS[level]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = [structlog.processors.format_exc_info, redact]
    if console:
        last.append(harmless)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=out.isatty())
        if console
        else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[*shared, *last, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _take_over_stdlib(out, number, [*shared], [*last, renderer])


def _take_over_stdlib(out: TextIO, level: int, before: list[Any], after: list[Any]) -> None:
    """Libraries log through the standard library: same form, and quieter than we are ourselves."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *after],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING) if level > logging.DEBUG else logging.INFO)
    for name in ("httpx", "httpcore", "aiobotocore", "botocore", "aioboto3", "asyncio"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # aiokafka logs every moment of a broker's absence as an error; our own lines report it once.
    logging.getLogger("aiokafka").setLevel(
        logging.CRITICAL if level > logging.DEBUG else logging.WARNING
    )
