"""What an FL-API server or a running app reports of a job, and the commands it becomes.

Four types on one topic: `fl.job.status_reported.v1`, `round_reported`, `metrics_reported`,
`log_reported`. Promise: fields that we don't know are tolerated, since servers are upgraded on
their own; fields that we know keep their rules, and a report that breaks one is not half used.
Which attempt and state a report fits is the domain's decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from service.contracts.inbound.training import origin
from service.contracts.wire.envelope import Envelope
from service.contracts.wire.fields import (
    DetailsObject,
    Int32,
    NullIs,
    Number,
    Sha256,
    Text256,
    Text500,
    Uuid,
    text,
)
from service.contracts.wire.problems import problem
from service.contracts.wire.validation import Valid, uuid_spelling_problems, validate
from service.domain import commands
from service.domain.enums import ModelStatus, RoundEvent
from service.domain.values import Metric, Problem, Results

STATUS_REPORTED: Final = "fl.job.status_reported.v1"
ROUND_REPORTED: Final = "fl.job.round_reported.v1"
METRICS_REPORTED: Final = "fl.job.metrics_reported.v1"
LOG_REPORTED: Final = "fl.job.log_reported.v1"

#: FLIP's former name of RUNNING, still sent by older apps.
_ALIAS: Final = "TRAINING_STARTED"
_REPORTABLE: Final = tuple(status for status in ModelStatus if status is not ModelStatus.PENDING)
# A site may also fail before the first round, while it loads its data.
_ROUNDLESS: Final = frozenset({RoundEvent.JOB_WAITING_FOR_RESOURCES, RoundEvent.CLIENT_FAILED})
_WITH_ROUND: Final = frozenset(RoundEvent) - _ROUNDLESS
_OPEN: Final = ConfigDict(extra="ignore", use_attribute_docstrings=True)
#: Sizes may pass 32 bits: a trained model can have more than 2 GiB.
_MAX_BYTES: Final = 2**53 - 1


def _status(value: Any) -> Any:
    if value == _ALIAS:
        return ModelStatus.RUNNING
    if value == ModelStatus.PENDING:
        raise ValueError("PENDING is no status of a running job")
    return value


ReportedStatus = Annotated[
    ModelStatus,
    BeforeValidator(_status),
    WithJsonSchema({"type": "string", "enum": [*(s.value for s in _REPORTABLE), _ALIAS]}),
]


class ReportedResults(BaseModel):
    """Where a run put its results, and what they are."""

    model_config = _OPEN

    uri: Annotated[str, text(2_048)]
    """Where the run put its results."""
    sha256: Sha256 | None = None
    """SHA-256 in hexadecimal; null: not known."""
    bytes: Annotated[int, Field(strict=True, ge=0, le=_MAX_BYTES)] | None = None
    """Size in bytes; null: not known."""


class ReportedMetric(BaseModel):
    """One number of a run; `result` null where it was not finite."""

    model_config = _OPEN

    label: Text256
    """What was measured."""
    result: Number | None
    """The value; null where it was not finite."""
    global_round: Annotated[Int32, Field(ge=0)]
    """The round it was measured in, from 1; 0 before the first."""
    x_value: Number | None = None
    """Where it stands on an axis other than rounds; null: the round."""
    x_label: Text256 | None = None
    """That axis' name; null: rounds."""
    fl_client_name: Text256 | None = None
    """The slot that measured it; null: the report's own."""


class JobReport(BaseModel):
    """What every report says: which run of which job it is about.

    `attempt` is the submission's, as the FL-API server received it; `path_id` too: the UUID that stood
    in the paths of its calls.
    """

    model_config = _OPEN

    job_id: Uuid
    """The job's id."""
    attempt: Annotated[Int32, Field(ge=1)]
    """The attempt, as the FL-API server received it with the submission."""
    model_id: Uuid | None = None
    """The model's id; null: not told."""
    path_id: Uuid | None = None
    """The UUID that stood in the paths of the submission's calls; null: not told."""
    fl_backend_job_id: Text256 | None = None
    """The run's id in the FL runtime; null: not told."""
    fl_client_name: Text256 | None = None
    """The slot that reports; null: the FL server."""


