"""Stopping: until the list says so, from every state, quickly where the net is quick."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.enums import JobState, ReasonCode, ReservationState
from service.steps.options import StepOptions
from tests.unit.steps.sim.harness import LIMITS, Simulation


@pytest.mark.virtual_time
async def test_a_running_job_is_stopped_within_two_seconds_on_a_quick_net() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    await asyncio.sleep(3)
    sim.stop_job(job_id)
    assert await sim.until_state(job_id, JobState.STOPPED) < 2.0
    assert sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED
    assert sim.net.alive() == []
    await sim.end()


@pytest.mark.virtual_time
async def test_an_aborts_200_proves_nothing() -> None:
    sim = Simulation()
    sim.net.script["abort"] = ["ignored", "ignored"]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.stop_job(job_id)
    await asyncio.sleep(4)
    assert sim.state(job_id) is JobState.STOPPING
    await sim.until_state(job_id, JobState.STOPPED, 60)
    assert sim.net.count("abort") >= 3
    assert sim.net.alive() == []
    await sim.end()


@pytest.mark.virtual_time
async def test_a_dead_adapter_delays_a_stop_and_does_not_end_it() -> None:
    sim = Simulation()
    sim.net.train_seconds = 10_000
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.net.down = True
    sim.stop_job(job_id)
    await asyncio.sleep(120)
    assert sim.state(job_id) is JobState.STOPPING
    sim.net.down = False
    await sim.until_state(job_id, JobState.STOPPED, 60)
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", ["keyed", "named", "plain"])
async def test_a_stop_during_the_call_aborts_the_run_that_it_makes(kind: str) -> None:
    sim = Simulation(kind)
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") == 1)
    sim.stop_job(job_id)
    assert sim.state(job_id) is JobState.STOPPING
    await sim.until_state(job_id, JobState.STOPPED, 10)
    assert len(sim.net.real) == 1
    assert sim.net.alive() == []
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", ["keyed", "named", "plain"])
@pytest.mark.parametrize("lost", ["late", "lost_before", "lost_after"])
async def test_a_stop_while_the_outcome_is_unknown_leaves_no_run(kind: str, lost: str) -> None:
    sim = Simulation(kind)
    sim.net.script["submit"] = [lost]
    sim.net.train_seconds = 10_000
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") == 1)
    sim.stop_job(job_id)
    await sim.until_state(job_id, JobState.STOPPED, 120)
    assert sim.net.count("submit") == 1
    await asyncio.sleep(60)
    assert sim.net.alive() == []
    assert sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", ["keyed", "named"])
async def test_a_stop_whose_submitter_died_is_finished_by_another(kind: str) -> None:
    sim = Simulation(kind)
    sim.net.train_seconds = 10_000
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") == 1)
    sim.kill(0)
    await asyncio.sleep(1)
    sim.start()
    sim.stop_job(job_id)
    await sim.until_state(job_id, JobState.STOPPED, 120)
    await asyncio.sleep(30)
    assert sim.net.alive() == []
    await sim.end()


@pytest.mark.virtual_time
async def test_a_stop_while_preparing_sends_nothing() -> None:
    sim = Simulation()
    sim.bundles.seconds = 2.0
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.PREPARING)
    sim.stop_job(job_id)
    assert sim.state(job_id) is JobState.STOPPED
    await asyncio.sleep(10)
    assert sim.net.count("submit") == 0
    await sim.end()


@pytest.mark.virtual_time
async def test_a_stop_between_two_calls_that_were_not_taken_ends_at_once() -> None:
    sim = Simulation(options=StepOptions(call_tries=50))
    sim.net.script["submit"] = ["busy"] * 50
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") >= 2)
    sim.stop_job(job_id)
    await sim.until_state(job_id, JobState.STOPPED, 10)
    assert sim.net.real == []
    await sim.end()


@pytest.mark.virtual_time
async def test_a_stop_that_can_not_be_resolved_ends_as_unknown_and_keeps_the_place() -> None:
    sim = Simulation(options=StepOptions(submit_unknown_seconds=30))
    sim.net.script["submit"] = ["lost_after"]
    sim.net.train_seconds = 10_000
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") == 1)
    sim.net.down = True
    sim.stop_job(job_id)
    await sim.until_state(job_id, JobState.FAILED, 120)
    job = sim.job(job_id)
    assert sim.code(job_id) == ReasonCode.SUBMIT_UNKNOWN
    assert job.attempts[-1].reservation is ReservationState.QUARANTINED
    sim.net.down = False
    await sim.until(
        lambda: sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 200
    )
    assert sim.net.alive() == []
    await sim.end()


@pytest.mark.virtual_time
async def test_a_run_that_starts_after_it_was_shown_as_aborted_is_aborted_again() -> None:
    sim = Simulation(kind="named")
    sim.net.revives = True
    sim.net.train_seconds = 10_000
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: bool(sim.net.real))
    sim.net.real[0].waits = 3.0
    sim.stop_job(job_id)
    await sim.until_state(job_id, JobState.STOPPED, 20)
    assert sim.job(job_id).attempts[-1].reservation is ReservationState.QUARANTINED
    await sim.until(lambda: bool(sim.net.alive()), 20)
    await sim.until(lambda: not sim.net.alive(), 20)
    await sim.until(
        lambda: sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 120
    )
    assert sim.state(job_id) is JobState.STOPPED
    await sim.end()


@pytest.mark.virtual_time
async def test_a_stop_whose_net_left_the_registry_ends_and_keeps_the_place() -> None:
    sim = Simulation()
    sim.net.train_seconds = 10_000
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.drop_net("net-1")
    sim.adapters.pop("net-1")
    sim.stop_job(job_id)
    await asyncio.sleep(LIMITS.net_gone_seconds - 10)
    assert sim.state(job_id) is JobState.STOPPING
    await sim.until_state(job_id, JobState.FAILED, 60)
    assert sim.code(job_id) == ReasonCode.ADAPTER_UNAVAILABLE
    assert sim.job(job_id).attempts[-1].reservation is ReservationState.QUARANTINED
    await sim.end()
