"""A job as a value. `service.domain.evolve` is the only way to its next value."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from service.domain.enums import (
    ACTIVE,
    TERMINAL,
    JobState,
    JobStatus,
    ModelStatus,
)
from service.domain.frozen import value
from service.domain.values import (
    Attempt,
    JobLease,
    Progress,
    Reason,
    Rejection,
    Request,
    Results,
    Stop,
)

S = JobState


@value
class Job:
    """One requested training run.

    `sequence` is that of its last published event, 1 after the first. `due_at` is the earliest moment at
    which a limit or a delay must be checked again; it may be early, never late.
    """

    request: Request | Rejection
    state: JobState
    created_at: datetime
    changed_at: datetime
    sequence: int = 0
    model_status: ModelStatus = ModelStatus.INITIATED
    attempts: tuple[Attempt, ...] = ()
    progress: Progress = Progress()
    eligible: bool = False  #: queued, and nothing but a net is missing
    waiting: str | None = None  #: the waiting code last published
    stop: Stop | None = None
    reason: Reason | None = None
    results: Results | None = None
    lease: JobLease | None = None
    token: int = 0  #: the last lease token given out
    tries: int = 0  #: give-backs, or fetches, since the last step forward: backoff grows with it
    next_try_at: datetime | None = None
    due_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def job_id(self) -> UUID:
        return self.request.job_id

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt; None before the first claim."""
        return self.attempts[-1] if self.attempts else None

    @property
    def attempt_number(self) -> int:
        """0 until the first claim."""
        return self.attempts[-1].number if self.attempts else 0

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def accepted_request(self) -> Request:
        """The request of a job that was accepted. TypeError on a rejected one: a bug of the caller."""
        if not isinstance(self.request, Request):
            raise TypeError(f"job {self.job_id} was rejected and has no request")
        return self.request


def job_status(state: JobState) -> JobStatus:
    """FLIP's queue status for one of our states."""
    if state is S.QUEUED:
        return JobStatus.QUEUED
    if state in ACTIVE:
        return JobStatus.IN_PROGRESS
    return JobStatus.COMPLETED if state in (S.COMPLETED, S.FAILED) else JobStatus.DELETED
