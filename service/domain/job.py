"""A job as a value, the graph of its states, and `evolve`, the only way to a next value.

`TRANSITIONS` says for every event from which states it may come and where it leads (None: it stays).
`evolve` refuses anything else, so a row that contradicts the graph can't be written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from service.domain import events as e
from service.domain.values import (
    Attempt,
    Lease,
    Metric,
    Progress,
    Request,
    Results,
    SiteProgress,
    Stop,
    Why,
)
from service.domain.vocabulary import (
    ACTIVE,
    TERMINAL,
    JobState,
    JobStatus,
    Lifecycle,
    ModelStatus,
    Reason,
    SlotState,
)

S = JobState


@dataclass(frozen=True, slots=True)
class Rejection:
    """What is left of a request that could not become a job: its ids as far as they were usable."""

    job_id: UUID
    model_id: UUID | None
    project_id: str | None
    content_hash: bytes
    requested_by: str | None = None


@dataclass(frozen=True, slots=True)
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
    waiting: str | None = None  #: the waiting code last told
    stop: Stop | None = None
    reason: Why | None = None
    results: Results | None = None
    lease: Lease | None = None
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
    def asked(self) -> Request:
        """The request of a job that was accepted. TypeError on a rejected one: a bug of the caller."""
        if not isinstance(self.request, Request):
            raise TypeError(f"job {self.job_id} was rejected and has no request")
        return self.request


def job_status(state: JobState) -> JobStatus:
    """FLIP's queue word for one of our states."""
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
    e.WaitingTold: (frozenset({S.QUEUED}), None),
    e.BecameEligible: (frozenset({S.QUEUED}), None),
    e.Started: (frozenset({S.QUEUED}), S.PREPARING),
    e.LeaseTaken: (_ON_NET, None),
    e.SubmissionOpened: (frozenset({S.PREPARING, S.SUBMITTING}), S.SUBMITTING),
    e.Submitted: (frozenset({S.SUBMITTING}), S.RUNNING),
    e.RunKnown: (frozenset(S), None),
    e.Prepared: (frozenset({S.RUNNING}), None),
    e.Running: (frozenset({S.RUNNING}), None),
    e.RoundReported: (_REPORTING, None),
    e.MetricsRecorded: (_REPORTING, None),
    e.LogRecorded: (_REPORTING, None),
    e.SignSeen: (frozenset({S.RUNNING, S.COLLECTING, S.STOPPING}), None),
    e.RunMissed: (frozenset(S), None),
    e.RetryScheduled: (frozenset({S.PREPARING, S.SUBMITTING, S.RUNNING}), S.QUEUED),
    e.ResultsPending: (frozenset({S.RUNNING}), S.COLLECTING),
    e.TryDelayed: (_ON_NET, None),
    e.StopRequested: (_ALIVE, None),
    e.Stopping: (frozenset({S.SUBMITTING, S.RUNNING}), S.STOPPING),
    e.Stopped: (
        frozenset({S.QUEUED, S.PREPARING, S.SUBMITTING, S.COLLECTING, S.STOPPING}),
        S.STOPPED,
    ),
    e.Completed: (frozenset({S.RUNNING, S.COLLECTING}), S.COMPLETED),
    e.Failed: (_ALIVE, S.FAILED),
    e.SlotChanged: (frozenset(S), None),
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
    changes = _FOLD[type(event)](job, event)
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


def _with_attempt(job: Job, number: int, **changes: Any) -> tuple[Attempt, ...]:
    return tuple(replace(a, **changes) if a.number == number else a for a in job.attempts)


def _started(job: Job, event: e.Started) -> dict[str, Any]:
    kept = tuple(a for a in job.attempts if a.number != event.attempt.number)
    return {
        "attempts": (*kept, event.attempt),
        "progress": Progress(),
        "model_status": ModelStatus.INITIATED,
        "eligible": False,
        "waiting": None,
        "lease": Lease(event.holder, job.token + 1),
        "token": job.token + 1,
        "next_try_at": None,
        "due_at": event.due_at,
        "reason": None,
    }


