"""The lifecycle topic: everything that happened to a job, and what was refused.

`body` freezes an event's JSON once, in the transaction that decided it; what is on the topic is that
text, unchanged. Each type's model says what its body holds beside the common fields. Promise: no
body holds a cohort query. Broken by putting free text of a request into a reason's message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from service.contracts.outbound.job_columns import (
    metric_object,
    participants_object,
    reason_object,
    results_object,
)
from service.contracts.outbound.models import (
    Count,
    JobModel,
    MetricModel,
    ParticipantModel,
    Position,
    ReasonModel,
    ResultsModel,
    Truncated,
    WaitingModel,
)
from service.contracts.wire.envelope import rfc3339
from service.contracts.wire.fields import Time, Uuid
from service.contracts.wire.strict_json import write
from service.domain import events as e
from service.domain.enums import Lifecycle, WaitingCode
from service.domain.evolve import event_name_of
from service.domain.job import Job, job_status
from service.domain.values import Reason, Rejection

REFUSED: Final = "fl.training.request_refused.v1"


class QueuedData(JobModel):
    """The request is a job now. `waiting_for` says what keeps it from starting at this moment."""

    trust_ids: list[Uuid]
    """The trusts that shall train."""
    priority: int = Field(ge=0, le=9)
    """0 to 9, the highest first."""
    warnings: list[str] = Field(max_length=100)
    """What the producer may want to know, for people; often empty."""
    waiting_for: WaitingCode | None
    """What keeps the job from starting at this moment; null: only its turn is missing."""


class RejectedData(JobModel):
    """The request can never run; `reason.errors` lists everything that is wrong with it."""

    reason: ReasonModel
    """Why it can never run; `errors` lists everything that is wrong."""


class WaitingData(JobModel):
    """What keeps a queued job from starting has changed; `position` is its position in the queue, 1 first."""

    reason: WaitingModel | None
    """What the job waits for now; null: only its turn is missing."""
    position: Position
    """Its position in the queue, from 1."""


class StartedData(JobModel):
    """A net was claimed for a new attempt, with these participants."""

    participants: list[ParticipantModel]
    """The trusts that take part, with their slots."""
    max_attempts: Position
    """How often the job may be tried."""


class RoundData(JobModel):
    """Progress of the run; `trust_id` and `slot` where one site is meant."""

    global_round: Count
    """The round, from 1; 0 before the first."""
    total_rounds: Count | None
    """Rounds of the run; null: not known."""
    trust_id: Uuid | None
    """The trust that is meant; null: the whole net, or a slot that no trust of the job has."""
    slot: str | None
    """That trust's name in the FL runtime; null: the whole net."""
    details: dict[str, Any]
    """What the FL runtime said of it, as it came; empty where it said nothing."""


class MetricsData(JobModel):
    """Numbers of the run."""

    metrics: list[MetricModel]
    """The numbers that were new."""


class LogData(JobModel):
    """A line of the run's log."""

    log: str
    """The text."""
    success: bool
    """False where the run reported a failure."""


class RetryData(JobModel):
    """Back in the queue. `next_attempt` equals `attempt` where the net was given back unused."""

    reason: ReasonModel
    """Why the attempt is over."""
    not_before: Time
    """The earliest start of the next attempt."""
    next_attempt: Position
    """The number of the next attempt; equal to `attempt` where the net was given back unused."""


class StopData(JobModel):
    """A stop was accepted, or has come to its end; `requested_by` is who asked for the stop."""

    reason: ReasonModel
    """`stopped_by_request` with the request's own text, or why the service stopped the job."""


