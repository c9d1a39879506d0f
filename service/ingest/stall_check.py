"""Every few seconds: does every partition move that has something to read, and what lies between records?

A client can die silently, with a log to read before it, and a broker can fail to hand over one partition
without a word; and the positions behind the last records move over markers and aborted transactions, which
no record tells.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition

from service.kafka import PartitionId
from service.kafka.clients import with_deadline

#: So many checks in a row of an unread log mean that a partition stands still.
_STANDS_STILL = 3


class StallCheck:
    """Remembers what the last checks saw; one for each client."""

    def __init__(self) -> None:
        self._positions: dict[PartitionId, int] = {}
        self._standing: dict[PartitionId, int] = {}

    async def run(
        self, client: AIOKafkaConsumer, partitions: Iterable[PartitionId]
    ) -> tuple[dict[PartitionId, int], list[PartitionId]]:
        """The client's positions, all below them read; and the partitions that stand still below the end of
        their log. Raises errors.Transient when the broker is unavailable."""
        assigned = client.assignment()
        wanted = [TopicPartition(*p) for p in partitions if TopicPartition(*p) in assigned]
        at = {
            (tp.topic, tp.partition): await with_deadline(
                5, "reading a position", client.position(tp)
            )
            for tp in wanted
        }
        ends = await with_deadline(5, "reading log ends", client.end_offsets(wanted))
        self._standing = {
            partition_id: self._standing.get(partition_id, 0) + 1
            for partition_id, position in at.items()
            if ends[TopicPartition(*partition_id)] > position == self._positions.get(partition_id)
        }
        self._positions = at
        still = [
            partition_id for partition_id, count in self._standing.items() if count >= _STANDS_STILL
        ]
        return at, sorted(still)
