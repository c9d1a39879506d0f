"""Collecting: results streamed before the job is complete, tried again without training again."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode
from service.domain.facts import JobLimits
from service.errors import Permanent, Transient
from service.steps.options import StepOptions
from tests.unit.sim.fake_net import FakeNet
from tests.unit.sim.virtual_time import run
from tests.unit.sim.world import ORIGIN, World


@pytest.mark.parametrize("kind", ["keyed", "named"])
def test_an_adapter_without_results_completes_the_job_without_them(kind: str) -> None:
    async def story() -> None:
        world = World(kind)
        world.net.results_of = None
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COMPLETED)
        assert world.job(job_id).results is None
        assert world.net.count("results") == (1 if kind == "keyed" else 0)
        await world.end()

    run(story())


def test_results_that_could_not_be_had_are_asked_for_again() -> None:
    async def story() -> None:
        world = World()
        world.net.script["results"] = ["away"] * 2
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COMPLETED)
        assert world.words(job_id).count("StepDeferred") == 2
        assert world.bundles.stored[job_id, 1] == b"zip"
        assert len(world.net.real) == 1
        await world.end()

    run(story())


def test_results_that_never_come_end_the_job() -> None:
    async def story() -> None:
        world = World(limits=JobLimits(collect_tries=3))
        world.net.script["results"] = ["away"] * 50
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.FAILED, 300)
        assert world.code(job_id) == ReasonCode.RESULTS_UPLOAD_FAILED
        await world.end()

    run(story())


def test_results_that_can_not_be_stored_end_the_job_at_once() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        world.bundles.errors = [Permanent("too large", code="results_upload_failed")]
        await world.until_state(job_id, JobState.FAILED, 60)
        assert world.code(job_id) == ReasonCode.RESULTS_UPLOAD_FAILED
        assert world.net.count("results") == 1
        await world.end()

    run(story())


def test_a_store_that_is_away_delays_the_results() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        world.bundles.errors = [Transient("S3 is unavailable")]
        await world.until_state(job_id, JobState.COMPLETED, 60)
        assert world.net.count("results") == 2
        await world.end()

    run(story())


def test_a_stop_while_collecting_wins() -> None:
    async def story() -> None:
        world = World()
        world.net.script["results"] = ["away"]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COLLECTING, 60)
        world.stop_job(job_id)
        await asyncio.sleep(60)
        assert world.state(job_id) is JobState.STOPPED
        await world.end()

    run(story())


def test_a_collector_that_died_is_followed_by_another() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("results") == 1)
        world.kill(0)
        await asyncio.sleep(1)
        world.start()
        await world.until_state(job_id, JobState.COMPLETED, 60)
        assert world.words(job_id).count("Completed") == 1
        await world.end()

    run(story())


class _Reporting(FakeNet):
    """Its net publishes its rounds itself."""

    @property
    def extensions(self) -> frozenset[str]:
        return super().extensions | {"reports"}


def _reporting_world() -> World:
    world = World()
    world.adapters["net-1"] = _Reporting(world.net.net, world.kind, rng=world.rng)
    return world


def _aggregated(world: World, job_id: UUID, number: int) -> None:
    run_id = world.job(job_id).attempts[-1].run_id
    told = c.ReportRound(
        job_id, 1, ORIGIN, run_id, event_type="ROUND_AGGREGATED", global_round=number
    )
    world.store.do(told)


def test_the_last_round_is_waited_for_before_the_end() -> None:
    """The list may show the end before our consumer has read how it came about."""

    async def story() -> None:
        world = _reporting_world()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        _aggregated(world, job_id, 1)
        await world.until_state(job_id, JobState.COLLECTING, 60)
        await asyncio.sleep(5)
        assert world.state(job_id) is JobState.COLLECTING
        assert world.net.count("results") == 0
        _aggregated(world, job_id, 2)
        assert await world.until_state(job_id, JobState.COMPLETED, 60) < 2
        done = world.store.log[-1][2]
        assert getattr(done, "rounds", None) == 2
        await world.end()

    run(story())


def test_a_last_round_that_never_comes_delays_the_end_and_no_more() -> None:
    async def story() -> None:
        world = _reporting_world()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COLLECTING, 60)
        took = await world.until_state(job_id, JobState.COMPLETED, 60)
        assert StepOptions().reports_seconds - 2 < took < StepOptions().reports_seconds + 5
        await world.end()

    run(story())


@pytest.mark.parametrize("what", ["begun", "unread"])
def test_reports_that_nobody_has_read_yet_are_waited_for(what: str) -> None:
    async def story() -> None:
        world = _reporting_world()
        setattr(world.reports, what, what == "unread")
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COLLECTING, 60)
        await asyncio.sleep(10 * StepOptions().reports_seconds)
        assert world.state(job_id) is JobState.COLLECTING
        setattr(world.reports, what, what == "begun")
        _aggregated(world, job_id, 1)
        _aggregated(world, job_id, 2)
        assert await world.until_state(job_id, JobState.COMPLETED, 60) < 5
        assert getattr(world.store.log[-1][2], "rounds", None) == 2
        await world.end()

    run(story())


def test_a_net_that_reports_nothing_is_not_waited_for() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING)
        took = await world.until_state(job_id, JobState.COMPLETED, 60)
        assert took < world.net.train_seconds + 5
        await world.end()

    run(story())