class CompletedData(JobModel):
    """Trained. `config` is what the run read, `metrics` the last of each label and client. `results` null:
    there is no model to be had from us, and `results_note` says why; with `results` it says what nobody
    vouches for."""

    results: ResultsModel | None
    """Where the trained model lies; null: there is none to be had, and `results_note` says why."""
    results_note: str | None = Field(default=None, max_length=500)
    """Why there are no results, or what nobody vouches for in them; null: all is well."""
    participants: list[ParticipantModel]
    """The trusts that took part, with their slots."""
    rounds: Count
    """Rounds that were aggregated."""
    metrics: list[MetricModel]
    """The last number of each label and slot."""
    bundle_sha256: str | None
    """SHA-256 of the bundle's manifest: what exactly was trained with; null: not known."""
    config: dict[str, Any] | None
    """What the run read: `config.json` with the request's values over it; null: not known."""


class FailedData(JobModel):
    """It ended without a model, and why."""

    reason: ReasonModel
    """Why it failed; `errors` has single causes where there are some."""


class RefusedData(BaseModel):
    """An answer to a request event that changed nothing; `request_id` is that event's id."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    job_id: Uuid | None
    """The job that the request named; null: none."""
    model_id: Uuid | None
    """The model that the request named; null: none."""
    request_id: str
    """`ce_id` of the request that is answered."""
    reason: ReasonModel
    """Why it changed nothing."""
    truncated: Truncated = None


def event_type(event: e.Event) -> str:
    """The CloudEvents type of a published event. KeyError for a quiet one."""
    return TYPES[event_name_of(event)]


def body(job: Job, event: e.Event) -> str:
    """The data of a published event as JSON; `job` is the job after it.

    Raises:
        KeyError: the event is a quiet one, which is never published.
    """
    own = BODIES[event_name_of(event)].own
    return write(_common(job) if own is None else _common(job) | own(job, event))


def refusal(job_id: UUID | None, model_id: UUID | None, request_id: str, reason: Reason) -> str:
    """The data of `fl.training.request_refused.v1` as JSON."""
    return write(
        {
            "job_id": job_id,
            "model_id": model_id,
            "request_id": request_id,
            "reason": reason_object(reason),
        }
    )


def _common(job: Job) -> dict[str, Any]:
    asked, attempt = job.request, job.attempt
    common: dict[str, Any] = {
        "job_id": asked.job_id,
        "model_id": asked.model_id,
        "project_id": asked.project_id,
        "attempt": 0 if attempt is None else attempt.number,
        "state": job.state,
        "job_status": job_status(job.state),
        "model_status": job.model_status,
        "labels": {} if isinstance(asked, Rejection) else asked.labels,
        "requested_by": asked.requested_by,
    }
    if attempt is not None:
        common["net"] = attempt.net
        common["fl_backend"] = attempt.backend
        if attempt.run_id is not None:
            common["fl_backend_job_id"] = attempt.run_id
    elif not isinstance(asked, Rejection) and asked.fl_backend is not None:
        common["fl_backend"] = asked.fl_backend
    return common


def _queued(job: Job, event: e.Queued) -> dict[str, Any]:
    return {
        "trust_ids": event.request.trust_ids,
        "priority": event.request.priority,
        "warnings": event.warnings,
        "waiting_for": event.waiting_for,
    }


def _reason(job: Job, event: e.Rejected | e.Failed) -> dict[str, Any]:
    return {"reason": reason_object(event.reason)}


def _waiting(job: Job, event: e.WaitingChanged) -> dict[str, Any]:
    reason = None if event.code is None else Reason(event.code, event.message)
    return {"reason": reason_object(reason), "position": event.position}


def _started(job: Job, event: e.Started) -> dict[str, Any]:
    return {
        "participants": participants_object(event.attempt.participants),
        "max_attempts": job.accepted_request.max_attempts,
    }


def _round(job: Job, event: e.RoundReported) -> dict[str, Any]:
    return {
        "global_round": event.global_round,
        "total_rounds": event.total_rounds,
        "trust_id": event.trust_id,
        "slot": event.slot,
        "details": event.details or {},
    }


def _metrics(job: Job, event: e.MetricsRecorded) -> dict[str, Any]:
    return {"metrics": [metric_object(metric) for metric in event.metrics]}


def _log(job: Job, event: e.LogRecorded) -> dict[str, Any]:
    return {"log": event.log, "success": event.success}


def _retry(job: Job, event: e.RetryScheduled) -> dict[str, Any]:
    return {
        "reason": reason_object(event.reason),
        "not_before": rfc3339(event.not_before),
        "next_attempt": event.next_attempt,
    }


def _stop_requested(job: Job, event: e.StopRequested) -> dict[str, Any]:
    reason = Reason(event.stop.code, event.stop.reason or "stopped")
    return {"reason": reason_object(reason), "requested_by": event.stop.requested_by}


def _stopped(job: Job, event: e.Stopped) -> dict[str, Any]:
    by = None if job.stop is None else job.stop.requested_by
    return {"reason": reason_object(event.reason), "requested_by": by}


def _completed(job: Job, event: e.Completed) -> dict[str, Any]:
    note = {} if event.note is None else {"results_note": event.note[:500]}
    return note | {
        "results": results_object(event.results),
        "participants": participants_object(event.participants),
        "rounds": event.rounds,
        "metrics": [metric_object(metric) for metric in event.metrics],
        "bundle_sha256": event.bundle_sha256,
        "config": event.config,
    }


@dataclass(frozen=True, slots=True)
class Body:
    """One event name's body: what it says of the event, its model, and its fields beside the common ones."""

    about: str
    model: type[JobModel] = JobModel
    own: Callable[[Job, Any], dict[str, Any]] | None = None


