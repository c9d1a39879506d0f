"""A stop wins over everything that is not over, and the run's place waits for the run's end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.domain.decision import Outcome
from service.domain.enums import JobState, ModelStatus, ReasonCode, ReservationState
from tests.unit.domain_life import COMMANDS, NET, REGISTRY, STATES, Life, life_in, without

_NOT_ALIVE = {"nothing", "rejected", "completed", "failed", "stopped"}
ALIVE = [name for name in STATES if name.split()[0] not in _NOT_ALIVE]


@pytest.mark.parametrize("state", ALIVE)
def test_nothing_is_submitted_after_a_stop(state: str) -> None:
    life = life_in(state)
    life.do(COMMANDS["stop"](life))
    before = len(life.events)
    for name in ("review", "claim", "take lease", "open", "give back", "open"):
        life.do(COMMANDS[name](life))
    later = [type(event).__name__ for event in life.events[before:]]
    assert not {"Started", "SubmissionOpened", "RetryScheduled"} & set(later)


@pytest.mark.parametrize("state", ALIVE)
def test_a_stop_ends_in_stopped_whatever_the_run_says(state: str) -> None:
    for last in ("see stopped", "see finished", "uploaded with results", "error"):
        life = life_in(state)
        life.do(COMMANDS["stop"](life))
        life.do(COMMANDS["running"](life))
        life.do(COMMANDS["know run"](life))
        life.do(COMMANDS[last](life))
        assert life.there.state is JobState.STOPPED, last
        assert life.there.model_status is ModelStatus.STOPPED
        assert life.there.reason is not None
        assert life.there.reason.code == ReasonCode.STOPPED_BY_REQUEST
        assert life.told().count("stopped") == 1


def test_before_the_request_it_waits_and_then_ends_the_job_at_once() -> None:
    life = Life()
    assert life.do(COMMANDS["stop"](life)).outcome is Outcome.PARKED
    life.run("request", "stop")
    assert life.told() == ["queued", "stop_requested", "stopped"]
    assert life.there.attempt_number == 0


def test_a_second_stop_changes_nothing() -> None:
    life = life_in("running").run("stop")
    before = life.there
    life.do(COMMANDS["stop"](life))
    assert life.there == before


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
    attempt = life_in(state).run("stop").there.attempt
    assert attempt is not None
    assert attempt.reservation is reservation


def test_a_submission_that_made_no_run_frees_the_place() -> None:
    life = life_in("stopping unsubmitted").run("nothing runs")
    assert life.there.state is JobState.STOPPED
    assert life.there.attempts[0].reservation is ReservationState.RELEASED


@pytest.mark.parametrize("word", ["nothing runs", "give back"])
def test_a_run_that_a_report_named_keeps_its_place(word: str) -> None:
    life = life_in("stopping unsubmitted").run("running", word)
    assert life.there.state is JobState.STOPPED
    assert life.there.attempts[0].reservation is ReservationState.QUARANTINED
    assert life.run("see stopped").there.attempts[0].reservation is ReservationState.RELEASED


def test_a_report_of_the_end_ends_the_job_and_the_list_frees_the_place() -> None:
    life = life_in("stopping").run("stopped outside")
    assert life.there.attempts[0].reservation is ReservationState.QUARANTINED
    assert life.run("see stopped").there.attempts[0].reservation is ReservationState.RELEASED


def test_an_abort_that_nobody_can_confirm_fails_and_keeps_the_place() -> None:
    life = life_in("stopping unsubmitted").run("fail unknown")
    assert life.there.state is JobState.FAILED
    assert life.there.attempts[0].reservation is ReservationState.QUARANTINED


def test_a_run_gone_from_the_lists_is_stopped() -> None:
    life = life_in("stopping").run("miss", "miss")
    assert life.there.state is JobState.STOPPED
    assert life.there.attempts[0].reservation is ReservationState.RELEASED


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
    life = life_in(state)
    life.registry = without(next(iter(NET.members)))
    life.run("review")
    job = life.there
    assert job.state is then
    told = job.reason or job.stop
    assert told is not None
    assert told.code == code
    life.do(COMMANDS["review"](life))
    assert life.told().count("stop_requested") <= 1


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
    life = life_in(state)
    life.registry = replace(REGISTRY, version=2, nets={})
    for _ in range(2):
        life.run("delay")
        _take_again(life)
        assert life.there.state is JobState.STOPPING
    life.pass_seconds(life.limits.net_gone_seconds)
    life.run("delay")
    assert life.there.state is JobState.FAILED
    assert life.there.reason is not None
    assert life.there.reason.code == code
    assert "left the registry" in life.there.reason.message
    assert life.there.attempts[0].reservation is ReservationState.QUARANTINED


@pytest.mark.parametrize("sign", ["delay", "see running"])
def test_a_net_that_comes_back_has_its_grace_anew(sign: str) -> None:
    life = life_in("stopping")
    gone = replace(REGISTRY, version=2, nets={})
    life.registry = gone
    life.run("delay")
    _take_again(life)
    life.pass_seconds(life.limits.net_gone_seconds)
    life.registry = REGISTRY
    life.run(sign)
    assert life.there.attempts[0].missing_since is None
    _take_again(life)
    life.registry = gone
    life.run("delay")
    assert life.there.state is JobState.STOPPING


def test_lists_after_a_nets_return_count_from_their_own_first_miss() -> None:
    life = life_in("stopping")
    life.registry = replace(REGISTRY, version=2, nets={})
    life.run("delay")
    life.pass_seconds(100)
    life.registry = REGISTRY
    life.run("miss")
    assert life.there.attempts[0].missing_since == life.now
    assert life.there.state is JobState.STOPPING


def test_a_dead_adapter_of_a_registered_net_never_ends_a_stop() -> None:
    life = life_in("stopping")
    for _ in range(50):
        life.run("delay")
        _take_again(life)
        life.pass_seconds(1_000)
    assert life.there.state is JobState.STOPPING


def _take_again(life: Life) -> None:
    if life.there.lease is None:
        life.pass_seconds(60)
        life.run("take lease")
