"""The event table: append-only, audit trail and outbox. Positions are given here, under the heads' locks.

The last thing a transaction does: so a position is never visible before a smaller one of its partition, and
a rollback takes its positions back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from service.contracts.outbound import ids, lifecycle
from service.contracts.outbound.truncate import truncate_to
from service.contracts.wire.partitioner import partition_for
from service.domain.events import Event
from service.domain.job import Job
from service.domain.values import Origin, Reason
from service.errors import Transient
from service.store.database import Connection
from service.store.statements import QUERIES

_COLUMNS: Final = (
    "partition",
    "position",
    "event_id",
    "job_id",
    "sequence",
    "type",
    "subject",
    "at",
    "body",
    "correlation_id",
    "causation_id",
    "traceparent",
)
_Row = tuple[
    UUID | str, UUID | None, int | None, str, str, datetime, str, str | None, str | None, str | None
]


@dataclass(slots=True)
class EventLog:
    """Collects a transaction's events, bodies frozen, and writes them last. `partitions`: the lifecycle
    topic's, fixed when it was made. A body that the topic could not take is cut here, where it is frozen."""

    partitions: int
    rows: list[tuple[int, _Row]] = field(default_factory=list)

    def partition_of(self, subject: str) -> int:
        """The partition of the lifecycle topic on which everything about this subject goes."""
        return partition_for(subject.encode(), self.partitions)

    def append(
        self, job: Job, event: Event, subject: str, partition: int, cause: Origin | None
    ) -> None:
        """A published event; `job` is the job after it, `subject` its id as text."""
        request = job.request
        first = getattr(request, "origin", None) or cause
        job_id = request.job_id
        self.rows.append(
            (
                partition,
                (
                    ids.event_id(job_id, job.sequence),
                    job_id,
                    job.sequence,
                    lifecycle.event_type(event),
                    subject,
                    event.at,
                    truncate_to(lifecycle.body(job, event)),
                    first.event_id if first else None,
                    cause.event_id if cause else None,
                    (cause.traceparent if cause else None)
                    or (first.traceparent if first else None),
                ),
            )
        )

    def append_refusal(
        self,
        job_id: UUID | None,
        model_id: UUID | None,
        origin: Origin,
        reason: Reason,
        at: datetime,
    ) -> None:
        """An answer about a request that changed nothing."""
        about = job_id or model_id
        if about is None:
            raise ValueError("a refusal needs a job or a model")
        subject = str(about)
        self.rows.append(
            (
                self.partition_of(subject),
                (
                    ids.refusal_id(about, origin.source, origin.event_id),
                    job_id,
                    None,
                    lifecycle.REFUSED,
                    subject,
                    at,
                    truncate_to(lifecycle.refusal(job_id, model_id, origin.event_id, reason)),
                    origin.event_id,
                    origin.event_id,
                    origin.traceparent,
                ),
            )
        )

    async def write(self, connection: Connection) -> None:
        """Lock the heads, give positions in the order of appending, insert."""
        if not self.rows:
            return
        counts = Counter(partition for partition, _ in self.rows)
        touched = sorted(counts)
        records = await connection.fetch(QUERIES["heads_lock"], touched)
        last = {r["partition"]: r["position"] for r in records}
        if len(last) != len(touched):
            raise Transient("the event log has no heads yet: is the relay's stream open?")
        await connection.execute(QUERIES["heads_move"], touched, [counts[p] for p in touched])
        numbered: list[Sequence[object]] = []
        for partition, row in self.rows:
            last[partition] += 1
            numbered.append((partition, last[partition], *row))
        await connection.copy_records_to_table("event", records=numbered, columns=_COLUMNS)
