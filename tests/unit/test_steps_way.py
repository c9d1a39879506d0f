"""A job's way through all steps: fast when all is well, isolated from others, ended cleanly."""

from __future__ import annotations

import asyncio

from service.domain.enums import JobState, ModelStatus, ReservationState
from tests.unit.sim.virtual_time import run
from tests.unit.sim.world import World


def test_a_job_goes_all_the_way_and_gives_its_place_back() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COMPLETED)
        words = world.words(job_id)
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
        job = world.job(job_id)
        assert job.results is not None
        assert world.bundles.stored[job_id, 1] == b"zip"
        assert job.attempt is not None
        assert job.attempt.reservation is ReservationState.RELEASED
        await world.end()

    run(story())


def test_submit_follows_the_request_within_a_quarter_second() -> None:
    async def story() -> None:
        world = World(capacity=100)
        supervisor = world.start()
        await world.until(
            lambda: world.store.nets["net-1"].answering if world.store.nets else False
        )
        await asyncio.sleep(3.3)
        loop = asyncio.get_running_loop()
        asked = loop.time()
        job_id = world.ask()
        supervisor.context.wakeups.claim.set()
        await world.until_state(job_id, JobState.RUNNING, 5)
        submitted = next(at for at, call, _ in world.net.calls if call == "submit")
        assert submitted - asked < 0.25
        await world.end()

    run(story())


def test_a_burst_is_claimed_without_waiting_for_the_clock() -> None:
    async def story() -> None:
        world = World(capacity=20)
        supervisor = world.start()
        await world.until(lambda: bool(world.store.nets))
        await asyncio.sleep(2.0)
        jobs = [world.ask(n) for n in range(10)]
        supervisor.context.wakeups.claim.set()
        took = await world.until(lambda: world.net.count("upload") == 10, 5)
        assert took < 0.5
        await world.until(lambda: all(world.state(j) is JobState.COMPLETED for j in jobs))
        await world.end()

    run(story())


def test_one_dead_net_delays_nobody() -> None:
    async def story() -> None:
        world = World(nets=2)
        world.net.down = True
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING, 10)
        assert world.job(job_id).attempts[-1].net == "net-2"
        assert not world.store.nets["net-1"].answering
        await world.end()

    run(story())


def test_results_named_in_a_report_complete_the_job_and_the_list_frees_its_place() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        await asyncio.sleep(5)
        world.report(job_id, ModelStatus.RESULTS_UPLOADED)
        await world.until_state(job_id, JobState.COMPLETED, 10)
        assert world.job(job_id).attempts[-1].reservation is not ReservationState.RELEASED
        await world.until(
            lambda: world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 60
        )
        await world.end()

    run(story())


def test_ending_gives_the_nets_leases_back_and_leaves_no_task() -> None:
    async def story() -> None:
        world = World()
        world.start()
        world.ask()
        await asyncio.sleep(5)
        before = asyncio.get_running_loop().time()
        await world.end()
        assert asyncio.get_running_loop().time() - before <= world.options.grace_seconds + 1
        assert world.store.leases["poll:net-1"][1] <= world.store.time()
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        assert left == []

    run(story())


def test_a_job_put_down_at_the_end_is_rescued_by_the_next_process() -> None:
    async def story() -> None:
        world = World()
        world.bundles.seconds = 60.0
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.PREPARING)
        await world.end()
        world.bundles.seconds = 0.05
        world.supervisors.clear()
        world.start()
        await world.until_state(job_id, JobState.COMPLETED)
        assert world.job(job_id).attempts[-1].leases == 2
        await world.end()

    run(story())
