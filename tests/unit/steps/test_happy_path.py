"""A job's way through all steps: fast when all is well, isolated from others, ended cleanly."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.enums import JobState, ModelStatus, ReservationState
from tests.unit.steps.sim.fake_net import ZIP
from tests.unit.steps.sim.harness import Simulation


@pytest.mark.virtual_time
async def test_a_job_goes_all_the_way_and_gives_its_place_back() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COMPLETED)
    words = sim.words(job_id)
    assert [w for w in words if w != "ReservationChanged"] == [
        "Queued",
        "Started",
        "SubmissionOpened",
        "Submitted",
        "Running",
        "ResultsPending",
        "LeaseTaken",
        "Completed",
    ]
    job = sim.job(job_id)
    assert job.results is not None
    assert sim.bundles.stored[job_id, 1] == ZIP
    assert job.attempt is not None
    assert job.attempt.reservation is ReservationState.RELEASED
    await sim.end()


@pytest.mark.virtual_time
async def test_submit_follows_the_request_within_a_quarter_second() -> None:
    sim = Simulation(capacity=100)
    supervisor = sim.start()
    await sim.until(lambda: sim.store.nets["net-1"].answering if sim.store.nets else False)
    await asyncio.sleep(3.3)
    loop = asyncio.get_running_loop()
    asked = loop.time()
    job_id = sim.ask()
    supervisor.context.wakeups.claim.set()
    await sim.until_state(job_id, JobState.RUNNING, 5)
    submitted = next(at for at, call, _ in sim.net.calls if call == "submit")
    assert submitted - asked < 0.25
    await sim.end()


@pytest.mark.virtual_time
async def test_a_burst_is_claimed_without_waiting_for_the_clock() -> None:
    sim = Simulation(capacity=20)
    supervisor = sim.start()
    await sim.until(lambda: bool(sim.store.nets))
    await asyncio.sleep(2.0)
    jobs = [sim.ask(n) for n in range(10)]
    supervisor.context.wakeups.claim.set()
    took = await sim.until(lambda: len(sim.bundles.staged) == 10, 5)
    assert took < 0.5
    await sim.until(lambda: all(sim.state(j) is JobState.COMPLETED for j in jobs))
    await sim.end()


@pytest.mark.virtual_time
async def test_one_dead_net_delays_nobody() -> None:
    sim = Simulation(nets=2)
    sim.net.down = True
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING, 10)
    assert sim.job(job_id).attempts[-1].net == "net-2"
    assert not sim.store.nets["net-1"].answering
    await sim.end()


@pytest.mark.virtual_time
async def test_results_named_in_a_report_complete_the_job_and_the_list_frees_its_place() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    await asyncio.sleep(5)
    sim.report(job_id, ModelStatus.RESULTS_UPLOADED)
    await sim.until_state(job_id, JobState.COMPLETED, 10)
    assert sim.job(job_id).attempts[-1].reservation is not ReservationState.RELEASED
    await sim.until(
        lambda: sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 60
    )
    await sim.end()


@pytest.mark.virtual_time
async def test_ending_gives_the_nets_leases_back_and_leaves_no_task() -> None:
    sim = Simulation()
    sim.start()
    sim.ask()
    await asyncio.sleep(5)
    before = asyncio.get_running_loop().time()
    await sim.end()
    assert asyncio.get_running_loop().time() - before <= sim.options.grace_seconds + 1
    assert sim.store.leases["poll:net-1"][1] <= sim.store.time()
    left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert left == []


@pytest.mark.virtual_time
async def test_a_job_put_down_at_the_end_is_rescued_by_the_next_process() -> None:
    sim = Simulation()
    sim.bundles.seconds = 60.0
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.PREPARING)
    await sim.end()
    sim.bundles.seconds = 0.05
    sim.supervisors.clear()
    sim.start()
    await sim.until_state(job_id, JobState.COMPLETED)
    assert sim.job(job_id).attempts[-1].leases == 2
    await sim.end()
