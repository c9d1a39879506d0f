"""A topic read committed, from its start or from now on: for people and for the demo."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from aiokafka import TopicPartition

from service.errors import Transient
from service.kafka.clients import reader
from service.kafka.connection import Connection


@dataclass(frozen=True, slots=True)
class Record:
    """One record; headers as text, the last of a name."""

    partition: int
    offset: int
    key: str | None
    value: bytes | None
    headers: Mapping[str, str]


async def tail(
    connection: Connection, topic: str, *, from_start: bool = False, follow: bool = True
) -> AsyncIterator[Record]:
    """The topic's records; without `follow` it ends at what is there now.

    Raises errors.Transient when the broker is unavailable or has no such topic.
    """
    async with reader(connection, read_committed=True) as client:
        await client._client.set_topics([topic])
        numbers = client.partitions_for_topic(topic)
        if not numbers:
            raise Transient(f"the broker has no topic {topic}: `fl-jobs doctor` says more")
        assigned = [TopicPartition(topic, number) for number in sorted(numbers)]
        client.assign(assigned)
        ends = await client.end_offsets(assigned)
        starts = await client.beginning_offsets(assigned)
        for partition in assigned:
            client.seek(partition, starts[partition] if from_start else ends[partition])
        left = (
            {partition for partition in assigned if starts[partition] < ends[partition]}
            if from_start
            else set()
        )
        while follow or left:
            batches = await client.getmany(timeout_ms=200)
            for records in batches.values():
                for record in records:
                    yield Record(
                        record.partition,
                        record.offset,
                        None if record.key is None else record.key.decode("utf-8", "replace"),
                        record.value,
                        {n: v.decode("utf-8", "replace") for n, v in record.headers},
                    )
            if not follow:
                for partition in list(left):
                    if await client.position(partition) >= ends[partition]:
                        left.discard(partition)
