"""What is handed to the one write path: items, their source record, the offset fence; and how it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from service.contracts.wire.problems import storable
from service.domain.commands import Command, RefuseStop, StopModel
from service.domain.frozen import value
from service.errors import ServiceError

#: Kinds of dead letters: no event that we take; a batch whose bytes hold no records that can be read (its
#: value is those bytes); a report that breaks its contract.
UNDECODABLE: Final = "Undecodable"
UNREADABLE: Final = "Unreadable"
INVALID_REPORT: Final = "InvalidReport"
_MESSAGE_CHARACTERS: Final = 4_000


@value
class RecordRef:
    """An inbound record as it came, for parking it and for its dead letter."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@value
class DeadLetter:
    """Why a record can't be used: a kind (the name of the error) and a text without input values."""

    kind: str
    message: str


def dead_letter(kind: str, message: str) -> DeadLetter:
    """A dead letter's cause: storable, and no longer than a header should be."""
    return DeadLetter(kind[:200], storable(message)[:_MESSAGE_CHARACTERS])


@value
class InboundItem:
    """One record's command, or its dead letter. `event_key` (16 bytes of source and id) and `content`
    (16 bytes of type and data) are given for reports and stops, whose event id rules."""

    command: Command | StopModel | RefuseStop | None
    source_record: RecordRef
    event_key: bytes | None = None
    content: bytes | None = None
    dead: DeadLetter | None = None


@value
class OffsetFence:
    """Offsets that must stand where the reader thinks they stand: (topic, partition, old, new)."""

    entries: Sequence[tuple[str, int, int, int]]
    consumer_group: str


class OffsetMoved(ServiceError):
    """Somebody else moved the offsets: read them again and seek."""

    code = "fenced"


class BatchRefused(ServiceError):
    """The batch holds something that can't be judged or stored: isolate it. `sqlstate` where the database
    said so; `index` of the item where it is known."""

    code = "batch_refused"

    def __init__(
        self, message: str, *, sqlstate: str | None = None, index: int | None = None
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.index = index


#: SQLSTATEs of races: unique violation (two first requests), serialization failure, deadlock.
RACES: Final = frozenset({"23505", "40001", "40P01"})


def dead_letter_of(cause: BatchRefused) -> DeadLetter:
    """The dead letter of the record that alone is why its batch was refused."""
    inner = cause.__cause__
    return dead_letter(type(inner if inner is not None else cause).__name__, cause.message)


Row = tuple[Any, ...]
