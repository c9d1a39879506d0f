"""The models that our published events share.

Outbound data may only gain optional fields; anything else is a new event type. So these models
tolerate fields they don't know, as every reader of ours should. They make the JSON Schemas, and the
tests hold what the translations write against them; at run time the bodies are written from plain
dictionaries, since validating our own bodies would cost more than writing them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from service.contracts.wire.fields import Time, Uuid
from service.domain.enums import (
    FLBackend,
    JobState,
    JobStatus,
    ModelStatus,
    ReasonCode,
    WaitingCode,
)

_OPEN: Final = ConfigDict(extra="ignore", use_attribute_docstrings=True)

Count = Annotated[int, Field(ge=0)]
Position = Annotated[int, Field(ge=1)]


Truncated = Annotated[
    list[str] | None,
    Field(description="Members that were left out or cut since the record was too long"),
]


class ErrorItem(BaseModel):
    """One thing wrong with an input: path, text for people, stable kind for machines."""

    model_config = _OPEN

    loc: list[str | int]
    """Where: names and list positions, outermost first."""
    msg: str
    """What is wrong, for people. May change."""
    type: str
    """The kind of the error, for machines. Stable."""


class ReasonModel(BaseModel):
    """Why: a stable code, a message for people, and the single errors where there are some."""

    model_config = _OPEN

    code: ReasonCode
    """The stable code; what to do about each is in the reference of reasons."""
    message: str
    """The same for people. May change."""
    errors: list[ErrorItem] = Field(max_length=100)
    """The single errors, the first 100; empty where there are none."""


class WaitingModel(BaseModel):
    """Why a job can't start now."""

    model_config = _OPEN

    code: WaitingCode
    """The stable code."""
    message: str
    """The same for people. May change."""
    errors: list[ErrorItem] = Field(max_length=100)
    """Always empty."""


class ParticipantModel(BaseModel):
    """A trust that takes part, and its name inside the net's FL runtime."""

    model_config = _OPEN

    trust_id: Uuid
    """The trust's id."""
    slot: str
    """The trust's name inside the net's FL runtime, such as `Trust_1`."""


class MetricModel(BaseModel):
    """One number of a run; `result` null where it was not finite."""

    model_config = _OPEN

    label: str
    """What was measured, such as `train_loss`."""
    result: float | None
    """The value; null where it was not finite."""
    global_round: Count
    """The round it was measured in, from 1; 0 before the first."""
    fl_client_name: str | None = None
    """The slot that measured it; null: the aggregate, or the whole run."""
    x_value: float | None = None
    """Where it stands on an axis other than rounds; null: the round."""
    x_label: str | None = None
    """That axis' name; null: rounds."""


class ResultsModel(BaseModel):
    """Where the results lie, their SHA-256 in hexadecimal and their size."""

    model_config = _OPEN

    uri: str
    """Address of the archive, `s3://bucket/key`."""
    sha256: str | None = None
    """The archive's SHA-256 in hexadecimal; null when it is not known."""
    bytes: Count | None = None
    """Its size in bytes; null when it is not known."""


class JobModel(BaseModel):
    """What every event about a job says.

    `attempt` is 0 until the first claim. `model_id` and `project_id` are null only in a rejection,
    where the request's were unusable. `net`, `fl_backend`, `fl_backend_job_id` and `reason` are
    there when they are known.
    """

    model_config = _OPEN

    job_id: Uuid
    """The id that the producer chose."""
    model_id: Uuid | None
    """The model that is trained; null only in a rejection whose request's was unusable."""
    project_id: str | None
    """The project; null only in a rejection whose request's was unusable."""
    attempt: Count
    """The attempt that this is about, from 1; 0 before the first."""
    state: JobState
    """Where the job is after this event."""
    job_status: JobStatus
    """FLIP's status of the job in its queue."""
    model_status: ModelStatus
    """FLIP's status of the model."""
    labels: dict[str, str]
    """The request's labels; empty where it gave none."""
    requested_by: str | None
    """Who asked for the training, or in an event about a stop for the stop; null: not told."""
    net: str | None = None
    """The net of the attempt; left out before the first."""
    fl_backend: FLBackend | None = None
    """The kind of FL runtime; left out before the first attempt where the request named none."""
    fl_backend_job_id: str | None = None
    """The run's id in the FL runtime; left out before it is known."""
    truncated: Truncated = None


class AcceptedRequestModel(BaseModel):
    """The request as it was accepted, defaults filled in; the cohort query is never published."""

    model_config = _OPEN

    trust_ids: list[Uuid]
    """The trusts that shall train."""
    fl_backend: FLBackend | None
    """The FL runtime asked for; null: any."""
    job_type: str | None
    """The job type asked for; null: the model's own, else `standard`."""
    config: dict[str, Any]
    """Settings of the training app that override the model's own."""
    app_config: dict[str, Any]
    """The app's own settings that override those of `config.json`."""
    model_files: dict[str, Any] | None
    """`uri` and `sha256` of the model files; null: the usual prefix of the model."""
    priority: Annotated[int, Field(ge=0, le=9)]
    """0 to 9, the highest first."""
    min_trusts: Position
    """So many of the trusts must be online to start."""
    resources: dict[str, int]
    """`num_gpus` at each site and `mem_per_gpu_gib`."""
    max_attempts: Position
    """How often the job may be tried."""
    not_before: Time | None
    """The earliest start; null: now."""
    deadline: Time | None
    """The job fails when it has not ended by then; null: none."""
    max_runtime_seconds: int | None
    """The longest run in seconds; null: the service's limit."""
    max_stall_seconds: int | None
    """The longest time without progress in seconds; null: the service's limit."""
    requested_by: str | None
    """Who asked for it; null: not told."""
    labels: dict[str, str]
    """The producer's own names and values."""
