"""From the queue onto a net: who takes part, under which attempt number, and who holds the work."""

from __future__ import annotations

from service.domain import commands as c
from service.domain import events as e
from service.domain.decision import LEASE_LOST, Decision, applied, ignored
from service.domain.eligibility import (
    holds_model,
    ineligibility,
    manifest_missing,
    runnable,
    short_of_gpus,
    unapproved,
)
from service.domain.enums import ACTIVE, JobState, ReasonCode, ReservationState
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.values import Attempt, Participant, Reason, Request


def not_approved(request: Request, facts: Facts) -> Reason | None:
    """The reason that ends or stops a job whose approvals were taken back; None: all stand."""
    gone = unapproved(request, facts.registry)
    if not gone:
        return None
    names = ", ".join(str(t) for t in gone[:10])
    return Reason(ReasonCode.TRUST_NOT_APPROVED, f"no longer approved for this project: {names}")


def claim(job: Job | None, command: c.Claim, facts: Facts) -> Decision:
    """Start an attempt on the selected net; the last check of everything that the selection relied on."""
    if job is None or job.state is not JobState.QUEUED or not job.eligible:
        return ignored("not_queued")
    request = job.accepted_request
    reason = not_approved(request, facts)
    if reason is not None:
        return applied(e.Failed(at=facts.now, reason=reason, reservation=ReservationState.RELEASED))
    if facts.hub_paused:
        return ignored("hub_paused")
    net = facts.registry.nets.get(command.net)
    now = facts.nets.get(command.net)
    if net is None or now is None or not now.answering or now.paused or now.in_doubt:
        return ignored("net_gone")
    if ineligibility(net, request, now) is not None or not runnable(request.job_type, [net], facts):
        return ignored("net_unfit")
    if manifest_missing(net, request, facts):
        return ignored("manifest_unavailable")
    if now.taken >= net.capacity or short_of_gpus(net, request, now):
        return ignored("net_unfit")
    if holds_model(net, request, facts):
        return ignored("model_taken", "the net still holds this model's app or results")
    online = [t for t in request.trust_ids if t in now.online]
    if len(online) < request.min_trusts:
        return ignored("trusts_gone")
    last = job.attempt
    # A run that became known after the requeue makes it one that counts: its reservation must stay known.
    kept = last is not None and not last.counts_as_attempt and last.run_id is None
    attempt = Attempt(
        number=job.attempt_number if kept else job.attempt_number + 1,
        net=net.name,
        backend=net.backend,
        participants=tuple(Participant(t, net.members[t]) for t in online),
        started_at=facts.now,
        changed_at=facts.now,
        leases=last.leases + 1 if kept and last is not None else 1,
    )
    return applied(
        e.Started(at=facts.now, attempt=attempt, holder=command.holder, due_at=request.deadline)
    )


def take_lease(job: Job | None, command: c.TakeLease, facts: Facts) -> Decision:
    """Take over work that nobody holds any more."""
    if job is None or job.state not in ACTIVE:
        return ignored("not_active")
    if job.lease is not None and (job.lease.until is None or job.lease.until > facts.now):
        return LEASE_LOST
    if job.next_try_at is not None and job.next_try_at > facts.now:
        return ignored("not_due")
    return applied(e.LeaseTaken(at=facts.now, holder=command.holder))
