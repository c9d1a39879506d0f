"""A net taken out of the registry drains: what runs there is followed to its end, and nothing more starts."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.enums import JobState, ReservationState
from tests.unit.steps.sim.fake_net import S
from tests.unit.steps.sim.harness import Simulation


def _places(sim: Simulation) -> list[ReservationState]:
    return [
        a.reservation
        for job in sim.store.jobs.values()
        for a in job.attempts
        if a.reservation is not ReservationState.RELEASED
    ]


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", ["keyed", "named", "plain"])
async def test_a_run_on_a_net_that_left_is_followed_and_its_results_are_fetched(kind: str) -> None:
    sim = Simulation(kind, nets=2)
    sim.drop_net("net-2")
    sim.start()
    job_id = sim.ask(1)
    await sim.until_state(job_id, JobState.RUNNING)
    late = sim.ask(2)
    sim.drop_net("net-1")
    await sim.until_state(job_id, JobState.COMPLETED, 60)
    assert (sim.job(job_id).results is not None) == (kind == "keyed")
    await sim.until(lambda: not _places(sim))
    await asyncio.sleep(30)
    assert sim.state(late) is JobState.QUEUED
    assert sim.net.count("submit") == 1
    asked = len(sim.net.calls)
    await asyncio.sleep(100)
    assert len(sim.net.calls) == asked  # it has drained: nobody calls it any more
    await sim.end()


@pytest.mark.virtual_time
async def test_a_stop_reaches_a_run_on_a_net_that_left() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.drop_net("net-1")
    await asyncio.sleep(5)
    sim.stop_job(job_id)
    await sim.until_state(job_id, JobState.STOPPED, 30)
    assert sim.net.real[0].how is S.STOPPED
    await sim.until(lambda: not _places(sim))
    await sim.end()


@pytest.mark.virtual_time
async def test_another_process_goes_on_with_a_net_that_drains() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.drop_net("net-1")
    await asyncio.sleep(2)
    sim.kill(0)
    sim.start()
    await sim.until_state(job_id, JobState.COMPLETED, 120)
    await sim.until(lambda: not _places(sim))
    await sim.end()


@pytest.mark.virtual_time
async def test_a_net_that_comes_back_takes_jobs_again() -> None:
    sim = Simulation()
    sim.start()
    first = sim.ask(1)
    await sim.until_state(first, JobState.RUNNING)
    before = sim.registry
    sim.drop_net("net-1")
    await asyncio.sleep(5)
    sim.registry = sim.store.known = type(before)(
        sim.registry.version + 1, before.trusts, before.nets, before.projects
    )
    second = sim.ask(2)
    await sim.until(lambda: sim.all_over())
    assert sim.state(second) is JobState.COMPLETED
    await sim.end()
