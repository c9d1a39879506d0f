"""Reads a partition's bytes batch by batch, past what aiokafka can't decode.

Promise: every offset of a fetched stretch comes out once, as a record or inside an `UnreadableRange` with
its cause. aiokafka gives up at the first thing that it can't decode, drops what it decoded before, and tries
the same bytes for ever: an unknown compression, damaged bytes, a header name that is no UTF-8. So a reader
that met such an error comes here for one stretch, and goes back to its client behind it.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import cramjam
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoError,
    RecordTooLargeError,
    UnsupportedCodecError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from service.errors import Transient
from service.kafka.clients import with_deadline
from service.kafka.lenient_records import records_of

#: Base offset, length, the leader's epoch (in the old format: the checksum), the format ("magic").
_START: Final = struct.Struct(">qiib")
_OVERHEAD: Final = 12
_LAST_OFFSET_DELTA: Final = struct.Struct(">i")
_LAST_OFFSET_DELTA_AT: Final = 23
_NEW_FORMAT: Final = 2
#: aiokafka's errors that speak of bytes; its others speak of the broker or of the group.
_OF_BYTES: Final = (CorruptRecordException, UnsupportedCodecError, RecordTooLargeError)
#: What decoding raises: aiokafka, the decompressors, and Python on lengths that are none.
UNDECODABLE: Final = (
    *_OF_BYTES,
    ArithmeticError,
    AssertionError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    cramjam.CompressionError,
    cramjam.DecompressionError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class UnreadableRange:
    """Offsets `first` up to `next`, that one not included, whose records can't be had.

    `raw` is their batch as it lies in the log; `cause` names what is wrong with it.
    """

    topic: str
    partition: int
    first: int
    next: int
    cause: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one fetch holds, in order, up to its end or behind its first unreadable batch.

    `next` is where to read on. `clean`: aiokafka would have read all of it. `stuck` says why nothing can be
    had at `next`: then only a repair of the log helps.
    """

    parts: list[Any]
    next: int
    clean: bool = True
    stuck: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A partition's bytes from `offset` on, as a read-committed reader is given them.

    `end`: what it may read up to, the end of the log or the first open transaction.
    """

    place: TopicPartition
    offset: int
    end: int
    raw: bytes
    aborted: tuple[tuple[int, int], ...] = ()


def is_about_bytes(error: BaseException) -> bool:
    """Does what a poll raised speak of a partition's bytes, and not of broker, group or network?

    A decompressor raises what it likes, an OSError without a number among it (`gzip.BadGzipFile`).
    """
    if isinstance(error, KafkaError):
        return isinstance(error, _OF_BYTES)
    return not isinstance(error, OSError) or error.errno is None


async def read_stretch(
    client: AIOKafkaConsumer, place: TopicPartition, offset: int, max_bytes: int
) -> Stretch:
    """Fetch once at `offset`, beside what the client itself fetches. Raises errors.Transient."""
    fetched = await _fetch(client, place, offset, max_bytes)
    return fetched if isinstance(fetched, Stretch) else stretch_of(fetched)


async def _fetch(
    client: AIOKafkaConsumer, place: TopicPartition, offset: int, max_bytes: int
) -> Fetched | Stretch:
    broker = client._client
    leader = broker.cluster.leader_for_partition(place)
    if leader is None or leader == -1:
        raise Transient(f"{place.topic}/{place.partition} has no leader now", code="broker_away")
    wanted = [(place.topic, [(place.partition, offset, max_bytes)])]
    request = FetchRequest(0, 0, max_bytes, READ_COMMITTED, wanted)
    answer = await with_deadline(10, f"fetching {place.topic}", broker.send(leader, request))
    for _, partitions in answer.topics:
        for _, code, _, *data in partitions:
            error = for_code(code)
            if error is not NoError:
                return Stretch([], offset, stuck=f"the broker answers {error.__name__}")
            aborted = data[2] if answer.API_VERSION >= 11 else data[-2]
            raw = bytes(data[-1] or b"")
            return Fetched(place, offset, int(data[0]), raw, tuple(aborted or ()))
    raise Transient(f"fetching {place.topic}: an empty answer", code="kafka_error")


def stretch_of(fetched: Fetched) -> Stretch:
    """Read what was fetched."""
    parts: list[Any] = []
    batches = _Batches(fetched.raw)
    unpacked = PartitionRecords(
        fetched.place,
        batches,
        list(fetched.aborted),
        fetched.offset,
        None,
        None,
        True,
        READ_COMMITTED,
    )
    try:
        parts.extend(unpacked)
    except UNDECODABLE as exc:
        return _around(fetched, batches, parts, unpacked.next_fetch_offset, exc)
    at = unpacked.next_fetch_offset
    if at == fetched.offset and fetched.end > at and not fetched.raw:
        return Stretch(parts, at, stuck="the broker hands over nothing at this offset")
    return Stretch(parts, at)


def _around(
    fetched: Fetched, batches: _Batches, parts: list[Any], at: int, error: Exception
) -> Stretch:
    """Behind the batch that can't be decoded at offset `at`: with those of its records that can."""
    cause = f"{type(error).__name__}: {error}"
    own, following = _end_of(batches.current), batches.following
    if at in (own, following):  # only the bytes behind its last record are wrong
        return Stretch(parts, at, False)
    ends = [end for end in (own, following) if at < end <= fetched.end]
    if not ends:
        stuck = None if at > fetched.offset else f"a damaged batch has no visible end: {cause}"
        return Stretch(parts, at, False, stuck)
    topic, partition = fetched.place.topic, fetched.place.partition
    if isinstance(error, UnicodeDecodeError):
        with contextlib.suppress(*UNDECODABLE):
            for record in records_of(batches.current, fetched.place):
                if record.offset >= at:
                    parts.append(record)
                    at = record.offset + 1
    if at < min(ends):
        parts.append(UnreadableRange(topic, partition, at, min(ends), cause, batches.current))
    return Stretch(parts, min(ends), False)


