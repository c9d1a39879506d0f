"""Waits for single lifecycle events, read committed, and says when each one was read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from service.errors import Transient
from service.kafka.clients import consumer, discard_consumer, start_consumer
from service.kafka.connection import Connection

_Wanted = tuple[str, str, str]


class EventWaiter:
    """One reader over several topics, from their ends."""

    def __init__(self, client: AIOKafkaConsumer) -> None:
        self._client = client
        self._waiting: dict[_Wanted, asyncio.Future[float]] = {}

    def expect(self, topic: str, job_id: str, kind: str) -> asyncio.Future[float]:
        """The time (monotonic seconds) at which this event is read; call it before the event can come."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[(topic, job_id, kind)] = future
        return future

    async def run(self) -> None:
        while True:
            found: dict[TopicPartition, list[Any]] = await self._client.getmany(timeout_ms=1_000)
            now = time.monotonic()
            for topic_partition, records in found.items():
                for record in records:
                    kind = next((v for n, v in record.headers if n == "ce_type"), b"")
                    key = (topic_partition.topic, (record.key or b"").decode(), kind.decode())
                    future = self._waiting.pop(key, None)
                    if future is not None and not future.done():
                        future.set_result(now)


async def read_by(future: asyncio.Future[float], seconds: float, what: str) -> float:
    """The future's time. Raises errors.Transient naming what did not come."""
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError as exc:
        raise Transient(f"{what} did not come within {seconds:.0f} s") from exc


@contextlib.asynccontextmanager
async def event_waiter(
    connection: Connection, topics: Sequence[str], partitions: int
) -> AsyncIterator[EventWaiter]:
    """A started reader at the topics' ends."""
    client = consumer(connection, fetch_wait_ms=500)
    await start_consumer(client)
    try:
        topic_partitions = [TopicPartition(topic, p) for topic in topics for p in range(partitions)]
        client.assign(topic_partitions)
        await client.seek_to_end(*topic_partitions)
        made = EventWaiter(client)
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    finally:
        await discard_consumer(client)
