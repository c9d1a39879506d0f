"""Sweeps, cleaning, leases and the loop runner."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode
from service.domain.facts import JobLimits
from service.domain.values import Reason, Resources
from service.errors import Transient
from service.steps.leases import LeaseLost
from service.steps.maintenance import Maintenance
from service.steps.ports import JobStore
from service.steps.retention import apply_retention
from service.steps.runner import Loop, Tasks
from tests.unit.steps.sim.fake_bundles import FakeBundles
from tests.unit.steps.sim.harness import TRUSTS, Simulation, request
from tests.unit.steps.sim.invariants import InvariantChecker
from tests.unit.steps.sim.virtual_time import run


@pytest.mark.virtual_time
async def test_a_stop_that_came_before_its_request_is_joined_with_it() -> None:
    sim = Simulation()
    wanted = request(1)
    sim.store.do(c.RequestStop(wanted.job_id, "never mind", None))
    sim.start()
    await asyncio.sleep(5)
    sim.ask(1)
    await sim.until_state(wanted.job_id, JobState.STOPPED, 5)
    assert sim.net.real == []
    await sim.end()


@pytest.mark.virtual_time
async def test_a_start_time_and_a_deadline_are_kept() -> None:
    sim = Simulation()
    sim.net.train_seconds = 10_000
    sim.start()
    soon = sim.store.time() + timedelta(seconds=30)
    end = sim.store.time() + timedelta(seconds=60)
    job_id = sim.ask(not_before=soon, deadline=end)
    took = await sim.until_state(job_id, JobState.RUNNING, 40)
    assert 30 <= took < 33
    await sim.until_state(job_id, JobState.FAILED, 40)
    assert sim.code(job_id) == ReasonCode.DEADLINE_EXCEEDED
    await sim.until(lambda: not sim.net.alive(), 10)
    await sim.end()


@pytest.mark.virtual_time
async def test_a_hung_run_ends_within_its_limit() -> None:
    sim = Simulation()
    sim.net.train_seconds = 10_000
    sim.start()
    job_id = sim.ask(max_stall_seconds=60)
    await sim.until_state(job_id, JobState.FAILED, 80)
    assert sim.code(job_id) == ReasonCode.NO_PROGRESS
    await sim.end()


@pytest.mark.virtual_time
async def test_a_waiting_job_says_why_once() -> None:
    sim = Simulation()
    sim.start()
    await sim.until(lambda: bool(sim.store.nets))
    sim.ask(1)
    second = sim.ask(2)
    await asyncio.sleep(15)
    assert sim.job(second).waiting == "waiting_for_capacity"
    assert sim.words(second).count("WaitingChanged") <= 1
    await sim.end()


@pytest.mark.virtual_time
async def test_that_only_its_turn_is_missing_is_told_when_it_stays_so() -> None:
    sim = Simulation()
    maintenance = Maintenance(sim.context())
    await sim.kit_look()
    sim.ask(1)
    second = sim.ask(2)
    first = await sim.store.claim("a")
    assert first is not None
    await maintenance.report_waiting()
    assert sim.job(second).waiting == "waiting_for_capacity"
    sim.stop_job(first.job_id)
    await maintenance.report_waiting()
    assert sim.words(second).count("WaitingChanged") == 1, "it may be claimed at once"
    await maintenance.report_waiting()
    await maintenance.report_waiting()
    assert sim.job(second).waiting is None
    assert sim.words(second).count("WaitingChanged") == 2


@pytest.mark.virtual_time
async def test_a_job_that_waits_for_its_next_try_is_told_so_once() -> None:
    sim = Simulation(limits=JobLimits(backoff_seconds=60.0))
    maintenance = Maintenance(sim.context())
    await sim.kit_look()
    job_id = sim.ask()
    job = await sim.store.claim("a")
    assert job is not None
    assert job.lease is not None
    reason = Reason(ReasonCode.CLIENTS_UNAVAILABLE, "nobody is there")
    sim.store.do(c.ReleaseNet(job_id, 1, job.lease.token, reason))
    for _ in range(3):
        await maintenance.report_waiting()
    assert sim.job(job_id).waiting == "not_before"
    assert sim.words(job_id).count("WaitingChanged") == 1


@pytest.mark.virtual_time
async def test_jobs_share_the_gpus_of_their_sites() -> None:
    sim = Simulation(capacity=5, net_options={"gpus": 2})
    watch = InvariantChecker(sim)
    sim.start()
    await sim.until(lambda: bool(sim.store.nets))
    jobs = [sim.ask(n, resources=Resources(1)) for n in range(1, 4)]
    jobs += [sim.ask(n, resources=Resources(2), trust_ids=TRUSTS[:1], min_trusts=1) for n in (4, 5)]
    await asyncio.sleep(15)
    assert sim.job(jobs[2]).waiting == "waiting_for_gpus"
    await sim.until(sim.all_over, 300)
    assert watch.most_gpus == 2
    assert watch.broken == []
    await sim.end()


GONE = uuid4()


@pytest.mark.virtual_time
async def test_a_full_round_of_a_sweep_is_followed_at_once() -> None:
    class Full:
        async def resolve_parked(self, limit: int) -> int:
            return limit

        async def due(self, limit: int) -> list[UUID]:
            return []

        async def stop_models(self, limit: int) -> int:
            return 1

        async def review_registry(self, holder: str, limit: int) -> int:
            return 1

    context = Simulation().context()
    context.store = cast("JobStore", Full())
    maintenance = Maintenance(context)
    assert await maintenance.resolve_parked() == 0.0
    assert await maintenance.review_due() is None
    assert await maintenance.stop_models() is None
    assert await maintenance.review_registry() == 0.0
    assert context.wakeups.stop.is_set()


@pytest.mark.virtual_time
async def test_retention_goes_on_until_no_row_of_its_jobs_is_left() -> None:
    class Old:
        def __init__(self, mine: bool) -> None:
            self.mine, self.pages = mine, 3

        async def lease(self, name: str, holder: str, ttl_seconds: float) -> bool:
            return self.mine

        async def purgeable(self, limit: int) -> list[UUID]:
            return [GONE]

        async def clean(self, purgeable: Sequence[UUID], limit: int) -> int:
            assert purgeable == [GONE]
            self.pages -= 1
            return limit if self.pages else 0

    context = Simulation().context()
    old = Old(mine=True)
    context.store = cast("JobStore", old)
    assert await apply_retention(context) is None
    assert isinstance(context.bundles, FakeBundles)
    assert context.bundles.removed == [GONE]
    assert old.pages == 0
    others = Old(mine=False)
    context.store = cast("JobStore", others)
    assert await apply_retention(context) is None
    assert (others.pages, context.bundles.removed) == (3, [GONE])


@pytest.mark.virtual_time
async def test_only_the_first_hundred_jobs_are_told_why_they_wait() -> None:
    sim = Simulation()
    context = sim.context()
    await sim.kit_look()
    jobs = [sim.ask(n) for n in range(1, 112)]
    first = await sim.store.claim("a")
    assert first is not None
    await Maintenance(context).report_waiting()
    told = [job_id for job_id in jobs if "WaitingChanged" in sim.words(job_id)]
    assert told == [job_id for job_id in jobs if job_id != first.job_id][:100]


# --- leases ---------------------------------------------------------------------------------------


@pytest.mark.virtual_time
async def test_a_lease_that_somebody_else_took_is_noticed() -> None:
    sim = Simulation()
    context = sim.context()
    await sim.kit_look()
    sim.ask()
    job = await sim.store.claim("a")
    assert job is not None
    with context.leases.hold(job) as held:
        await context.leases.renew()
        held.require()
        await asyncio.sleep(9)
        held.require()
        await asyncio.sleep(2)
        await sim.store.take({JobState.PREPARING}, "b", 1)
        await context.leases.renew()
        with pytest.raises(LeaseLost):
            held.require()
        with pytest.raises(LeaseLost):
            await context.apply(held, c.ConfirmNoRun(*held.command_key))
    assert len(context.leases) == 0


@pytest.mark.virtual_time
async def test_a_lease_that_could_not_be_renewed_in_time_counts_as_lost() -> None:
    sim = Simulation()
    context = sim.context()
    await sim.kit_look()
    sim.ask()
    job = await sim.store.claim("a")
    assert job is not None
    with context.leases.hold(job) as held:
        await asyncio.sleep(context.options.lease_seconds)
        with pytest.raises(LeaseLost):
            held.require()


# --- the runner -----------------------------------------------------------------------------------


def test_a_loop_backs_off_from_trouble_and_comes_back() -> None:
    async def story() -> None:
        at: list[float] = []
        told: list[str] = []

        async def step() -> float | None:
            at.append(asyncio.get_running_loop().time())
            if len(at) <= 4:
                raise Transient("away") if len(at) % 2 else ZeroDivisionError("a bug")
            return None

        def on_step(name: str, outcome: str, seconds: float) -> None:
            told.append(outcome)

        loop = Loop("x", step, pause=1.0, on_step=on_step)
        closing = asyncio.Event()
        task = asyncio.create_task(loop.run(closing))
        await asyncio.sleep(60)
        gaps = [b - a for a, b in itertools.pairwise(at)]
        assert 0.5 <= gaps[0] <= 1.0
        assert 4.0 <= gaps[3] <= 8.0
        assert gaps[4] == pytest.approx(1.0)
        assert told[:5] == ["transient", "error", "transient", "error", "ok"]
        closing.set()
        loop.wake.set()
        await asyncio.wait_for(task, 0.01)

    run(story())


@pytest.mark.virtual_time
async def test_a_time_named_by_the_other_side_is_kept() -> None:
    at: list[float] = []

    async def step() -> float | None:
        at.append(asyncio.get_running_loop().time())
        raise Transient("429", retry_after=20.0)

    task = asyncio.create_task(Loop("x", step, pause=1.0).run(asyncio.Event()))
    await asyncio.sleep(30)
    assert at[1] - at[0] == pytest.approx(20.0)
    task.cancel()


def test_a_bell_during_a_turn_is_remembered() -> None:
    async def story() -> None:
        turns = 0
        loop: Any = None

        async def step() -> float | None:
            nonlocal turns
            turns += 1
            if turns == 1:
                loop.wake.set()
            return None

        loop = Loop("x", step, pause=1_000.0)
        task = asyncio.create_task(loop.run(asyncio.Event()))
        await asyncio.sleep(1)
        assert turns == 2
        task.cancel()

    run(story())


@pytest.mark.virtual_time
async def test_work_is_bounded_isolated_and_let_go_after_its_grace() -> None:
    tasks = Tasks("x", 3)
    broke: list[str] = []

    async def breaks() -> None:
        raise ZeroDivisionError

    async def lasts() -> None:
        await asyncio.sleep(1_000)

    async def on_broke(exc: Exception) -> None:
        broke.append(type(exc).__name__)

    tasks.start(breaks(), on_crash=on_broke)
    tasks.start(lasts())
    assert tasks.room == 1
    await asyncio.sleep(1)
    assert broke == ["ZeroDivisionError"]
    assert len(tasks) == 1
    assert await tasks.drain(5.0) == 1
    assert len(tasks) == 0
