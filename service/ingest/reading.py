"""How far the service's group has read, by the offsets in the database: Kafka's own are a courtesy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.ingest.assignment import Place
from service.kafka.connection import Connection
from service.kafka.groups import log_ends
from service.kafka.topics import Topics


class StoredOffsets(Protocol):
    """Next offsets by (topic, partition), without waiting for a transaction under way."""

    async def offsets(self, group: str) -> dict[Place, int]: ...


class Reading:
    """Has the service read the nets' reports as far as they go? For steps that wait for one."""

    def __init__(self, stored: StoredOffsets, connection: Connection) -> None:
        self._stored = stored
        self._connection = connection
        self._topic = Topics(connection.topic_prefix).job_status

    async def report_ends(self) -> dict[Place, int] | None:
        """Where the reports end now; None when nobody has begun to read them. Raises errors.Transient."""
        numbers = [number for _, number in await self._of_reports()]
        if not numbers:
            return None
        ends = await log_ends(self._connection, {self._topic: max(numbers) + 1})
        return {place: end for place, (_, end) in ends.items()}

    async def read_to(self, ends: Mapping[Place, int]) -> bool:
        """Has everything below these ends been stored? Raises errors.Transient."""
        stored = await self._of_reports()
        return all(stored.get(place, 0) >= end for place, end in ends.items())

    async def _of_reports(self) -> dict[Place, int]:
        stored = await self._stored.offsets(self._connection.group_id)
        return {place: at for place, at in stored.items() if place[0] == self._topic}


def lag(stored: Mapping[Place, int], ends: Mapping[Place, tuple[int, int]]) -> dict[Place, int]:
    """Records that wait, by partition where any do. What was never read waits from the log's start."""
    found = {place: end - stored.get(place, start) for place, (start, end) in ends.items()}
    return {place: count for place, count in found.items() if count > 0}
