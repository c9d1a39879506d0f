"""A stop takes precedence in every non-terminal state, and before the request too."""

from __future__ import annotations

from service.domain import commands as c
from service.domain import events as e
from service.domain.decision import PARKED, Decision, applied, ignored
from service.domain.enums import JobState, ReasonCode, ReservationState
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.values import Reason, Stop


def publish_stop(job: Job | None, command: c.RequestStop, facts: Facts) -> Decision:
    """An accepted stop: over at once where no run can exist, else aborted until the backend agrees."""
    if job is None:
        return PARKED
    if job.terminal:
        return ignored("over", f"the job is {job.state} already")
    if job.stop is not None:
        return ignored("stopping", "a stop was accepted already")
    code = ReasonCode.STOPPED_BY_REQUEST
    stop = Stop(command.reason, command.requested_by, facts.now, code, origin=command.origin)
    return stop_now(job, stop, facts)


def stop_now(job: Job, stop: Stop, facts: Facts) -> Decision:
    """The events of a stop in the job's state."""
    asked = e.StopRequested(at=facts.now, stop=stop)
    if job.state in (JobState.SUBMITTING, JobState.RUNNING):
        return applied(asked, e.Stopping(at=facts.now))
    # A run that is being collected from may still be there: released when its adapter's list says so.
    reservation = (
        ReservationState.QUARANTINED
        if job.state is JobState.COLLECTING
        else ReservationState.RELEASED
    )
    return applied(asked, stopped(stop, reservation, facts))


def stopped(stop: Stop, reservation: ReservationState, facts: Facts) -> e.Stopped:
    """The end of a stop, with the stop's own reason."""
    return e.Stopped(
        at=facts.now, reason=Reason(stop.code, stop.reason or "stopped"), reservation=reservation
    )
