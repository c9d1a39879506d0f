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

_OPEN: Final = ConfigDict(extra="ignore")

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
    msg: str
    type: str


class ReasonModel(BaseModel):
    """Why: a stable code, a message for people, and the single errors where there are some."""

    model_config = _OPEN

    code: ReasonCode
    message: str
    errors: list[ErrorItem] = Field(max_length=100)


class WaitingModel(BaseModel):
    """Why a job can't start now."""

    model_config = _OPEN

    code: WaitingCode
    message: str
    errors: list[ErrorItem] = Field(max_length=100)


class ParticipantModel(BaseModel):
    """A trust that takes part, and its name inside the net's FL runtime."""

    model_config = _OPEN

    trust_id: Uuid
    slot: str


class MetricModel(BaseModel):
    """One number of a run; `result` null where it was not finite."""

    model_config = _OPEN

    label: str
    result: float | None
    global_round: Count
    fl_client_name: str | None = None
    x_value: float | None = None
    x_label: str | None = None


class ResultsModel(BaseModel):
    """Where the results lie, their SHA-256 in hexadecimal and their size."""

    model_config = _OPEN

    uri: str
    sha256: str | None = None
    bytes: Count | None = None


class JobModel(BaseModel):
    """What every event about a job says.

    `attempt` is 0 until the first claim. `model_id` and `project_id` are null only in a rejection,
    where the request's were unusable. `net`, `fl_backend`, `fl_backend_job_id` and `reason` are
    there when they are known.
    """

    model_config = _OPEN

    job_id: Uuid
    model_id: Uuid | None
    project_id: str | None
    attempt: Count
    state: JobState
    job_status: JobStatus
    model_status: ModelStatus
    labels: dict[str, str]
    requested_by: str | None
    net: str | None = None
    fl_backend: FLBackend | None = None
    fl_backend_job_id: str | None = None
    truncated: Truncated = None


class AcceptedRequestModel(BaseModel):
    """The request as it was accepted, defaults filled in; the cohort query is never published."""

    model_config = _OPEN

    trust_ids: list[Uuid]
    fl_backend: FLBackend | None
    job_type: str | None
    config: dict[str, Any]
    app_config: dict[str, Any]
    model_files: dict[str, Any] | None
    priority: Annotated[int, Field(ge=0, le=9)]
    min_trusts: Position
    resources: dict[str, int]
    max_attempts: Position
    not_before: Time | None
    deadline: Time | None
    max_runtime_seconds: int | None
    max_stall_seconds: int | None
    requested_by: str | None
    labels: dict[str, str]
