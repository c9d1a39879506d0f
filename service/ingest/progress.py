"""How far the service's group has read, by the offsets in the database: Kafka's own serve tools that show
lag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.kafka import PartitionId
from service.kafka.connection import Connection
from service.kafka.groups import log_ends
from service.kafka.topics import Topics


class StoredOffsets(Protocol):
    """Next offsets by (topic, partition), without waiting for a transaction under way."""

    async def offsets(self, group: str) -> dict[PartitionId, int]: ...


class ReadProgress:
    """Has the service read the nets' reports as far as they go? For steps that wait for one."""

    def __init__(self, stored: StoredOffsets, connection: Connection) -> None:
        self._stored = stored
        self._connection = connection
        self._topic = Topics(connection.topic_prefix).job_status

    async def report_ends(self) -> dict[PartitionId, int] | None:
        """Where the reports end now; None when nobody has begun to read them. Raises errors.Transient."""
        numbers = [number for _, number in await self._of_reports()]
        if not numbers:
            return None
        ends = await log_ends(self._connection, {self._topic: max(numbers) + 1})
        return {partition_id: end for partition_id, (_, end) in ends.items()}

    async def read_to(self, ends: Mapping[PartitionId, int]) -> bool:
        """Has everything below these ends been stored? Raises errors.Transient."""
        stored = await self._of_reports()
        return all(stored.get(partition_id, 0) >= end for partition_id, end in ends.items())

    async def _of_reports(self) -> dict[PartitionId, int]:
        stored = await self._stored.offsets(self._connection.group_id)
        return {
            partition_id: at
            for partition_id, at in stored.items()
            if partition_id[0] == self._topic
        }


def lag(
    stored: Mapping[PartitionId, int], ends: Mapping[PartitionId, tuple[int, int]]
) -> dict[PartitionId, int]:
    """Records that wait, by partition where any do. What was never read waits from the log's start."""
    found = {
        partition_id: end - stored.get(partition_id, start)
        for partition_id, (start, end) in ends.items()
    }
    return {partition_id: count for partition_id, count in found.items() if count > 0}
