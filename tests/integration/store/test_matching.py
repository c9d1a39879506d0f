"""What a net can take beside a place: GPUs at sites, job types, layouts; and what a waiting job is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from service.contracts.package_data import data_path
from service.domain import commands as c
from service.domain.decision import Outcome
from service.domain.enums import FLBackend, JobState, ReasonCode
from service.domain.facts import JobTypes
from service.domain.values import Reason
from service.store.queries import Queries
from service.store.store import PostgresStore
from tests.integration.store.harness import TRUSTS, StoreHarness, net, opened, registry

NAMES = [str(t) for t in TRUSTS]
OVER = Reason(ReasonCode.MODEL_FILES_MISSING, "nothing to train")
FLOWER = net("a-flower", 4) | {"fl_backend": "flower"}
EMBEDDED = net("net-1", 4)


def gpus(number: int, capacity: int = 9) -> dict[str, Any]:
    """A registry with one net that has so many GPUs at each site."""
    return registry(nets=[net("net-1", capacity) | {"gpus": number, "gpu_memory_gib": 16}])


def wants(number: int, trusts: Sequence[str] = NAMES) -> dict[str, Any]:
    return {"resources": {"num_gpus": number}, "trust_ids": list(trusts)}


async def claimed(store: PostgresStore) -> UUID | None:
    job = await store.claim("me")
    return None if job is None else job.job_id


async def where(store: PostgresStore) -> str | None:
    """The net of the next claim."""
    job = await store.claim("me")
    return None if job is None or job.attempt is None else job.attempt.net


async def stop(w: StoreHarness, *jobs: UUID) -> None:
    await w.store.apply([c.RequestStop(job_id, "enough", "tests") for job_id in jobs])


async def code_of(w: StoreHarness, job_id: UUID) -> str | None:
    heads = {head: code for head, code, _ in await w.store.waiting_heads(100)}
    job = await w.store.get(job_id)
    assert job is not None
    return heads.get(job_id, job.waiting)


async def test_rivals_never_take_more_gpus_than_there_are(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env, gpus(4)) as w:
        pairs = [NAMES[:2], NAMES[1:], NAMES]
        jobs = {await w.ask(**wants(1 + n % 3, pairs[n % 2 + n % 5 % 2])) for n in range(18)}
        started: list[UUID] = []
        most = 0

        async def work(store: PostgresStore, holder: str) -> None:
            while len(started) < len(jobs):
                job = await store.claim(holder)
                if job is None:
                    await asyncio.sleep(0.005)
                    continue
                assert job.lease is not None
                started.append(job.job_id)
                await asyncio.sleep(0.01)
                over = c.FailAttempt(job.job_id, 1, job.lease.token, OVER, run_over=True)
                assert (await store.apply([over]))[0].outcome is Outcome.APPLIED

        async def watch() -> None:
            nonlocal most
            taken = "SELECT trust_ids, num_gpus FROM reservation"
            while len(started) < len(jobs):
                sites: Counter[UUID] = Counter()
                for row in await w.pool.fetch(taken):
                    sites.update(dict.fromkeys(row["trust_ids"], row["num_gpus"]))
                most = max(most, *sites.values(), 0)
                assert most <= 4
                await asyncio.sleep(0.002)

        async with asyncio.timeout(60):
            await asyncio.gather(watch(), *(work(w.rival(), f"rival-{n}") for n in range(3)))
        assert sorted(started) == sorted(jobs)
        assert most > 1


async def test_jobs_without_a_trust_in_common_do_not_compete_for_gpus(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env, gpus(2)) as w:
        first = await w.ask(**wants(2, NAMES[:1]))
        same = await w.ask(**wants(1, NAMES[:2]), priority=9)
        other = await w.ask(**wants(2, NAMES[1:]), priority=1)
        plain = await w.ask(priority=0)
        assert await claimed(w.store) == same
        assert await claimed(w.store) == plain, "the others wait for GPUs, and hold up nobody"
        assert await claimed(w.store) is None
        assert [await code_of(w, job) for job in (first, other)] == ["waiting_for_gpus"] * 2
        await stop(w, same)
        assert [await claimed(w.store), await claimed(w.store)] == [first, other]


async def test_gpus_of_a_quarantined_run_stay_taken(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env, gpus(1)) as w:
        await w.ask(**wants(1))
        second = await w.ask(**wants(1))
        job = await w.store.claim("me")
        assert job is not None
        assert job.lease is not None
        await w.pool.execute("UPDATE reservation SET state = 'quarantined'")
        assert await claimed(w.store) is None
        assert await code_of(w, second) == "waiting_for_gpus"
        direct = await w.store.apply([c.Claim(second, "net-1", "me")])
        assert direct[0].outcome is Outcome.IGNORED


async def test_a_registry_with_fewer_gpus_than_are_taken_only_makes_jobs_wait(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env, gpus(4)) as w:
        assert [await w.ask(**wants(2)) for _ in range(2)]
        assert [await claimed(w.store), await claimed(w.store)] != [None, None]
        waits = await w.ask(**wants(1))
        await w.register(gpus(1))
        assert await claimed(w.store) is None
        assert await code_of(w, waits) == "waiting_for_gpus"
        await stop(w, *[row["job_id"] for row in await w.pool.fetch("SELECT * FROM reservation")])
        assert await claimed(w.store) == waits


async def test_runs_of_nobody_take_places(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env, registry(nets=[net("net-1", 2)])) as w:
        await w.answers(strays=("by-hand",))
        jobs = [await w.ask() for _ in range(2)]
        assert await claimed(w.store) == jobs[0]
        assert await claimed(w.store) is None
        assert await code_of(w, jobs[1]) == "waiting_for_capacity"
        direct = await w.store.apply([c.Claim(jobs[1], "net-1", "me")])
        assert direct[0].outcome is Outcome.IGNORED
        await w.answers(strays=())
        assert await claimed(w.store) == jobs[1]


async def test_a_job_goes_to_a_net_that_has_its_type(migrated_env: dict[str, str]) -> None:
    document = registry(nets=[FLOWER, EMBEDDED])
    types: dict[FLBackend, JobTypes] = {
        FLBackend.FLOWER: {"standard": ()},
        FLBackend.EMBEDDED: {"standard": (), "evaluation": ()},
    }
    async with opened(migrated_env, document, ["a-flower", "net-1"]) as w:
        w.store = w.rival(manifests=lambda: types)
        jobs = [await w.ask(job_type="evaluation") for _ in range(4)]
        assert [await where(w.store) for _ in jobs] == ["net-1"] * 4
        last = await w.ask(job_type="evaluation")
        assert await where(w.store) is None, "the other net has places, but not the type"
        assert await code_of(w, last) == "waiting_for_capacity"
        plain = await w.ask()
        assert await where(w.store) == "a-flower"
        types[FLBackend.FLOWER] = {"evaluation": ()}
        await stop(w, plain)
        assert await where(w.store) == "a-flower", "a manifest may gain a type without a registry"


async def test_a_manifest_that_cannot_be_read_makes_a_job_wait_and_never_fail(
    migrated_env: dict[str, str],
) -> None:
    types: dict[FLBackend, JobTypes] = {FLBackend.EMBEDDED: None}
    async with opened(migrated_env) as w:
        w.store = w.rival(manifests=lambda: types)
        job_id = await w.ask(job_type="evaluation_client_api")
        other = await w.ask(priority=1)
        assert await claimed(w.store) == other
        assert await claimed(w.store) is None
        assert await code_of(w, job_id) == "manifest_unavailable"
        types[FLBackend.EMBEDDED] = {"evaluation": ()}
        assert await claimed(w.store) == job_id


async def test_a_net_whose_bundles_nobody_lays_out_is_no_candidate(
    migrated_env: dict[str, str],
) -> None:
    document = registry(nets=[FLOWER, EMBEDDED])
    async with opened(migrated_env, document, ["a-flower", "net-1"]) as w:
        w.store = w.rival(layouts=[FLBackend.EMBEDDED])
        for _ in range(5):
            await w.ask()
        assert [await where(w.store) for _ in range(5)] == ["net-1"] * 4 + [None]
        assert await where(w.rival()) == "a-flower", "a later version may have the layout"
        gone = await w.ask(fl_backend="flower")
        job = await w.store.get(gone)
        assert job is not None
        assert job.state is JobState.REJECTED
        assert job.reason is not None
        assert job.reason.code == ReasonCode.NO_SUCH_NET
        assert "no bundle layout" in job.reason.message


async def test_who_waits_for_a_time_is_told_behind_those_who_wait_for_a_net(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env, registry(nets=[net("net-1", 1)])) as w:
        await w.ask()
        job = await w.store.claim("me")
        assert job is not None
        assert job.lease is not None
        reason = Reason(ReasonCode.CLIENTS_UNAVAILABLE, "nobody is there")
        await w.store.apply([c.ReleaseNet(job.job_id, 1, job.lease.token, reason)])
        again = job.job_id
        begins = (await w.store.now() + timedelta(hours=1)).isoformat()
        early = await w.ask(not_before=begins)
        first, second = await w.ask(), await w.ask()
        assert await claimed(w.store) == first
        assert await w.store.waiting_heads(100) == [
            (second, "waiting_for_capacity", 1),
            (again, "not_before", 2),
        ], "the early one was told when it was queued"
        assert await w.store.waiting_heads(1) == [(second, "waiting_for_capacity", 1)]
        for head, code, position in await w.store.waiting_heads(100):
            await w.store.apply([c.ReportWaiting(head, code, position)])
        assert await w.store.waiting_heads(100) == [], "once per change"
        told = (await Queries(w.pool).events(again))[-1]
        assert told["type"] == "fl.job.waiting.v1"
        assert told["data"]["reason"]["code"] == "not_before"
        assert told["data"]["reason"]["message"].startswith("its next try may start at ")
        assert told["data"]["position"] == 2
        await stop(w, first)
        assert await w.store.waiting_heads(100) == [(second, None, 1)]
        await w.store.apply([c.ReportWaiting(second, None, 1)])
        told = (await Queries(w.pool).events(second))[-1]
        assert (told["type"], told["data"]["reason"]) == ("fl.job.waiting.v1", None)
        job = await w.store.get(early)
        assert job is not None
        assert job.waiting == "not_before"


_DOWNGRADE = """
    CREATE TEMP TABLE old ON COMMIT DROP AS
        SELECT group_id AS new_id, md5(project_id || trust_ids::text)::uuid AS old_id, * FROM job_group;
    DELETE FROM job_group;
    INSERT INTO job_group (group_id, project_id, backend, trust_ids, min_trusts, num_gpus, mem_per_gpu_gib,
                           queued)
        SELECT old_id, min(project_id), min(backend), trust_ids, min(min_trusts), min(num_gpus),
            min(mem_per_gpu_gib), sum(queued) FROM old GROUP BY old_id, trust_ids;
    DELETE FROM net_group;
    INSERT INTO net_group SELECT DISTINCT 'net-1', old_id FROM old;
    UPDATE ready SET group_id = old_id FROM old WHERE ready.group_id = new_id;
    UPDATE job SET group_id = old_id FROM old WHERE job.group_id = new_id;
    ALTER TABLE job_group DROP COLUMN job_type;
    ALTER TABLE reservation DROP COLUMN num_gpus, DROP COLUMN trust_ids;
    ALTER TABLE net DROP COLUMN gpus, DROP COLUMN backend;
    DROP INDEX job_delayed;
