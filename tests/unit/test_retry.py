"""What a failed try costs: an attempt, a delay, a place on the net."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode, ReservationState
from service.domain.retry import delay_seconds
from service.domain.values import Reason
from tests.unit.domain_life import COMMANDS, JOB, Life, life_in, request


def _wait_and_claim(life: Life) -> None:
    life.pass_seconds(1_000)
    life.run("review", "claim")


def test_giving_a_net_back_burns_no_attempt() -> None:
    life = life_in("queued after a give-back")
    _wait_and_claim(life)
    assert [a.number for a in life.there.attempts] == [1]
    assert life.there.attempts[0].leases == 2  # no path id of the first try comes again
    life.run("open", "know run", "uploaded with results")
    assert life.there.state is JobState.COMPLETED


def test_a_lost_run_costs_an_attempt() -> None:
    life = life_in("queued after a loss")
    assert life.there.reason is not None
    assert life.there.reason.code == ReasonCode.BACKEND_LOST
    _wait_and_claim(life)
    assert [a.number for a in life.there.attempts] == [1, 2]
    assert life.there.progress.round == 0


def test_attempts_end() -> None:
    life = life_in("queued", asked=request(max_attempts=2))
    life.run("claim", "fail passing")
    _wait_and_claim(life)
    life.run("fail passing")
    assert life.there.state is JobState.FAILED
    assert life.there.reason is not None
    assert life.there.reason.code == ReasonCode.ADAPTER_UNAVAILABLE


def test_a_permanent_reason_ends_the_job_at_its_first_attempt() -> None:
    assert life_in("submitting").run("fail").there.state is JobState.FAILED


def test_it_is_not_claimed_before_its_delay_is_over() -> None:
    life = life_in("queued after a give-back")
    assert life.there.next_try_at is not None
    assert life.there.due_at == life.there.next_try_at
    assert life.do(COMMANDS["claim"](life)).events == ()
    life.run("review")
    assert not life.there.eligible
    life.now = life.there.next_try_at
    life.run("review", "claim")


def test_delays_grow_with_give_backs_and_start_anew_with_a_submission() -> None:
    life = life_in("preparing")
    delays = []
    for _ in range(4):
        life.run("give back")
        assert life.there.next_try_at is not None
        delays.append((life.there.next_try_at - life.now).total_seconds())
        _wait_and_claim(life)
    assert delays == sorted(delays)
    assert delays[3] > 5 * delays[0]
    assert life.run("open").there.tries == 0


def test_a_deadline_during_a_delay_ends_the_job_in_time() -> None:
    life = Life()
    life.asked = request(deadline=life.now + timedelta(seconds=5))
    life.run("request", "claim", "give back")
    assert life.there.due_at == life.asked.deadline
    life.pass_seconds(3)
    life.run("review")
    assert life.there.reason is not None
    assert life.there.reason.code == ReasonCode.DEADLINE_EXCEEDED


def test_the_adapter_may_name_a_longer_delay() -> None:
    life = life_in("preparing")
    why = Reason(ReasonCode.ADAPTER_UNAVAILABLE, "busy")
    life.do(c.ReleaseNet(JOB, life.attempt, life.token, why, retry_after=120.0))
    assert life.there.next_try_at is not None
    assert life.there.next_try_at - life.now >= timedelta(seconds=120)


@pytest.mark.parametrize("tries", [0, 1, 5, 40])
def test_delays_are_bounded_and_repeatable(tries: int) -> None:
    job = uuid4()
    delay = delay_seconds(job, tries, 5.0, 300.0)
    assert delay == delay_seconds(job, tries, 5.0, 300.0)
    assert min(300.0, 5.0 * 2**tries) <= delay <= 300.0 * 1.25


def test_jobs_that_failed_together_come_back_apart() -> None:
    assert len({round(delay_seconds(uuid4(), 3, 5.0, 300.0), 3) for _ in range(50)}) > 40


def test_a_late_report_of_the_first_attempt_does_not_touch_the_second() -> None:
    life = life_in("queued after a loss")
    late = COMMANDS["error"](life)
    _wait_and_claim(life)
    life.run("open", "know run")
    before = life.there
    assert life.do(late).reason is not None
    assert life.there == before


def test_the_first_attempts_run_shows_up_again_and_takes_its_place() -> None:
    life = life_in("queued after a loss").run("see running")
    assert life.there.attempts[0].reservation is ReservationState.QUARANTINED
    assert life.there.state is JobState.QUEUED
    assert life.run("see stopped").there.attempts[0].reservation is ReservationState.RELEASED