#: The body of each event name.
BODIES: Final[dict[Lifecycle, Body]] = {
    Lifecycle.QUEUED: Body(
        "A request became a job and waits for a net. Comes once.", QueuedData, _queued
    ),
    Lifecycle.REJECTED: Body(
        "A request can never run; all reasons are listed. Ends the job.", RejectedData, _reason
    ),
    Lifecycle.WAITING: Body(
        "What keeps a queued job near the head of the queue from starting changed.",
        WaitingData,
        _waiting,
    ),
    Lifecycle.STARTED: Body(
        "A net was claimed for a new attempt; its participants are fixed now.",
        StartedData,
        _started,
    ),
    Lifecycle.SUBMITTED: Body("The attempt's run exists on its backend."),
    Lifecycle.PREPARED: Body("The run has its initial model."),
    Lifecycle.RUNNING: Body("The run trains. Comes once per attempt."),
    Lifecycle.ROUND_STARTED: Body("A round began.", RoundData, _round),
    Lifecycle.CLIENT_RESULT_RECEIVED: Body(
        "A site returned its result of a round.", RoundData, _round
    ),
    Lifecycle.CLIENT_FAILED: Body(
        "A site failed in a round; `details` say how.", RoundData, _round
    ),
    Lifecycle.ROUND_AGGREGATED: Body(
        "A round's results were folded into the model.", RoundData, _round
    ),
    Lifecycle.METRICS_RECORDED: Body("The run reported numbers.", MetricsData, _metrics),
    Lifecycle.LOG_RECORDED: Body("The run reported a line of its log.", LogData, _log),
    Lifecycle.RETRY_SCHEDULED: Body(
        "The attempt is over, the job is queued again.", RetryData, _retry
    ),
    Lifecycle.STOP_REQUESTED: Body(
        "A stop was accepted; it takes precedence in every non-terminal state.",
        StopData,
        _stop_requested,
    ),
    Lifecycle.STOPPED: Body("The job was stopped. Ends the job.", StopData, _stopped),
    Lifecycle.RESULTS_PENDING: Body("Training is over, its results are on the way."),
    Lifecycle.COMPLETED: Body(
        "The job is done, here are its results. Ends the job.", CompletedData, _completed
    ),
    Lifecycle.FAILED: Body("The job ended without a model. Ends the job.", FailedData, _reason),
}
#: The event type of each event name.
TYPES: Final[dict[Lifecycle, str]] = {name: f"fl.job.{name.value}.v1" for name in Lifecycle}
