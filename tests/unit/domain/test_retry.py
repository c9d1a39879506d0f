"""What a failed try costs: an attempt, a delay, a place on the net."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode, ReservationState
from service.domain.retry import delay_seconds
from service.domain.values import Reason
from tests.unit.domain.job_builder import COMMANDS, JOB, JobBuilder, job_in, request


def _wait_and_claim(builder: JobBuilder) -> None:
    builder.pass_seconds(1_000)
    builder.run("review", "claim")


def test_giving_a_net_back_burns_no_attempt() -> None:
    builder = job_in("queued after a give-back")
    _wait_and_claim(builder)
    assert [a.number for a in builder.there.attempts] == [1]
    assert builder.there.attempts[0].leases == 2  # no path id of the first try comes again
    builder.run("open", "know run", "uploaded with results")
    assert builder.there.state is JobState.COMPLETED


def test_a_lost_run_costs_an_attempt() -> None:
    builder = job_in("queued after a loss")
    assert builder.there.reason is not None
    assert builder.there.reason.code == ReasonCode.BACKEND_LOST
    _wait_and_claim(builder)
    assert [a.number for a in builder.there.attempts] == [1, 2]
    assert builder.there.progress.round == 0


def test_attempts_end() -> None:
    builder = job_in("queued", asked=request(max_attempts=2))
    builder.run("claim", "fail passing")
    _wait_and_claim(builder)
    builder.run("fail passing")
    assert builder.there.state is JobState.FAILED
    assert builder.there.reason is not None
    assert builder.there.reason.code == ReasonCode.ADAPTER_UNAVAILABLE


def test_a_permanent_reason_ends_the_job_at_its_first_attempt() -> None:
    assert job_in("submitting").run("fail").there.state is JobState.FAILED


def test_it_is_not_claimed_before_its_delay_is_over() -> None:
    builder = job_in("queued after a give-back")
    assert builder.there.next_try_at is not None
    assert builder.there.due_at == builder.there.next_try_at
    assert builder.do(COMMANDS["claim"](builder)).events == ()
    builder.run("review")
    assert not builder.there.eligible
    builder.now = builder.there.next_try_at
    builder.run("review", "claim")


def test_delays_grow_with_give_backs_and_start_anew_with_a_submission() -> None:
    builder = job_in("preparing")
    delays = []
    for _ in range(4):
        builder.run("give back")
        assert builder.there.next_try_at is not None
        delays.append((builder.there.next_try_at - builder.now).total_seconds())
        _wait_and_claim(builder)
    assert delays == sorted(delays)
    assert delays[3] > 5 * delays[0]
    assert builder.run("open").there.tries == 0


def test_a_deadline_during_a_delay_ends_the_job_in_time() -> None:
    builder = JobBuilder()
    builder.asked = request(deadline=builder.now + timedelta(seconds=5))
    builder.run("request", "claim", "give back")
    assert builder.there.due_at == builder.asked.deadline
    builder.pass_seconds(3)
    builder.run("review")
    assert builder.there.reason is not None
    assert builder.there.reason.code == ReasonCode.DEADLINE_EXCEEDED


def test_the_adapter_may_name_a_longer_delay() -> None:
    builder = job_in("preparing")
    why = Reason(ReasonCode.ADAPTER_UNAVAILABLE, "busy")
    builder.do(c.ReleaseNet(JOB, builder.attempt, builder.token, why, retry_after=120.0))
    assert builder.there.next_try_at is not None
    assert builder.there.next_try_at - builder.now >= timedelta(seconds=120)


@pytest.mark.parametrize("tries", [0, 1, 5, 40])
def test_delays_are_bounded_and_repeatable(tries: int) -> None:
    job = uuid4()
    delay = delay_seconds(job, tries, 5.0, 300.0)
    assert delay == delay_seconds(job, tries, 5.0, 300.0)
    assert min(300.0, 5.0 * 2**tries) <= delay <= 300.0 * 1.25


def test_jobs_that_failed_together_come_back_apart() -> None:
    assert len({round(delay_seconds(uuid4(), 3, 5.0, 300.0), 3) for _ in range(50)}) > 40


def test_a_late_report_of_the_first_attempt_does_not_touch_the_second() -> None:
    builder = job_in("queued after a loss")
    late = COMMANDS["error"](builder)
    _wait_and_claim(builder)
    builder.run("open", "know run")
    before = builder.there
    assert builder.do(late).reason is not None
    assert builder.there == before


def test_the_first_attempts_run_shows_up_again_and_takes_its_place() -> None:
    builder = job_in("queued after a loss").run("see running")
    assert builder.there.attempts[0].reservation is ReservationState.QUARANTINED
    assert builder.there.state is JobState.QUEUED
    assert builder.run("see stopped").there.attempts[0].reservation is ReservationState.RELEASED
