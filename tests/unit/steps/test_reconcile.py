"""Reconciling: what the lists show, orphans, strays, lost runs, net status."""

from __future__ import annotations

import asyncio
import json

import pytest

from service.domain.enums import JobState, ReasonCode, ReservationState
from service.domain.observed import Client
from service.steps.reconcile import ReconcileStep
from tests.unit.steps.sim.fake_net import RealRun
from tests.unit.steps.sim.harness import LIMITS, Simulation
from tests.unit.steps.sim.virtual_time import run


@pytest.mark.virtual_time
async def test_a_run_the_backend_forgot_is_lost_after_its_grace_and_tried_again() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.net.real[0].forgotten = True
    forgotten = asyncio.get_running_loop().time()
    await sim.until(lambda: "RetryScheduled" in sim.words(job_id), 60)
    waited = asyncio.get_running_loop().time() - forgotten
    assert waited >= LIMITS.missing_grace_seconds
    assert sim.words(job_id).count("RunMissed") >= LIMITS.missing_lists - 1
    await sim.until_state(job_id, JobState.COMPLETED, 120)
    assert sim.job(job_id).attempt_number == 2
    await sim.end()


@pytest.mark.virtual_time
async def test_a_list_that_lacks_a_run_once_changes_nothing() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.net.real[0].forgotten = True
    await asyncio.sleep(1.5)
    sim.net.real[0].forgotten = False
    await sim.until_state(job_id, JobState.COMPLETED, 60)
    assert sim.job(job_id).attempt_number == 1
    await sim.end()


def test_a_list_asked_before_the_run_was_known_judges_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        sim = Simulation()
        context = sim.context("other")
        sim.start(reconcile=False)
        sim.store.nets.clear()
        context.nets.follow(await context.store.registry())
        await context.net_cache.refresh(context.nets.client("net-1"))
        step = ReconcileStep(context, "net-1")
        runs = sim.net.runs

        async def slow() -> object:
            answer = await runs()
            await asyncio.sleep(5)
            return answer

        monkeypatch.setattr(sim.net, "runs", slow)
        early = asyncio.create_task(step.step())
        await asyncio.sleep(0.1)
        monkeypatch.setattr(sim.net, "runs", runs)
        await sim.kit_look()
        job_id = sim.ask()
        await sim.until_state(job_id, JobState.RUNNING, 4)
        await early
        assert "RunMissed" not in sim.words(job_id)
        assert sim.net.count("abort") == 0
        await sim.end()

    run(story())


@pytest.mark.virtual_time
async def test_a_run_that_failed_or_was_stopped_elsewhere_ends_its_job() -> None:
    sim = Simulation(capacity=2)
    sim.start()
    failed, ended = sim.ask(1), sim.ask(2)
    await sim.until(lambda: all(sim.state(j) is JobState.RUNNING for j in (failed, ended)))
    how = {failed: "FAILED", ended: "STOPPED"}
    for job_id, word in how.items():
        real = sim.net.find(sim.job(job_id).attempts[-1].run_id or "")
        assert real is not None
        real.ended, real.how = 0.0, type(real.how)(word)
    await sim.until(sim.all_over, 10)
    assert sim.code(failed) == ReasonCode.BACKEND_FAILED
    assert sim.code(ended) == ReasonCode.STOPPED_OUTSIDE
    await sim.end()


@pytest.mark.virtual_time
async def test_a_run_whose_job_passed_its_limit_is_aborted_until_it_ends() -> None:
    sim = Simulation()
    sim.net.train_seconds = 10_000
    sim.net.script["abort"] = ["ignored", "away"]
    sim.start()
    job_id = sim.ask(max_runtime_seconds=30)
    await sim.until_state(job_id, JobState.FAILED, 60)
    assert sim.job(job_id).attempts[-1].reservation is ReservationState.QUARANTINED
    await sim.until(
        lambda: sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 60
    )
    assert sim.net.alive() == []
    assert sim.net.count("abort") == 3
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("word", ["report", "abort"])
async def test_a_run_of_nobody_is_counted_and_aborted_only_where_the_registry_says_so(
    word: str,
) -> None:
    sim = Simulation(net_options={"strays": word})
    sim.start()
    await sim.until(lambda: bool(sim.store.nets))
    sim.net.real.append(RealRun("by-hand", None, sim.net.now(), 10_000))
    await sim.until(
        lambda: (
            sim.store.nets["net-1"].strays == ("by-hand",)
            or not sim.net.real[0].alive(sim.net.now())
        ),
        60,
    )
    await asyncio.sleep(30)
    assert sim.net.real[0].alive(sim.net.now()) is (word == "report")
    assert sim.store.nets["net-1"].strays == (("by-hand",) if word == "report" else ())
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", ["keyed", "named", "plain"])
async def test_a_run_being_submitted_is_never_a_stray(kind: str) -> None:
    sim = Simulation(kind, net_options={"strays": "abort"})
    sim.net.script["submit"] = ["lost_after"]
    sim.net.script["find_run"] = ["away"] * 8
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COMPLETED, 300)
    assert sim.net.count("abort") == 0
    await sim.end()


