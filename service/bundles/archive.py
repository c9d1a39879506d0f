"""Is a stream a whole zip archive? Judged while it passes, without keeping or unpacking it.

Promise: a stream that ends without an error was an archive with at least one file, whose directory of
contents is whole: it lies where the archive's end says, and names as many entries as that says. So an error
page, an empty answer or a file cut off in the middle never passes for a model. Nor does one whose files are
damaged, as far as `service.bundles.archive_files` can tell. At most `_KEPT` bytes are remembered; of a
directory larger than that only its location and size are judged. What it does not promise: what is in the
files.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Final

from service.bundles.archive_files import ArchiveFiles
from service.domain.enums import ReasonCode
from service.errors import Transient

_KEPT: Final = 2 * 1024 * 1024
_LOCAL: Final = b"PK\x03\x04"
_ENTRY: Final = b"PK\x01\x02"
_END: Final = b"PK\x05\x06"
_END_64: Final = b"PK\x06\x06"
_LOCATOR_64: Final = b"PK\x06\x07"
_END_BYTES: Final = 22
_LOCATOR_BYTES: Final = 20
_END_64_BYTES: Final = 56
_ENTRY_BYTES: Final = 46
_COMMENT: Final = 65_535


async def whole_archive(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass the chunks on; after the last one, judge.

    Raises:
        Transient: `results_upload_failed`, saying what came instead of an archive.
        Whatever the stream raises.
    """
    begin, tail, total = b"", bytearray(), 0
    files = ArchiveFiles()
    async for chunk in chunks:
        if len(begin) < _END_BYTES:
            begin = (begin + chunk)[:64]
            if len(begin) >= len(_LOCAL) and not begin.startswith((_LOCAL, _END)):
                raise _not_one(f"it begins with {begin[:24]!r}")
        total += len(chunk)
        tail += chunk
        if len(tail) > 2 * _KEPT:
            del tail[:-_KEPT]
        for _ in files.feed(chunk):
            await asyncio.sleep(0)
        yield chunk
    if not total:
        raise _not_one("it is empty")
    problem = _problem(bytes(tail[-_KEPT:]), total) or files.problem
    if problem is not None:
        raise _not_one(problem)


def _not_one(problem: str) -> Transient:
    return Transient(
        f"what the net gave as results is no whole zip archive: {problem}",
        code=ReasonCode.RESULTS_UPLOAD_FAILED,
    )


def _problem(tail: bytes, total: int) -> str | None:
    """What is wrong with an archive of `total` bytes that ends with `tail`; None: nothing."""
    at = _end_at(tail)
    if at is None:
        return f"its end is missing after {total} bytes"
    start = total - len(tail)  # of the tail within the archive
    count, size, offset = struct.unpack_from("<HII", tail, at + 10)
    directory_end = start + at
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        found = _end_64(tail, at, start)
        if found is not None:
            count, size, offset, directory_end = found
        elif 0xFFFFFFFF in (size, offset):
            return "its large directory has no end"
    if not count:
        return "it holds no file"
    if offset + size > directory_end or offset + size < directory_end - _COMMENT:
        return "its directory does not lie where its end says"
    if offset < start:
        return None
    return _entries_problem(tail[offset - start : offset - start + size], count, offset)


def _end_at(tail: bytes) -> int | None:
    """Where the archive's end record begins: the last one whose comment reaches the very end."""
    lowest = max(0, len(tail) - _END_BYTES - _COMMENT)
    at = tail.rfind(_END, lowest)
    while at >= 0:
        if at + _END_BYTES <= len(tail):
            (comment,) = struct.unpack_from("<H", tail, at + 20)
            if at + _END_BYTES + comment == len(tail):
                return at
        at = tail.rfind(_END, lowest, at)
    return None


def _end_64(tail: bytes, at: int, start: int) -> tuple[int, int, int, int] | None:
    """(entries, bytes and location of the directory, where its end record begins) of a large archive."""
    locator = at - _LOCATOR_BYTES
    if locator < 0 or tail[locator : locator + 4] != _LOCATOR_64:
        return None
    (location,) = struct.unpack_from("<Q", tail, locator + 8)
    record = location - start
    if not 0 <= record <= locator - _END_64_BYTES or tail[record : record + 4] != _END_64:
        return None
    count, size, offset = struct.unpack_from("<QQQ", tail, record + 32)
    return count, size, offset, location


def _entries_problem(directory: bytes, count: int, offset: int) -> str | None:
    """What is wrong with the directory that lies at `offset`; None: it names `count` entries, one a file."""
    at = seen = files = 0
    while at + _ENTRY_BYTES <= len(directory) and directory[at : at + 4] == _ENTRY:
        name, extra, comment = struct.unpack_from("<HHH", directory, at + 28)
        (local,) = struct.unpack_from("<I", directory, at + 42)
        if local != 0xFFFFFFFF and local >= offset:
            return "its directory names a file beyond its end"
        files += not directory[at + 46 : at + 46 + name].endswith(b"/")
        at += _ENTRY_BYTES + name + extra + comment
        seen += 1
    if seen != count or at > len(directory):
        return f"its directory names {seen} entries of {count}"
    return None if files else "it holds no file"
