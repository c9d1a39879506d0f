"""What happened to a job. Past tense, frozen, with the database's time of the deciding transaction.

A published event has an `event_name` on the lifecycle topic and takes the job's next `sequence`; a quiet one
changes the row alone (a lease, a run id, a missed list) and is published with the next event's state.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from service.domain.enums import Lifecycle, ReservationState
from service.domain.frozen import value
from service.domain.values import (
    Attempt,
    JsonObject,
    Metric,
    Participant,
    Reason,
    Request,
    Results,
    Stop,
    Submission,
)

if TYPE_CHECKING:
    from uuid import UUID

    from service.domain.job import Rejection


@value
class Event:
    """`at`: the deciding transaction's time."""

    published: ClassVar[bool] = False
    at: datetime


@value
class Published(Event):
    published: ClassVar[bool] = True


# --- queue ---------------------------------------------------------------------------------------


@value
class Queued(Published):
    request: Request
    waiting_for: str | None = None
    warnings: tuple[str, ...] = ()
    eligible: bool = True
    due_at: datetime | None = None


@value
class Rejected(Published):
    rejection: Rejection
    reason: Reason


@value
class WaitingChanged(Published):
    """Why it can't start now (None: it only waits its turn), and its position in the queue, 1 first."""

    code: str | None
    message: str
    position: int


@value
class BecameEligible(Event):
    due_at: datetime | None = None


# --- on a net ------------------------------------------------------------------------------------


@value
class Started(Published):
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
class Submitted(Published):
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
class Prepared(Published):
    pass


@value
class Running(Published):
    attempt: int
    due_at: datetime | None = None


@value
class RoundReported(Published):
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
class MetricsRecorded(Published):
    metrics: tuple[Metric, ...]


@value
class LogRecorded(Published):
    log: str
    success: bool


@value
class ActivitySeen(Event):
    """The run showed that it lives, without news to publish."""


@value
class RunMissed(Event):
    """A complete list left the run out. `missing_polls` counts such lists in a row, `missing_since` is when
    the first of them began. `list_began_at` is the counted list's: neither an older list nor the same one
    again is counted after it. None where there was no list, since the net is gone."""

    attempt: int
    missing_polls: int
    missing_since: datetime
    list_began_at: datetime | None = None


@value
class RunSeenAgain(Event):
    """A list showed a run that others before had left out: their count starts anew."""

    attempt: int
    list_began_at: datetime


@value
class RetryScheduled(Published):
    """Back to the queue. `next_attempt` equals `attempt` where the net was given back unused."""

    attempt: int
    reason: Reason
    not_before: datetime
    next_attempt: int
    reservation: ReservationState
    due_at: datetime | None = None


@value
class ResultsPending(Published):
    """`claimed`: where the run says its results are, a place that nobody vouches for."""

    attempt: int
    reservation: ReservationState
    claimed: Results | None = None


@value
class StepDeferred(Event):
    """A step could not finish (results not to be had, an abort not confirmed) and is retried."""

    next_try_at: datetime
    release: bool = True
    reason: Reason | None = None


@value
class CollectingHurried(Event):
    """The next try at the results comes at once, and the delays begin anew."""


@value
class ResultsRecovered(Event):
    """Results that had been given up are in our store; the job's end stays what it was."""

    results: Results


# --- stop and end --------------------------------------------------------------------------------


@value
class StopRequested(Published):
    stop: Stop


@value
class Stopping(Event):
    due_at: datetime | None = None


@value
class Stopped(Published):
    reason: Reason
    reservation: ReservationState = ReservationState.RELEASED


@value
class Completed(Published):
    results: Results | None
    reservation: ReservationState
    note: str | None = field(
        default=None, kw_only=True
    )  #: why there are none, or none that we looked at
    participants: tuple[Participant, ...] = ()
    rounds: int = 0
    metrics: tuple[Metric, ...] = ()
    bundle_sha256: str | None = None
    config: JsonObject | None = None


@value
class Failed(Published):
    reason: Reason
    reservation: ReservationState


@value
class ReservationChanged(Event):
    attempt: int
    reservation: ReservationState


@value
class Reviewed(Event):
    due_at: datetime | None


#: The lifecycle name of each published event but `RoundReported`, which carries its own.
EVENT_NAMES: dict[type[Event], Lifecycle] = {
    Queued: Lifecycle.QUEUED,
    Rejected: Lifecycle.REJECTED,
    WaitingChanged: Lifecycle.WAITING,
    Started: Lifecycle.STARTED,
    Submitted: Lifecycle.SUBMITTED,
    Prepared: Lifecycle.PREPARED,
    Running: Lifecycle.RUNNING,
    MetricsRecorded: Lifecycle.METRICS_RECORDED,
    LogRecorded: Lifecycle.LOG_RECORDED,
    RetryScheduled: Lifecycle.RETRY_SCHEDULED,
    ResultsPending: Lifecycle.RESULTS_PENDING,
    StopRequested: Lifecycle.STOP_REQUESTED,
    Stopped: Lifecycle.STOPPED,
    Completed: Lifecycle.COMPLETED,
    Failed: Lifecycle.FAILED,
}


def event_name_of(event: Event) -> Lifecycle:
    """The lifecycle name of a published event. KeyError for a quiet one."""
    return event.event_name if isinstance(event, RoundReported) else EVENT_NAMES[type(event)]
