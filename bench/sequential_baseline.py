"""The sequential baseline: a hand-written consumer, one thing after the other, in batches; a program of its
own.

Read a batch, validate it, one transaction with offsets, job, event and queue rows (COPY), then both records
out by an idempotent producer, wait for the broker's confirmation, next batch. It is written as well as that
plan allows, with whole record batches per partition and uvloop. What it lacks beside the service: a crash
between commit and send loses records, and there are no dead letters, no decisions and no second instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from service.contracts.inbound.training import TrainingRequested
from service.contracts.wire.partitioner import partition_for
from service.kafka.clients import Batch, Producer
from service.kafka.topics import Topics
from service.settings import Settings, load

from . import rows

GROUP: Final = "bench-sequential"
BATCH: Final = 2_000
#: Seconds that a batch waits to become full once it has its first record.
_LINGER: Final = 0.02
_OFFSETS: Final = (
    "INSERT INTO consumer_offset (consumer_group, topic, partition, next_offset) "
    "SELECT $1, $2, p, o FROM unnest($3::int[], $4::bigint[]) AS u(p, o) "
    "ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET next_offset = excluded.next_offset"
)


class SequentialBaseline:
    """One process owns all partitions, so positions are counted in memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = Topics(settings.kafka.topic_prefix)
        self._positions: dict[int, int] = defaultdict(int)
        self._offsets: dict[int, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Whatever fails ends it: a measurement has no second chance."""
        connection = await asyncpg.connect(self._settings.database.dsn.get_secret_value())
        producer = Producer(self._settings.kafka, deadline=30.0)
        await producer.start()
        consumer = await self._consumer(connection)
        try:
            while not stop.is_set():
                batch = await _batch(consumer)
                if batch:
                    await self._one(connection, producer, batch)
        finally:
            await consumer.stop()
            await producer.discard()
            await connection.close()

    async def _consumer(self, connection: asyncpg.Connection[Any]) -> AIOKafkaConsumer:
        topic = self._topics.requests
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_bytes=4 * 2**20,
            max_partition_fetch_bytes=2**20,
        )
        await consumer.start()
        found = await connection.fetch(
            "SELECT partition, next_offset FROM consumer_offset "
            "WHERE consumer_group = $1 AND topic = $2",
            GROUP,
            topic,
        )
        stored = {record["partition"]: record["next_offset"] for record in found}
        places = [TopicPartition(topic, p) for p in range(self._settings.kafka.partitions)]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, stored.get(place.partition, 0))
        return consumer

    async def _one(
        self, connection: asyncpg.Connection[Any], producer: Producer, batch: list[Any]
    ) -> None:
        at = datetime.now(UTC)
        taken = self._taken(batch, at)
        async with connection.transaction():
            await connection.execute(
                _OFFSETS,
                GROUP,
                self._topics.requests,
                list(self._offsets),
                list(self._offsets.values()),
            )
            known = await connection.fetch(
                "SELECT job_id FROM job WHERE job_id = ANY($1)", [t.job[0] for t in taken]
            )
            if known:
                repeated = {record["job_id"] for record in known}
                taken = [t for t in taken if t.job[0] not in repeated]
            for table, columns, of in (
                ("job", rows.JOB_COLUMNS, [t.job for t in taken]),
                ("ready", rows.READY_COLUMNS, [t.ready for t in taken]),
                ("event", rows.EVENT_COLUMNS, [t.event for t in taken]),
            ):
                await connection.copy_records_to_table(table, records=of, columns=columns)
        await self._send(producer, taken)

    def _taken(self, batch: list[Any], at: datetime) -> list[rows.RequestRows]:
        taken = {}
        for record in batch:
            self._offsets[record.partition] = record.offset + 1
            headers = dict(record.headers)
            try:
                data = TrainingRequested.model_validate_json(record.value)
            except ValidationError:
                continue
            key = str(data.job_id).encode()
            place = partition_for(key, self._settings.kafka.partitions)
            self._positions[place] += 1
            taken[key] = rows.take(
                data,
                record.value,
                headers["ce_id"].decode(),
                headers["ce_source"].decode(),
                at,
                place,
                self._positions[place],
            )
        return list(taken.values())

    async def _send(self, producer: Producer, taken: list[rows.RequestRows]) -> None:
        queued: list[tuple[str, int, Batch]] = []
        filling: dict[tuple[str, int], Batch] = {}
        for t in taken:
            place = t.event[0]
            for topic, value, headers in (
                (self._topics.lifecycle, t.lifecycle, t.lifecycle_headers),
                (self._topics.job_state, t.state, t.state_headers),
            ):
                batch = filling.get((topic, place))
                if batch is None or not batch.append(t.key, value, headers):
                    batch = filling[(topic, place)] = producer.batch()
                    batch.append(t.key, value, headers)
                    queued.append((topic, place, batch))
        futures = [await producer.send(batch, topic, place) for topic, place, batch in queued]
        await producer.delivered(futures)


async def _batch(consumer: AIOKafkaConsumer) -> list[Any]:
    """Up to BATCH records: as many as come within the linger after the first."""
    found: list[Any] = []
    until = 0.0
    while len(found) < BATCH:
        wait = 200 if not found else max(0, int((until - time.monotonic()) * 1_000))
        if found and wait == 0:
            break
        more = await consumer.getmany(timeout_ms=wait, max_records=BATCH - len(found))
        for records in more.values():
            found.extend(records)
        if not found:
            break
        until = until or time.monotonic() + _LINGER
    return found


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.suppress(asyncio.CancelledError):
        await SequentialBaseline(load()).run(stop)


if __name__ == "__main__":
    uvloop.run(main())
