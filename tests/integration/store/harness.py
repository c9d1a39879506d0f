"""The store on a database of its own: a registry, a net that answers, and records as the consumer gives them.

No broker: `StoreHarness.records` makes the items that the decoder would make of a topic's records, at
offsets that grow, so that fences and event ids are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from pydantic import SecretStr

from service.contracts import registry_file
from service.contracts.inbound import training, translation
from service.contracts.schemas import catalogue
from service.domain.decision import Decision
from service.domain.enums import FLBackend
from service.domain.facts import JobLimits, JobTypes
from service.domain.values import Submission
from service.settings import DatabaseSettings
from service.store.database import close_pool, open_pool
from service.store.facts import FactReader, Manifests
from service.store.outbox import EventOutbox
from service.store.records import InboundItem, OffsetFence, RecordRef
from service.store.registry import apply_registry
from service.store.store import PostgresStore

TRUSTS = [UUID(int=n) for n in (1, 2, 3)]
GROUP = "tests"
TOPIC = catalogue.REQUESTS.name
PARTITIONS = 12
STANDARD: Mapping[FLBackend, JobTypes] = {backend: {"standard": ()} for backend in FLBackend}


def registry(**changes: Any) -> dict[str, Any]:
    """A registry file: three trusts, one net with two places, one project that may use them all."""
    names = [str(t) for t in TRUSTS]
    whole: dict[str, Any] = {
        "trusts": [{"id": t, "name": f"Hospital {n}"} for n, t in enumerate(names, 1)],
        "nets": [net("net-1", 2)],
        "projects": [{"id": "demo", "approved_trusts": names}],
    }
    return whole | changes


def net(name: str, capacity: int) -> dict[str, Any]:
    return {
        "name": name,
        "fl_backend": "embedded",
        "endpoint": f"http://127.0.0.1:1/{name}",
        "capacity": capacity,
        "members": {str(t): f"Trust_{n}" for n, t in enumerate(TRUSTS, 1)},
    }


def asked(job_id: UUID | None = None, **changes: Any) -> dict[str, Any]:
    """The data of a valid request."""
    return {
        "job_id": str(job_id or uuid4()),
        "model_id": str(uuid4()),
        "project_id": "demo",
        "cohort_query": "select 1",
        "trust_ids": [str(t) for t in TRUSTS],
        **changes,
    }


def item(
    data: Mapping[str, Any],
    offset: int,
    kind: str = training.REQUESTED,
    event_id: str = "",
    partition: int = 0,
) -> InboundItem:
    """The item of a record, as the decoder makes it."""
    headers = [
        ("ce_id", (event_id or str(uuid4())).encode()),
        ("ce_source", b"/tests"),
        ("ce_type", kind.encode()),
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/json"),
    ]
    ref = RecordRef(TOPIC, partition, offset, 0, None, json.dumps(data).encode(), headers)
    envelope, command = translation.read(ref.key, ref.value, headers)
    if kind == training.REQUESTED:
        return InboundItem(command, ref)
    return InboundItem(command, ref, envelope.event_key(), envelope.content_hash()[:16])


def submission(now: datetime) -> Submission:
    """What a step commits before it calls the adapter."""
    return Submission(
        number=1,
        path_id=uuid4(),
        key=str(uuid4()),
        known_runs=(),
        opened_at=now,
        bundle_prefix="s3://bundles/one/",
        bundle_sha256="0" * 64,
        config={},
    )


@dataclass
class StoreHarness:
    pool: asyncpg.Pool
    store: PostgresStore
    next_offset: int = 0

    def rival(
        self,
        parked_seconds: float = 86_400.0,
        lease_seconds: float = 10.0,
        manifests: Manifests = lambda: STANDARD,
        layouts: Collection[FLBackend] = tuple(FLBackend),
    ) -> PostgresStore:
        """Another instance's store: its own caches, the same database."""
        return make_store(self.pool, parked_seconds, lease_seconds, manifests, layouts)

    async def take(self, *items: InboundItem) -> list[Decision]:
        """Apply items whose offsets follow each other, fenced."""
        start = self.next_offset
        fence = OffsetFence([(TOPIC, 0, start, start + len(items))], GROUP)
        decisions = await self.store.apply_batch(items, fence)
        self.next_offset += len(items)
        return decisions

    async def ask(self, **changes: Any) -> UUID:
        """A valid request, applied; its job."""
        data = asked(**changes)
        await self.take(item(data, self.next_offset))
        return UUID(data["job_id"])

    async def tell(self, kind: str, data: Mapping[str, Any], event_id: str = "") -> Decision:
        return (await self.take(item(data, self.next_offset, kind, event_id)))[0]

    async def register(self, document: Mapping[str, Any]) -> tuple[int, bool]:
        return await apply_registry(self.pool, registry_file.parse(document))

    async def answers(
        self,
        name: str = "net-1",
        online: Iterable[UUID] = TRUSTS,
        strays: tuple[str, ...] | None = None,
    ) -> None:
        """A poll found the net answering, with these trusts online."""
        await self.store.save_net(
            name,
            answering=True,
            online=frozenset(online),
            extensions=frozenset({"idempotency"}),
            strays=strays,
            body=b"{}",
        )

    async def kinds(self, job_id: UUID) -> list[str]:
        """The job's events by sequence, refusals last, without prefix and version."""
        rows = await self.pool.fetch(
            "SELECT type FROM event WHERE job_id = $1 ORDER BY sequence, position", job_id
        )
        return [row["type"].removeprefix("fl.").removesuffix(".v1") for row in rows]

    async def count(self, table: str) -> int:
        return int(await self.pool.fetchval(f"SELECT count(*) FROM {table}"))


def make_store(
    pool: asyncpg.Pool,
    parked_seconds: float = 86_400.0,
    lease_seconds: float = 10.0,
    manifests: Manifests = lambda: STANDARD,
    layouts: Collection[FLBackend] = tuple(FLBackend),
) -> PostgresStore:
    facts = FactReader(JobLimits(), manifests, layouts=layouts)
    return PostgresStore(
        pool,
        facts,
        partitions=PARTITIONS,
        lease_seconds=lease_seconds,
        parked_seconds=parked_seconds,
    )


@asynccontextmanager
async def opened(
    env: Mapping[str, str], document: Mapping[str, Any] | None = None, nets: Sequence[str] = ()
) -> AsyncIterator[StoreHarness]:
    """A harness with this registry (else `registry()`), whose nets answer with every trust online."""
    pool = await open_pool(DatabaseSettings(dsn=SecretStr(env["FL_DATABASE__DSN"])))
    try:
        harness = StoreHarness(pool, make_store(pool))
        await harness.register(document or registry())
        await EventOutbox(pool).open_stream(catalogue.LIFECYCLE.name, PARTITIONS)
        await harness.store.start_offsets(GROUP, {(TOPIC, 0): 0})
        for name in nets or ["net-1"]:
            await harness.answers(name)
        yield harness
    finally:
        await close_pool(pool)
