"""Claims and leases: places are never overbooked, nobody starts a job twice, nobody waits for strangers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import combinations
from uuid import UUID, uuid4

from service.adapters.lane import Lane
from service.domain import commands as c
from service.domain.decision import Outcome
from service.domain.enums import FLJobStatus, JobState, ReasonCode
from service.domain.values import Reason
from service.store.queries import Queries
from service.store.registry import pause_hub, pause_net
from service.store.store import PostgresStore
from tests.integration.store.harness import TRUSTS, StoreHarness, net, opened, registry, submission

OVER = Reason(ReasonCode.MODEL_FILES_MISSING, "nothing to train")


async def claimed(w: StoreHarness, holder: str = "me") -> UUID | None:
    job = await w.store.claim(holder)
    return None if job is None else job.job_id


async def test_rivals_never_overbook_a_net(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env, registry(nets=[net("net-1", 3)])) as w:
        jobs = {await w.ask() for _ in range(24)}
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
            while len(started) < len(jobs):
                row = await w.pool.fetchrow(
                    "SELECT occupied, (SELECT count(*) FROM reservation) AS slots FROM net"
                )
                assert row is not None
                assert row["occupied"] == row["slots"] <= 3
                most = max(most, row["slots"])
                await asyncio.sleep(0.002)

        async with asyncio.timeout(30):
            await asyncio.gather(watch(), *(work(w.rival(), f"rival-{n}") for n in range(4)))
        assert sorted(started) == sorted(jobs)
        assert most > 1
        kinds = await w.pool.fetch("SELECT type, count(*) AS n FROM event GROUP BY type")
        counts = {row["type"]: row["n"] for row in kinds}
        assert set(counts.values()) == {len(jobs)}
        left = await w.pool.fetchrow(
            "SELECT (SELECT sum(occupied) FROM net), (SELECT sum(running) FROM project),"
            " (SELECT sum(queued) FROM job_group), (SELECT count(*) FROM ready)"
        )
        assert left is not None
        assert tuple(left) == (0, 0, 0, 0)


async def test_a_lost_lease_writes_nothing(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        job_id = await w.ask()
        long = [w.rival(lease_seconds=600) for _ in range(2)]  # none ends before the test says so
        first = await long[0].claim("first")
        assert first is not None
        assert first.lease is not None
        assert await w.store.take([JobState.PREPARING], "second", 5) == []
        await w.pool.execute("UPDATE job SET lease_until = now()")
        both = await asyncio.gather(
            *(
                store.take([JobState.PREPARING], name, 5)
                for store, name in zip(long, ("second", "third"), strict=True)
            )
        )
        taken = [job for jobs in both for job in jobs]
        assert [job.job_id for job in taken] == [job_id]
        lease = taken[0].lease
        assert lease is not None
        assert lease.token > first.lease.token
        events = await w.count("event")
        old = c.FailAttempt(job_id, 1, first.lease.token, OVER, run_over=True)
        assert (await w.store.apply([old]))[0].outcome is Outcome.LEASE_LOST
        assert await w.store.renew({job_id: first.lease.token}) == set()
        assert await w.count("event") == events
        assert await w.store.renew({job_id: lease.token}) == {job_id}
        new = c.FailAttempt(job_id, 1, lease.token, OVER, run_over=True)
        assert (await w.store.apply([new]))[0].outcome is Outcome.APPLIED


async def test_the_highest_priority_goes_first_then_the_oldest(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env, registry(nets=[net("net-1", 9)])) as w:
        low, high, higher = [await w.ask(priority=n) for n in (2, 7, 8)]
        second = await w.ask(priority=7, min_trusts=1)  # a group of its own
        order = [await claimed(w) for _ in range(5)]
        assert order == [higher, high, second, low, None]


async def test_a_project_at_its_limit_holds_up_nobody(migrated_env: dict[str, str]) -> None:
    names = [str(t) for t in TRUSTS]
    projects = [
        {"id": "demo", "approved_trusts": names, "max_running_jobs": 1},
        {"id": "other", "approved_trusts": names},
    ]
    document = registry(nets=[net("net-1", 9)], projects=projects)
    async with opened(migrated_env, document) as w:
        first, second = [await w.ask(priority=9) for _ in range(2)]
        # More groups than a claim looks at: none of them may hide the other project's job.
        for pair in combinations(names, 2):
            for least in (1, 2):
                for _ in range(2):
                    await w.ask(priority=8, trust_ids=list(pair), min_trusts=least)
        other = await w.ask(priority=1, project_id="other")
        assert [await claimed(w) for _ in range(3)] == [first, other, None]
        await stop(w, [first])
        assert await claimed(w) == second


async def test_a_job_whose_trusts_are_away_holds_up_nobody(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        away, near = str(TRUSTS[2]), [str(t) for t in TRUSTS[:2]]
        await w.answers(online=TRUSTS[:2])
        waits = await w.ask(priority=9, trust_ids=[*near, away])
        some = await w.ask(priority=5, trust_ids=[*near, away], min_trusts=2)
        ready = await w.ask(priority=1, trust_ids=near)
        assert [await claimed(w) for _ in range(2)] == [some, ready]
        job = await w.store.get(some)
        assert job is not None
        assert job.attempt is not None
        assert [p.trust_id for p in job.attempt.participants] == TRUSTS[:2]
        await stop(w, [some])
        assert await claimed(w) is None
        await w.answers()
        assert await claimed(w) == waits


async def test_what_is_paused_starts_nothing(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        job_id = await w.ask()
        await pause_net(w.pool, "net-1", True)
        assert await claimed(w) is None
        await pause_net(w.pool, "net-1", False)
        await pause_hub(w.pool, True)
        assert await claimed(w) is None
        await pause_hub(w.pool, False)
        assert await claimed(w) == job_id


async def stop(w: StoreHarness, jobs: Sequence[UUID]) -> None:
    await w.store.apply([c.RequestStop(job_id, "enough", "tests") for job_id in jobs])


async def test_a_net_that_goes_by_the_model_takes_none_of_it_until_its_results_are_there(
    migrated_env: dict[str, str],
) -> None:
    by_model = net("net-1", 3) | {"path_id": "model"}
    async with opened(migrated_env, registry(nets=[by_model])) as w:
        model = str(uuid4())
        first, second = await w.ask(model_id=model), await w.ask(model_id=model)
        other = await w.ask()
        assert await claimed(w) == first
        assert await claimed(w) == other, "jobs of the model hinder no other"
        assert await claimed(w) is None
        direct = await w.store.apply([c.Claim(second, "net-1", "me")])
        assert direct[0].reason is not None
        assert direct[0].reason.code == "model_taken"
        [(_, code, position)] = await w.store.waiting_heads(5)
        await w.store.apply([c.ReportWaiting(second, code, position)])
        told = (await Queries(w.pool).events(second))[-1]["data"]["reason"]
        assert told["code"] == "waiting_for_capacity"
        assert told["message"].startswith(f"net net-1 still holds model {model}'s earlier run")
        job = await w.store.get(first)
        assert job is not None
        assert job.lease is not None
        now = await w.store.now()
        handed = submission(now)
        await w.store.apply([c.OpenSubmission(first, 1, job.lease.token, handed)])
        await w.store.apply([c.RecordRun(first, 1, handed.path_id, "run-1")])
        began = await w.store.now()
        done = c.ObserveRun(first, 1, "run-1", FLJobStatus.FINISHED, None, began)
        assert (await w.store.apply([done]))[0].outcome is Outcome.APPLIED
        held = "SELECT count(*) FROM reservation WHERE job_id = $1"
        assert await w.pool.fetchval(held, first) == 0, (
            "its place is free, its results are not here"
        )
        assert await claimed(w) is None
        [job] = await w.store.take([JobState.COLLECTING], "me", 5)
        assert job.lease is not None
        await w.store.apply([c.StoreResults(first, 1, job.lease.token, None)])
        assert await claimed(w) == second


async def test_the_rule_of_a_net_follows_the_registry(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env, registry(nets=[net("net-1", 3)])) as w:
        model = str(uuid4())
        for _ in range(3):
            await w.ask(model_id=model)
        assert await claimed(w) is not None
        assert await claimed(w) is not None
        await w.register(registry(nets=[net("net-1", 3) | {"path_id": "model"}]))
        assert await claimed(w) is None


async def test_nothing_more_is_taken_for_a_net_that_has_enough_under_way(
    migrated_env: dict[str, str],
) -> None:
    async with opened(
        migrated_env, registry(nets=[net("net-1", 2), net("net-2", 2)]), ["net-1", "net-2"]
    ) as w:
        for _ in range(4):
            await w.ask()
        nets = set()
        while (job := await w.store.claim("me", {"net-1"})) is not None:
            assert job.attempt is not None
            nets.add(job.attempt.net)
        assert nets == {"net-2"}
        await w.pool.execute("UPDATE job SET lease_until = now() WHERE lease_until IS NOT NULL")
        assert await w.store.take({JobState.PREPARING}, "other", 9, {"net-1", "net-2"}) == []
        assert len(await w.store.take({JobState.PREPARING}, "other", 9, {"net-1"})) == 2


async def test_a_lane_is_one_of_all_processes(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        inside = most = 0

        async def work(store: PostgresStore, holder: str) -> None:
            nonlocal inside, most
            lane = Lane("net-1", lambda name, seconds: store.lease(name, holder, seconds))
            for _ in range(3):
                async with lane.turn():
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0.01)
                    inside -= 1

        async with asyncio.timeout(30):
            await asyncio.gather(*(work(w.rival(), f"process-{n}") for n in range(3)))
        assert most == 1