@pytest.mark.virtual_time
async def test_a_freed_run_of_ours_that_lives_again_is_aborted() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COMPLETED)
    await sim.until(lambda: sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED)
    real = sim.net.real[0]
    real.began, real.runs_for = sim.net.now(), 10_000
    await sim.until(lambda: not real.alive(sim.net.now()), 30)
    await sim.end()


@pytest.mark.virtual_time
async def test_two_instances_do_not_both_poll_a_net() -> None:
    alone = Simulation()
    alone.start()
    await asyncio.sleep(60)
    both = Simulation()
    await alone.end()
    both.start()
    both.start()
    await asyncio.sleep(60)
    assert both.net.count("runs") <= alone.net.count("runs") + 2
    both.kill(0)
    before = both.net.count("health")
    await asyncio.sleep(30)
    assert both.net.count("health") > before
    await both.end()


# --- net status -----------------------------------------------------------------------------------


@pytest.mark.virtual_time
async def test_a_net_is_claimable_only_while_adapter_and_runtime_answer() -> None:
    sim = Simulation()
    sim.net.serves = False
    sim.start()
    job_id = sim.ask()
    await asyncio.sleep(20)
    assert sim.state(job_id) is JobState.QUEUED
    assert not sim.store.nets["net-1"].answering
    assert sim.store.nets["net-1"].online == frozenset()
    sim.net.serves = True
    assert await sim.until_state(job_id, JobState.RUNNING, 10) < 5
    await sim.end()


@pytest.mark.virtual_time
async def test_the_status_record_changes_only_when_the_net_does() -> None:
    sim = Simulation()
    sim.start()
    await asyncio.sleep(60)
    assert len(sim.store.bodies["net-1"]) == 1
    told = json.loads(sim.store.bodies["net-1"][0])
    assert told["online"] is True
    assert [c["online"] for c in told["clients"]] == [True, True, True]
    sim.net.offline.add("net-1-slot-0")
    await asyncio.sleep(10)
    told = json.loads(sim.store.bodies["net-1"][-1])
    assert [c["online"] for c in told["clients"]] == [False, True, True]
    await sim.end()


@pytest.mark.virtual_time
async def test_a_net_that_left_the_registry_is_asked_no_more() -> None:
    sim = Simulation(nets=2)
    sim.start()
    await asyncio.sleep(10)
    sim.drop_net("net-2")
    await asyncio.sleep(5)
    calls = len(sim.adapters["net-2"].calls)
    await asyncio.sleep(30)
    assert len(sim.adapters["net-2"].calls) == calls
    assert sim.net.count("health") > 6
    await sim.end()


def test_a_look_that_took_long_is_as_good_as_a_quick_one() -> None:
    """An adapter that needs 20 s for an answer is asked by its poller, and by nobody beside it."""

    async def story() -> None:
        sim = Simulation("named")
        real = sim.net.clients

        async def slow() -> tuple[Client, ...]:
            await asyncio.sleep(20)
            return await real()

        vars(sim.net)["clients"] = slow
        sim.start()
        await asyncio.sleep(30)
        asked = sim.net.count("clients")
        began = sim.net.now()
        for number in range(4):
            await sim.until_state(sim.ask(number), JobState.COMPLETED, 300)
        rounds = (sim.net.now() - began) / 20
        assert sim.net.count("clients") - asked <= rounds + 1
        await sim.end()

    run(story())


@pytest.mark.virtual_time
async def test_looks_at_the_same_time_are_one() -> None:
    sim = Simulation()
    context = sim.context()
    client = await context.client("net-1")
    first, second = await asyncio.gather(
        context.net_cache.refresh(client), context.net_cache.refresh(client)
    )
    assert first is second
    assert sim.net.count("clients") == 1
    assert await context.net_cache.refresh(client) is not first


@pytest.mark.virtual_time
async def test_a_net_that_bears_few_questions_is_asked_at_its_own_pace() -> None:
    sim = Simulation(net_options={"poll_seconds": 10.0})
    sim.net.train_seconds = 200.0
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    await asyncio.sleep(20)
    asked = sim.net.count("runs")
    await asyncio.sleep(100)
    assert sim.net.count("runs") - asked <= 11
    sim.stop_job(job_id)
    asked = sim.net.count("runs")
    await sim.until_state(job_id, JobState.STOPPED)
    assert sim.net.count("runs") - asked <= 4
    await sim.end()


@pytest.mark.virtual_time
async def test_a_status_that_nobody_knows_moves_nothing_and_is_shown() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.net.says = "WARMING_UP"
    await asyncio.sleep(60)
    assert sim.state(job_id) is JobState.RUNNING
    shown = sim.store.nets["net-1"].unknown_statuses
    assert shown == ("WARMING_UP",)
    sim.net.says = None
    await sim.until_state(job_id, JobState.COMPLETED)
    await asyncio.sleep(10)
    shown = sim.store.nets["net-1"].unknown_statuses
    assert shown == ()
    await sim.end()
