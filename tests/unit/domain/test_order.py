"""What is heard from a run and what is seen of it may come in any order, and again.

Reports come from inside the run, observations from its adapter's list, evidence of its id from a call's
late answer: none waits for another, so their order must not decide where the job comes out.
"""

from __future__ import annotations

from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import commands as c
from service.domain.enums import JobState, ReservationState
from service.domain.evolve import MAX_METRICS, newest_metrics
from service.domain.job import Job
from service.domain.values import Metric
from tests.unit.domain.job_builder import COMMANDS, JOB, ORIGIN, RUN, JobBuilder, Make, job_in

SLOTS: Final = ("Trust_1", "Trust_2", "Trust_3")


def _round(word: str, number: int, slot: str | None = None) -> Make:
    return lambda builder: c.ReportRound(
        JOB, 1, ORIGIN, RUN, slot, event_type=word, global_round=number
    )


def _loss(number: int, slot: str) -> Make:
    metric = Metric("loss", 1 / number, number)
    return lambda builder: c.ReportMetrics(JOB, 1, ORIGIN, RUN, slot, (metric,))


#: What two rounds report, and what lists show meanwhile; none of it ends the run.
MIDDLE: Final[list[Make]] = [
    *(COMMANDS[name] for name in ("prepared", "running", "no run id", "log", "odd event")),
    *(COMMANDS[name] for name in ("see pending", "see running", "see unknown", "know run")),
    *(_round(word, n) for word in ("ROUND_STARTED", "ROUND_AGGREGATED") for n in (1, 2)),
    *(_round("CLIENT_RESULT_RECEIVED", n, slot) for slot in SLOTS[:2] for n in (1, 2)),
    *(_round("CLIENT_FAILED", n, SLOTS[2]) for n in (1, 2)),
    *(_loss(n, slot) for slot in SLOTS for n in (1, 2)),
]
#: {where the run's end leads: what says so, from inside and from outside}.
ENDS: Final = {
    JobState.COMPLETED: ("uploaded with results", "see finished"),
    JobState.COLLECTING: ("uploaded", "see finished"),
    JobState.FAILED: ("error", "see failed"),
    JobState.STOPPED: ("stop", "see stopped"),
}


@st.composite
def orders(draw: st.DrawFn, first: tuple[Make, ...] = ()) -> list[Make]:
    """All of MIDDLE and `first`, some of it again, in any order."""
    whole = [*MIDDLE, *first]
    again = draw(st.lists(st.sampled_from(whole), max_size=12))
    return draw(st.permutations([*whole, *again]))


def _live(state: str, told: list[Make]) -> JobBuilder:
    builder = job_in(state)
    for make in told:
        builder.do(make(builder))
    assert builder.there.sequence == len(builder.published())
    return builder


def _far(job: Job) -> tuple[object, ...]:
    """How far the job came, but for when it was heard of last."""
    p = job.progress
    return job.state, job.model_status, p.round, p.aggregated, p.total, p.sites, p.metrics


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["running pending", "running"]), orders())
def test_any_order_of_reports_and_observations_comes_as_far(state: str, told: list[Make]) -> None:
    builder = _live(state, told)
    assert _far(builder.there) == _far(_live("running", MIDDLE).there)
    assert builder.there.progress.aggregated == 2
    assert builder.published().count("running") == 1


@settings(max_examples=60, deadline=None)
@given(orders((COMMANDS["uploaded"],)))
def test_what_comes_late_still_counts_while_results_are_fetched(told: list[Make]) -> None:
    far = _far(_live("running", told).there)
    assert far[0] is JobState.COLLECTING
    assert far[2:] == _far(_live("running", MIDDLE).there)[2:]


@pytest.mark.parametrize("state", ENDS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_of_both_words_of_the_end_comes_to_it(
    state: JobState, data: st.DataObject
) -> None:
    inside, outside = (COMMANDS[name] for name in ENDS[state])
    if state is JobState.STOPPED:  # seen stopped before anybody asked would be a stop from outside
        builder = _live("running", [inside, *data.draw(orders((outside,)))])
    else:
        builder = _live("running", data.draw(orders((inside, outside))))
    assert builder.there.state is state
    assert sum(builder.published().count(word) for word in ("completed", "failed", "stopped")) == (
        state is not JobState.COLLECTING
    )
    builder.do(outside(builder))
    assert builder.there.attempts[0].reservation is ReservationState.RELEASED


labels = st.integers(0, MAX_METRICS + 20).map(lambda n: f"m{n:04}")
numbers = st.lists(st.tuples(labels, st.integers(1, 9)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(numbers, st.randoms())
def test_the_metrics_that_a_job_keeps_do_not_depend_on_their_order(
    found: list[tuple[str, int]], rng: Random
) -> None:
    full = tuple(Metric(f"m{n:04}", 1.0, 1) for n in range(0, MAX_METRICS + 20, 2))
    full += tuple(Metric(f"z{n:04}", 1.0, 1) for n in range(MAX_METRICS - len(full)))
    mixed = list(found)
    rng.shuffle(mixed)
    kept: list[tuple[Metric, ...]] = []
    for order in (found, mixed):
        metrics = newest_metrics((), full)
        for label, number in order:
            metrics = newest_metrics(metrics, (Metric(label, float(number), number),))
        kept.append(metrics)
    assert kept[0] == kept[1]
    assert len(kept[0]) == MAX_METRICS


def test_a_run_that_becomes_known_after_its_net_was_given_back_is_not_forgotten() -> None:
    """A late answer names the run: the try was no free one, and its place stays taken."""
    builder = job_in("submitting").run("give back", "know run")
    builder.pass_seconds(1_000)
    builder.run("review", "claim")
    found = [(a.number, a.run_id, a.reservation) for a in builder.there.attempts]
    assert found == [(1, RUN, ReservationState.QUARANTINED), (2, None, ReservationState.HELD)]
    late = c.ReportMetrics(JOB, 1, ORIGIN, RUN, SLOTS[0], (Metric("loss", 0.5, 1),))
    builder.run("open")
    assert builder.do(late).events == ()
    seen = c.ObserveRun(JOB, 1, RUN, None, None, builder.now)
    assert builder.do(seen).reason is not None
    assert builder.there.state is JobState.SUBMITTING
