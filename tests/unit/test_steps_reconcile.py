"""Reconciling: what the lists show, orphans, strays, lost runs, net status."""

from __future__ import annotations

import asyncio
import json

import pytest

from service.domain.enums import JobState, ReasonCode, ReservationState
from service.steps.reconcile import ReconcileStep
from tests.unit.sim.fake_net import RealRun
from tests.unit.sim.virtual_time import run
from tests.unit.sim.world import LIMITS, World


def test_a_run_the_backend_forgot_is_lost_after_its_grace_and_tried_again() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        world.net.real[0].forgotten = True
        forgotten = asyncio.get_running_loop().time()
        await world.until(lambda: "RetryScheduled" in world.words(job_id), 60)
        waited = asyncio.get_running_loop().time() - forgotten
        assert waited >= LIMITS.missing_grace_seconds
        assert world.words(job_id).count("RunMissed") >= LIMITS.missing_lists - 1
        await world.until_state(job_id, JobState.COMPLETED, 120)
        assert world.job(job_id).attempt_number == 2
        await world.end()

    run(story())


def test_a_list_that_lacks_a_run_once_changes_nothing() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        world.net.real[0].forgotten = True
        await asyncio.sleep(1.5)
        world.net.real[0].forgotten = False
        await world.until_state(job_id, JobState.COMPLETED, 60)
        assert world.job(job_id).attempt_number == 1
        await world.end()

    run(story())


def test_a_list_asked_before_the_run_was_known_judges_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        world = World()
        context = world.context("other")
        world.start(reconcile=False)
        world.store.nets.clear()
        await context.net_cache.refresh(world.net)
        step = ReconcileStep(context, "net-1")
        runs = world.net.runs

        async def slow() -> object:
            answer = await runs()
            await asyncio.sleep(5)
            return answer

        monkeypatch.setattr(world.net, "runs", slow)
        early = asyncio.create_task(step.step())
        await asyncio.sleep(0.1)
        monkeypatch.setattr(world.net, "runs", runs)
        await world.kit_look()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING, 4)
        await early
        assert "RunMissed" not in world.words(job_id)
        assert world.net.count("abort") == 0
        await world.end()

    run(story())


def test_a_run_that_failed_or_was_stopped_elsewhere_ends_its_job() -> None:
    async def story() -> None:
        world = World(capacity=2)
        world.start()
        failed, ended = world.ask(1), world.ask(2)
        await world.until(lambda: all(world.state(j) is JobState.RUNNING for j in (failed, ended)))
        how = {failed: "FAILED", ended: "STOPPED"}
        for job_id, word in how.items():
            real = world.net.find(world.job(job_id).attempts[-1].run_id or "")
            assert real is not None
            real.ended, real.how = 0.0, type(real.how)(word)
        await world.until(world.all_over, 10)
        assert world.code(failed) == ReasonCode.BACKEND_FAILED
        assert world.code(ended) == ReasonCode.STOPPED_OUTSIDE
        await world.end()

    run(story())


def test_a_run_whose_job_passed_its_limit_is_aborted_until_it_ends() -> None:
    async def story() -> None:
        world = World()
        world.net.train_seconds = 10_000
        world.net.script["abort"] = ["ignored", "away"]
        world.start()
        job_id = world.ask(max_runtime_seconds=30)
        await world.until_state(job_id, JobState.FAILED, 60)
        assert world.job(job_id).attempts[-1].reservation is ReservationState.QUARANTINED
        await world.until(
            lambda: world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 60
        )
        assert world.net.alive() == []
        assert world.net.count("abort") == 3
        await world.end()

    run(story())


@pytest.mark.parametrize("word", ["report", "abort"])
def test_a_run_of_nobody_is_counted_and_aborted_only_where_the_registry_says_so(word: str) -> None:
    async def story() -> None:
        world = World(net_options={"strays": word})
        world.start()
        await world.until(lambda: bool(world.store.nets))
        world.net.real.append(RealRun("by-hand", None, world.net.now(), 10_000))
        await world.until(
            lambda: (
                world.store.nets["net-1"].strays == ("by-hand",)
                or not world.net.real[0].alive(world.net.now())
            ),
            60,
        )
        await asyncio.sleep(30)
        assert world.net.real[0].alive(world.net.now()) is (word == "report")
        assert world.store.nets["net-1"].strays == (("by-hand",) if word == "report" else ())
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", ["keyed", "named", "plain"])
def test_a_run_being_submitted_is_never_a_stray(kind: str) -> None:
    async def story() -> None:
        world = World(kind, net_options={"strays": "abort"})
        world.net.script["submit"] = ["lost_after"]
        world.net.script["find_run"] = ["away"] * 8
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COMPLETED, 300)
        assert world.net.count("abort") == 0
        await world.end()

    run(story())


def test_a_freed_run_of_ours_that_lives_again_is_aborted() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COMPLETED)
        await world.until(
            lambda: world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED
        )
        real = world.net.real[0]
        real.began, real.runs_for = world.net.now(), 10_000
        await world.until(lambda: not real.alive(world.net.now()), 30)
        await world.end()

    run(story())


def test_two_instances_do_not_both_poll_a_net() -> None:
    async def story() -> None:
        alone = World()
        alone.start()
        await asyncio.sleep(60)
        both = World()
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

    run(story())


# --- net status -----------------------------------------------------------------------------------


def test_a_net_is_claimable_only_while_adapter_and_runtime_answer() -> None:
    async def story() -> None:
        world = World()
        world.net.serves = False
        world.start()
        job_id = world.ask()
        await asyncio.sleep(20)
        assert world.state(job_id) is JobState.QUEUED
        assert not world.store.nets["net-1"].answering
        assert world.store.nets["net-1"].online == frozenset()
        world.net.serves = True
        assert await world.until_state(job_id, JobState.RUNNING, 10) < 5
        await world.end()

    run(story())


def test_the_status_record_changes_only_when_the_net_does() -> None:
    async def story() -> None:
        world = World()
        world.start()
        await asyncio.sleep(60)
        assert len(world.store.bodies["net-1"]) == 1
        told = json.loads(world.store.bodies["net-1"][0])
        assert told["online"] is True
        assert [c["online"] for c in told["clients"]] == [True, True, True]
        world.net.offline.add("net-1-slot-0")
        await asyncio.sleep(10)
        told = json.loads(world.store.bodies["net-1"][-1])
        assert [c["online"] for c in told["clients"]] == [False, True, True]
        await world.end()

    run(story())


def test_a_net_that_left_the_registry_is_asked_no_more() -> None:
    async def story() -> None:
        world = World(nets=2)
        world.start()
        await asyncio.sleep(10)
        world.drop_net("net-2")
        await asyncio.sleep(5)
        calls = len(world.adapters["net-2"].calls)
        await asyncio.sleep(30)
        assert len(world.adapters["net-2"].calls) == calls
        assert world.net.count("health") > 6
        await world.end()

    run(story())
