"""Whether a trainer's source can be compiled, and if not what its author should change.

Promise: a text file in any form that Python reads passes; for every other one the message names the
file, the line where there is one, and the remedy. The source is never run. What breaks the
promise: a Python at the sites that differs from the server's.
"""

from __future__ import annotations

import io
import tokenize
from pathlib import Path
from typing import Final

UTF8_BOM: Final = b"\xef\xbb\xbf"
#: A source beyond this is data in disguise, and would hold up the server while it is compiled.
MAX_SOURCE: Final = 4 * 2**20
_MARKS: Final = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_MAX_TEXT: Final = 200


def other_encoding(raw: bytes) -> str | None:
    """The name of the encoding when a text file is clearly UTF-16 or UTF-32, with its mark or without."""
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return name
    head = raw[:200]
    if head.count(0) * 3 >= len(head) > 1 and (0 in head[:2]):
        return "UTF-32" if head.count(0) * 3 >= 2 * len(head) else "UTF-16"
    return None


def source_problem(app: Path, entrypoint: str) -> str | None:
    """What is wrong with the file `entrypoint` of an app, or None when it compiles."""
    if not entrypoint.endswith(".py"):
        return f"{entrypoint} should be a Python file"
    try:
        path = app / entrypoint
        if path.stat().st_size > MAX_SOURCE:
            return f"{entrypoint} is larger than {MAX_SOURCE} bytes: keep data in files of its own"
        raw = path.read_bytes()
    except FileNotFoundError:
        return f"the bundle has no {entrypoint}"
    except OSError as exc:
        return f"{entrypoint} can't be read: {exc.strerror}"
    return _encoding_problem(raw, entrypoint) or _syntax_problem(raw, entrypoint)


def _encoding_problem(raw: bytes, name: str) -> str | None:
    encoding = other_encoding(raw)
    if encoding is not None:
        return f"{name} is saved as {encoding}: save it as UTF-8"
    at = raw.find(0)
    if at >= 0:
        return f"{name} line {_line(raw, at)}: a NUL byte; a source is text: save it as UTF-8"
    try:
        named, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    except (SyntaxError, UnicodeError) as exc:
        told = _not_utf8(raw, name)
        if told is not None:
            return told
        return (
            f"{name}: {str(exc)[:_MAX_TEXT]}: save it as UTF-8 and remove the line that names"
            " another encoding"
        )
    if named in ("utf-8", "utf-8-sig"):
        return _not_utf8(raw, name)
    try:
        raw.decode(named)
    except (LookupError, ValueError) as exc:
        return (
            f"{name} names the encoding {named[:40]} and can't be read by it"
            f" ({str(exc)[:_MAX_TEXT]}): save it as UTF-8 and remove the line that names it"
        )
    return None


def _not_utf8(raw: bytes, name: str) -> str | None:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        return (
            f"{name} line {_line(raw, exc.start)}: the byte 0x{raw[exc.start]:02x} is no UTF-8:"
            " save the file as UTF-8"
        )
    return None


def _syntax_problem(raw: bytes, name: str) -> str | None:
    try:
        compile(raw, name, "exec", dont_inherit=True)
    except SyntaxError as exc:
        where = f" line {exc.lineno}" if exc.lineno else ""
        return f"{name}{where}: {str(exc.msg)[:_MAX_TEXT]}"
    except (RecursionError, MemoryError):
        return f"{name} is nested too deeply to be compiled: split its longest expression"
    except ValueError as exc:
        return f"{name} can't be compiled: {str(exc)[:_MAX_TEXT]}"
    return None


def _line(raw: bytes, at: int) -> int:
    return raw.count(b"\n", 0, at) + 1
