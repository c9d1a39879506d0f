"""Events and state records as Kafka records: the headers, made from columns; bodies go out as they are.

An event's headers come from its row alone, so that whoever publishes it again writes the same record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from service.contracts.outbound.ids import state_id
from service.contracts.outbound.state import STATE
from service.contracts.wire.envelope import SCHEMA_PREFIX, SOURCE
from service.relay.positions import POSITION_HEADER, STREAM_HEADER
from service.store.outbox import EventRow

Header = tuple[str, bytes]
#: Current state records of jobs: (key, body, sequence of the last event), by job id. A job that is gone is
#: missing in the answer.
StateRecord = tuple[bytes, bytes, int]
States = Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, StateRecord]]]

_FIRST: Final[tuple[Header, ...]] = (
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_source", SOURCE.encode()),
)


@lru_cache(maxsize=256)
def _of_type(event_type: str) -> tuple[Header, ...]:
    """The headers that all records of a type share."""
    return (
        *_FIRST,
        ("ce_type", event_type.encode()),
        ("ce_dataschema", f"{SCHEMA_PREFIX}{event_type}".encode()),
    )


@lru_cache(maxsize=1024)
def _time(at: datetime) -> bytes:
    """RFC 3339 in UTC with microseconds. All events of one transaction share their time."""
    return (at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z").encode()


def event_headers(row: EventRow, stream: bytes) -> list[Header]:
    """The headers of a lifecycle record; `stream` is the database's stream id as text."""
    headers = [
        *_of_type(row.type),
        ("ce_id", row.event_id.encode()),
        ("ce_time", _time(row.at)),
        ("ce_subject", row.subject.encode()),
        (POSITION_HEADER, b"%d" % row.position),
        (STREAM_HEADER, stream),
    ]
    if row.sequence is not None:
        headers.append(("ce_sequence", b"%d" % row.sequence))
    if row.correlation_id is not None:
        headers.append(("ce_correlationid", row.correlation_id.encode()))
    if row.causation_id is not None:
        headers.append(("ce_causationid", row.causation_id.encode()))
    if row.traceparent is not None:
        headers.append(("ce_traceparent", row.traceparent.encode()))
    return headers


def state_headers(
    job_id: UUID, key: bytes, sequence: int, at: datetime, late: bool = False
) -> list[Header]:
    """The headers of a state record; its id is the same for the same state of the same job. `late`: the state
    changed after the event of this sequence, so that the record is another one than that event's."""
    named = state_id(job_id, sequence)
    if late:
        named = str(uuid5(UUID(named), f"late:{at.isoformat()}"))
    return [
        *_of_type(STATE),
        ("ce_id", named.encode()),
        ("ce_time", _time(at)),
        ("ce_subject", key),
        ("ce_sequence", b"%d" % sequence),
    ]