class _Batches:
    """The batches of a fetch as `PartitionRecords` asks for them; `current` is the last handed out."""

    def __init__(self, raw: bytes) -> None:
        self._left = deque(_split(raw))
        self.current = b""

    @property
    def following(self) -> int:
        """The first offset of the batch behind the current one; -1 when that was not fetched."""
        return _base_of(self._left[0][0]) if self._left else -1

    def has_next(self) -> bool:
        """A broker may cut off the last batch of an answer, never the first."""
        return bool(self._left) and (self._left[0][1] or not self.current)

    def next_batch(self) -> Any:
        self.current, _ = self._left.popleft()
        batch = MemoryRecords(self.current).next_batch()
        if batch is None:
            raise CorruptRecordException("the batch is cut off")
        return batch


def _split(raw: bytes) -> Iterator[tuple[bytes, bool]]:
    """(bytes, whether all of them are there) of each batch, as far as the lengths lead."""
    at = 0
    while at + _START.size <= len(raw):
        length = _START.unpack_from(raw, at)[1]
        end = at + _OVERHEAD + length
        whole = length >= _START.size - _OVERHEAD and end <= len(raw)
        yield raw[at : end if whole else len(raw)], whole
        at = end if whole else len(raw)


def _base_of(batch: bytes) -> int:
    return int(_START.unpack_from(batch)[0])


def _end_of(batch: bytes) -> int:
    """The offset behind a batch by its own header; in the old format its offset is its last."""
    base, _, _, magic = _START.unpack_from(batch)
    if magic < _NEW_FORMAT or len(batch) < _LAST_OFFSET_DELTA_AT + _LAST_OFFSET_DELTA.size:
        return int(base) + 1
    return int(base) + int(_LAST_OFFSET_DELTA.unpack_from(batch, _LAST_OFFSET_DELTA_AT)[0]) + 1
