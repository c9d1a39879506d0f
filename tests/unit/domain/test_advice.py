"""Every code says what it means and what to do."""

from __future__ import annotations

from service.domain.advice import REASONS, WAITING, job_advice
from service.domain.enums import JobState, ReasonCode, WaitingCode


def test_every_code_has_its_advice_and_nothing_else_has() -> None:
    assert set(REASONS) == set(ReasonCode)
    assert set(WAITING) == set(WaitingCode)


def test_advice_is_whole_sentences() -> None:
    for entry in (*REASONS.values(), *WAITING.values()):
        assert entry.meaning.endswith((".", "?"))
        assert entry.action.endswith((".", "?"))


def test_a_queued_job_is_told_of_its_wait_and_one_that_ended_of_its_reason() -> None:
    busy, lost = WaitingCode.CAPACITY, ReasonCode.BACKEND_LOST
    assert job_advice(JobState.QUEUED, lost, busy) == WAITING[busy]
    assert job_advice(JobState.QUEUED, lost, None) == REASONS[lost]
    assert job_advice(JobState.FAILED, lost, None) == REASONS[lost]
    assert job_advice(JobState.RUNNING, None, None) is None


def test_a_code_of_another_version_has_no_advice() -> None:
    assert job_advice(JobState.FAILED, "of_a_later_version", None) is None
    assert job_advice(JobState.QUEUED, None, "of_a_later_version") is None
