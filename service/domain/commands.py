"""What somebody wants of a job, or saw of it: the inputs of `decide`. Frozen.

From producers: `RequestTraining`, `RejectRequest`, `RequestStop`. From runs: the four reports. From our own
steps: the rest; a step's command names attempt and lease token, so that repeating it after an unknown
COMMIT, or after somebody else took over, changes nothing. `began_at` is the database's time at which the
call that made an observation began.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from uuid import UUID

from service.domain.frozen import dataclass
from service.domain.values import (
    JsonObject,
    Metric,
    Origin,
    Problem,
    Readable,
    Request,
    Results,
    Submission,
    Why,
)
from service.domain.vocabulary import FLJobStatus, ModelStatus


@dataclass(frozen=True, slots=True)
class Command:
    job_id: UUID


# --- from producers ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestTraining(Command):
    request: Request


@dataclass(frozen=True, slots=True)
class RejectRequest(Command):
    """A request that broke the contract, but whose `job_id` could be read."""

    model_id: UUID | None
    project_id: str | None
    content_hash: bytes  #: SHA-256 of `data` as it came
    errors: tuple[Problem, ...]
    origin: Origin
    requested_by: str | None = None
    readable: Readable = Readable()


@dataclass(frozen=True, slots=True)
class RequestStop(Command):
    reason: str | None
    requested_by: str | None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class StopModel:
    """Stop every unfinished job that the model has at this transaction's time. Not about one job."""

    model_id: UUID
    reason: str | None
    requested_by: str | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class RefuseStop:
    """A stop that broke the contract: answered, never obeyed."""

    job_id: UUID | None
    model_id: UUID | None
    errors: tuple[Problem, ...]
    origin: Origin


# --- from runs -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report(Command):
    attempt: int
    origin: Origin
    run_id: str | None = None
    fl_client_name: str | None = None
    #: of the submission that the run came from, where its server tells it
    path_id: UUID | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class ReportStatus(Report):
    status: ModelStatus = ModelStatus.RUNNING
    detail: str | None = None
    results: Results | None = None


@dataclass(frozen=True, slots=True)
class ReportRound(Report):
    event_type: str = ""
    global_round: int | None = None
    details: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ReportMetrics(Report):
    metrics: tuple[Metric, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportLog(Report):
    log: str = ""
    success: bool = True


# --- from the steps ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim(Command):
    net: str
    holder: str


@dataclass(frozen=True, slots=True)
class TakeLease(Command):
    """Take over work whose lease ran out, or that nobody holds."""

    holder: str


@dataclass(frozen=True, slots=True)
class Leased(Command):
    """A command of a lease's holder: a smaller token than the job's changes nothing."""

    attempt: int
    token: int


@dataclass(frozen=True, slots=True)
class OpenSubmission(Leased):
    """About to call submit_job. Refused when a stop came first."""

    submission: Submission


@dataclass(frozen=True, slots=True)
class GiveBack(Leased):
    """The net can't take the attempt now, and nothing was submitted: queue again, burn no attempt."""

    why: Why
    retry_after: float | None = None  #: seconds, where the adapter named them


@dataclass(frozen=True, slots=True)
class FailAttempt(Leased):
    """The attempt is over. `run_over`: no run of it is alive (never created, or seen terminal)."""

    why: Why
    run_over: bool


@dataclass(frozen=True, slots=True)
class NothingRuns(Leased):
    """A submission without an answer turned out to have created nothing."""


@dataclass(frozen=True, slots=True)
class DelayTry(Leased):
    """Results or an abort's proof could not be had yet."""

    why: Why
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class StoreResults(Leased):
    """The run's results were fetched (None: the adapter has none)."""

    results: Results | None


@dataclass(frozen=True, slots=True)
class KnowRun(Command):
    """The adapter named the run of this attempt's submission. Evidence: needs no lease."""

    attempt: int
    path_id: UUID
    run_id: str
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class SeeRun(Command):
    """A run of ours in an adapter's list. `status` None: a spelling nobody knows.
    `settled`: a terminal status is final on this backend now."""

    attempt: int
    run_id: str
    status: FLJobStatus | None
    details: str | None
    began_at: datetime
    settled: bool = True


@dataclass(frozen=True, slots=True)
class MissRun(Command):
    """A successful list, long enough to be complete, without our run."""

    attempt: int
    run_id: str
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Review(Command):
    """Look at limits, delays and approvals again."""


@dataclass(frozen=True, slots=True)
class TellWaiting(Command):
    """Say why a queued job can't start, when that changed. `code` None: it waits only for its turn."""

    code: str | None
    position: int


@dataclass(frozen=True, slots=True)
class ReleaseSlot(Command):
    """The operator's word that a quarantined slot's run is over."""

    attempt: int
