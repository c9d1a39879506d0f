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

from service.domain.enums import FLJobStatus, ModelStatus
from service.domain.frozen import value
from service.domain.values import (
    JsonObject,
    Metric,
    Origin,
    PartialRequest,
    Problem,
    Reason,
    Request,
    Results,
    Submission,
)


@value
class Command:
    job_id: UUID


# --- from producers ------------------------------------------------------------------------------


@value
class RequestTraining(Command):
    request: Request


@value
class RejectRequest(Command):
    """A request that broke the contract, but whose `job_id` could be read."""

    model_id: UUID | None
    project_id: str | None
    content_hash: bytes  #: SHA-256 of `data` as it came
    errors: tuple[Problem, ...]
    origin: Origin
    requested_by: str | None = None
    partial: PartialRequest = PartialRequest()


@value
class RequestStop(Command):
    reason: str | None
    requested_by: str | None
    origin: Origin | None = None


@value
class StopModel:
    """Stop every unfinished job that the model has at this transaction's time. Not about one job."""

    model_id: UUID
    reason: str | None
    requested_by: str | None
    origin: Origin


@value
class RefuseStop:
    """A stop that broke the contract: answered, never obeyed."""

    job_id: UUID | None
    model_id: UUID | None
    errors: tuple[Problem, ...]
    origin: Origin


# --- from runs -----------------------------------------------------------------------------------


@value
class Report(Command):
    attempt: int
    origin: Origin
    run_id: str | None = None
    fl_client_name: str | None = None
    #: of the submission that the run came from, where its server tells it
    path_id: UUID | None = field(default=None, kw_only=True)


@value
class ReportStatus(Report):
    status: ModelStatus = ModelStatus.RUNNING
    detail: str | None = None
    results: Results | None = None


@value
class ReportRound(Report):
    event_type: str = ""
    global_round: int | None = None
    details: JsonObject | None = None


@value
class ReportMetrics(Report):
    metrics: tuple[Metric, ...] = ()


@value
class ReportLog(Report):
    log: str = ""
    success: bool = True


# --- from the steps ------------------------------------------------------------------------------


@value
class Claim(Command):
    net: str
    holder: str


@value
class TakeLease(Command):
    """Take over work whose lease ran out, or that nobody holds."""

    holder: str


@value
class Leased(Command):
    """A command of a lease's holder: a smaller token than the job's changes nothing."""

    attempt: int
    token: int


@value
class OpenSubmission(Leased):
    """About to call submit_job. Refused when a stop came first."""

    submission: Submission


@value
class ReleaseNet(Leased):
    """The net can't take the attempt now, and nothing was submitted: queue again, burn no attempt."""

    reason: Reason
    retry_after: float | None = None  #: seconds, where the adapter named them


@value
class FailAttempt(Leased):
    """The attempt is over. `run_over`: no run of it is alive (never created, or seen terminal)."""

    reason: Reason
    run_over: bool


@value
class ConfirmNoRun(Leased):
    """A submission without an answer turned out to have created nothing."""


@value
class DeferStep(Leased):
    """Results or an abort's proof could not be had yet."""

    reason: Reason
    retry_after: float | None = None


@value
class StoreResults(Leased):
    """The run's results were fetched; None: there are none to fetch, and `note` says why."""

    results: Results | None
    note: str | None = None


@value
class CollectNow(Command):
    """Somebody wants results that could not be had to be fetched again at once."""


@value
class RecordResults(Command):
    """Results of a run that were given up were fetched after all."""

    attempt: int
    results: Results


@value
class RecordRun(Command):
    """The adapter named the run of this attempt's submission. Evidence: needs no lease."""

    attempt: int
    path_id: UUID
    run_id: str
    provisional: bool = False


@value
class ObserveRun(Command):
    """A run of ours in an adapter's list. `status` None: a spelling nobody knows.
    `settled`: a terminal status is final on this backend now."""

    attempt: int
    run_id: str
    status: FLJobStatus | None
    details: str | None
    began_at: datetime
    settled: bool = True


@value
class ObserveRunMissing(Command):
    """A successful list, long enough to be complete, without our run."""

    attempt: int
    run_id: str
    began_at: datetime


@value
class Review(Command):
    """Check limits, delays and approvals again."""


@value
class ReportWaiting(Command):
    """Say why a queued job can't start, when that changed. `code` None: it waits only for its turn."""

    code: str | None
    position: int


@value
class ReleaseReservation(Command):
    """The operator states that a quarantined reservation's run is over."""

    attempt: int
