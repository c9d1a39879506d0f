"""Handing an attempt to its adapter: the commitment before the call, and what came of it."""

from __future__ import annotations

from typing import Final

from service.domain import commands as c
from service.domain import events as e
from service.domain.claim import not_approved
from service.domain.decision import LEASE_LOST, Decision, applied, ignored
from service.domain.eligibility import ineligibility
from service.domain.enums import JobState, ReservationState
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.limits import next_running_due, revoked, stop_revoked
from service.domain.retry import fail_or_retry, requeue
from service.domain.stop import stopped
from service.domain.values import Attempt

#: Code of a refused commit: whoever holds the job gives the net back.
NET_UNFIT: Final = "net_unfit"


def _fenced(job: Job | None, command: c.Leased) -> bool:
    """Does somebody else hold the job now, or is the attempt another one?"""
    return (
        job is None
        or job.lease is None
        or job.lease.token != command.token
        or job.attempt_number != command.attempt
    )


def open_submission(job: Job | None, command: c.OpenSubmission, facts: Facts) -> Decision:
    """Commit key, path id and the runs known before, so that the call that follows can be found again.

    Approvals and members are checked once more: after this nothing holds the data back.
    """
    if job is None or _fenced(job, command):
        return LEASE_LOST
    if job.state not in (JobState.PREPARING, JobState.SUBMITTING):
        return ignored("too_late", f"the job is {job.state}")
    reason = not_approved(job.accepted_request, facts)
    if reason is not None and job.state is JobState.PREPARING:
        return applied(e.Failed(at=facts.now, reason=reason, reservation=ReservationState.RELEASED))
    reason = revoked(job, facts)
    if reason is not None:
        return stop_revoked(job, reason, facts)
    unfit = _unfit(job, facts)
    if unfit is not None:
        return ignored(NET_UNFIT, unfit)
    return applied(
        e.SubmissionOpened(at=facts.now, attempt=command.attempt, submission=command.submission)
    )


def _unfit(job: Job, facts: Facts) -> str | None:
    """Why the net can't take the attempt any more, its registry having changed since the claim."""
    attempt = job.attempt
    if attempt is None:
        return None
    net = facts.registry.nets.get(attempt.net)
    if net is None:
        return f"net {attempt.net} left the registry"
    reason = ineligibility(net, job.accepted_request, facts.nets.get(net.name))
    if reason is not None:
        return f"net {net.name} {reason}"
    moved = [p.slot for p in attempt.participants if net.members[p.trust_id] != p.slot]
    return f"no longer so named on net {net.name}: {', '.join(moved[:20])}" if moved else None


def release_net(job: Job | None, command: c.ReleaseNet, facts: Facts) -> Decision:
    """Nothing was submitted: back to the queue, or over where a stop waits."""
    if job is None or _fenced(job, command):
        return LEASE_LOST
    if job.state is JobState.STOPPING and job.stop is not None:
        return applied(stopped(job.stop, _unless_known(job), facts))
    if job.state not in (JobState.PREPARING, JobState.SUBMITTING):
        return ignored("too_late", f"the job is {job.state}")
    return applied(requeue(job, command.reason, facts, command.retry_after))


def fail_attempt(job: Job | None, command: c.FailAttempt, facts: Facts) -> Decision:
    """The attempt is over before it ran. The reservation of a run that may live is quarantined."""
    if job is None or _fenced(job, command):
        return LEASE_LOST
    reservation = ReservationState.RELEASED if command.run_over else ReservationState.QUARANTINED
    if job.state is JobState.STOPPING:
        if command.run_over and job.stop is not None:
            return applied(stopped(job.stop, reservation, facts))
        return applied(e.Failed(at=facts.now, reason=command.reason, reservation=reservation))
    if job.state is JobState.COLLECTING:  # results that can never be stored
        return applied(e.Failed(at=facts.now, reason=command.reason, reservation=reservation))
    if job.state not in (JobState.PREPARING, JobState.SUBMITTING):
        return ignored("too_late", f"the job is {job.state}")
    return applied(fail_or_retry(job, command.reason, reservation, facts))


def confirm_no_run(job: Job | None, command: c.ConfirmNoRun, facts: Facts) -> Decision:
    """A stop waited for a submission that turned out to have made no run."""
    if job is None or _fenced(job, command):
        return LEASE_LOST
    if job.state is not JobState.STOPPING or job.stop is None:
        return ignored("not_stopping")
    return applied(stopped(job.stop, _unless_known(job), facts))


def _unless_known(job: Job) -> ReservationState:
    """The reservation of a submission that made no run; a report may have named one after all."""
    known = job.attempt is not None and job.attempt.run_id is not None
    return ReservationState.QUARANTINED if known else ReservationState.RELEASED


def submitted(job: Job, attempt: Attempt, run_id: str, facts: Facts, provisional: bool) -> e.Event:
    """The event of a known run, with the rounds it will take and the limits it lives under."""
    config = attempt.submission.config if attempt.submission is not None else {}
    rounds = config.get("GLOBAL_ROUNDS")
    return e.Submitted(
        at=facts.now,
        attempt=attempt.number,
        run_id=run_id,
        provisional=provisional,
        total_rounds=rounds if isinstance(rounds, int) and not isinstance(rounds, bool) else None,
        due_at=next_running_due(job, attempt, facts),
    )


def record_run(job: Job | None, command: c.RecordRun, facts: Facts) -> Decision:
    """An adapter named the run of a submission. Kept in every state, so that a run of a stopped or
    failed job is found and aborted."""
    if job is None:
        return ignored("no_job")
    attempt = next((a for a in job.attempts if a.number == command.attempt), None)
    if attempt is None or attempt.submission is None:
        return ignored("other_attempt")
    paths = (attempt.submission.path_id, *attempt.submission.earlier_paths)
    if command.path_id not in paths:
        return ignored("other_submission")
    if attempt.run_id is not None:
        return ignored("known" if attempt.run_id == command.run_id else "other_run")
    current = attempt is job.attempt
    if current and job.state is JobState.SUBMITTING:
        return applied(submitted(job, attempt, command.run_id, facts, command.provisional))
    known = e.RunIdentified(
        at=facts.now,
        attempt=attempt.number,
        run_id=command.run_id,
        provisional=command.provisional,
    )
    if attempt.reservation is ReservationState.RELEASED:
        back = e.ReservationChanged(
            at=facts.now, attempt=attempt.number, reservation=ReservationState.QUARANTINED
        )
        return applied(known, back)
    return applied(known)


def release_reservation(job: Job | None, command: c.ReleaseReservation, facts: Facts) -> Decision:
    """The operator releases a quarantined reservation by hand."""
    attempt = next((a for a in (job.attempts if job else ()) if a.number == command.attempt), None)
    if attempt is None or attempt.reservation is not ReservationState.QUARANTINED:
        return ignored("not_quarantined", "only a quarantined reservation can be released")
    return applied(
        e.ReservationChanged(
            at=facts.now, attempt=attempt.number, reservation=ReservationState.RELEASED
        )
    )
