"""Large batches under the pool's own limits: no transaction stands idle, and no batch waits in a circle."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from service.contracts.inbound.stop import STOP_REQUESTED as STOP
from service.domain import commands as c
from service.domain.decide import decide
from service.domain.decision import Decision
from service.domain.facts import Facts
from service.domain.job import Job
from service.store import jobs, unit_of_work
from service.store.records import OffsetFence
from tests.integration.store.harness import GROUP, TOPIC, TRUSTS, asked, item, net, opened, registry


async def heartbeats(gaps: list[float]) -> None:
    """How long the event loop kept others waiting."""
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.01)
        gaps.append(time.monotonic() - began)


async def test_a_batch_that_takes_long_to_judge_is_stored(
    migrated_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a session that is idle in its transaction for a second: this one is never."""

    def slowly(job: Job | None, command: c.Command, facts: Facts) -> Decision:
        time.sleep(0.01)
        return decide(job, command, facts)

    async with opened(migrated_env) as w:
        assert await w.pool.fetchval("SHOW idle_in_transaction_session_timeout") == "1s"
        monkeypatch.setattr(unit_of_work, "decide", slowly)
        gaps: list[float] = []
        beating = asyncio.create_task(heartbeats(gaps))
        decisions = await w.take(*(item(asked(), n) for n in range(250)))
        beating.cancel()
        assert len(decisions) == await w.count("job") == 250
        assert max(gaps) < 0.9


