"""What the lifecycle topic tells of the demo's job, gathered event by event.

Promises that the story is what a read-committed consumer saw, in order: an event whose `sequence` is
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
class Told:
    """One lifecycle event as it was on the topic. `time` is its RFC 3339 text."""

    sequence: int
    word: Lifecycle
    time: str
    partition: int
    offset: int
    data: dict[str, Any]

    @property
    def round(self) -> int | None:
        """The round that it speaks of."""
        if "global_round" in self.data:
            return int(self.data["global_round"])
        metrics = self.data.get("metrics")
        return int(metrics[0]["global_round"]) if metrics and self.word in OF_A_ROUND else None


@dataclass(slots=True)
class Story:
    """The events so far, and by round and place (a slot, or `all`) the scores told in them."""

    events: list[Told] = field(default_factory=list)
    rounds: dict[int, dict[str, Scores]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )

    @property
    def last(self) -> Told:
        return self.events[-1]

    def add(self, told: Told) -> None:
        """Raises Permanent when events are missing or doubled."""
        if told.sequence != len(self.events) + 1:
            raise Permanent(f"event {len(self.events) + 1} expected, {told.sequence} came")
        self.events.append(told)
        if told.word is Lifecycle.METRICS_RECORDED:
            for metric in told.data["metrics"]:
                if metric["label"] in METRICS and metric["result"] is not None:
                    place = metric["fl_client_name"] or TOGETHER
                    self.rounds[metric["global_round"]][place][metric["label"]] = metric["result"]

    def count(self, word: Lifecycle) -> int:
        return sum(told.word is word for told in self.events)


def read(record: Record) -> Told:
    """One record of the lifecycle topic about a job."""
    headers = record.headers
    kind = headers["ce_type"].removeprefix("fl.job.").removesuffix(".v1")
    return Told(
        int(headers["ce_sequence"]),
        Lifecycle(kind),
        headers["ce_time"],
        record.partition,
        record.offset,
        json.loads(record.value or b"{}"),
    )


async def follow(connection: Connection, job_id: UUID, heard: Callable[[Story], None]) -> Story:
    """Read the job's events to the one that ends it. Raises Transient when the broker is away."""
    story = Story()
    topic = Topics(connection.topic_prefix).lifecycle
    async for record in tail(connection, topic, from_start=True):
        if record.key != str(job_id) or not record.headers["ce_type"].startswith("fl.job."):
            continue
        story.add(read(record))
        heard(story)
        if story.last.word in ENDS:
            break
    return story
