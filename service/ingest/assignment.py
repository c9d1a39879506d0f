"""Which partitions are ours and where to read on: the database's word, asked anew after every rebalance.

aiokafka only logs what a rebalance listener raises, and a lock shared with its poll deadlocks. So the
listener counts, and the poll loop asks here before it uses a record. An offset is kept in the database
together with the effects of what lies below it; Kafka's own committed offsets decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from service.errors import Permanent
from service.ingest.line_stop import WINDOW, LineStop
from service.kafka.clients import with_deadline

log = structlog.get_logger(__name__)

Place = tuple[str, int]


class OffsetsLost(Permanent):
    """The log no longer has (or does not have yet) the records from which reading should go on."""

    code = "offsets_lost"


class Offsets(Protocol):
    """The consumer's questions to the store about offsets."""

    async def offsets(self, group: str, places: Sequence[Place]) -> Mapping[Place, int]:
        """Stored next offsets; read FOR UPDATE, so that a commit under way is waited for."""
        ...

    async def start_offsets(self, group: str, starts: Mapping[Place, int]) -> Mapping[Place, int]:
        """Store where reading starts, for places without a row; the offsets that hold now."""
        ...


class DeadLetterCounts(Protocol):
    async def undecodable_since(self, topic: str, partition: int, since_offset: int) -> int:
        """How many records at or above this offset became dead letters as they were decoded."""
        ...


class Rebalances:
    """A rebalance listener that counts; it does nothing else, since its errors would only be logged."""

    def __init__(self) -> None:
        self.generation = 0

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        self.generation += 1

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        self.generation += 1


ConsumerRebalanceListener.register(Rebalances)


async def take_over(
    client: AIOKafkaConsumer,
    offsets: Offsets,
    dead_letters: DeadLetterCounts,
    group: str,
    line_stop: LineStop,
) -> dict[Place, int]:
    """Read the offsets of everything assigned, seek there, and return them.

    A place that was never read starts at the log's start, stored at once. Raises OffsetsLost when an offset
    lies outside the log, errors.Transient when broker or database are away.
    """
    assigned = sorted(client.assignment())
    if not assigned:
        return {}
    places = [(tp.topic, tp.partition) for tp in assigned]
    stored = dict(await offsets.offsets(group, places))
    lows = await with_deadline(10, "reading log starts", client.beginning_offsets(assigned))
    ends = await with_deadline(10, "reading log ends", client.end_offsets(assigned))
    fresh = {p: lows[TopicPartition(*p)] for p in places if p not in stored}
    if fresh:
        stored.update(await offsets.start_offsets(group, fresh))
    found: dict[Place, int] = {}
    for tp in assigned:
        place = (tp.topic, tp.partition)
        check_bounds(place, stored[place], lows[tp], ends[tp])
        found[place] = stored[place]
        since = max(0, stored[place] - WINDOW)
        bad = await dead_letters.undecodable_since(tp.topic, tp.partition, since)
        line_stop.begin(tp.topic, tp.partition, bad, stored[place] - since)
        if tp in client.assignment():
            client.seek(tp, stored[place])
    return found


def check_bounds(place: Place, stored: int, low: int, end: int) -> None:
    """Raises OffsetsLost when `stored` is not between the log's start and end."""
    topic, partition = place
    if stored < low:
        raise OffsetsLost(
            f"{topic}, partition {partition}: records {stored} to {low - 1} expired before they were read. "
            f"Lengthen the topic's retention; to go on without them: {_accept(place, low)}"
        )
    if stored > end:
        raise OffsetsLost(
            f"{topic}, partition {partition}: read up to {stored}, but the log ends at {end}: the topic was "
            f"made anew or lost records. To read it from its start: {_accept(place, low)}"
        )


def _accept(place: Place, offset: int) -> str:
    topic, partition = place
    return (
        f"UPDATE consumer_offset SET next_offset = {offset} "
        f"WHERE topic = '{topic}' AND partition = {partition}"
    )
