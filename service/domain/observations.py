"""What an adapter's list shows of a run: that it is there, how it stands, or that it is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from service.domain import commands as c
from service.domain import events as e
from service.domain.decision import Decision, applied, ignored
from service.domain.enums import (
    RUN_OVER,
    FLJobStatus,
    JobState,
    ModelStatus,
    ReasonCode,
    ReservationState,
)
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.limits import next_running_due
from service.domain.retry import fail_or_retry
from service.domain.stop import stopped
from service.domain.values import Attempt, Reason


def _find(job: Job | None, number: int) -> Attempt | None:
    return next((a for a in (job.attempts if job else ()) if a.number == number), None)


def _is_over(job: Job, attempt: Attempt) -> bool:
    """The attempt has ended for us, whatever its run does."""
    return job.terminal or attempt is not job.attempt or job.state is JobState.QUEUED


def first_running(job: Job, attempt: Attempt, facts: Facts) -> list[e.Event]:
    """`running` is published once, at the first activity that shows the run training."""
    if job.state is not JobState.RUNNING or job.model_status is ModelStatus.RUNNING:
        return []
    started = replace(attempt, running_at=facts.now)
    activity = replace(job, progress=replace(job.progress, last_activity_at=facts.now))
    due = next_running_due(activity, started, facts)
    return [e.Running(at=facts.now, attempt=attempt.number, due_at=due)]


def observe_run(job: Job | None, command: c.ObserveRun, facts: Facts) -> Decision:
    """A run of ours in its adapter's list."""
    attempt = _find(job, command.attempt)
    if job is None or attempt is None or attempt.run_id != command.run_id:
        return ignored("other_run")
    if command.began_at < attempt.changed_at:
        return ignored("old_list", "the attempt moved while the adapter was asked")
    over = command.status in RUN_OVER
    freed = over and command.settled
    if _is_over(job, attempt):
        return _observe_ended(attempt, over, freed, command, facts)
    reservation = ReservationState.RELEASED if freed else ReservationState.QUARANTINED
    events: list[e.Event] = []
    if job.state is JobState.STOPPING and over and job.stop is not None:
        events = [stopped(job.stop, reservation, facts)]
    elif (
        job.state is JobState.COLLECTING
        and freed
        and attempt.reservation is not ReservationState.RELEASED
    ):
        events = [
            e.ReservationChanged(
                at=facts.now, attempt=attempt.number, reservation=ReservationState.RELEASED
            )
        ]
    elif job.state is JobState.RUNNING:
        events = _observefirst_running(job, attempt, command, reservation, facts)
    if not events and attempt.missing_since is not None:
        events = [e.ActivitySeen(at=facts.now)]
    return applied(*events) if events else ignored("nothing_new")


def _observefirst_running(
    job: Job, attempt: Attempt, command: c.ObserveRun, reservation: ReservationState, facts: Facts
) -> list[e.Event]:
    if command.status is FLJobStatus.RUNNING:
        return first_running(job, attempt, facts)
    if command.status is FLJobStatus.FINISHED:
        return [e.ResultsPending(at=facts.now, attempt=attempt.number, reservation=reservation)]
    if command.status is FLJobStatus.FAILED:
        reason = Reason(
            ReasonCode.BACKEND_FAILED, command.details or "the backend shows the run as failed"
        )
        return [e.Failed(at=facts.now, reason=reason, reservation=reservation)]
    if command.status is FLJobStatus.STOPPED:
        text = "the run was stopped, but not by this service"
        return [
            e.Failed(
                at=facts.now,
                reason=Reason(ReasonCode.STOPPED_OUTSIDE, text),
                reservation=reservation,
            )
        ]
    return []


def _observe_ended(
    attempt: Attempt, over: bool, freed: bool, command: c.ObserveRun, facts: Facts
) -> Decision:
    if freed and attempt.reservation is not ReservationState.RELEASED:
        reservation = ReservationState.RELEASED
    elif (
        not over and command.status is not None and attempt.reservation is ReservationState.RELEASED
    ):
        reservation = (
            ReservationState.QUARANTINED
        )  # an orphan: it keeps a reservation until it is aborted
    else:
        return ignored("nothing_new")
    return applied(
        e.ReservationChanged(at=facts.now, attempt=attempt.number, reservation=reservation)
    )


def observe_run_missing(job: Job | None, command: c.ObserveRunMissing, facts: Facts) -> Decision:
    """Our run is not in a complete list. Lost only after several misses over a grace from the first."""
    attempt = _find(job, command.attempt)
    if job is None or attempt is None or attempt.run_id != command.run_id:
        return ignored("other_run")
    if command.began_at < attempt.changed_at:
        return ignored("old_list", "the attempt moved while the adapter was asked")
    if attempt.reservation is ReservationState.RELEASED:
        return ignored("free")
    missing_polls = attempt.missing_polls + 1
    since = (attempt.missing_since if attempt.missing_polls else None) or command.began_at
    grace = timedelta(seconds=facts.limits.missing_grace_seconds)
    if missing_polls < facts.limits.missing_lists or facts.now - since < grace:
        return applied(
            e.RunMissed(
                at=facts.now,
                attempt=attempt.number,
                missing_polls=missing_polls,
                missing_since=since,
            )
        )
    if _is_over(job, attempt) or job.state is JobState.COLLECTING:
        free = e.ReservationChanged(
            at=facts.now, attempt=attempt.number, reservation=ReservationState.RELEASED
        )
        return applied(free)
    if job.state is JobState.STOPPING and job.stop is not None:
        return applied(stopped(job.stop, ReservationState.RELEASED, facts))
    reason = Reason(
        ReasonCode.BACKEND_LOST, f"the backend no longer knows the run ({missing_polls} lists)"
    )
    return applied(fail_or_retry(job, reason, ReservationState.RELEASED, facts))
