"""Stopping: until the list says so, from every state, quickly where the net is quick."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.enums import JobState, ReasonCode, ReservationState
from service.steps.options import StepOptions
from tests.unit.sim.virtual_time import run
from tests.unit.sim.world import LIMITS, World


def test_a_running_job_is_stopped_within_two_seconds_on_a_quick_net() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        await asyncio.sleep(3)
        world.stop_job(job_id)
        assert await world.until_state(job_id, JobState.STOPPED) < 2.0
        assert world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED
        assert world.net.alive() == []
        await world.end()

    run(story())


def test_an_aborts_200_proves_nothing() -> None:
    async def story() -> None:
        world = World()
        world.net.script["abort"] = ["ignored", "ignored"]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        world.stop_job(job_id)
        await asyncio.sleep(4)
        assert world.state(job_id) is JobState.STOPPING
        await world.until_state(job_id, JobState.STOPPED, 60)
        assert world.net.count("abort") >= 3
        assert world.net.alive() == []
        await world.end()

    run(story())


def test_a_dead_adapter_delays_a_stop_and_does_not_end_it() -> None:
    async def story() -> None:
        world = World()
        world.net.train_seconds = 10_000
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        world.net.down = True
        world.stop_job(job_id)
        await asyncio.sleep(120)
        assert world.state(job_id) is JobState.STOPPING
        world.net.down = False
        await world.until_state(job_id, JobState.STOPPED, 60)
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", ["keyed", "named", "plain"])
def test_a_stop_during_the_call_aborts_the_run_that_it_makes(kind: str) -> None:
    async def story() -> None:
        world = World(kind)
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") == 1)
        world.stop_job(job_id)
        assert world.state(job_id) is JobState.STOPPING
        await world.until_state(job_id, JobState.STOPPED, 10)
        assert len(world.net.real) == 1
        assert world.net.alive() == []
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", ["keyed", "named", "plain"])
@pytest.mark.parametrize("lost", ["late", "lost_before", "lost_after"])
def test_a_stop_while_the_outcome_is_unknown_leaves_no_run(kind: str, lost: str) -> None:
    async def story() -> None:
        world = World(kind)
        world.net.script["submit"] = [lost]
        world.net.train_seconds = 10_000
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") == 1)
        world.stop_job(job_id)
        await world.until_state(job_id, JobState.STOPPED, 120)
        assert world.net.count("submit") == 1
        await asyncio.sleep(60)
        assert world.net.alive() == []
        assert world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", ["keyed", "named"])
def test_a_stop_whose_submitter_died_is_finished_by_another(kind: str) -> None:
    async def story() -> None:
        world = World(kind)
        world.net.train_seconds = 10_000
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") == 1)
        world.kill(0)
        await asyncio.sleep(1)
        world.start()
        world.stop_job(job_id)
        await world.until_state(job_id, JobState.STOPPED, 120)
        await asyncio.sleep(30)
        assert world.net.alive() == []
        await world.end()

    run(story())


def test_a_stop_while_preparing_sends_nothing() -> None:
    async def story() -> None:
        world = World()
        world.bundles.seconds = 2.0
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.PREPARING)
        world.stop_job(job_id)
        assert world.state(job_id) is JobState.STOPPED
        await asyncio.sleep(10)
        assert world.net.count("submit") == 0
        await world.end()

    run(story())


def test_a_stop_between_two_calls_that_were_not_taken_ends_at_once() -> None:
    async def story() -> None:
        world = World(options=StepOptions(call_tries=50))
        world.net.script["submit"] = ["busy"] * 50
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") >= 2)
        world.stop_job(job_id)
        await world.until_state(job_id, JobState.STOPPED, 10)
        assert world.net.real == []
        await world.end()

    run(story())


def test_a_stop_that_can_not_be_resolved_ends_as_unknown_and_keeps_the_place() -> None:
    async def story() -> None:
        world = World(options=StepOptions(submit_unknown_seconds=30))
        world.net.script["submit"] = ["lost_after"]
        world.net.train_seconds = 10_000
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") == 1)
        world.net.down = True
        world.stop_job(job_id)
        await world.until_state(job_id, JobState.FAILED, 120)
        job = world.job(job_id)
        assert world.code(job_id) == ReasonCode.SUBMIT_UNKNOWN
        assert job.attempts[-1].reservation is ReservationState.QUARANTINED
        world.net.down = False
        await world.until(
            lambda: world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 200
        )
        assert world.net.alive() == []
        await world.end()

    run(story())


def test_a_run_that_starts_after_it_was_shown_as_aborted_is_aborted_again() -> None:
    async def story() -> None:
        world = World(kind="named")
        world.net.revives = True
        world.net.train_seconds = 10_000
        world.start()
        job_id = world.ask()
        await world.until(lambda: bool(world.net.real))
        world.net.real[0].waits = 3.0
        world.stop_job(job_id)
        await world.until_state(job_id, JobState.STOPPED, 20)
        assert world.job(job_id).attempts[-1].reservation is ReservationState.QUARANTINED
        await world.until(lambda: bool(world.net.alive()), 20)
        await world.until(lambda: not world.net.alive(), 20)
        await world.until(
            lambda: world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 120
        )
        assert world.state(job_id) is JobState.STOPPED
        await world.end()

    run(story())


def test_a_stop_whose_net_left_the_registry_ends_and_keeps_the_place() -> None:
    async def story() -> None:
        world = World()
        world.net.train_seconds = 10_000
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        world.drop_net("net-1")
        world.adapters.pop("net-1")
        world.stop_job(job_id)
        await asyncio.sleep(LIMITS.net_gone_seconds - 10)
        assert world.state(job_id) is JobState.STOPPING
        await world.until_state(job_id, JobState.FAILED, 60)
        assert world.code(job_id) == ReasonCode.ADAPTER_UNAVAILABLE
        assert world.job(job_id).attempts[-1].reservation is ReservationState.QUARANTINED
        await world.end()

    run(story())
