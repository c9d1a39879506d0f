"""What happened to a job. Past tense, frozen, with the database's time of the deciding transaction.

What an event does to its job, and whether and under which name it is published, says its row in
`service.domain.evolve`. A published event takes the job's next `sequence`; a quiet one changes the job alone
(a lease, a run id, a missed list), and the next published event's state shows it.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from service.domain.enums import Lifecycle, ReservationState
from service.domain.frozen import value
from service.domain.values import (
    Attempt,
    JsonObject,
    Metric,
    Participant,
    Reason,
    Rejection,
    Request,
    Results,
    Stop,
    Submission,
)


@value
class Event:
    """`at`: the deciding transaction's time."""

    at: datetime


# --- queue ---------------------------------------------------------------------------------------


@value
class Queued(Event):
    request: Request
    waiting_for: str | None = None
    warnings: tuple[str, ...] = ()
    eligible: bool = True
    due_at: datetime | None = None


@value
class Rejected(Event):
    rejection: Rejection
    reason: Reason


@value
class WaitingChanged(Event):
    """Why it can't start now (None: it only waits its turn), and its position in the queue, 1 first."""

    code: str | None
    message: str
    position: int


@value
class BecameEligible(Event):
    due_at: datetime | None = None


# --- on a net ------------------------------------------------------------------------------------


@value
class Started(Event):
    attempt: Attempt
    holder: str
    due_at: datetime | None = None


@value
class LeaseTaken(Event):
    holder: str


@value
class SubmissionOpened(Event):
    """Committed before the adapter is called: from here on a run may exist."""

    attempt: int
    submission: Submission
    due_at: datetime | None = None


@value
class Submitted(Event):
    attempt: int
    run_id: str
    provisional: bool = False
    total_rounds: int | None = None
    due_at: datetime | None = None


@value
class RunIdentified(Event):
    """Evidence of the attempt's run id, kept whatever state the job is in."""

    attempt: int
    run_id: str
    provisional: bool = False


@value
class Prepared(Event):
    pass


@value
class Running(Event):
    attempt: int
    due_at: datetime | None = None


@value
class RoundReported(Event):
    """`event_name` is one of the four round events; `slot` where one site is meant."""

    event_name: Lifecycle
    global_round: int
    details: JsonObject
    total_rounds: int | None = None
    trust_id: UUID | None = None
    slot: str | None = None
    site_state: str = "training"
    site_detail: str | None = None


@value
class MetricsRecorded(Event):
    metrics: tuple[Metric, ...]


@value
class LogRecorded(Event):
    log: str
    success: bool


@value
class ActivitySeen(Event):
    """The run showed that it lives, without news to publish."""


@value
class RunMissed(Event):
    attempt: int
    missing_polls: int
    missing_since: datetime


@value
class RetryScheduled(Event):
    """Back to the queue. `next_attempt` equals `attempt` where the net was given back unused."""

    attempt: int
    reason: Reason
    not_before: datetime
    next_attempt: int
    reservation: ReservationState
    due_at: datetime | None = None


@value
class ResultsPending(Event):
    attempt: int
    reservation: ReservationState


@value
class StepDeferred(Event):
    """A step could not finish (results not to be had, an abort not confirmed) and is retried."""

    next_try_at: datetime
    release: bool = True


# --- stop and end --------------------------------------------------------------------------------


@value
class StopRequested(Event):
    stop: Stop


@value
class Stopping(Event):
    due_at: datetime | None = None


@value
class Stopped(Event):
    reason: Reason
    reservation: ReservationState = ReservationState.RELEASED


@value
class Completed(Event):
    results: Results | None
    reservation: ReservationState
    participants: tuple[Participant, ...] = ()
    rounds: int = 0
    metrics: tuple[Metric, ...] = ()
    bundle_sha256: str | None = None
    config: JsonObject | None = None


@value
class Failed(Event):
    reason: Reason
    reservation: ReservationState


@value
class ReservationChanged(Event):
    attempt: int
    reservation: ReservationState


@value
class Reviewed(Event):
    due_at: datetime | None
