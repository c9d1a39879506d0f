"""Collecting: results streamed before the job is complete, tried again without training again."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode
from service.domain.events import Completed
from service.domain.facts import JobLimits
from service.domain.observed import Health
from service.errors import Permanent, Transient
from service.steps.collect import fetch_given_up
from service.steps.options import StepOptions
from tests.unit.steps.sim.fake_net import ZIP, FakeNet
from tests.unit.steps.sim.harness import ORIGIN, Simulation


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", ["keyed", "named"])
async def test_an_adapter_without_results_completes_the_job_without_them(kind: str) -> None:
    sim = Simulation(kind)
    sim.net.results_of = None
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COMPLETED)
    assert sim.job(job_id).results is None
    (done,) = [event for _, _, event in sim.store.log if isinstance(event, Completed)]
    assert "results" in (done.note or "")
    assert sim.net.count("results") == (1 if kind == "keyed" else 0)
    await sim.end()


@pytest.mark.virtual_time
async def test_results_that_could_not_be_had_are_asked_for_again() -> None:
    sim = Simulation()
    sim.net.script["results"] = ["away"] * 2
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COMPLETED)
    assert sim.words(job_id).count("StepDeferred") == 2
    assert sim.bundles.stored[job_id, 1] == ZIP
    assert len(sim.net.real) == 1
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("limits", "within"),
    [(JobLimits(collect_tries=3), 300), (JobLimits(collect_seconds=3_600), 5_000)],
)
async def test_results_that_never_come_end_the_job(limits: JobLimits, within: float) -> None:
    options = StepOptions(idle_poll_seconds=60.0, sweep_seconds=60.0, claim_poll_seconds=5.0)
    sim = Simulation(limits=limits, options=options)
    sim.net.script["results"] = ["away"] * 500
    sim.start()
    job_id = sim.ask()
    await asyncio.sleep(within)
    assert sim.state(job_id) is JobState.FAILED
    assert sim.code(job_id) == ReasonCode.RESULTS_UPLOAD_FAILED
    assert sim.net.count("results") <= 40
    await sim.end()


@pytest.mark.virtual_time
async def test_a_net_that_is_away_for_long_costs_no_model() -> None:
    sim = Simulation(
        options=StepOptions(idle_poll_seconds=60.0, sweep_seconds=60.0, claim_poll_seconds=5.0)
    )
    sim.net.script["results"] = ["away"] * 10_000
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COLLECTING, 300)
    await asyncio.sleep(1_800)
    assert sim.code(job_id) == ReasonCode.ADAPTER_UNAVAILABLE
    sim.net.script["results"].clear()
    sim.store.do(c.CollectNow(job_id))
    assert await sim.until_state(job_id, JobState.COMPLETED) < 10
    assert len(sim.net.real) == 1
    await sim.end()


@pytest.mark.virtual_time
async def test_results_that_were_given_up_are_fetched_without_training_and_without_a_second_end() -> (
    None
):
    sim = Simulation(limits=JobLimits(collect_tries=2))
    sim.net.script["results"] = ["away"] * 2
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.FAILED)
    told = sim.words(job_id)
    results = await fetch_given_up(sim.context(), sim.job(job_id))
    assert sim.job(job_id).results == results
    assert sim.bundles.stored[job_id, 1] == ZIP
    assert set(sim.words(job_id)[len(told) :]) <= {"ResultsRecovered", "ReservationChanged"}
    assert sim.state(job_id) is JobState.FAILED
    sim.net.results_of = None
    with pytest.raises(Permanent, match="no results"):
        await fetch_given_up(sim.context(), sim.job(job_id))
    await sim.end()


@pytest.mark.virtual_time
async def test_results_that_can_not_be_stored_end_the_job_at_once() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.bundles.errors = [Permanent("too large", code="results_upload_failed")]
    await sim.until_state(job_id, JobState.FAILED, 60)
    assert sim.code(job_id) == ReasonCode.RESULTS_UPLOAD_FAILED
    assert sim.net.count("results") == 1
    await sim.end()


@pytest.mark.virtual_time
async def test_a_store_that_is_away_delays_the_results() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.bundles.errors = [Transient("S3 is unavailable")]
    await sim.until_state(job_id, JobState.COMPLETED, 60)
    assert sim.net.count("results") == 2
    await sim.end()


@pytest.mark.virtual_time
async def test_a_stop_while_collecting_wins() -> None:
    sim = Simulation()
    sim.net.script["results"] = ["away"]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COLLECTING, 60)
    sim.stop_job(job_id)
    await asyncio.sleep(60)
    assert sim.state(job_id) is JobState.STOPPED
    await sim.end()


@pytest.mark.virtual_time
async def test_a_collector_that_died_is_followed_by_another() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("results") == 1)
    sim.kill(0)
    await asyncio.sleep(1)
    sim.start()
    await sim.until_state(job_id, JobState.COMPLETED, 60)
    assert sim.words(job_id).count("Completed") == 1
    await sim.end()


class _Reporting(FakeNet):
    """Its net publishes its rounds itself."""

    @property
    def extensions(self) -> frozenset[str]:
        return super().extensions | {"reports"}


def _reporting_sim() -> Simulation:
    sim = Simulation()
    sim.adapters["net-1"] = _Reporting(sim.net.net, sim.kind, rng=sim.rng)
    return sim


def _aggregated(sim: Simulation, job_id: UUID, number: int) -> None:
    run_id = sim.job(job_id).attempts[-1].run_id
    told = c.ReportRound(
        job_id, 1, ORIGIN, run_id, event_type="ROUND_AGGREGATED", global_round=number
    )
    sim.store.do(told)


@pytest.mark.virtual_time
async def test_the_last_round_is_waited_for_before_the_end() -> None:
    """The list may show the end before our consumer has read how it came about."""

    sim = _reporting_sim()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    _aggregated(sim, job_id, 1)
    await sim.until_state(job_id, JobState.COLLECTING, 60)
    await asyncio.sleep(5)
    assert sim.state(job_id) is JobState.COLLECTING
    assert sim.net.count("results") == 0
    _aggregated(sim, job_id, 2)
    assert await sim.until_state(job_id, JobState.COMPLETED, 60) < 2
    done = sim.store.log[-1][2]
    assert getattr(done, "rounds", None) == 2
    await sim.end()


@pytest.mark.virtual_time
async def test_a_last_round_that_never_comes_delays_the_end_and_no_more() -> None:
    sim = _reporting_sim()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COLLECTING, 60)
    took = await sim.until_state(job_id, JobState.COMPLETED, 60)
    assert StepOptions().reports_seconds - 2 < took < StepOptions().reports_seconds + 5
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("what", ["begun", "unread"])
async def test_reports_that_nobody_has_read_yet_are_waited_for(what: str) -> None:
    sim = _reporting_sim()
    setattr(sim.reports, what, what == "unread")
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COLLECTING, 60)
    await asyncio.sleep(10 * StepOptions().reports_seconds)
    assert sim.state(job_id) is JobState.COLLECTING
    setattr(sim.reports, what, what == "begun")
    _aggregated(sim, job_id, 1)
    _aggregated(sim, job_id, 2)
    assert await sim.until_state(job_id, JobState.COMPLETED, 60) < 5
    assert getattr(sim.store.log[-1][2], "rounds", None) == 2
    await sim.end()


@pytest.mark.virtual_time
async def test_a_net_that_reports_nothing_is_not_waited_for() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    took = await sim.until_state(job_id, JobState.COMPLETED, 60)
    assert took < sim.net.train_seconds + 5
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", ["keyed", "named"])
async def test_collecting_asks_no_adapter_how_it_is(kind: str) -> None:
    """What it can do is known since it was last asked."""

    sim = Simulation(kind)
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)

    async def never() -> Health:
        await asyncio.sleep(10_000)
        raise AssertionError

    vars(sim.net)["health"] = never
    await asyncio.sleep(15)  # the last look is old
    took = await sim.until_state(job_id, JobState.COMPLETED, 60)
    assert took < sim.net.train_seconds - 10
    await sim.end()
