"""The events of the demo's job on the lifecycle topic, gathered one by one.

Promises that the lifecycle is what a read-committed consumer saw, in order: an event whose `sequence` is
not the next one is an error, since the topic promises 1..n without a gap.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from service.domain.enums import Lifecycle
from service.errors import Permanent
from service.kafka.connection import Connection
from service.kafka.read import Record, tail
from service.kafka.topics import Topics

TOGETHER: Final = "all"
METRICS: Final = ("loss", "accuracy", "auc")
ENDS: Final = frozenset(
    {Lifecycle.COMPLETED, Lifecycle.FAILED, Lifecycle.STOPPED, Lifecycle.REJECTED}
)
OF_A_ROUND: Final = frozenset(
    {
        Lifecycle.ROUND_STARTED,
        Lifecycle.CLIENT_RESULT_RECEIVED,
        Lifecycle.CLIENT_FAILED,
        Lifecycle.ROUND_AGGREGATED,
        Lifecycle.METRICS_RECORDED,
    }
)

#: metric -> value, of one place in one round
Scores = dict[str, float]


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One lifecycle event as it was on the topic. `time` is its RFC 3339 text."""

    sequence: int
    event_name: Lifecycle
    time: str
    partition: int
    offset: int
    data: dict[str, Any]

    @property
    def round(self) -> int | None:
        """The round that it is about."""
        if "global_round" in self.data:
            return int(self.data["global_round"])
        metrics = self.data.get("metrics")
        return (
            int(metrics[0]["global_round"]) if metrics and self.event_name in OF_A_ROUND else None
        )


@dataclass(slots=True)
class LifecycleLog:
    """The events so far, and by round and site (a slot, or `all`) the scores in them."""

    events: list[LoggedEvent] = field(default_factory=list)
    rounds: dict[int, dict[str, Scores]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )

    @property
    def last(self) -> LoggedEvent:
        return self.events[-1]

    def add(self, event: LoggedEvent) -> None:
        """Raises Permanent when events are missing or doubled."""
        if event.sequence != len(self.events) + 1:
            raise Permanent(f"event {len(self.events) + 1} expected, {event.sequence} came")
        self.events.append(event)
        if event.event_name is Lifecycle.METRICS_RECORDED:
            for metric in event.data["metrics"]:
                if metric["label"] in METRICS and metric["result"] is not None:
                    site = metric["fl_client_name"] or TOGETHER
                    self.rounds[metric["global_round"]][site][metric["label"]] = metric["result"]

    def count(self, event_name: Lifecycle) -> int:
        return sum(event.event_name is event_name for event in self.events)


def read(record: Record) -> LoggedEvent:
    """One record of the lifecycle topic about a job."""
    headers = record.headers
    kind = headers["ce_type"].removeprefix("fl.job.").removesuffix(".v1")
    return LoggedEvent(
        int(headers["ce_sequence"]),
        Lifecycle(kind),
        headers["ce_time"],
        record.partition,
        record.offset,
        json.loads(record.value or b"{}"),
    )


async def follow(
    connection: Connection, job_id: UUID, on_event: Callable[[LifecycleLog], None]
) -> LifecycleLog:
    """Read the job's events to the one that ends it. Raises Transient when the broker is unavailable."""
    lifecycle = LifecycleLog()
    topic = Topics(connection.topic_prefix).lifecycle
    async for record in tail(connection, topic, from_start=True):
        if record.key != str(job_id) or not record.headers["ce_type"].startswith("fl.job."):
            continue
        lifecycle.add(read(record))
        on_event(lifecycle)
        if lifecycle.last.event_name in ENDS:
            break
    return lifecycle
