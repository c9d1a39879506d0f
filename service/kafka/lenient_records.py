"""The records of a batch that have a header name which is no UTF-8: such a name becomes a readable text.

aiokafka refuses the whole batch for one such name. Here only the name changes (its stray bytes are written
as `\\xff`), and the record says so. The batch's checksum was good; a length that doesn't fit it raises.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import decode_varint

_HEADER_BYTES: Final = 61
_LOG_APPEND_TIME: Final = 1
_CODECS: Final = {
    DefaultRecordBatch.CODEC_GZIP: gzip_decode,
    DefaultRecordBatch.CODEC_SNAPPY: snappy_decode,
    DefaultRecordBatch.CODEC_LZ4: lz4_decode,
    DefaultRecordBatch.CODEC_ZSTD: zstd_decode,
}


@dataclass(frozen=True, slots=True)
class LenientRecord:
    """As aiokafka's record; `strange_names`: some header name was no UTF-8."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, Any], ...]
    strange_names: bool


def records_of(batch: bytes, place: TopicPartition) -> Iterator[LenientRecord]:
    """Decode a batch of the current format record by record.

    Raises ValueError, IndexError or what a decompressor raises, where a record's bytes are none.
    """
    head = DefaultRecordBatch(batch)
    body = batch[_HEADER_BYTES:]
    if head.compression_type != DefaultRecordBatch.CODEC_NONE:
        body = bytes(_CODECS[head.compression_type](body))
    (count,) = struct.unpack_from(">i", batch, _HEADER_BYTES - 4)
    at = 0
    for _ in range(count):
        size, at = decode_varint(body, at)
        if size < 0 or at + size > len(body):
            raise ValueError("a record is longer than its batch")
        yield _record(_Reader(body, at + 1), head, place)
        at += size


def _record(read: _Reader, head: DefaultRecordBatch, place: TopicPartition) -> LenientRecord:
    delta, offset = read.number(), read.number()
    appended = head.timestamp_type == _LOG_APPEND_TIME
    key, value = read.field(), read.field()
    headers: list[tuple[str, bytes | None]] = []
    strange = False
    for _ in range(read.number()):
        name = read.field() or b""
        text = name.decode("utf-8", "backslashreplace")
        strange = strange or text.encode() != name
        headers.append((text, read.field()))
    return LenientRecord(
        topic=place.topic,
        partition=place.partition,
        offset=head.base_offset + offset,
        timestamp=head.max_timestamp if appended else head.first_timestamp + delta,
        key=key,
        value=value,
        headers=tuple(headers),
        strange_names=strange,
    )


class _Reader:
    """Numbers and byte strings, one behind the other."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self._at = at

    def number(self) -> int:
        value, self._at = decode_varint(self._body, self._at)
        return int(value)

    def field(self) -> bytes | None:
        size = self.number()
        if size < 0:
            return None
        start, self._at = self._at, self._at + size
        if self._at > len(self._body):
            raise ValueError("a field is longer than its batch")
        return self._body[start : self._at]
