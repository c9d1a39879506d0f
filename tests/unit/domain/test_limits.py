"""Times and approvals that end a job, and that a job is never looked at too late."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.enums import JobState, ReasonCode
from service.domain.registry import Project
from tests.unit.domain.job_builder import (
    BEGIN,
    COMMANDS,
    REGISTRY,
    STATES,
    TRUSTS,
    JobBuilder,
    job_in,
    request,
    without,
)

IN_HUNDRED = BEGIN + timedelta(seconds=100)
OVER = {"rejected", "completed", "failed", "stopped"}
#: What a passed deadline makes of a job: where a run may exist, its outcome is waited for.
AT_DEADLINE = {
    "queued": JobState.FAILED,
    "queued after a give-back": JobState.FAILED,
    "preparing": JobState.FAILED,
    "submitting": JobState.SUBMITTING,
    "running pending": JobState.FAILED,
    "running": JobState.FAILED,
    "collecting": JobState.COLLECTING,
    "stopping": JobState.STOPPING,
}


def _code(builder: JobBuilder) -> str | None:
    return builder.there.reason.code if builder.there.reason else None


@pytest.mark.parametrize(("state", "then"), AT_DEADLINE.items())
def test_a_passed_deadline(state: str, then: JobState) -> None:
    builder = job_in(state, asked=request(deadline=IN_HUNDRED))
    builder.pass_seconds(200)
    builder.run("review")
    assert builder.there.state is then
    if then is JobState.FAILED:
        assert _code(builder) == ReasonCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("state", [s for s, then in AT_DEADLINE.items() if then == "failed"])
def test_a_review_before_the_deadline_keeps_it(state: str) -> None:
    """A changed registry has every unfinished job reviewed, long before it is due."""
    builder = job_in(state, asked=request(deadline=IN_HUNDRED)).run("review")
    assert builder.there.due_at is not None
    assert builder.there.due_at <= IN_HUNDRED


spans = st.one_of(st.none(), st.integers(10, 5_000))


@settings(max_examples=150, deadline=None)
@given(runtime=spans, stall=spans, deadline=spans, heard=st.booleans(), early=st.integers(3, 9))
def test_a_run_ends_at_its_due_time_and_not_before(
    runtime: int | None, stall: int | None, deadline: int | None, heard: bool, early: int
) -> None:
    more: dict[str, Any] = {"max_runtime_seconds": runtime, "max_stall_seconds": stall}
    if deadline is not None:
        more["deadline"] = BEGIN + timedelta(seconds=deadline)
    builder = job_in("running" if heard else "running pending", asked=request(**more))
    told = builder.there.due_at
    due = builder.run("review").there.due_at
    assert told is not None
    assert due is not None
    assert told <= due, "the first look would have come too late"
    if due - builder.now > timedelta(seconds=early):
        builder.now = due - timedelta(seconds=early)
        assert builder.run("review").there.state is JobState.RUNNING
        assert builder.there.due_at == due
    builder.now = due - timedelta(seconds=1)  # `do` adds the second
    assert builder.run("review").there.state is JobState.FAILED
    known = {ReasonCode.RUNTIME_EXCEEDED, ReasonCode.DEADLINE_EXCEEDED}
    known.add(ReasonCode.NO_PROGRESS if heard else ReasonCode.PENDING_EXCEEDED)
    assert _code(builder) in known


def test_of_several_passed_limits_the_first_one_is_told() -> None:
    more = {"max_runtime_seconds": 300, "max_stall_seconds": 50, "deadline": IN_HUNDRED}
    builder = job_in("running", asked=request(**more))
    builder.pass_seconds(1_000)
    assert _code(builder.run("review")) == ReasonCode.NO_PROGRESS


@pytest.mark.parametrize("state", ["preparing", "submitting", "running", "collecting"])
def test_a_project_may_let_its_runs_finish_after_a_revocation(state: str) -> None:
    builder = job_in(state)
    finish = Project("p1", frozenset(TRUSTS[1:]), on_revocation="finish")
    builder.registry = replace(REGISTRY, version=2, projects={"p1": finish})
    before = builder.there.state
    assert builder.run("review").there.state is before
    assert builder.there.stop is None


@pytest.mark.parametrize("state", ["queued after a give-back", "queued after a loss"])
def test_a_revocation_ends_a_job_that_waits_for_its_retry(state: str) -> None:
    builder = job_in(state)
    builder.registry = without(TRUSTS[0])
    assert builder.run("review").there.state is JobState.FAILED
    assert _code(builder) == ReasonCode.TRUST_NOT_APPROVED


def test_a_project_taken_off_the_list_stops_its_runs() -> None:
    builder = job_in("running")
    builder.registry = replace(REGISTRY, version=2, projects={})
    assert builder.run("review").there.state is JobState.STOPPING
    assert builder.run("see stopped").there.state is JobState.STOPPED
    assert _code(builder) == ReasonCode.APPROVAL_REVOKED


def test_a_revocation_does_not_replace_the_reason_of_an_accepted_stop() -> None:
    builder = job_in("stopping")
    builder.registry = without(TRUSTS[0])
    builder.run("review", "see stopped")
    assert _code(builder) == ReasonCode.STOPPED_BY_REQUEST


@pytest.mark.parametrize("state", [s for s in STATES if s.split()[0] in OVER])
def test_what_is_over_is_not_reviewed(state: str) -> None:
    builder = job_in(state)
    builder.registry = without(TRUSTS[0])
    builder.pass_seconds(1_000_000)
    before = builder.there
    assert builder.do(COMMANDS["review"](builder)).events == ()
    assert builder.there == before
    assert before.due_at is None
