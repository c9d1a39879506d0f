"""What happened to a job. Past tense, frozen, with the database's time of the deciding transaction.

A published event has a `word` of the lifecycle topic and takes the job's next `sequence`; a quiet one
changes the row alone (a lease, a run id, a missed list) and is told by the next published event's state.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from service.domain.frozen import dataclass
from service.domain.values import (
    Attempt,
    JsonObject,
    Metric,
    Participant,
    Request,
    Results,
    Stop,
    Submission,
    Why,
)
from service.domain.vocabulary import Lifecycle, SlotState

if TYPE_CHECKING:
    from uuid import UUID

    from service.domain.job import Rejection


@dataclass(frozen=True, slots=True)
class Event:
    """`at`: the deciding transaction's time."""

    published: ClassVar[bool] = False
    at: datetime


@dataclass(frozen=True, slots=True)
class Published(Event):
    published: ClassVar[bool] = True


# --- queue ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queued(Published):
    request: Request
    waiting_for: str | None = None
    warnings: tuple[str, ...] = ()
    eligible: bool = True
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rejected(Published):
    rejection: Rejection
    reason: Why


@dataclass(frozen=True, slots=True)
class WaitingTold(Published):
    """Why it can't start now (None: it only waits its turn), and its place in the queue, 1 first."""

    code: str | None
    message: str
    position: int


@dataclass(frozen=True, slots=True)
class BecameEligible(Event):
    due_at: datetime | None = None


# --- on a net ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started(Published):
    attempt: Attempt
    holder: str
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeaseTaken(Event):
    holder: str


@dataclass(frozen=True, slots=True)
class SubmissionOpened(Event):
    """Committed before the adapter is called: from here on a run may exist."""

    attempt: int
    submission: Submission
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Submitted(Published):
    attempt: int
    run_id: str
    provisional: bool = False
    total_rounds: int | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunKnown(Event):
    """Evidence of the attempt's run id, kept whatever state the job is in."""

    attempt: int
    run_id: str
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class Prepared(Published):
    pass


@dataclass(frozen=True, slots=True)
class Running(Published):
    attempt: int
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RoundReported(Published):
    """`word` is one of the four round words; `slot` where one site is meant."""

    word: Lifecycle
    global_round: int
    details: JsonObject
    total_rounds: int | None = None
    trust_id: UUID | None = None
    slot: str | None = None
    site_state: str = "training"
    site_detail: str | None = None


@dataclass(frozen=True, slots=True)
class MetricsRecorded(Published):
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, slots=True)
class LogRecorded(Published):
    log: str
    success: bool


@dataclass(frozen=True, slots=True)
class SignSeen(Event):
    """The run showed that it lives, without news to tell."""


@dataclass(frozen=True, slots=True)
class RunMissed(Event):
    attempt: int
    missed: int
    missing_since: datetime


@dataclass(frozen=True, slots=True)
class RetryScheduled(Published):
    """Back to the queue. `next_attempt` equals `attempt` where the net was given back unused."""

    attempt: int
    reason: Why
    not_before: datetime
    next_attempt: int
    slot: SlotState
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ResultsPending(Published):
    attempt: int
    slot: SlotState


@dataclass(frozen=True, slots=True)
class TryDelayed(Event):
    """A step could not finish (results not to be had, an abort not confirmed) and will come again."""

    next_try_at: datetime
    release: bool = True


# --- stop and end --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StopRequested(Published):
    stop: Stop


@dataclass(frozen=True, slots=True)
class Stopping(Event):
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stopped(Published):
    reason: Why
    slot: SlotState = SlotState.FREE


@dataclass(frozen=True, slots=True)
class Completed(Published):
    results: Results | None
    slot: SlotState
    participants: tuple[Participant, ...] = ()
    rounds: int = 0
    metrics: tuple[Metric, ...] = ()
    bundle_sha256: str | None = None
    config: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Failed(Published):
    reason: Why
    slot: SlotState


@dataclass(frozen=True, slots=True)
class SlotChanged(Event):
    attempt: int
    slot: SlotState


@dataclass(frozen=True, slots=True)
class Reviewed(Event):
    due_at: datetime | None


#: The lifecycle word of each published event but `RoundReported`, which carries its own.
WORDS: dict[type[Event], Lifecycle] = {
    Queued: Lifecycle.QUEUED,
    Rejected: Lifecycle.REJECTED,
    WaitingTold: Lifecycle.WAITING,
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


def word_of(event: Event) -> Lifecycle:
    """The lifecycle word of a published event. KeyError for a quiet one."""
    return event.word if isinstance(event, RoundReported) else WORDS[type(event)]
