"""What a partition of the log says about the events in it, judged record by record. Pure: no broker here.

Every event record has two headers: `fl_position`, gapless in its partition, and `fl_stream`, the identity of
the database that gave it. What is published is what the log holds; `PartitionLog` follows the records from
the saved checkpoint to the end and finds the last position, or the contradiction that an operator must
settle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from service.relay.halted import RelayHalted
from service.store.outbox import RelayPosition

POSITION_HEADER: Final = "fl_position"
STREAM_HEADER: Final = "fl_stream"

#: Offsets that a transaction leaves behind its last record: its marker.
_MARKER: Final = 1


def read_headers(headers: Iterable[tuple[str, bytes]]) -> tuple[int | None, bytes | None]:
    """(position, stream id as text) of a record, None where a header is missing or no number."""
    position: int | None = None
    stream: bytes | None = None
    for name, value in headers:
        if name == POSITION_HEADER and value is not None and value.isdigit():
            position = int(value)
        elif name == STREAM_HEADER:
            stream = value
    return position, stream


@dataclass(slots=True)
class PartitionLog:
    """One partition between the checkpoint and the high watermark.

    `low`, `high`: the log's first offset and its high watermark. With `accept` the operator has said that
    the log is right: contradictions are passed over, and `published` and `head` follow the log.
    """

    partition: int
    position: RelayPosition
    stream: UUID
    low: int
    high: int
    accept: bool = False
    published: int = field(init=False)
    last_offset: int = field(init=False)
    subjects: set[str] = field(default_factory=set)
    unknown_records: int = 0

    def __post_init__(self) -> None:
        self.published = self.position.checkpoint
        self.last_offset = self.position.log_offset
        self._check_bounds()

    @property
    def start(self) -> int:
        """The offset from which to read: the checkpoint's own record, while it is still there."""
        return min(max(self.low, self.position.log_offset, 0), self.high)

    @property
    def in_doubt(self) -> bool:
        """Could there be records that the checkpoint does not know?"""
        if self.high <= self.start:
            return False
        nothing_after = self.high <= self.position.log_offset + 1 + _MARKER
        return not (nothing_after and self.position.head == self.position.checkpoint)

    def see(self, offset: int, key: bytes | None, headers: Iterable[tuple[str, bytes]]) -> None:
        """Take the next record of the log into account. Raises RelayHalted."""
        position, stream = read_headers(headers)
        if position is None:
            self.unknown_records += 1
            return
        if stream != str(self.stream).encode():
            self.unknown_records += 1
            self._stop(
                f"the record at offset {offset} was published from another database (stream "
                f"{(stream or b'none').decode(errors='replace')}, ours is {self.stream})",
                "relay_foreign_stream",
            )
            return
        if offset == self.position.log_offset and position == self.position.checkpoint:
            return
        first_of_all = self.last_offset < 0 and self.published == 0
        if position != self.published + 1 and not (first_of_all and self.low > 0):
            self._stop(
                f"the record at offset {offset} has position {position}, expected was "
                f"{self.published + 1}",
                "relay_log_gap",
            )
        self.published = position
        self.last_offset = offset
        if key is not None:
            self.subjects.add(key.decode(errors="replace"))

    def finish(self) -> None:
        """Judge the whole. Raises RelayHalted."""
        if self.published > self.position.head:
            self._stop(
                f"the log holds position {self.published}, but the database gave only "
                f"{self.position.head}: an older database was restored",
                "relay_older_database",
            )

    def _check_bounds(self) -> None:
        known = self.position
        if known.log_offset >= 0 and self.high <= known.log_offset:
            self._stop(
                f"the log ends at offset {self.high}, but position {known.checkpoint} was published at "
                f"offset {known.log_offset}: the topic was made anew, or lost records",
                "relay_topic_recreated",
            )
        if self.low > known.log_offset + 1 + _MARKER and known.head > known.checkpoint:
            self._stop(
                f"the log starts at offset {self.low}, above the last known record "
                f"({known.log_offset}), and positions {known.checkpoint + 1} to {known.head} may have "
                f"expired unseen",
                "relay_log_expired",
            )

    def _stop(self, message: str, code: str) -> None:
        if not self.accept:
            raise RelayHalted(f"partition {self.partition}: {message}", code=code)
