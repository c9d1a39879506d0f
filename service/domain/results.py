"""A run's results: stored they complete the job, and a try to have them may be deferred."""

from __future__ import annotations

from datetime import timedelta

from service.domain import commands as c
from service.domain import events as e
from service.domain.decision import LEASE_LOST, Decision, applied, ignored
from service.domain.enums import JobState, ReasonCode, ReservationState
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.retry import backoff
from service.domain.values import Attempt, Reason, Results


def completed(
    job: Job, attempt: Attempt, results: Results | None, reservation: ReservationState, facts: Facts
) -> e.Completed:
    """The happy end, with all that a reader of the lifecycle topic needs to find the model."""
    submission = attempt.submission
    return e.Completed(
        at=facts.now,
        results=results,
        reservation=reservation,
        participants=attempt.participants,
        rounds=job.progress.aggregated or job.progress.round,
        metrics=job.progress.metrics,
        bundle_sha256=submission.bundle_sha256 if submission else None,
        config=submission.config if submission else None,
    )


def store_results(job: Job | None, command: c.StoreResults, facts: Facts) -> Decision:
    """The results are in our store: the job is complete."""
    if job is None or job.lease is None or job.lease.token != command.token:
        return LEASE_LOST
    attempt = job.attempt
    if job.state is not JobState.COLLECTING or attempt is None:
        return ignored("not_collecting")
    return applied(completed(job, attempt, command.results, ReservationState.QUARANTINED, facts))


def defer_step(job: Job | None, command: c.DeferStep, facts: Facts) -> Decision:
    """Results or an abort's proof could not be had: later again; results not for ever."""
    if job is None or job.lease is None or job.lease.token != command.token:
        return LEASE_LOST
    if job.state is JobState.COLLECTING and job.tries + 1 >= facts.limits.collect_tries:
        reason = Reason(ReasonCode.RESULTS_UPLOAD_FAILED, command.reason.message)
        return applied(
            e.Failed(at=facts.now, reason=reason, reservation=ReservationState.QUARANTINED)
        )
    if job.state is JobState.STOPPING and job.attempt is not None:
        return _delay_stop(job, job.attempt, facts)
    at = backoff(job, min(job.tries, 4), facts, command.retry_after)
    return applied(e.StepDeferred(at=facts.now, next_try_at=at))


def _delay_stop(job: Job, attempt: Attempt, facts: Facts) -> Decision:
    """An abort is tried for as long as there is somebody to ask. A net that left the registry may come back
    within a grace; after it the job ends, and the place waits for the net or an operator."""
    at = facts.now + timedelta(seconds=min(30.0, 1.0 * 2 ** min(job.tries, 5)))
    delayed = e.StepDeferred(at=facts.now, next_try_at=at)
    since = attempt.missing_since
    if attempt.net in facts.registry.nets:
        back = since is not None and not attempt.missing_polls
        return applied(e.ActivitySeen(at=facts.now), delayed) if back else applied(delayed)
    if since is None:
        missing = e.RunMissed(
            at=facts.now,
            attempt=attempt.number,
            missing_polls=attempt.missing_polls,
            missing_since=facts.now,
        )
        return applied(missing, delayed)
    if facts.now - since < timedelta(seconds=facts.limits.net_gone_seconds):
        return applied(delayed)
    code = ReasonCode.SUBMIT_UNKNOWN if attempt.run_id is None else ReasonCode.ADAPTER_UNAVAILABLE
    text = f"net {attempt.net} left the registry before it showed that the run ended"
    return applied(
        e.Failed(at=facts.now, reason=Reason(code, text), reservation=ReservationState.QUARANTINED)
    )
