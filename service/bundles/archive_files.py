"""Are the files of a zip archive what their headers say? Unpacked while they pass, and kept nowhere.

Promise: a stored or deflated file that can't be unpacked, or whose bytes differ from its length or its
checksum, is a problem; what a usual reader unpacks is none. What can't be judged in passing (encrypted,
another method, a stored file whose length stands behind it) is believed, and so is all that follows the first
`_MOST` unpacked bytes: a file that unpacks without end costs little more than its passing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

_LOCAL: Final = b"PK\x03\x04"
_DESCRIPTOR: Final = b"PK\x07\x08"
#: Flags, method; checksum, packed and unpacked length, lengths of name and extra fields.
_HEADER: Final = struct.Struct("<6xHH4xIIIHH")
_LARGE: Final = 0xFFFFFFFF
_PIECE: Final = 1024 * 1024
_MOST: Final = 4 * 1024**3
_ENCRYPTED: Final = 0x1
_LENGTH_BEHIND: Final = 0x8
_STORED: Final = 0
_DEFLATED: Final = 8
#: Checksum and both lengths, in the two widths that they may have behind a file.
_BEHIND: Final = (struct.Struct("<III"), struct.Struct("<IQQ"))


class ArchiveFiles:
    """Feed it an archive from its first byte on; `problem` says what is wrong with a file of it."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self._bytes = bytearray()
        self._step: Callable[[], bool] | None = self._header
        self._number = self._all_unpacked = 0
        self._left: int | None = None  #: packed bytes of the file that are to come; None: not known
        self._packed = self._size = self._sum = 0  #: of the file, as far as it has come
        self._said = (0, 0)  #: its checksum and length by its header
        self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)

    def feed(self, chunk: bytes) -> Iterator[None]:
        """Judge the next bytes. Yields after each piece, so that others may have their turn."""
        if self._step is not None:
            self._bytes += chunk
        while self._step is not None and self._step():
            yield

    def _end(self, problem: str | None = None) -> bool:
        self.problem = None if problem is None else f"file {self._number} {problem}"
        self._step = None
        self._bytes.clear()
        return False

    def _header(self) -> bool:
        if len(self._bytes) < _HEADER.size:
            return False
        if self._bytes[:4] != _LOCAL or self._all_unpacked > _MOST:
            return self._end()  # the directory follows, or nothing more is judged
        flags, method, crc, packed, size, name, extra = _HEADER.unpack_from(self._bytes)
        begin = _HEADER.size + name + extra
        if len(self._bytes) < begin:
            return False
        if _LARGE in (packed, size):
            packed, size = _large(bytes(self._bytes[begin - extra : begin]), packed, size)
        del self._bytes[:begin]
        self._number += 1
        self._said, self._packed, self._size, self._sum = (crc, size), 0, 0, 0
        self._left = None if flags & _LENGTH_BEHIND else packed
        if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
            self._step = self._skip
        elif method == _STORED:
            self._step = self._stored
        else:
            self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            self._step = self._deflated
        return self._left is not None or self._step == self._deflated or self._end()

    def _skip(self) -> bool:
        moved = self._next_bytes()
        if not self._left:
            self._step = self._header
        return bool(moved) or not self._left

    def _stored(self) -> bool:
        piece = self._next_bytes()
        self._count(piece)
        return bool(piece) if self._left else self._compare(*self._said)

    def _deflated(self) -> bool:
        piece = self._unpacker.unconsumed_tail or self._next_bytes()
        if not piece and self._left != 0:
            return False
        try:
            self._count(self._unpacker.decompress(piece, _PIECE))
        except zlib.error as exc:
            return self._end(f"can't be unpacked: {exc}")
        if self._unpacker.eof:
            return self._behind_deflated()
        if self._left == 0 and not self._unpacker.unconsumed_tail:
            return self._end("can't be unpacked: it breaks off")
        return True if self._all_unpacked <= _MOST else self._end()

    def _behind_deflated(self) -> bool:
        """What came behind the packed bytes goes back; a file of a known length is skipped to its end."""
        rest = self._unpacker.unused_data
        self._bytes[:0] = rest
        self._packed -= len(rest)
        if self._left is None:
            self._step = self._described
            return True
        self._left += len(rest)
        problem = self._difference(*self._said)
        if problem is not None:
            return self._end(problem)
        self._step = self._skip
        return True

    def _described(self) -> bool:
        """Checksum and lengths behind the file, with a mark before them or without, in either width."""
        longest = _BEHIND[1]
        if len(self._bytes) < len(_DESCRIPTOR) + longest.size:
            return False  # the directory alone is longer
        begin = len(_DESCRIPTOR) if self._bytes[:4] == _DESCRIPTOR else 0
        for form in _BEHIND:
            crc, packed, size = form.unpack_from(self._bytes, begin)
            if (packed, size) == (self._packed, self._size):
                del self._bytes[: begin + form.size]
                return self._compare(crc, size)
        return self._end("has another length than stands behind it")

    def _next_bytes(self) -> bytes:
        most = _PIECE if self._left is None else min(_PIECE, self._left)
        piece = bytes(self._bytes[:most])
        del self._bytes[: len(piece)]
        self._packed += len(piece)
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def _count(self, piece: bytes) -> None:
        self._size += len(piece)
        self._all_unpacked += len(piece)
        self._sum = zlib.crc32(piece, self._sum)

    def _difference(self, crc: int, size: int) -> str | None:
        if self._size != size:
            return f"has {self._size} bytes, not {size}"
        return None if self._sum == crc else "has another checksum than its header says"

    def _compare(self, crc: int, size: int) -> bool:
        problem = self._difference(crc, size)
        if problem is not None:
            return self._end(problem)
        self._step = self._header
        return True


def _large(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """The lengths of a large file, which stand in a field of their own: first the unpacked one."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        field = extra[at + 4 : at + 4 + length]
        if kind == 1:
            numbers = [n for (n,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8])]
            if size == _LARGE and numbers:
                size = numbers.pop(0)
            if packed == _LARGE and numbers:
                packed = numbers.pop(0)
        at += 4 + length
    return packed, size