def _lease_taken(job: Job, event: e.LeaseTaken) -> dict[str, Any]:
    attempts = job.attempts
    if job.state in (S.PREPARING, S.SUBMITTING) and job.attempt is not None:
        attempts = _with_attempt(job, job.attempt.number, leases=job.attempt.leases + 1)
    token = job.token + 1
    return {"lease": Lease(event.holder, token), "token": token, "attempts": attempts}


def _submission_opened(job: Job, event: e.SubmissionOpened) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(
            job, event.attempt, submission=event.submission, changed_at=event.at
        ),
        "tries": 0,
        "due_at": event.due_at,
    }


def _submitted(job: Job, event: e.Submitted) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(
            job,
            event.attempt,
            run_id=event.run_id,
            provisional=event.provisional,
            submitted_at=event.at,
            changed_at=event.at,
        ),
        "progress": replace(job.progress, last_sign_at=event.at, total=event.total_rounds),
        "lease": None,
        "due_at": event.due_at,
        "tries": 0,
        "next_try_at": None,
    }


def _run_known(job: Job, event: e.RunKnown) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(
            job,
            event.attempt,
            run_id=event.run_id,
            provisional=event.provisional,
            missed=0,
            missing_since=None,
        )
    }


def _running(job: Job, event: e.Running) -> dict[str, Any]:
    return {
        "model_status": ModelStatus.RUNNING,
        "attempts": _with_attempt(job, event.attempt, running_at=event.at),
        "progress": replace(job.progress, last_sign_at=event.at),
        "due_at": event.due_at,
    }


def _round_reported(job: Job, event: e.RoundReported) -> dict[str, Any]:
    p = job.progress
    sites = p.sites
    if event.slot is not None:
        site = SiteProgress(event.slot, event.global_round, event.site_state, event.site_detail)
        sites = (*(s for s in sites if s.slot != event.slot), site)
    return {
        "progress": replace(
            p,
            round=max(p.round, event.global_round),
            aggregated=max(p.aggregated, event.global_round)
            if event.word is Lifecycle.ROUND_AGGREGATED
            else p.aggregated,
            sites=tuple(sorted(sites, key=lambda s: s.slot)),
            last_sign_at=event.at,
        )
    }


def newest_metrics(old: tuple[Metric, ...], new: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """The newest metric of each (label, slot), by round; the same round again: the later one."""
    best = {(m.label, m.fl_client_name or ""): m for m in old}
    for metric in new:
        key = (metric.label, metric.fl_client_name or "")
        if key not in best or best[key].global_round <= metric.global_round:
            best[key] = metric
    return tuple(best[key] for key in sorted(best))[:MAX_METRICS]


#: How many (label, slot) pairs a job remembers as its last metrics.
MAX_METRICS: Final = 500


def _metrics_recorded(job: Job, event: e.MetricsRecorded) -> dict[str, Any]:
    metrics = newest_metrics(job.progress.metrics, event.metrics)
    return {"progress": replace(job.progress, metrics=metrics, last_sign_at=event.at)}


def _sign(job: Job, event: e.Event) -> dict[str, Any]:
    return {"progress": replace(job.progress, last_sign_at=event.at)}


def _sign_seen(job: Job, event: e.SignSeen) -> dict[str, Any]:
    changes = _sign(job, event)
    if job.attempt is not None:
        changes["attempts"] = _with_attempt(job, job.attempt.number, missed=0, missing_since=None)
    return changes


def _run_missed(job: Job, event: e.RunMissed) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(
            job, event.attempt, missed=event.missed, missing_since=event.missing_since
        )
    }


