"""Who reads, and how far the logs go: for `doctor`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code

from service.errors import Transient
from service.kafka.clients import admin, reader, with_deadline
from service.kafka.connection import Connection
from service.kafka.record_batches import UnreadableRange, read_stretch

_TRIES: Final = 10
_READ_BYTES: Final = 1024 * 1024


async def members(connection: Connection) -> int:
    """How many members the service's consumer group has; 0 also for a group that never was.

    Raises errors.Transient when the broker is unavailable or does not let us describe the group.
    """
    async with admin(connection) as client:
        what = f"describing group {connection.group_id}"
        answers = await with_deadline(10, what, _described(client, connection.group_id))
    count = 0
    for answer in answers:
        for error, _, _, _, _, found, *_ in answer.groups:
            if error:
                kind: type[KafkaError] = for_code(error)
                raise Transient(f"{what}: {kind.__name__}", code="kafka_error")
            count += len(found)
    return count


async def _described(client: AIOKafkaAdminClient, group_id: str) -> list[Any]:
    """A broker that never had a group makes the topic for them when it is first asked."""
    for _ in range(_TRIES):
        try:
            return list(await client.describe_consumer_groups([group_id]))
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(0.5)
    return []


async def log_ends(
    connection: Connection, partitions: Mapping[str, int]
) -> dict[tuple[str, int], tuple[int, int]]:
    """(start, end) of the log of each partition as the service reads it, given how many each topic has.

    Raises errors.Transient.
    """
    wanted: Sequence[TopicPartition] = [
        TopicPartition(topic, number)
        for topic, count in partitions.items()
        for number in range(count)
    ]
    async with reader(connection, read_committed=True) as client:
        starts = await with_deadline(10, "reading log starts", client.beginning_offsets(wanted))
        ends = await with_deadline(10, "reading log ends", client.end_offsets(wanted))
    return {(at.topic, at.partition): (starts[at], ends[at]) for at in wanted}


async def what_lies_at(
    connection: Connection, places: Mapping[tuple[str, int], int]
) -> dict[tuple[str, int], str]:
    """Why nothing can be read at these offsets, for the partitions where that is so.

    Raises errors.Transient.
    """
    found: dict[tuple[str, int], str] = {}
    async with reader(connection, read_committed=True) as client:
        await client._client.set_topics(sorted({topic for topic, _ in places}))
        for (topic, number), offset in sorted(places.items()):
            stretch = await read_stretch(client, TopicPartition(topic, number), offset, _READ_BYTES)
            first = stretch.parts[0] if stretch.parts else None
            if stretch.stuck is not None and stretch.next == offset:
                found[topic, number] = stretch.stuck
            elif isinstance(first, UnreadableRange):
                found[topic, number] = f"its batch can't be read: {first.cause}"
    return found
