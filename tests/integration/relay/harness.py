"""A database and topics for the relay's tests: events as the write path gives them, and the log as read."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
from aiokafka import TopicPartition

from service.contracts.wire.partitioner import partition_for
from service.kafka.clients import reader
from service.kafka.topics import Topics, ensure_topics
from service.relay.records import StateRecord
from service.settings import KafkaSettings
from service.store.outbox import EventOutbox, LifecycleStream

ROOT = Path(__file__).parents[3]
PARTITIONS = 3


@dataclass
class Snapshot:
    """A record of a topic as a read-committed consumer gets it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]

    @property
    def position(self) -> int:
        return int(self.headers["fl_position"])


@dataclass
class RelayHarness:
    env: dict[str, str]
    kafka: KafkaSettings
    pool: asyncpg.Pool
    outbox: EventOutbox
    stream: LifecycleStream

    @property
    def topics(self) -> Topics:
        return Topics(self.kafka.topic_prefix)

    async def give(self, count: int, jobs: Sequence[UUID] | None = None) -> list[UUID]:
        """Write `count` events in one transaction, with the positions that follow; their jobs."""
        made = [jobs[n % len(jobs)] if jobs else uuid4() for n in range(count)]
        async with self.pool.acquire() as db, db.transaction():
            places = [partition_for(str(job).encode(), self.stream.partitions) for job in made]
            rows = await db.fetch(
                "SELECT partition, position FROM head WHERE partition = ANY ($1::int[])"
                " ORDER BY partition FOR NO KEY UPDATE",
                sorted(set(places)),
            )
            heads = {row["partition"]: row["position"] for row in rows}
            for job, place in zip(made, places, strict=True):
                heads[place] += 1
                body = json.dumps({"job_id": str(job), "position": heads[place]})
                await db.execute(
                    "INSERT INTO event (partition, position, event_id, job_id, sequence, type,"
                    " subject, at, body, correlation_id) VALUES"
                    " ($1, $2, $3, $4, 1, 'fl.job.queued.v1', $5, $6, $7, 'request-1')",
                    place, heads[place], uuid4(), job, str(job), datetime.now(UTC), body,
                )  # fmt: skip
            await db.executemany(
                "UPDATE head SET position = $2 WHERE partition = $1", heads.items()
            )
        return made

    async def heads(self) -> dict[int, int]:
        return await self._positions("head")

    async def hinted(self) -> dict[int, int]:
        return await self._positions("checkpoint")

    async def _positions(self, table: str) -> dict[int, int]:
        rows = await self.pool.fetch(f"SELECT partition, position FROM {table}")
        return {row["partition"]: row["position"] for row in rows}

    async def all_hinted(self, seconds: float = 20) -> None:
        """Wait until every given position is known to be published."""
        async with asyncio.timeout(seconds):
            while True:
                heads = {p: n for p, n in (await self.heads()).items() if n}
                if {p: n for p, n in (await self.hinted()).items() if n} == heads:
                    return
                await asyncio.sleep(0.02)

    async def log(self, topic: str) -> list[Snapshot]:
        """Everything that a read-committed reader finds in a topic, by partition and offset."""
        found: list[Snapshot] = []
        async with reader(self.kafka, read_committed=True) as client:
            count = len(await client._client._wait_on_metadata(topic))
            places = [TopicPartition(topic, p) for p in range(count)]
            client.assign(places)
            for place, low in (await client.beginning_offsets(places)).items():
                client.seek(place, low)
            ends = await client.end_offsets(places)
            while any([await client.position(p) < ends[p] for p in places]):
                for records in (await client.getmany(timeout_ms=100)).values():
                    found += [
                        Snapshot(r.partition, r.offset, r.key, r.value, dict(r.headers))
                        for r in records
                    ]
        return sorted(found, key=lambda seen: (seen.partition, seen.offset))

    async def published_once(self) -> None:
        """The promise itself: on the log every given position is there once, and in order."""
        seen: dict[int, list[int]] = {}
        for record in await self.log(self.topics.lifecycle):
            seen.setdefault(record.partition, []).append(record.position)
        wanted = {p: list(range(1, n + 1)) for p, n in (await self.heads()).items() if n}
        assert seen == wanted

    def process(self, faultpoint: str = "") -> subprocess.Popen[bytes]:
        """A relay in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.relay.relay_process"],
            env=os.environ | self.env | {"FL_FAULTPOINT": faultpoint},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


async def some_states(job_ids: Sequence[UUID]) -> Mapping[UUID, StateRecord]:
    """A state record of every job asked for."""
    return {job: (str(job).encode(), b'{"state": "queued"}', 1) for job in job_ids}


@asynccontextmanager
async def harness(env: dict[str, str], partitions: int = PARTITIONS) -> AsyncIterator[RelayHarness]:
    """Topics and a database with the schema, for one test."""
    kafka = KafkaSettings(
        bootstrap_servers=env["FL_KAFKA__BOOTSTRAP_SERVERS"],
        topic_prefix=env["FL_KAFKA__TOPIC_PREFIX"],
        group_id=env["FL_KAFKA__GROUP_ID"],
        partitions=partitions,
        session_timeout_ms=6_000,
    )
    report = await ensure_topics(kafka)
    assert not report.errors
    pool = await asyncpg.create_pool(env["FL_DATABASE__DSN"], min_size=1, max_size=8)
    try:
        if not await pool.fetchval("SELECT to_regclass('event') IS NOT NULL"):
            await pool.execute((ROOT / "schemas/sql/schema.sql").read_text("utf-8"))
        outbox = EventOutbox(pool)
        stream = await outbox.open_stream(Topics(kafka.topic_prefix).lifecycle, partitions)
        yield RelayHarness(env, kafka, pool, outbox, stream)
    finally:
        await asyncio.wait_for(pool.close(), 10)


async def until(true: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until something holds; fails when it does not within the time."""
    for _ in range(int(seconds * 50)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, also of a stopped process."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
