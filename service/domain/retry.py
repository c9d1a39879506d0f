"""What follows a failed try: the queue again with a growing delay, or the end."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from service.domain import events as e
from service.domain.enums import TRANSIENT_REASONS, ReservationState
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.values import Reason, Request


def delay_seconds(job_id: UUID, tries: int, first: float, most: float) -> float:
    """Exponential backoff with a jitter of up to a quarter, drawn from the job's id: repeatable, and
    different for jobs that failed together."""
    base = min(most, first * 2.0 ** min(tries, 30))
    draw = hashlib.sha256(job_id.bytes + tries.to_bytes(4, "big")).digest()
    return base * (1.0 + int.from_bytes(draw[:4], "big") / 2**32 / 4)


def backoff(job: Job, tries: int, facts: Facts, retry_after: float | None = None) -> datetime:
    """When to try again: the backoff, or later where the other side named a longer time."""
    limits = facts.limits
    seconds = delay_seconds(job.job_id, tries, limits.backoff_seconds, limits.backoff_max_seconds)
    return facts.now + timedelta(seconds=max(seconds, min(retry_after or 0.0, 3_600.0)))


def due_while_waiting(request: Request, ready_at: datetime) -> datetime:
    """When to check a queued job again: its delay's end, or its deadline where that comes first."""
    return ready_at if request.deadline is None else min(ready_at, request.deadline)


def requeue(job: Job, reason: Reason, facts: Facts, retry_after: float | None = None) -> e.Event:
    """Queue again under the same attempt number: nothing was submitted."""
    at = backoff(job, job.tries, facts, retry_after)
    number = job.attempt_number
    return e.RetryScheduled(
        at=facts.now,
        attempt=number,
        reason=reason,
        not_before=at,
        next_attempt=number,
        reservation=ReservationState.RELEASED,
        due_at=due_while_waiting(job.accepted_request, at),
    )


def fail_or_retry(job: Job, reason: Reason, reservation: ReservationState, facts: Facts) -> e.Event:
    """End the attempt. A transient reason queues the job again while attempts are left."""
    attempt = job.attempt
    number = job.attempt_number
    left = number < job.accepted_request.max_attempts
    if reason.code in TRANSIENT_REASONS and left and job.stop is None and attempt is not None:
        at = backoff(job, number - 1, facts)
        return e.RetryScheduled(
            at=facts.now,
            attempt=number,
            reason=reason,
            not_before=at,
            next_attempt=number + 1,
            reservation=reservation,
            due_at=due_while_waiting(job.accepted_request, at),
        )
    return e.Failed(at=facts.now, reason=reason, reservation=reservation)
