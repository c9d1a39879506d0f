"""Times that end a job, and when to check them next."""

from __future__ import annotations

from datetime import datetime, timedelta

from service.domain import commands as c
from service.domain import events as e
from service.domain.claim import not_approved
from service.domain.decision import Decision, applied, ignored
from service.domain.enums import JobState, ReasonCode, ReservationState
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.retry import due_while_waiting
from service.domain.stop import stop_now
from service.domain.values import Attempt, Progress, Reason, Request, Stop


def running_limits(
    request: Request, attempt: Attempt, progress: Progress, facts: Facts
) -> list[tuple[datetime, Reason]]:
    """(moment, reason) of each limit of a submitted run."""
    limits = facts.limits
    since = attempt.submitted_at or attempt.started_at
    runtime = request.max_runtime_seconds or limits.runtime_seconds
    found = [
        (
            since + timedelta(seconds=runtime),
            Reason(ReasonCode.RUNTIME_EXCEEDED, f"it ran longer than {runtime:g} s"),
        )
    ]
    if attempt.running_at is None:
        seconds = limits.pending_seconds
        text = f"the backend did not start it within {seconds:g} s"
        found.append(
            (since + timedelta(seconds=seconds), Reason(ReasonCode.PENDING_EXCEEDED, text))
        )
    else:
        stall = request.max_stall_seconds or limits.stall_seconds
        activity = progress.last_activity_at or attempt.running_at
        text = f"no round, metric, log or status for {stall:g} s"
        found.append((activity + timedelta(seconds=stall), Reason(ReasonCode.NO_PROGRESS, text)))
    if request.deadline is not None:
        found.append((request.deadline, _deadline()))
    return found


def _deadline() -> Reason:
    return Reason(ReasonCode.DEADLINE_EXCEEDED, "its deadline passed before it ended")


def next_running_due(job: Job, attempt: Attempt, facts: Facts) -> datetime:
    """The earliest limit of a run, for `due_at`."""
    return min(at for at, _ in running_limits(job.accepted_request, attempt, job.progress, facts))


def review(job: Job | None, command: c.Review, facts: Facts) -> Decision:
    """End what passed a limit, queue what waited for its time, check approvals again."""
    if job is None or job.terminal:
        return ignored("over")
    if job.state is JobState.QUEUED:
        return _review_queued(job, facts)
    request = job.accepted_request
    attempt = job.attempt
    reason = revoked(job, facts)
    if reason is not None:
        return stop_revoked(job, reason, facts)
    if job.state is JobState.RUNNING and attempt is not None:
        limits = running_limits(request, attempt, job.progress, facts)
        passed = [(at, limit) for at, limit in limits if at <= facts.now]
        if passed:
            first = min(passed, key=lambda item: item[0])[1]
            return applied(
                e.Failed(at=facts.now, reason=first, reservation=ReservationState.QUARANTINED)
            )
        return applied(e.Reviewed(at=facts.now, due_at=min(at for at, _ in limits)))
    passed_deadline = request.deadline is not None and request.deadline <= facts.now
    if passed_deadline and job.state is JobState.PREPARING:
        return applied(
            e.Failed(at=facts.now, reason=_deadline(), reservation=ReservationState.RELEASED)
        )
    due = request.deadline if job.state is JobState.PREPARING else None
    return applied(e.Reviewed(at=facts.now, due_at=due))


def revoked(job: Job, facts: Facts) -> Reason | None:
    """Why a job on a net must be stopped: an approval was taken back, and the project does not let its
    runs finish. None: it may continue."""
    project = facts.registry.projects.get(job.accepted_request.project_id)
    if project is not None and project.on_revocation != "stop":
        return None
    return not_approved(job.accepted_request, facts)


def stop_revoked(job: Job, reason: Reason, facts: Facts) -> Decision:
    """Stop a job for what `revoked` says of it, unless a stop was accepted before."""
    if job.stop is not None:
        return applied(e.Reviewed(at=facts.now, due_at=None))
    stop = Stop(reason.message, None, facts.now, ReasonCode.APPROVAL_REVOKED)
    return stop_now(job, stop, facts)


def _review_queued(job: Job, facts: Facts) -> Decision:
    request = job.accepted_request
    reason = not_approved(request, facts)
    if reason is not None:
        return applied(e.Failed(at=facts.now, reason=reason, reservation=ReservationState.RELEASED))
    if request.deadline is not None and request.deadline <= facts.now:
        return applied(
            e.Failed(at=facts.now, reason=_deadline(), reservation=ReservationState.RELEASED)
        )
    if job.eligible:
        return applied(e.Reviewed(at=facts.now, due_at=request.deadline))
    waits = [at for at in (request.not_before, job.next_try_at) if at is not None]
    ready_at = max(waits, default=facts.now)
    if ready_at > facts.now:
        return applied(e.Reviewed(at=facts.now, due_at=due_while_waiting(request, ready_at)))
    return applied(e.BecameEligible(at=facts.now, due_at=request.deadline))
