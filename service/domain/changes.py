"""What each event changes of a job: the second half of `evolve`, one function an event.

Each answers the fields of `Job` that change but for state, sequence and times, which `evolve` sets for all
alike. None of them judges: whether the event may come at all was asked before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from service.domain import events as e
from service.domain.enums import JobState, Lifecycle, ModelStatus, ReasonCode, ReservationState
from service.domain.sizes import truncate_metrics, truncate_sites
from service.domain.values import Attempt, JobLease, Metric, Progress, SiteProgress

if TYPE_CHECKING:
    from service.domain.job import Job

S = JobState


def _with_attempt(job: Job, number: int, **changes: Any) -> tuple[Attempt, ...]:
    return tuple(replace(a, **changes) if a.number == number else a for a in job.attempts)


def _place(state: ReservationState) -> dict[str, Any]:
    """The attempt's place. One that is free has ended the series of lists without its run."""
    return {"slot": state} | (
        {"missed": 0, "missing_since": None} if state is ReservationState.RELEASED else {}
    )


def _started(job: Job, event: e.Started) -> dict[str, Any]:
    kept = tuple(a for a in job.attempts if a.number != event.attempt.number)
    return {
        "attempts": (*kept, event.attempt),
        "progress": Progress(),
        "model_status": ModelStatus.INITIATED,
        "eligible": False,
        "waiting": None,
        "lease": JobLease(event.holder, job.token + 1),
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
    return {"lease": JobLease(event.holder, token), "token": token, "attempts": attempts}


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
        "progress": replace(job.progress, last_activity_at=event.at, total=event.total_rounds),
        "lease": None,
        "due_at": event.due_at,
        "tries": 0,
        "next_try_at": None,
    }


def _run_identified(job: Job, event: e.RunIdentified) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(
            job,
            event.attempt,
            run_id=event.run_id,
            provisional=event.provisional,
            missing_polls=0,
            missing_since=None,
        )
    }


def _running(job: Job, event: e.Running) -> dict[str, Any]:
    return {
        "model_status": ModelStatus.RUNNING,
        "attempts": _with_attempt(job, event.attempt, running_at=event.at),
        "progress": replace(job.progress, last_activity_at=event.at),
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
            if event.event_name is Lifecycle.ROUND_AGGREGATED
            else p.aggregated,
            sites=truncate_sites(tuple(sorted(sites, key=lambda s: s.slot))),
            last_activity_at=event.at,
        )
    }


def newest_metrics(old: tuple[Metric, ...], new: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """The newest metric of each (label, slot), by round; the same round again: the later one. Of too
    many, or too large ones, the first by name are kept."""
    best = {(m.label, m.fl_client_name or ""): m for m in old}
    for metric in new:
        key = (metric.label, metric.fl_client_name or "")
        if key not in best or best[key].global_round <= metric.global_round:
            best[key] = metric
    return truncate_metrics(tuple(best[key] for key in sorted(best))[:MAX_METRICS])


#: How many (label, slot) pairs a job remembers as its last metrics.
MAX_METRICS: Final = 500


def _metrics_recorded(job: Job, event: e.MetricsRecorded) -> dict[str, Any]:
    metrics = newest_metrics(job.progress.metrics, event.metrics)
    return {"progress": replace(job.progress, metrics=metrics, last_activity_at=event.at)}


def _activity(job: Job, event: e.Event) -> dict[str, Any]:
    return {"progress": replace(job.progress, last_activity_at=event.at)}


def _activity_seen(job: Job, event: e.ActivitySeen) -> dict[str, Any]:
    changes = _activity(job, event)
    if job.attempt is not None:
        changes["attempts"] = _with_attempt(
            job, job.attempt.number, missing_polls=0, missing_since=None
        )
    return changes


def _run_missed(job: Job, event: e.RunMissed) -> dict[str, Any]:
    counted: dict[str, Any] = {"missed": event.missing_polls, "missing_since": event.missing_since}
    if event.list_began_at is not None:
        counted["changed_at"] = _after(event.list_began_at)
    return {"attempts": _with_attempt(job, event.attempt, **counted)}


def _run_seen_again(job: Job, event: e.RunSeenAgain) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(
            job,
            event.attempt,
            missing_polls=0,
            missing_since=None,
            changed_at=_after(event.list_began_at),
        )
    }


def _after(began_at: datetime) -> datetime:
    """The earliest time at which a list that may still be judged began."""
    return began_at + timedelta(microseconds=1)


def _retry_scheduled(job: Job, event: e.RetryScheduled) -> dict[str, Any]:
    return {
        "attempts": _with_attempt(
            job,
            event.attempt,
            **_place(event.slot),
            ended_at=event.at,
            changed_at=event.at,
            reason=event.reason,
            counts_as_attempt=event.next_attempt != event.attempt,
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
        "attempts": _with_attempt(
            job,
            event.attempt,
            reservation=event.reservation,
            changed_at=event.at,
            collecting_since=event.at,
        ),
        "results": event.claimed,
        "lease": None,
        "tries": 0,
        "next_try_at": None,
        "due_at": None,
    }


def _step_deferred(job: Job, event: e.StepDeferred) -> dict[str, Any]:
    return {
        "lease": None if event.release else job.lease,
        "tries": job.tries + 1,
        "next_try_at": event.next_try_at,
        "reason": job.reason if event.reason is None else event.reason,
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
        **_place(
            event.slot
            if current.reservation is not ReservationState.RELEASED
            else ReservationState.RELEASED
        ),
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
    upload = event.reason.code == ReasonCode.RESULTS_UPLOAD_FAILED
    return {
        "attempts": _ended_attempts(job, event),
        "reason": event.reason,
        "model_status": ModelStatus.RESULTS_UPLOAD_FAILED if upload else ModelStatus.ERROR,
    }


CHANGES: Final[dict[type[e.Event], Callable[[Job, Any], dict[str, Any]]]] = {
    e.WaitingChanged: lambda job, event: {"waiting": event.code},
    e.BecameEligible: lambda job, event: {"eligible": True, "due_at": event.due_at},
    e.Started: _started,
    e.LeaseTaken: _lease_taken,
    e.SubmissionOpened: _submission_opened,
    e.Submitted: _submitted,
    e.RunIdentified: _run_identified,
    e.Prepared: lambda job, event: {"model_status": ModelStatus.PREPARED} | _activity(job, event),
    e.Running: _running,
    e.RoundReported: _round_reported,
    e.MetricsRecorded: _metrics_recorded,
    e.LogRecorded: _activity,
    e.ActivitySeen: _activity_seen,
    e.RunMissed: _run_missed,
    e.RunSeenAgain: _run_seen_again,
    e.RetryScheduled: _retry_scheduled,
    e.ResultsPending: _results_pending,
    e.StepDeferred: _step_deferred,
    e.CollectingHurried: lambda job, event: {"tries": 0, "next_try_at": None},
    e.ResultsRecovered: lambda job, event: {"results": event.results},
    e.StopRequested: _stop_requested,
    e.Stopping: _stopping,
    e.Stopped: _stopped,
    e.Completed: _completed,
    e.Failed: _failed,
    e.ReservationChanged: lambda job, event: {
        "attempts": _with_attempt(job, event.attempt, **_place(event.slot))
    },
    e.Reviewed: lambda job, event: {"due_at": event.due_at},
}