class StatusReported(JobReport):
    """Data of `fl.job.status_reported.v1`."""

    status: ReportedStatus
    """Where the run is. `TRAINING_STARTED` means `RUNNING`."""
    detail: Text500 | None = None
    """More of it for people, such as an error; null: nothing."""
    results: ReportedResults | None = None
    """Where the results are, once there are some; null: not told."""


_NEEDS_ROUND: Final[dict[str, Any]] = {
    "if": {
        "required": ["event_type"],
        "properties": {"event_type": {"enum": sorted(event.value for event in _WITH_ROUND)}},
    },
    "then": {
        "required": ["global_round"],
        "properties": {"global_round": {"type": "integer"}},
    },
}


class RoundReportModel(JobReport):
    """Data of `fl.job.round_reported.v1`; the vocabulary of `event_type` is open."""

    model_config = ConfigDict(
        extra="ignore", use_attribute_docstrings=True, json_schema_extra=_NEEDS_ROUND
    )

    event_type: Annotated[str, text(64)]
    """What happened, such as `ROUND_STARTED`. A word that is not known becomes a line of the log."""
    global_round: Annotated[Int32, Field(ge=1)] | None = None
    """The round, from 1; null: before the first."""
    details: DetailsObject | None = None
    """Anything more, at most 32 KiB as JSON; null: nothing. Of a failure `error` becomes the text."""


class MetricsReported(JobReport):
    """Data of `fl.job.metrics_reported.v1`."""

    metrics: list[ReportedMetric] = Field(min_length=1, max_length=1_000)
    """The numbers."""


class LogReported(JobReport):
    """Data of `fl.job.log_reported.v1`."""

    log: Annotated[str, text(8_000)]
    """The text."""
    success: Annotated[bool, Field(strict=True), NullIs(lambda: True)] = True
    """False reports a failure."""


AnyReport = StatusReported | RoundReportModel | MetricsReported | LogReported
MODELS: Final[dict[str, type[AnyReport]]] = {
    STATUS_REPORTED: StatusReported,
    ROUND_REPORTED: RoundReportModel,
    METRICS_REPORTED: MetricsReported,
    LOG_REPORTED: LogReported,
}


def report(event_type: str, data: Mapping[str, Any]) -> AnyReport:
    """`data` as a report of this type.

    Raises:
        BadData: with every error of the fields and of the rules between them.
        KeyError: the type is no report's.
    """
    return validate("report", MODELS[event_type], data, _rules)


def _rules(valid: Valid, data: Mapping[str, Any]) -> Iterator[Problem]:
    yield from uuid_spelling_problems(data, "job_id", "model_id", "path_id")
    if valid.get("event_type") in _WITH_ROUND and valid.get("global_round", 0) is None:
        yield problem(("global_round",), "This event needs its round", "missing")


def to_command(model: AnyReport, envelope: Envelope) -> commands.Report:
    """The domain's command for an accepted report."""
    job, attempt, came_from = model.job_id, model.attempt, origin(envelope)
    run_id, client, path_id = model.fl_backend_job_id, model.fl_client_name, model.path_id
    if isinstance(model, StatusReported):
        return commands.ReportStatus(
            job,
            attempt,
            came_from,
            run_id,
            client,
            model.status,
            model.detail,
            _results(model.results),
            path_id=path_id,
        )
    if isinstance(model, RoundReportModel):
        return commands.ReportRound(
            job,
            attempt,
            came_from,
            run_id,
            client,
            model.event_type,
            model.global_round,
            model.details,
            path_id=path_id,
        )
    if isinstance(model, MetricsReported):
        metrics = tuple(_metric(metric, client) for metric in model.metrics)
        return commands.ReportMetrics(
            job, attempt, came_from, run_id, client, metrics, path_id=path_id
        )
    return commands.ReportLog(
        job,
        attempt,
        came_from,
        run_id,
        client,
        model.log,
        model.success,
        path_id=path_id,
    )


def _results(results: ReportedResults | None) -> Results | None:
    if results is None:
        return None
    sha256 = results.sha256.lower() if results.sha256 else None
    return Results(results.uri, sha256, results.bytes)


def _metric(metric: ReportedMetric, reporter: str | None) -> Metric:
    """A metric; where it names no client, the report's own is meant."""
    return Metric(
        metric.label,
        metric.result,
        metric.global_round,
        metric.fl_client_name or reporter,
        metric.x_value,
        metric.x_label,
    )
