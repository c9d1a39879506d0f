"""A job as a value, the graph of its states, and `evolve`, the only way to a next value.

`TRANSITIONS` says for every event from which states it may come and where it leads (None: it stays).
`evolve` refuses anything else, so a row that contradicts the graph can't be written.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from service.domain import events as e
from service.domain.changes import CHANGES
from service.domain.enums import (
    ACTIVE,
    TERMINAL,
    JobState,
    JobStatus,
    ModelStatus,
)
from service.domain.frozen import value
from service.domain.values import Attempt, JobLease, Progress, Reason, Request, Results, Stop

S = JobState


@value
class Rejection:
    """What is left of a request that could not become a job: its ids as far as they were usable."""

    job_id: UUID
    model_id: UUID | None
    project_id: str | None
    content_hash: bytes
    requested_by: str | None = None


@value
class Job:
    """One requested training run.

    `sequence` is that of its last published event, 1 after the first. `due_at` is the earliest moment at
    which a limit or a delay must be looked at again; it may be early, never late.
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


_ALIVE: Final = frozenset(set(S) - TERMINAL)
_ON_NET: Final = frozenset({S.PREPARING, S.SUBMITTING, S.RUNNING, S.COLLECTING, S.STOPPING})
_REPORTING: Final = frozenset({S.RUNNING, S.COLLECTING})

#: {event: (states it may come in, the state it leads to; None: no change)}. `None` among the former
#: stands for "no job yet".
TRANSITIONS: Final[dict[type[e.Event], tuple[frozenset[JobState | None], JobState | None]]] = {
    e.Queued: (frozenset({None}), S.QUEUED),
    e.Rejected: (frozenset({None}), S.REJECTED),
    e.WaitingChanged: (frozenset({S.QUEUED}), None),
    e.BecameEligible: (frozenset({S.QUEUED}), None),
    e.Started: (frozenset({S.QUEUED}), S.PREPARING),
    e.LeaseTaken: (_ON_NET, None),
    e.SubmissionOpened: (frozenset({S.PREPARING, S.SUBMITTING}), S.SUBMITTING),
    e.Submitted: (frozenset({S.SUBMITTING}), S.RUNNING),
    e.RunIdentified: (frozenset(S), None),
    e.Prepared: (frozenset({S.RUNNING}), None),
    e.Running: (frozenset({S.RUNNING}), None),
    e.RoundReported: (_REPORTING, None),
    e.MetricsRecorded: (_REPORTING, None),
    e.LogRecorded: (_REPORTING, None),
    e.ActivitySeen: (frozenset({S.RUNNING, S.COLLECTING, S.STOPPING}), None),
    e.RunMissed: (frozenset(S), None),
    e.RunSeenAgain: (frozenset(S), None),
    e.RetryScheduled: (frozenset({S.PREPARING, S.SUBMITTING, S.RUNNING}), S.QUEUED),
    e.ResultsPending: (frozenset({S.RUNNING}), S.COLLECTING),
    e.StepDeferred: (_ON_NET, None),
    e.CollectingHurried: (frozenset({S.COLLECTING}), None),
    e.ResultsRecovered: (frozenset({S.FAILED}), None),
    e.StopRequested: (_ALIVE, None),
    e.Stopping: (frozenset({S.SUBMITTING, S.RUNNING}), S.STOPPING),
    e.Stopped: (
        frozenset({S.QUEUED, S.PREPARING, S.COLLECTING, S.STOPPING}),
        S.STOPPED,
    ),
    e.Completed: (frozenset({S.RUNNING, S.COLLECTING}), S.COMPLETED),
    e.Failed: (_ALIVE, S.FAILED),
    e.ReservationChanged: (frozenset(S), None),
    e.Reviewed: (_ALIVE, None),
}


class IllegalTransition(Exception):
    """A decision contradicts the graph: a bug in `domain`, never an input's fault."""


def evolve(job: Job | None, event: e.Event) -> Job:
    """The job after `event`. Raises IllegalTransition when the graph does not know the step."""
    came_from, leads_to = TRANSITIONS[type(event)]
    state = None if job is None else job.state
    if state not in came_from:
        raise IllegalTransition(f"{type(event).__name__} in {state or 'no job'}")
    if isinstance(event, e.Queued):
        return _queued(event)
    if isinstance(event, e.Rejected):
        return _rejected(event)
    assert job is not None
    changes = CHANGES[type(event)](job, event)
    if leads_to is not None:
        changes["state"] = leads_to
        if leads_to in TERMINAL:
            changes |= {
                "finished_at": event.at,
                "lease": None,
                "due_at": None,
                "eligible": False,
            }
    if event.published:
        changes["sequence"] = job.sequence + 1
    return replace(job, changed_at=event.at, **changes)


def _queued(event: e.Queued) -> Job:
    return Job(
        request=event.request,
        state=S.QUEUED,
        created_at=event.at,
        changed_at=event.at,
        sequence=1,
        eligible=event.eligible,
        waiting=event.waiting_for,
        due_at=event.due_at,
    )


def _rejected(event: e.Rejected) -> Job:
    return Job(
        request=event.rejection,
        state=S.REJECTED,
        created_at=event.at,
        changed_at=event.at,
        finished_at=event.at,
        sequence=1,
        model_status=ModelStatus.ERROR,
        reason=event.reason,
    )