"""


_ALIASES = """
    UPDATE job SET request = replace(request, '"evaluation"', '"evaluation_client_api"');
"""


async def test_what_was_stored_before_claims_knew_gpus_and_types_is_claimed_by_them(
    migrated_env: dict[str, str],
) -> None:
    types: dict[FLBackend, JobTypes] = {FLBackend.EMBEDDED: {"standard": (), "evaluation": ()}}
    migration = data_path("schemas/sql/migrations") / "0008_gpus_and_job_types.sql"
    async with opened(migrated_env, gpus(3)) as w:
        w.store = w.rival(manifests=lambda: types)
        for name in ("standard", "evaluation", "evaluation"):
            for trusts in (NAMES, NAMES[1:]):
                await w.ask(**wants(1, trusts), job_type=name)
        assert await claimed(w.store) is not None
        tables = (
            "SELECT * FROM job_group ORDER BY group_id",
            "SELECT group_id, job_id, request FROM job ORDER BY job_id",
            "SELECT * FROM ready ORDER BY job_id",
            "SELECT * FROM reservation ORDER BY job_id",
            "SELECT * FROM net_group ORDER BY group_id",
            "SELECT name, gpus, backend FROM net",
        )
        before = [[dict(row) for row in await w.pool.fetch(table)] for table in tables]
        async with w.pool.acquire() as connection, connection.transaction():
            await connection.execute(_DOWNGRADE)
            await connection.execute(_ALIASES)
            await connection.execute(migration.read_text("utf-8"))
            await connection.execute("DELETE FROM job_group WHERE job_type IS NULL AND queued = 0")
            await connection.execute(
                "DELETE FROM net_group WHERE group_id NOT IN (SELECT group_id FROM job_group)"
            )
        await w.pool.expire_connections()  # their statements speak of the columns before
        assert [[dict(row) for row in await w.pool.fetch(table)] for table in tables] == before
        w.store = w.rival(manifests=lambda: types)
        assert [await claimed(w.store) is not None for _ in range(3)] == [True, True, False]
