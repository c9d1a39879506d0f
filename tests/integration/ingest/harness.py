"""The consumer's tests: real topics, and a ledger in the real database in place of jobs.

The ledger keeps what the consumer relies on in the store, the offset fence and one transaction per batch,
and beside it one row for each record, so that a record that is lost or taken twice shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg
from aiokafka.record.util import calc_crc32c

from service.domain.decision import Decision
from service.errors import Transient
from service.ingest.consumer import Consumer
from service.kafka.clients import Producer
from service.settings import IngestSettings
from service.store.database import transaction
from service.store.records import BatchRefused, InboundItem, OffsetFence, OffsetMoved
from tests.integration.relay.harness import RelayHarness

Place = tuple[str, int]

LEDGER = """
CREATE TABLE ledger (topic text, partition int, "offset" bigint, kind text,
                     PRIMARY KEY (topic, partition, "offset"))
"""


@dataclass
class DeliveryLog:
    """A store that keeps records instead of judging them. `seconds`: how long a transaction lasts.

    `judging`: seconds that a record's key costs inside the transaction, which is idle meanwhile; `pool` is
    then the service's own, with its limits.
    """

    pool: asyncpg.Pool
    seconds: float = 0.0
    judging: dict[bytes, float] = field(default_factory=dict)
    poison: set[bytes] = field(default_factory=set)
    away: int = 0
    sizes: list[int] = field(default_factory=list)

    async def offsets(self, group: str, places: Sequence[Place]) -> Mapping[Place, int]:
        rows = await self.pool.fetch(
            "SELECT topic, partition, next_offset FROM consumer_offset WHERE consumer_group = $1"
            " ORDER BY topic, partition FOR UPDATE",
            group,
        )
        found = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        return {place: found[place] for place in places if place in found}

    async def start_offsets(self, group: str, starts: Mapping[Place, int]) -> Mapping[Place, int]:
        for (topic, partition), offset in starts.items():
            await self.pool.execute(
                "INSERT INTO consumer_offset VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                group, topic, partition, offset,
            )  # fmt: skip
        return await self.offsets(group, list(starts))

    async def apply_batch(
        self, items: Sequence[InboundItem], fence: OffsetFence | None
    ) -> list[Decision]:
        assert fence is not None
        self.sizes.append(len(items))
        await asyncio.sleep(self.seconds)
        if self.away:
            self.away -= 1
            raise Transient("the database is unavailable", code="database_away")
        async with transaction(self.pool) as db:
            for topic, partition, old, new in sorted(fence.entries):
                moved = await db.execute(
                    "UPDATE consumer_offset SET next_offset = $1 WHERE consumer_group = $2"
                    " AND topic = $3 AND partition = $4 AND next_offset = $5",
                    new, fence.consumer_group, topic, partition, old,
                )  # fmt: skip
                if moved != "UPDATE 1":
                    raise OffsetMoved("the offsets were moved")
            for item in items:
                if item.dead is None and item.source_record.key in self.poison:
                    raise BatchRefused("can't be stored", sqlstate="22021") from ValueError()
            alive = [item.source_record.key or b"" for item in items if item.dead is None]
            await asyncio.sleep(sum(self.judging.get(key, 0.0) for key in alive))
            await db.copy_records_to_table(
                "ledger",
                records=[
                    (
                        item.source_record.topic,
                        item.source_record.partition,
                        item.source_record.offset,
                        item.dead.kind if item.dead else None,
                    )
                    for item in items
                ],
            )
        return [Decision() for _ in items]

    async def kinds(self) -> dict[str | None, int]:
        """How many records were kept, by the kind of their dead letter (None: alive)."""
        rows = await self.pool.fetch("SELECT kind, count(*) AS n FROM ledger GROUP BY kind")
        return {row["kind"]: row["n"] for row in rows}

    async def total(self) -> int:
        return int(await self.pool.fetchval("SELECT count(*) FROM ledger"))

    async def wait_for(self, count: int, seconds: float = 20) -> None:
        for _ in range(int(seconds * 50)):
            if await self.total() >= count:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{await self.total()} of {count} records within {seconds} s")


HEADERS = [
    ("ce_id", b"event-1"),
    ("ce_source", b"/tests"),
    ("ce_type", b"fl.training.requested.v1"),
    ("ce_specversion", b"1.0"),
    ("content-type", b"application/json"),
]
REPORT_HEADERS = [
    ("ce_type", b"fl.job.status_reported.v1") if n == "ce_type" else (n, v) for n, v in HEADERS
]


def request() -> bytes:
    """A valid request's data."""
    return json.dumps(
        {
            "job_id": str(uuid4()),
            "model_id": str(uuid4()),
            "project_id": "demo",
            "cohort_query": "SELECT 1",
            "trust_ids": [str(uuid4())],
        }
    ).encode()


async def produce(
    w: RelayHarness, values: Iterable[tuple[bytes, bytes | None]], reported: bool = False
) -> None:
    """Publish (key, value) pairs to the request topic, turn by turn over its partitions; as `reported`
    to that of the status reports."""
    topic = w.topics.job_status if reported else w.topics.requests
    headers = REPORT_HEADERS if reported else HEADERS
    producer = Producer(w.kafka)
    await producer.start()
    try:
        count = w.kafka.partitions
        batches = [producer.batch() for _ in range(count)]
        for n, (key, value) in enumerate(values):
            assert batches[n % count].append(key, value, headers)
        await producer.delivered(
            [
                await producer.send(batch, topic, partition)
                for partition, batch in enumerate(batches)
                if batch.count
            ]
        )
    finally:
        await producer.discard()


@contextlib.asynccontextmanager
async def consuming(
    w: RelayHarness, store: DeliveryLog, **options: float
) -> AsyncIterator[Consumer]:
    """A consumer at work. Leaves when the block ends; what it raised comes out then."""
    stop = asyncio.Event()
    made = Consumer(store, w.outbox, w.kafka, IngestSettings(**options))
    task = asyncio.create_task(made.run(stop))
    try:
        yield made
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def produce_with_a_broken_header(w: RelayHarness, key: bytes, value: bytes) -> None:
    """Publish a record to partition 0 whose header name is no UTF-8, as careless clients can."""
    producer = Producer(w.kafka)
    await producer.start()
    try:
        batch = producer.batch()
        batch.append(key, value, [("AAAA", b"1"), *HEADERS])
        build = batch.inner._build

        def spoiled() -> bytearray:
            data = bytearray(build())
            at = data.index(b"AAAA")
            data[at : at + 4] = b"\xff\xfe\xfd\xfc"
            data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
            return data

        batch.inner._build = spoiled
        await producer.delivered([await producer.send(batch, w.topics.requests, 0)])
    finally:
        await producer.discard()