async def test_a_batch_whose_jobs_take_long_to_read_and_write_is_stored(
    migrated_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs with very many trusts cost milliseconds each, both ways."""
    read, changing = jobs.read, jobs.changing

    def slowly_read(record: asyncpg.Record) -> Job:
        time.sleep(0.006)
        return read(record)

    def slowly_written(job: Job) -> tuple[Any, ...]:
        time.sleep(0.006)
        return changing(job)

    async with opened(migrated_env) as w:
        asks = [asked() for _ in range(250)]
        await w.take(*(item(ask, n) for n, ask in enumerate(asks)))
        monkeypatch.setattr(jobs, "read", slowly_read)
        monkeypatch.setattr(jobs, "changing", slowly_written)
        stops = [item({"job_id": ask["job_id"]}, n, STOP) for n, ask in enumerate(asks)]
        await w.take(*stops)
        assert await w.count("job WHERE state = 'stopped'") == 250


async def test_a_full_batch_of_what_no_net_can_serve_is_taken(migrated_env: dict[str, str]) -> None:
    trusts = [UUID(int=(7 << 100) + n) for n in range(400)]
    names = [str(t) for t in trusts]
    nets = [
        net(f"net-{n:03}", 4) | {"members": {names[n + k]: f"Trust_{k}" for k in range(10)}}
        for n in range(200)
    ]
    document = {
        "trusts": [{"id": name, "name": f"Hospital {n}"} for n, name in enumerate(names)],
        "nets": nets,
        "projects": [{"id": "demo", "approved_trusts": names}],
    }
    async with opened(migrated_env, document, ["net-000"]) as w:
        batch = [item(asked(trust_ids=[*names[:4], names[300]]), n) for n in range(2_000)]
        decisions = await w.take(*batch)
        assert len(decisions) == 2_000
        rejected = await w.count("job WHERE state = 'rejected'")
        assert rejected == 2_000


async def test_a_batch_of_new_groups_is_noted_for_every_net(migrated_env: dict[str, str]) -> None:
    nets = [net(f"net-{n:03}", 4) for n in range(100)]
    async with opened(
        migrated_env, registry(nets=nets, unlisted_projects="allow"), ["net-000"]
    ) as w:
        batch = [item(asked(project_id=f"project-{n}"), n) for n in range(500)]
        await w.take(*batch)
        assert await w.count("job WHERE state = 'queued'") == 500
        assert await w.count("net_group") == 500 * 100


async def test_two_batches_with_the_same_new_projects_never_wait_in_a_circle(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env, registry(unlisted_projects="allow")) as w:
        rival = w.rival()
        await w.store.start_offsets(GROUP, {("other", 0): 0})
        at = 0
        for turn in range(12):
            names = [f"project-{turn}-{n}" for n in range(20)]
            one = [item(asked(project_id=p, min_trusts=1 + n % 3), n) for n, p in enumerate(names)]
            two = [item(asked(project_id=p), n) for n, p in enumerate(reversed(names))]
            there = OffsetFence([(TOPIC, 0, at, at + 20)], GROUP)
            here = OffsetFence([("other", 0, at, at + 20)], GROUP)
            at += 20
            await asyncio.gather(w.store.apply_batch(one, there), rival.apply_batch(two, here))
        assert await w.count("job") == 12 * 40


async def test_a_claim_finds_the_net_with_work_among_any_number(
    migrated_env: dict[str, str],
) -> None:
    """Empty nets without work do not hide it, nor those whose only jobs can't start."""
    idle = [UUID(int=5_000 + n) for n in range(70)]
    names = [str(t) for t in (*TRUSTS, *idle)]
    nets = [net("busy", 4)]
    nets += [net(f"idle-{n}", 4) | {"members": {str(t): "Trust_1"}} for n, t in enumerate(idle)]
    document = registry(
        trusts=[{"id": name, "name": f"Hospital {n}"} for n, name in enumerate(names)],
        nets=nets,
        projects=[
            {"id": "demo", "approved_trusts": names},
            {"id": "still", "approved_trusts": names, "max_running_jobs": 1},
        ],
    )
    async with opened(migrated_env, document, ["busy"]) as w:
        for n, trust in enumerate(idle):
            await w.answers(f"idle-{n}", [trust])
        await w.pool.execute("UPDATE project SET running = 1 WHERE project_id = 'still'")
        held = [item(asked(project_id="still", trust_ids=[str(t)]), n) for n, t in enumerate(idle)]
        await w.take(*held)
        wanted = {await w.ask() for _ in range(4)}
        claimed = [await w.store.claim("me") for _ in range(4)]
        assert {job.job_id for job in claimed if job is not None} == wanted
        assert await w.pool.fetchval("SELECT occupied FROM net WHERE name = 'busy'") == 4
        assert await w.store.claim("me") is None


async def test_one_review_that_fails_costs_itself_alone(
    migrated_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(migrated_env) as w:
        asked_jobs = [await w.ask() for _ in range(5)]
        await w.pool.execute("UPDATE job SET due_at = now() - interval '1 minute'")

        def broken(job: Job | None, command: c.Command, facts: Facts) -> Decision:
            if command.job_id == asked_jobs[2]:
                raise ZeroDivisionError
            return decide(job, command, facts)

        monkeypatch.setattr(unit_of_work, "decide", broken)
        due = await w.store.due(10)
        assert sorted(due) == sorted(asked_jobs)
        assert len(await w.store.apply_each([c.Review(job_id) for job_id in due])) == 4
        assert await w.store.due(10) == []  # the broken one is not at the head of the next page
        assert await w.count("job WHERE due_at > now()") == 1


async def test_one_job_that_can_not_be_read_costs_itself_alone(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env) as w:
        asked_jobs = [await w.ask() for _ in range(5)]
        await w.pool.execute("UPDATE job SET request = '[]' WHERE job_id = $1", asked_jobs[1])
        decisions = await w.store.apply_each([c.RequestStop(j, None, None) for j in asked_jobs])
        assert len(decisions) == 4
        assert await w.count("job WHERE state = 'stopped'") == 4


async def test_a_stop_for_a_model_means_the_requests_of_its_batch(
    migrated_env: dict[str, str],
) -> None:
    """All but those behind it in its own partition: between partitions there is no order."""

    async with opened(migrated_env) as w:
        model = str(uuid4())
        before, beside, behind = [asked(model_id=model) for _ in range(3)]
        halt = {"model_id": model, "reason": "withdrawn"}
        batch = [
            item(before, 0),
            item(halt, 1, STOP),
            item(behind, 2),
            item(beside, 7, partition=3),
        ]
        await w.store.apply_batch(batch, None)
        states = {
            str(row["job_id"]): row["state"]
            for row in await w.pool.fetch("SELECT job_id, state FROM job")
        }
        assert [states[data["job_id"]] for data in (before, beside)] == ["stopped"] * 2
        assert states[behind["job_id"]] == "queued"
        assert await w.count("model_stop") == 0
