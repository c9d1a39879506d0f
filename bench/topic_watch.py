"""What a read-committed reader sees of a run's two topics: when the last record came, and what is there.

While a run lasts only the readable ends are asked for, once in 20 ms, so that the watcher takes no share
of the machine worth the name; everything is read and counted afterwards. Control records count into an end,
so the end alone proves nothing: a run is over when the ends rest and the count is right.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from service.errors import Transient
from service.kafka.clients import reader
from service.kafka.connection import Connection

_EVERY = 0.02
_REST = 1.5


@dataclass(frozen=True, slots=True)
class Completion:
    """When the last record of both topics became visible, in seconds since 1970."""

    last: float
    counts: dict[str, int]


async def until_complete(
    connection: Connection,
    topics: Sequence[str],
    partitions: int,
    wanted: int,
    *,
    seconds: float,
    check: Callable[[], None],
    progress: Callable[[int], None],
) -> Completion:
    """Wait until each topic shows `wanted` records with different keys to a read-committed reader.

    `check` is called all the while and may raise. Raises errors.Transient after `seconds`, or when there
    are more records than wanted.
    """
    topic_partitions = [TopicPartition(topic, p) for topic in topics for p in range(partitions)]
    deadline = time.monotonic() + seconds
    async with reader(connection, read_committed=True) as client:
        client.assign(topic_partitions)
        last, rested, total = time.time(), time.monotonic(), -1
        while time.monotonic() < deadline:
            ends = await client.end_offsets(topic_partitions)
            now = sum(ends.values())
            if now != total:
                total, last, rested = now, time.time(), time.monotonic()
                progress(now // len(topics))
            elif total >= wanted * len(topics) and time.monotonic() - rested > _REST:
                counts = await _count(client, ends)
                if all(counts[topic] == wanted for topic in topics):
                    return Completion(last, counts)
                rested = time.monotonic()
            check()
            await asyncio.sleep(_EVERY)
        raise Transient(f"the topics did not show {wanted} records within {seconds:.0f} s")


async def _count(client: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> dict[str, int]:
    """Records by topic up to these ends. Raises errors.Transient when a key comes twice."""
    counts = {topic_partition.topic: 0 for topic_partition in ends}
    keys: dict[str, set[bytes | None]] = {topic: set() for topic in counts}
    for topic_partition in ends:
        client.seek(topic_partition, 0)
    behind = {topic_partition for topic_partition, end in ends.items() if end > 0}
    while behind:
        found = await client.getmany(timeout_ms=200, max_records=5_000)
        for topic_partition, records in found.items():
            counts[topic_partition.topic] += len(records)
            keys[topic_partition.topic].update(record.key for record in records)
        behind = {
            topic_partition
            for topic_partition in behind
            if await client.position(topic_partition) < ends[topic_partition]
        }
    for topic, count in counts.items():
        if count != len(keys[topic]):
            raise Transient(f"{topic}: {count} records for {len(keys[topic])} keys")
    return counts
