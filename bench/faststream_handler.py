"""A FastStream handler per message, acknowledged after its transaction, as a program of its own.

The way the framework's pages show it: the body validated by the handler's annotation, one transaction with
the rows, both records published and confirmed, then the framework commits the offset. uvloop, an idempotent
producer and read-committed reads, as everybody here.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import uvloop
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from service.contracts.inbound.training import TrainingRequested
from service.contracts.wire.partitioner import partition_for
from service.kafka.topics import Topics
from service.settings import load

from . import rows

GROUP: Final = "bench-handler"


def _insert(table: str, columns: tuple[str, ...]) -> str:
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    names = ", ".join(columns)
    return f"INSERT INTO {table} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING"


async def main() -> None:
    settings = load()
    topics = Topics(settings.kafka.topic_prefix)
    partitions = settings.kafka.partitions
    positions: dict[int, int] = defaultdict(int)
    pool = await asyncpg.create_pool(
        settings.database.dsn.get_secret_value(), min_size=1, max_size=4
    )
    broker = KafkaBroker(
        settings.kafka.bootstrap_servers, enable_idempotence=True, acks="all", logger=None
    )

    @broker.subscriber(
        topics.requests,
        group_id=GROUP,
        ack_policy=AckPolicy.NACK_ON_ERROR,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    async def handle(data: TrainingRequested, message: KafkaMessage) -> None:
        place = partition_for(str(data.job_id).encode(), partitions)
        positions[place] += 1
        taken = rows.take(
            data,
            message.body if isinstance(message.body, bytes) else b"",
            str(message.headers["ce_id"]),
            str(message.headers["ce_source"]),
            datetime.now(UTC),
            place,
            positions[place],
        )
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(_insert("job", rows.JOB_COLUMNS), *taken.job)
            await connection.execute(_insert("ready", rows.READY_COLUMNS), *taken.ready)
            await connection.execute(_insert("event", rows.EVENT_COLUMNS), *taken.event)
        for topic, body, headers in (
            (topics.lifecycle, taken.lifecycle, taken.lifecycle_headers),
            (topics.job_state, taken.state, taken.state_headers),
        ):
            await broker.publish(body, topic, key=taken.key, headers=_texts(headers))

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.start()
    try:
        await stop.wait()
    finally:
        await broker.stop()
        await pool.close()


def _texts(headers: list[tuple[str, bytes]]) -> dict[str, Any]:
    return {name: value.decode() for name, value in headers}


if __name__ == "__main__":
    os.environ.setdefault("FASTSTREAM_CLI_RICH_MODE", "none")
    uvloop.run(main())
