"""When nothing comes for a while: is that true, and what lies between the records?

A client can die silently, with a log to read before it; and the positions behind the last records move over
markers and aborted transactions, which no record shows.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition

from service.errors import Transient
from service.kafka import PartitionId
from service.kafka.clients import with_deadline

#: So many checks in a row of an unread log mean that the client has died.
_STANDS_STILL = 3


class StallCheck:
    """Remembers what the last checks saw; one for each client."""

    def __init__(self) -> None:
        self._positions: dict[PartitionId, int] = {}
        self._standing: dict[PartitionId, int] = {}

    async def run(
        self, client: AIOKafkaConsumer, partitions: Iterable[PartitionId]
    ) -> dict[PartitionId, int]:
        """The client's positions, all below them read. Raises errors.Transient (`poll_stalled`) when it
        stands still below the end of the log, or when the broker is unavailable."""
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
        if any(count >= _STANDS_STILL for count in self._standing.values()):
            raise Transient("the client stands still below the end of the log", code="poll_stalled")
        return at
