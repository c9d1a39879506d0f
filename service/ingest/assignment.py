"""Which partitions are ours and where to resume: read from the database after every rebalance.

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
from service.ingest.dlq_limit import WINDOW, DlqLimit
from service.ingest.gaps import find_gap
from service.kafka import PartitionId
from service.kafka.clients import with_deadline

log = structlog.get_logger(__name__)


class OffsetsLost(Permanent):
    """The log no longer has (or does not have yet) the records from which reading should continue."""

    code = "offsets_lost"


class Offsets(Protocol):
    """The consumer's questions to the store about offsets."""

    async def offsets(
        self, group: str, partitions: Sequence[PartitionId]
    ) -> Mapping[PartitionId, int]:
        """Stored next offsets; read FOR UPDATE, so that a commit under way is waited for."""
        ...

    async def start_offsets(
        self, group: str, starts: Mapping[PartitionId, int]
    ) -> Mapping[PartitionId, int]:
        """Store where reading starts, for partitions without a row; the offsets that hold now."""
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


async def resume_assigned(
    client: AIOKafkaConsumer,
    offsets: Offsets,
    dead_letters: DeadLetterCounts,
    group: str,
    dlq_limit: DlqLimit,
) -> dict[PartitionId, int]:
    """Read the offsets of everything assigned, seek there, and return them.

    A partition that was never read starts at the log's start, stored at once. Raises OffsetsLost when an
    offset lies outside the log, errors.Transient when broker or database are unavailable.
    """
    assigned = sorted(client.assignment())
    if not assigned:
        return {}
    partitions = [(tp.topic, tp.partition) for tp in assigned]
    stored = dict(await offsets.offsets(group, partitions))
    lows = await with_deadline(10, "reading log starts", client.beginning_offsets(assigned))
    ends = await with_deadline(10, "reading log ends", client.end_offsets(assigned))
    fresh = {p: lows[TopicPartition(*p)] for p in partitions if p not in stored}
    if fresh:
        stored.update(await offsets.start_offsets(group, fresh))
    found: dict[PartitionId, int] = {}
    for tp in assigned:
        partition_id = (tp.topic, tp.partition)
        check_bounds(partition_id, stored[partition_id], lows[tp], ends[tp])
        found[partition_id] = stored[partition_id]
        since = max(0, stored[partition_id] - WINDOW)
        bad = await dead_letters.undecodable_since(tp.topic, tp.partition, since)
        dlq_limit.begin(tp.topic, tp.partition, bad, stored[partition_id] - since)
        if tp in client.assignment():
            client.seek(tp, stored[partition_id])
    return found


def check_bounds(partition_id: PartitionId, stored: int, low: int, end: int) -> None:
    """Raises OffsetsLost when `stored` is not between the log's start and end."""
    gap = find_gap(partition_id, stored, low, end)
    if gap is not None:
        raise OffsetsLost(f"{gap.cause}. {gap.remedy}")
