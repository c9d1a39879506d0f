"""The shortest pipeline with the service's promises on the way out, as a program of its own.

Consume, one transaction with the offset and the event's row, then the lifecycle and the state record in one
Kafka transaction. At once, without any batching by time. It shows what broker and database cost on this
machine; everything the service adds is the difference.
"""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import uvloop
from aiokafka import TopicPartition

from service.contracts.inbound.training import TrainingRequested
from service.contracts.wire.partitioner import partition_for
from service.kafka.clients import Producer, consumer, start_consumer
from service.kafka.topics import Topics
from service.settings import load

from . import rows

GROUP: Final = "bench-minimal"
_OFFSET: Final = (
    "INSERT INTO consumer_offset VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET next_offset = excluded.next_offset"
)
_EVENT: Final = (
    f"INSERT INTO event ({', '.join(rows.EVENT_COLUMNS)}) "
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(rows.EVENT_COLUMNS) + 1))})"
)


async def main() -> None:
    settings = load()
    topics = Topics(settings.kafka.topic_prefix)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    connection = await asyncpg.connect(settings.database.dsn.get_secret_value())
    producer = Producer(settings.kafka, transactional_id=f"{settings.kafka.topic_prefix}minimal")
    await producer.start()
    client = consumer(settings.kafka)
    await start_consumer(client)
    places = [TopicPartition(topics.requests, p) for p in range(settings.kafka.partitions)]
    client.assign(places)
    for place in places:
        client.seek(place, 0)
    positions: dict[int, int] = defaultdict(int)
    try:
        while not stop.is_set():
            found = await client.getmany(timeout_ms=200, max_records=500)
            records = [record for part in found.values() for record in part]
            if records:
                await _pass_on(connection, producer, topics, records, positions, len(places))
    finally:
        await client.stop()
        await producer.discard()
        await connection.close()


async def _pass_on(
    connection: asyncpg.Connection[Any],
    producer: Producer,
    topics: Topics,
    records: list[Any],
    positions: dict[int, int],
    partitions: int,
) -> None:
    taken = []
    async with connection.transaction():
        for record in records:
            headers = dict(record.headers)
            data = TrainingRequested.model_validate_json(record.value)
            place = partition_for(str(data.job_id).encode(), partitions)
            positions[place] += 1
            t = rows.take(
                data,
                record.value,
                headers["ce_id"].decode(),
                headers["ce_source"].decode(),
                datetime.now(UTC),
                place,
                positions[place],
            )
            taken.append(t)
            await connection.execute(
                _OFFSET, GROUP, record.topic, record.partition, record.offset + 1
            )
            await connection.execute(_EVENT, *t.event)
    await producer.begin()
    futures = []
    for t in taken:
        for topic, body, event_headers in (
            (topics.lifecycle, t.lifecycle, t.lifecycle_headers),
            (topics.job_state, t.state, t.state_headers),
        ):
            batch = producer.batch()
            batch.append(t.key, body, event_headers)
            futures.append(await producer.send(batch, topic, t.event[0]))
    await producer.delivered(futures)
    await producer.commit()


if __name__ == "__main__":
    uvloop.run(main())
