"""From the request topic to the lifecycle and state topics: every effect once, wherever the process dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from service.contracts import registry_file
from service.kafka.clients import Producer
from service.settings import Settings
from service.store.registry import apply_registry
from tests.integration.ingest.harness import HEADERS
from tests.integration.ingest.pipeline_process import run
from tests.integration.relay.harness import ROOT, RelayHarness, harness, kill

TRUST = str(uuid4())
REGISTRY = {
    "trusts": [{"id": TRUST, "name": "North", "code": "N"}],
    "nets": [
        {
            "name": "net-1",
            "fl_backend": "embedded",
            "endpoint": "http://127.0.0.1:1",
            "capacity": 1,
            "members": {TRUST: "Trust_1"},
        }
    ],
    "projects": [{"id": "demo", "approved_trusts": [TRUST]}],
}


@pytest.fixture
async def w(migrated_env: dict[str, str]) -> AsyncIterator[RelayHarness]:
    async with harness(migrated_env) as made:
        await apply_registry(made.pool, registry_file.parse(REGISTRY))
        yield made


def process(
    w: RelayHarness, faultpoint: str = "", instance: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    env = os.environ | w.env | {"FL_FAULTPOINT": faultpoint}
    env |= {"FL_KAFKA__PARTITIONS": str(w.kafka.partitions)}
    env |= {"FL_KAFKA__GROUP_INSTANCE_ID": "one", "FL_KAFKA__SESSION_TIMEOUT_MS": "6000"}
    env |= instance or {}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.ingest.pipeline_process"],
        env=env,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextlib.asynccontextmanager
async def running(w: RelayHarness) -> AsyncIterator[None]:
    kafka = w.kafka.model_copy(update={"group_instance_id": "one"})
    settings = Settings(kafka=kafka, database={"dsn": w.env["FL_DATABASE__DSN"]})
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


def data(job: UUID, **more: object) -> bytes:
    request = {
        "job_id": str(job),
        "model_id": str(uuid4()),
        "project_id": "demo",
        "cohort_query": "SELECT 1",
        "trust_ids": [TRUST],
    }
    return json.dumps(request | more).encode()


async def publish(w: RelayHarness, values: list[tuple[bytes, str, bytes]]) -> None:
    """(value, event type, event id) records to the request topic, turn by turn over its partitions."""
    producer = Producer(w.kafka)
    await producer.start()
    try:
        batches = [producer.batch() for _ in range(w.kafka.partitions)]
        for n, (value, kind, event_id) in enumerate(values):
            changed = {"ce_type": kind.encode(), "ce_id": event_id}
            headers = [(name, changed.get(name, held)) for name, held in HEADERS]
            assert batches[n % len(batches)].append(b"k", value, headers)
        await producer.delivered(
            [
                await producer.send(batch, w.topics.requests, p)
                for p, batch in enumerate(batches)
                if batch.count
            ]
        )
    finally:
        await producer.discard()


REQUESTED = "fl.training.requested.v1"
STOP = "fl.training.stop_requested.v1"


async def stored(w: RelayHarness, count: int, seconds: float = 30) -> None:
    for _ in range(int(seconds * 20)):
        if await w.pool.fetchval("SELECT sum(next_offset) FROM consumer_offset") == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await w.pool.fetch("SELECT * FROM consumer_offset"))


async def words(w: RelayHarness) -> dict[str, list[str]]:
    """The lifecycle as it was published: event types by key."""
    found: dict[str, list[str]] = {}
    for seen in await w.log(w.topics.lifecycle):
        assert seen.key is not None
        found.setdefault(seen.key.decode(), []).append(seen.headers["ce_type"].decode())
    return found


@pytest.mark.parametrize(
    "point",
    [
        "ingest_before_apply",
        "apply.before_commit",
        "apply.committed",
        "ingest_after_apply",
        "relay_before_commit",
        "relay_after_commit",
    ],
)
async def test_a_crash_anywhere_leaves_one_effect_per_request(w: RelayHarness, point: str) -> None:
    jobs = [uuid4() for _ in range(90)]
    await publish(w, [(data(job), REQUESTED, b"e%d" % n) for n, job in enumerate(jobs)])
    victim = process(w, point)
    try:
        assert await asyncio.to_thread(victim.wait, 30) == 137
    finally:
        kill(victim)
    more = [uuid4() for _ in range(30)]
    await publish(w, [(data(job), REQUESTED, b"m%d" % n) for n, job in enumerate(more)])
    async with running(w):
        await stored(w, 120)
        await w.all_hinted()
    await w.published_once()
    assert await words(w) == {str(job): ["fl.job.queued.v1"] for job in [*jobs, *more]}
    states = {seen.key: seen for seen in await w.log(w.topics.job_state)}
    assert set(states) == {str(job).encode() for job in [*jobs, *more]}
    assert {seen.headers["ce_sequence"] for seen in states.values()} == {b"1"}


async def test_what_comes_in_is_answered_once_each(w: RelayHarness) -> None:
    job, early, broken = uuid4(), uuid4(), uuid4()
    request = data(job)
    records = [
        (request, REQUESTED, b"1"),
        (request, REQUESTED, b"2"),
        (data(job, priority=7), REQUESTED, b"3"),
        (json.dumps({"job_id": str(early), "reason": "no"}).encode(), STOP, b"4"),
        (data(broken, min_trusts=5), REQUESTED, b"5"),
        (b"\xff\x00", REQUESTED, b"6"),
        (json.dumps({"job_id": str(uuid4()), "unknown": 1}).encode(), STOP, b"7"),
    ]
    async with running(w):
        await publish(w, records[:1])
        await stored(w, 1)
        await publish(w, records[1:])
        await stored(w, 7)
        await publish(w, [(data(early), REQUESTED, b"8")])
        await stored(w, 8)
        await w.all_hinted()
        await until_dead_letters(w, 1)
    seen = await words(w)
    queued, stopped = "fl.job.queued.v1", "fl.job.stopped.v1"
    assert seen[str(job)] == [queued, "fl.training.request_refused.v1"]
    assert seen[str(early)] == [queued, "fl.job.stop_requested.v1", stopped]
    assert seen[str(broken)] == ["fl.job.rejected.v1"]
    kinds = Counter(kind for kinds in seen.values() for kind in kinds)
    assert kinds["fl.training.request_refused.v1"] == 2
    (letter,) = await w.log(w.topics.dead_letters(w.topics.requests))
    assert letter.value == b"\xff\x00"
    assert letter.headers["kafka_dlt-exception-fqcn"] == b"Undecodable"


async def until_dead_letters(w: RelayHarness, count: int) -> None:
    for _ in range(200):
        done = await w.pool.fetchval(
            "SELECT count(*) FROM dead_letter WHERE published_at IS NOT NULL"
        )
        if done == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("dead letters were not published")