def _retry_scheduled(job: Job, event: e.RetryScheduled) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(
            job,
            event.attempt,
            slot=event.slot,
            ended_at=event.at,
            changed_at=event.at,
            reason=event.reason,
            burnt=event.next_attempt != event.attempt,
        ),
        "eligible": False,
        "lease": None,
        "waiting": None,
        "reason": event.reason,
        "tries": job.tries + 1 if event.next_attempt == event.attempt else 0,
        "next_try_at": event.not_before,
        "due_at": event.due_at,
        "model_status": ModelStatus.INITIATED,
        "progress": Progress(),
    }


def _results_pending(job: Job, event: e.ResultsPending) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(job, event.attempt, slot=event.slot, changed_at=event.at),
        "lease": None,
        "tries": 0,
        "next_try_at": None,
        "due_at": None,
    }


def _try_delayed(job: Job, event: e.TryDelayed) -> dict[str, Any]:
    return {
        "lease": None if event.release else job.lease,
        "tries": job.tries + 1,
        "next_try_at": event.next_try_at,
    }


def _stop_requested(job: Job, event: e.StopRequested) -> dict[str, Any]:
    return {"stop": event.stop}


def _stopping(job: Job, event: e.Stopping) -> dict[str, Any]:
    kept = job.lease if job.state is S.SUBMITTING else None
    return {"lease": kept, "tries": 0, "next_try_at": None, "due_at": event.due_at}


def _ended_attempts(job: Job, event: e.Stopped | e.Completed | e.Failed) -> tuple[Attempt, ...]:
    current = job.attempt
    if current is None or job.state is S.QUEUED:
        return job.attempts
    changes: dict[str, Any] = {
        "ended_at": event.at,
        "changed_at": event.at,
        "slot": event.slot if current.slot is not SlotState.FREE else SlotState.FREE,
    }
    if not isinstance(event, e.Completed):
        changes["reason"] = event.reason
    return _with_attempt(job, current.number, **changes)


def _stopped(job: Job, event: e.Stopped) -> dict[str, Any]:
    return {
        "attempts": _ended_attempts(job, event),
        "reason": event.reason,
        "model_status": ModelStatus.STOPPED,
    }


def _completed(job: Job, event: e.Completed) -> dict[str, Any]:
    return {
        "attempts": _ended_attempts(job, event),
        "results": event.results,
        "model_status": ModelStatus.RESULTS_UPLOADED,
        "reason": None,
    }


def _failed(job: Job, event: e.Failed) -> dict[str, Any]:
    upload = event.reason.code == Reason.RESULTS_UPLOAD_FAILED
    return {
        "attempts": _ended_attempts(job, event),
        "reason": event.reason,
        "model_status": ModelStatus.RESULTS_UPLOAD_FAILED if upload else ModelStatus.ERROR,
    }


_FOLD: Final[dict[type[e.Event], Callable[[Job, Any], dict[str, Any]]]] = {
    e.WaitingTold: lambda job, event: {"waiting": event.code},
    e.BecameEligible: lambda job, event: {"eligible": True, "due_at": event.due_at},
    e.Started: _started,
    e.LeaseTaken: _lease_taken,
    e.SubmissionOpened: _submission_opened,
    e.Submitted: _submitted,
    e.RunKnown: _run_known,
    e.Prepared: lambda job, event: {"model_status": ModelStatus.PREPARED} | _sign(job, event),
    e.Running: _running,
    e.RoundReported: _round_reported,
    e.MetricsRecorded: _metrics_recorded,
    e.LogRecorded: _sign,
    e.SignSeen: _sign_seen,
    e.RunMissed: _run_missed,
    e.RetryScheduled: _retry_scheduled,
    e.ResultsPending: _results_pending,
    e.TryDelayed: _try_delayed,
    e.StopRequested: _stop_requested,
    e.Stopping: _stopping,
    e.Stopped: _stopped,
    e.Completed: _completed,
    e.Failed: _failed,
    e.SlotChanged: lambda job, event: {
        "attempts": _with_attempt(job, event.attempt, slot=event.slot)
    },
    e.Reviewed: lambda job, event: {"due_at": event.due_at},
}
