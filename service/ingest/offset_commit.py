"""Commits the group's offsets in Kafka now and then: only for tools that show lag, nothing is read back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from service.kafka import PartitionId

_EVERY_SECONDS = 1.0
_DEADLINE_SECONDS = 2.0


class OffsetCommit:
    """Of one session's client. Its errors are nobody's concern."""

    def __init__(self, client: AIOKafkaConsumer) -> None:
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._at = 0.0

    def soon(self, stored: Mapping[PartitionId, int]) -> None:
        """In the background, at most once a second, what is stored when it runs."""
        if time.monotonic() - self._at < _EVERY_SECONDS:
            return
        if self._task is None or self._task.done():
            self._at = time.monotonic()
            self._task = asyncio.create_task(self.now(stored), name="ingest offset commit")

    async def now(self, stored: Mapping[PartitionId, int]) -> None:
        assigned = self._client.assignment()
        offsets = {
            TopicPartition(*partition_id): at
            for partition_id, at in stored.items()
            if TopicPartition(*partition_id) in assigned
        }
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(_DEADLINE_SECONDS):
                await self._client.commit(offsets)

    async def settle(self) -> None:
        """Wait for the commit under way."""
        if self._task is not None:
            await asyncio.wait({self._task})
