"""A finished run's results: fetched, vouched for, delayed, given up, and had after all."""

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

#: Said of results that lie where only the run itself says that they do.
_NOT_OURS = "the run named this place itself: neither this service nor the registry vouches for it"


def vouched_for(results: Results, attempt: Attempt, facts: Facts) -> bool:
    """Do the results lie in our own results place, or in one that the registry allows this net?"""
    if facts.results_place is None:
        return True
    net = facts.registry.nets.get(attempt.net)
    places = (facts.results_place, *(net.results if net is not None else ()))
    plain = ".." not in results.uri.split("/")
    return plain and any(results.uri.startswith(place) for place in places)


def completed(
    job: Job,
    attempt: Attempt,
    results: Results | None,
    reservation: ReservationState,
    facts: Facts,
    note: str | None = None,
) -> e.Completed:
    """The happy end, with all that a reader of the lifecycle topic needs to find the model."""
    submission = attempt.submission
    return e.Completed(
        at=facts.now,
        results=results,
        reservation=reservation,
        note=note,
        participants=attempt.participants,
        rounds=job.progress.aggregated or job.progress.round,
        metrics=job.progress.metrics,
        bundle_sha256=submission.bundle_sha256 if submission else None,
        config=submission.config if submission else None,
    )


def store_results(job: Job | None, command: c.StoreResults, facts: Facts) -> Decision:
    """The results are in our store, or there are none to fetch: the job is complete."""
    if job is None or job.lease is None or job.lease.token != command.token:
        return LEASE_LOST
    attempt = job.attempt
    if job.state is not JobState.COLLECTING or attempt is None:
        return ignored("not_collecting")
    results, note = command.results, command.note
    if results is None and job.results is not None:
        results, note = job.results, _NOT_OURS
    return applied(completed(job, attempt, results, ReservationState.QUARANTINED, facts, note))


def collect_now(job: Job | None, command: c.CollectNow, facts: Facts) -> Decision:
    """Fetch delayed results at once."""
    if job is None or job.state is not JobState.COLLECTING:
        return ignored("not_collecting")
    if job.lease is not None:
        return ignored("under_way", "they are being fetched")
    return applied(e.CollectingHurried(at=facts.now))


def record_results(job: Job | None, command: c.RecordResults, facts: Facts) -> Decision:
    """Results that were given up have come after all. The job keeps its one end; its state says where they
    lie."""
    given_up = (
        job is not None
        and job.state is JobState.FAILED
        and job.reason is not None
        and job.reason.code == ReasonCode.RESULTS_UPLOAD_FAILED
    )
    if job is None or not given_up or job.attempt_number != command.attempt:
        return ignored("not_given_up", "only results that were given up can be had after all")
    if job.results == command.results:
        return ignored("known")
    return applied(e.ResultsRecovered(at=facts.now, results=command.results))


def defer_step(job: Job | None, command: c.DeferStep, facts: Facts) -> Decision:
    """Results or an abort's proof could not be had: later again; results not for ever."""
    if job is None or job.lease is None or job.lease.token != command.token:
        return LEASE_LOST
    if job.state is JobState.STOPPING and job.attempt is not None:
        return _delay_stop(job, job.attempt, facts)
    if job.state is JobState.COLLECTING and job.attempt is not None:
        return _delay_results(job, job.attempt, command, facts)
    at = backoff(job, min(job.tries, 4), facts, command.retry_after)
    return applied(e.StepDeferred(at=facts.now, next_try_at=at))


def _delay_results(job: Job, attempt: Attempt, command: c.DeferStep, facts: Facts) -> Decision:
    """Results are fetched again, ever more seldom, until their time is over. Why they could not be had stands
    with the job, and is told after the first, second, fourth ... try."""
    limits, tries = facts.limits, job.tries + 1
    since = attempt.collecting_since or attempt.changed_at
    over = facts.now - since >= timedelta(seconds=limits.collect_seconds)
    if over or (limits.collect_tries is not None and tries >= limits.collect_tries):
        reason = Reason(ReasonCode.RESULTS_UPLOAD_FAILED, command.reason.message)
        return applied(
            e.Failed(at=facts.now, reason=reason, reservation=ReservationState.QUARANTINED)
        )
    at = backoff(job, job.tries, facts, command.retry_after)
    delayed = e.StepDeferred(at=facts.now, next_try_at=at, reason=command.reason)
    if tries & (tries - 1):
        return applied(delayed)
    text = f"the results could not be fetched yet ({tries} tries): {command.reason.message}"
    return applied(e.LogRecorded(at=facts.now, log=text[:8_000], success=False), delayed)


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
