"""A stop wins over everything that is not over, and the run's place waits for the run's end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.domain.decision import Outcome
from service.domain.enums import JobState, ModelStatus, ReasonCode, ReservationState
from tests.unit.domain.job_builder import (
    COMMANDS,
    NET,
    REGISTRY,
    STATES,
    JobBuilder,
    job_in,
    without,
)

_NOT_ALIVE = {"nothing", "rejected", "completed", "failed", "stopped"}
ALIVE = [name for name in STATES if name.split()[0] not in _NOT_ALIVE]


@pytest.mark.parametrize("state", ALIVE)
def test_nothing_is_submitted_after_a_stop(state: str) -> None:
    builder = job_in(state)
    builder.do(COMMANDS["stop"](builder))
    before = len(builder.events)
    for name in ("review", "claim", "take lease", "open", "give back", "open"):
        builder.do(COMMANDS[name](builder))
    later = [type(event).__name__ for event in builder.events[before:]]
    assert not {"Started", "SubmissionOpened", "RetryScheduled"} & set(later)


@pytest.mark.parametrize("state", ALIVE)
def test_a_stop_ends_in_stopped_whatever_the_run_says(state: str) -> None:
    for last in ("see stopped", "see finished", "uploaded with results", "error"):
        builder = job_in(state)
        builder.do(COMMANDS["stop"](builder))
        builder.do(COMMANDS["running"](builder))
        builder.do(COMMANDS["know run"](builder))
        builder.do(COMMANDS[last](builder))
        assert builder.there.state is JobState.STOPPED, last
        assert builder.there.model_status is ModelStatus.STOPPED
        assert builder.there.reason is not None
        assert builder.there.reason.code == ReasonCode.STOPPED_BY_REQUEST
        assert builder.published().count("stopped") == 1


def test_before_the_request_it_waits_and_then_ends_the_job_at_once() -> None:
    builder = JobBuilder()
    assert builder.do(COMMANDS["stop"](builder)).outcome is Outcome.PARKED
    builder.run("request", "stop")
    assert builder.published() == ["queued", "stop_requested", "stopped"]
    assert builder.there.attempt_number == 0


def test_a_second_stop_changes_nothing() -> None:
    builder = job_in("running").run("stop")
    before = builder.there
    builder.do(COMMANDS["stop"](builder))
    assert builder.there == before


@pytest.mark.parametrize(
    ("state", "reservation"),
    [
        ("preparing", ReservationState.RELEASED),
        ("collecting", ReservationState.QUARANTINED),
        ("collecting freed", ReservationState.RELEASED),
    ],
)
def test_where_it_ends_at_once_the_place_is_kept_unless_no_run_can_live(
    state: str, reservation: ReservationState
) -> None:
    attempt = job_in(state).run("stop").there.attempt
    assert attempt is not None
    assert attempt.reservation is reservation


def test_a_submission_that_made_no_run_frees_the_place() -> None:
    builder = job_in("stopping unsubmitted").run("nothing runs")
    assert builder.there.state is JobState.STOPPED
    assert builder.there.attempts[0].reservation is ReservationState.RELEASED


@pytest.mark.parametrize("word", ["nothing runs", "give back"])
def test_a_run_that_a_report_named_keeps_its_place(word: str) -> None:
    builder = job_in("stopping unsubmitted").run("running", word)
    assert builder.there.state is JobState.STOPPED
    assert builder.there.attempts[0].reservation is ReservationState.QUARANTINED
    assert builder.run("see stopped").there.attempts[0].reservation is ReservationState.RELEASED


def test_a_report_of_the_end_ends_the_job_and_the_list_frees_the_place() -> None:
    builder = job_in("stopping").run("stopped outside")
    assert builder.there.attempts[0].reservation is ReservationState.QUARANTINED
    assert builder.run("see stopped").there.attempts[0].reservation is ReservationState.RELEASED


def test_an_abort_that_nobody_can_confirm_fails_and_keeps_the_place() -> None:
    builder = job_in("stopping unsubmitted").run("fail unknown")
    assert builder.there.state is JobState.FAILED
    assert builder.there.attempts[0].reservation is ReservationState.QUARANTINED


def test_a_run_gone_from_the_lists_is_stopped() -> None:
    builder = job_in("stopping").run("miss", "miss")
    assert builder.there.state is JobState.STOPPED
    assert builder.there.attempts[0].reservation is ReservationState.RELEASED


@pytest.mark.parametrize(
    ("state", "then", "code"),
    [
        ("queued", JobState.FAILED, ReasonCode.TRUST_NOT_APPROVED),
        ("preparing", JobState.STOPPED, ReasonCode.APPROVAL_REVOKED),
        ("submitting", JobState.STOPPING, ReasonCode.APPROVAL_REVOKED),
        ("running", JobState.STOPPING, ReasonCode.APPROVAL_REVOKED),
    ],
)
def test_an_approval_taken_back(state: str, then: JobState, code: ReasonCode) -> None:
    builder = job_in(state)
    builder.registry = without(next(iter(NET.members)))
    builder.run("review")
    job = builder.there
    assert job.state is then
    told = job.reason or job.stop
    assert told is not None
    assert told.code == code
    builder.do(COMMANDS["review"](builder))
    assert builder.published().count("stop_requested") <= 1


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("stopping", ReasonCode.ADAPTER_UNAVAILABLE),
        ("stopping unsubmitted", ReasonCode.SUBMIT_UNKNOWN),
    ],
)
def test_a_stop_whose_net_left_the_registry_ends_after_a_grace(
    state: str, code: ReasonCode
) -> None:
    builder = job_in(state)
    builder.registry = replace(REGISTRY, version=2, nets={})
    for _ in range(2):
        builder.run("delay")
        _take_again(builder)
        assert builder.there.state is JobState.STOPPING
    builder.pass_seconds(builder.limits.net_gone_seconds)
    builder.run("delay")
    assert builder.there.state is JobState.FAILED
    assert builder.there.reason is not None
    assert builder.there.reason.code == code
    assert "left the registry" in builder.there.reason.message
    assert builder.there.attempts[0].reservation is ReservationState.QUARANTINED


@pytest.mark.parametrize("sign", ["delay", "see running"])
def test_a_net_that_comes_back_has_its_grace_anew(sign: str) -> None:
    builder = job_in("stopping")
    gone = replace(REGISTRY, version=2, nets={})
    builder.registry = gone
    builder.run("delay")
    _take_again(builder)
    builder.pass_seconds(builder.limits.net_gone_seconds)
    builder.registry = REGISTRY
    builder.run(sign)
    assert builder.there.attempts[0].missing_since is None
    _take_again(builder)
    builder.registry = gone
    builder.run("delay")
    assert builder.there.state is JobState.STOPPING


def test_lists_after_a_nets_return_count_from_their_own_first_miss() -> None:
    builder = job_in("stopping")
    builder.registry = replace(REGISTRY, version=2, nets={})
    builder.run("delay")
    builder.pass_seconds(100)
    builder.registry = REGISTRY
    builder.run("miss")
    assert builder.there.attempts[0].missing_since == builder.now
    assert builder.there.state is JobState.STOPPING


def test_a_dead_adapter_of_a_registered_net_never_ends_a_stop() -> None:
    builder = job_in("stopping")
    for _ in range(50):
        builder.run("delay")
        _take_again(builder)
        builder.pass_seconds(1_000)
    assert builder.there.state is JobState.STOPPING


def _take_again(builder: JobBuilder) -> None:
    if builder.there.lease is None:
        builder.pass_seconds(60)
        builder.run("take lease")
