"""How a job follows its events: one table, a row an event, and `evolve`, the only way to a job's next value.

A row says in which states the event may come, to which state it leads, what else it changes, and under which
name it is published, if it is. `evolve` refuses anything else, so a row of the job table that contradicts the
graph can't be written; the diagram of docs/architecture.md is printed from the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from service.domain import events as e
from service.domain.enums import (
    TERMINAL,
    JobState,
    Lifecycle,
    ModelStatus,
    ReasonCode,
    ReservationState,
)
from service.domain.job import Job
from service.domain.sizes import truncate_metrics, truncate_sites
from service.domain.values import Attempt, JobLease, Metric, Progress, SiteProgress

S = JobState

#: What an event changes of its job, by field; the job is None for the two events that begin one.
Change = Callable[[Any, Any], dict[str, Any]]


class EventRule(NamedTuple):
    """One event. `comes_in`: the states it may come in, None among them for "no job yet". `leads_to`: None
    where the state stays. `names`: none for a quiet event; of several the event itself says which."""

    event: type[e.Event]
    comes_in: frozenset[JobState | None]
    leads_to: JobState | None
    change: Change
    names: tuple[Lifecycle, ...] = ()


# --- what each event changes ----------------------------------------------------------------------


def _queued(job: None, event: e.Queued) -> dict[str, Any]:
    return {
        "request": event.request,
        "created_at": event.at,
        "eligible": event.eligible,
        "waiting": event.waiting_for,
        "due_at": event.due_at,
    }


def _rejected(job: None, event: e.Rejected) -> dict[str, Any]:
    return {
        "request": event.rejection,
        "created_at": event.at,
        "model_status": ModelStatus.ERROR,
        "reason": event.reason,
    }


def _with_attempt(job: Job, number: int, **changes: Any) -> tuple[Attempt, ...]:
    return tuple(replace(a, **changes) if a.number == number else a for a in job.attempts)


def _reserved(state: ReservationState) -> dict[str, Any]:
    """The attempt's reservation. One that is released has ended the series of lists without its run."""
    return {"reservation": state} | (
        {"missing_polls": 0, "missing_since": None} if state is ReservationState.RELEASED else {}
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


#: How many (label, slot) pairs a job remembers as its last metrics.
MAX_METRICS: Final = 500


def newest_metrics(old: tuple[Metric, ...], new: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """The newest metric of each (label, slot), by round; the same round again: the later one. Of too
    many, or too large ones, the first by name are kept."""
    best = {(m.label, m.fl_client_name or ""): m for m in old}
    for metric in new:
        key = (metric.label, metric.fl_client_name or "")
        if key not in best or best[key].global_round <= metric.global_round:
            best[key] = metric
    return truncate_metrics(tuple(best[key] for key in sorted(best))[:MAX_METRICS])


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
    counted: dict[str, Any] = {
        "missing_polls": event.missing_polls,
        "missing_since": event.missing_since,
    }
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
            **_reserved(event.reservation),
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
        **_reserved(
            event.reservation
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


def _waiting_changed(job: Job, event: e.WaitingChanged) -> dict[str, Any]:
    return {"waiting": event.code}


def _became_eligible(job: Job, event: e.BecameEligible) -> dict[str, Any]:
    return {"eligible": True, "due_at": event.due_at}


def _prepared(job: Job, event: e.Prepared) -> dict[str, Any]:
    return {"model_status": ModelStatus.PREPARED} | _activity(job, event)


def _reservation_changed(job: Job, event: e.ReservationChanged) -> dict[str, Any]:
    return {"attempts": _with_attempt(job, event.attempt, **_reserved(event.reservation))}


def _collecting_hurried(job: Job, event: e.CollectingHurried) -> dict[str, Any]:
    return {"tries": 0, "next_try_at": None}


def _results_recovered(job: Job, event: e.ResultsRecovered) -> dict[str, Any]:
    return {"results": event.results}


def _reviewed(job: Job, event: e.Reviewed) -> dict[str, Any]:
    return {"due_at": event.due_at}


# --- the table ------------------------------------------------------------------------------------


def _in(*states: JobState | None) -> frozenset[JobState | None]:
    return frozenset(states)


_NEW: Final = _in(None)
_ANY: Final = _in(*S)
_ALIVE: Final = _in(*(set(S) - TERMINAL))
_ON_NET: Final = _in(S.PREPARING, S.SUBMITTING, S.RUNNING, S.COLLECTING, S.STOPPING)
_REPORTING: Final = _in(S.RUNNING, S.COLLECTING)
_ENDS_BY_STOP: Final = _in(S.QUEUED, S.PREPARING, S.COLLECTING, S.STOPPING)
_ROUND: Final = (
    Lifecycle.ROUND_STARTED,
    Lifecycle.CLIENT_RESULT_RECEIVED,
    Lifecycle.CLIENT_FAILED,
    Lifecycle.ROUND_AGGREGATED,
)

# fmt: off
EVENTS: Final = (
    EventRule(e.Queued, _NEW, S.QUEUED, _queued, (Lifecycle.QUEUED,)),
    EventRule(e.Rejected, _NEW, S.REJECTED, _rejected, (Lifecycle.REJECTED,)),
    EventRule(e.WaitingChanged, _in(S.QUEUED), None, _waiting_changed, (Lifecycle.WAITING,)),
    EventRule(e.BecameEligible, _in(S.QUEUED), None, _became_eligible),
    EventRule(e.Started, _in(S.QUEUED), S.PREPARING, _started, (Lifecycle.STARTED,)),
    EventRule(e.LeaseTaken, _ON_NET, None, _lease_taken),
    EventRule(e.SubmissionOpened, _in(S.PREPARING, S.SUBMITTING), S.SUBMITTING, _submission_opened),
    EventRule(e.Submitted, _in(S.SUBMITTING), S.RUNNING, _submitted, (Lifecycle.SUBMITTED,)),
    EventRule(e.RunIdentified, _ANY, None, _run_identified),
    EventRule(e.Prepared, _in(S.RUNNING), None, _prepared, (Lifecycle.PREPARED,)),
    EventRule(e.Running, _in(S.RUNNING), None, _running, (Lifecycle.RUNNING,)),
    EventRule(e.RoundReported, _REPORTING, None, _round_reported, _ROUND),
    EventRule(e.MetricsRecorded, _REPORTING, None, _metrics_recorded, (Lifecycle.METRICS_RECORDED,)),
    EventRule(e.LogRecorded, _REPORTING, None, _activity, (Lifecycle.LOG_RECORDED,)),
    EventRule(e.ActivitySeen, _in(S.RUNNING, S.COLLECTING, S.STOPPING), None, _activity_seen),
    EventRule(e.RunMissed, _ANY, None, _run_missed),
    EventRule(e.RunSeenAgain, _ANY, None, _run_seen_again),
    EventRule(e.RetryScheduled, _in(S.PREPARING, S.SUBMITTING, S.RUNNING), S.QUEUED, _retry_scheduled,
             (Lifecycle.RETRY_SCHEDULED,)),
    EventRule(e.ResultsPending, _in(S.RUNNING), S.COLLECTING, _results_pending, (Lifecycle.RESULTS_PENDING,)),
    EventRule(e.StepDeferred, _ON_NET, None, _step_deferred),
    EventRule(e.CollectingHurried, _in(S.COLLECTING), None, _collecting_hurried),
    EventRule(e.ResultsRecovered, _in(S.FAILED), None, _results_recovered),
    EventRule(e.StopRequested, _ALIVE, None, _stop_requested, (Lifecycle.STOP_REQUESTED,)),
    EventRule(e.Stopping, _in(S.SUBMITTING, S.RUNNING), S.STOPPING, _stopping),
    EventRule(e.Stopped, _ENDS_BY_STOP, S.STOPPED, _stopped, (Lifecycle.STOPPED,)),
    EventRule(e.Completed, _REPORTING, S.COMPLETED, _completed, (Lifecycle.COMPLETED,)),
    EventRule(e.Failed, _ALIVE, S.FAILED, _failed, (Lifecycle.FAILED,)),
    EventRule(e.ReservationChanged, _ANY, None, _reservation_changed),
    EventRule(e.Reviewed, _ALIVE, None, _reviewed),
)
# fmt: on
RULE_OF: Final[dict[type[e.Event], EventRule]] = {row.event: row for row in EVENTS}


class IllegalTransition(Exception):
    """A decision contradicts the graph: a bug in `domain`, never an input's fault."""


def evolve(job: Job | None, event: e.Event) -> Job:
    """The job after `event`. Raises IllegalTransition when the table does not know the step."""
    row = RULE_OF[type(event)]
    state = None if job is None else job.state
    if state not in row.comes_in:
        raise IllegalTransition(f"{type(event).__name__} in {state or 'no job'}")
    changes = row.change(job, event)
    leads_to = row.leads_to
    if leads_to is not None:
        changes["state"] = leads_to
        if leads_to in TERMINAL:
            changes |= {"finished_at": event.at, "lease": None, "due_at": None, "eligible": False}
    if row.names:
        changes["sequence"] = 1 if job is None else job.sequence + 1
    changes["changed_at"] = event.at
    return Job(**changes) if job is None else replace(job, **changes)


def is_published(event: e.Event) -> bool:
    """Does the event go out on the lifecycle topic?"""
    return bool(RULE_OF[type(event)].names)


def event_name_of(event: e.Event) -> Lifecycle:
    """The lifecycle name of a published event. KeyError for a quiet one."""
    names = RULE_OF[type(event)].names
    if isinstance(event, e.RoundReported) and event.event_name in names:
        return event.event_name
    if len(names) != 1:
        raise KeyError(type(event).__name__)
    return names[0]
