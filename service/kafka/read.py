"""A topic read committed, from its start or from now on: for people and for the demo."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from service.errors import Transient
from service.kafka.clients import reader
from service.kafka.connection import Connection
from service.kafka.record_batches import (
    UNDECODABLE,
    UnreadableRange,
    is_about_bytes,
    read_stretch,
)

_STRETCH_BYTES: Final = 1024 * 1024


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
        at = {
            partition: starts[partition] if from_start else ends[partition]
            for partition in assigned
        }
        while follow or left:
            for partition, records in (await _next_records(client, at)).items():
                for record in records:
                    at[partition] = max(at[partition], record.offset + 1)
                    yield Record(
                        record.partition,
                        record.offset,
                        None if record.key is None else record.key.decode("utf-8", "replace"),
                        record.value,
                        {n: (v or b"").decode("utf-8", "replace") for n, v in record.headers},
                    )
            if not follow:
                for partition in list(left):
                    if await client.position(partition) >= ends[partition]:
                        left.discard(partition)


async def _next_records(
    client: AIOKafkaConsumer, at: dict[TopicPartition, int]
) -> Mapping[TopicPartition, Sequence[Any]]:
    """What comes next, without the records that can't be read. `at`: where each partition stands; moved
    where records are passed over."""
    try:
        got: Mapping[TopicPartition, Sequence[Any]] = await client.getmany(timeout_ms=200)
        return got
    except (*UNDECODABLE, KafkaError) as exc:
        if not is_about_bytes(exc):
            raise Transient(f"reading: {exc!r}", code="kafka_error") from exc
    found: dict[TopicPartition, Sequence[Any]] = {}
    for partition, offset in at.items():
        stretch = await read_stretch(client, partition, offset, _STRETCH_BYTES)
        found[partition] = [part for part in stretch.parts if not isinstance(part, UnreadableRange)]
        if stretch.stuck is not None and stretch.next == offset:
            raise Transient(f"{partition.topic}/{partition.partition} at {offset}: {stretch.stuck}")
        client.seek(partition, stretch.next)
        at[partition] = stretch.next
    return found
