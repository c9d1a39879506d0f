"""The state topic: `fl.job.state.v1`, a job's whole current state, the newest record per job kept.

Promise: a body is made of the very texts that are the job's columns, so that publishing needs no
loading and freezing anew, and never holds the cohort query or a submission. `assemble` takes the
columns named in `COLUMNS`; `body` the job. Both give the same text for the same job.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from service.contracts.outbound import job_columns
from service.contracts.outbound.models import (
    AcceptedRequestModel,
    Count,
    JobModel,
    MetricModel,
    ParticipantModel,
    Position,
    ReasonModel,
    ResultsModel,
)
from service.contracts.wire.envelope import rfc3339
from service.contracts.wire.fields import Time
from service.contracts.wire.strict_json import write
from service.domain.enums import FLBackend, JobState, ReservationState, WaitingCode
from service.domain.job import Job, job_status

STATE: Final = "fl.job.state.v1"

#: The columns of the job table that `assemble` takes, each as a keyword.
COLUMNS: Final = (
    "job_id",
    "model_id",
    "project_id",
    "state",
    "sequence",
    "model_status",
    "waiting",
    "request",
    "attempts",
    "progress",
    "stop",
    "reason",
    "results",
    "created_at",
    "changed_at",
    "finished_at",
    "next_try_at",
)

_OPEN: Final = ConfigDict(extra="ignore", use_attribute_docstrings=True)


class AttemptState(BaseModel):
    """One try of the job on one net, with its times and why it ended."""

    model_config = _OPEN

    number: Position
    """From 1."""
    net: str
    """The net it ran on."""
    fl_backend: FLBackend
    """The net's kind of FL runtime."""
    participants: list[ParticipantModel]
    """The trusts that took part, with their slots."""
    slot: ReservationState
    """Its reservation: `held` while the run may live, `free` when it is over, `quarantined` in between."""
    fl_backend_job_id: str | None
    """The run's id in the FL runtime; null: not known."""
    started_at: Time
    """When the net was claimed."""
    submitted_at: Time | None
    """When the run was known to exist; null: not yet."""
    running_at: Time | None
    """When it was first seen training; null: not yet."""
    ended_at: Time | None
    """When the attempt ended; null: it goes on."""
    reason: ReasonModel | None
    """Why it ended; null while it goes on, and when it went well."""


class SiteState(BaseModel):
    """The last report of one slot in the current attempt."""

    model_config = _OPEN

    slot: str
    """The site's name in the FL runtime."""
    global_round: Count
    """The round of its last report."""
    state: Literal["training", "returned", "failed"]
    """What it did then."""
    detail: str | None = None
    """What it said of a failure; null: nothing."""


class ProgressState(BaseModel):
    """How far the current attempt's run came; empty while nothing was reported of it."""

    model_config = _OPEN

    round: Count = 0
    """The round that was last begun; 0: none."""
    aggregated: Count = 0
    """Rounds whose results were folded into the model."""
    total: Count | None = None
    """Rounds of the run; null: not known."""
    sites: list[SiteState] = Field(default_factory=list)
    """Each site as it last reported."""
    metrics: list[MetricModel] = Field(default_factory=list)
    """The newest number of each label and slot."""
    last_sign_at: Time | None = None
    """When the run last showed progress; null: never."""


class StopState(BaseModel):
    """An accepted stop."""

    model_config = _OPEN

    code: str
    """Why: a reason code."""
    reason: str | None
    """The text that came with the stop; null: none."""
    requested_by: str | None
    """Who asked for it; null: not told."""
    at: Time
    """When it was accepted."""


class StateData(JobModel):
    """Everything that is known of a job; `sequence` is that of the last event in it."""

    sequence: Position
    """`ce_sequence` of the last event that is in this state."""
    waiting_for: WaitingCode | None
    """What keeps a queued job from starting; null: only its turn is missing, or it is not queued."""
    not_before: Time | None
    """The earliest next start; null: now."""
    created_at: Time
    """When the request was taken."""
    changed_at: Time
    """When this state began to hold."""
    finished_at: Time | None
    """When the job ended; null: not yet."""
    request: AcceptedRequestModel | None
    """The request as it was accepted; null for a rejected job."""
    progress: ProgressState
    """How far the current attempt's run came."""
    attempts: list[AttemptState]
    """Every attempt so far, oldest first."""
    stop: StopState | None
    """The stop that was accepted; null: none."""
    reason: ReasonModel | None = None
    """Why the job failed, was stopped, was rejected or is tried again; null: none of these."""
    results: ResultsModel | None
    """Where the trained model lies; null: there is none yet, or the net offers none."""


def body(job: Job) -> str:
    """The data of a job's state record as JSON."""
    return assemble(
        job_id=job.job_id,
        model_id=job.request.model_id,
        project_id=job.request.project_id,
        state=job.state,
        sequence=job.sequence,
        model_status=job.model_status,
        waiting=job.waiting,
        request=job_columns.write_request(job.request),
        attempts=job_columns.write_attempts(job.attempts),
        progress=job_columns.write_progress(job.progress),
        stop=job_columns.write_stop(job.stop),
        reason=job_columns.write_reason(job.reason),
        results=job_columns.write_results(job.results),
        created_at=job.created_at,
        changed_at=job.changed_at,
        finished_at=job.finished_at,
        next_try_at=job.next_try_at,
    )


def assemble(
    *,
    job_id: UUID,
    model_id: UUID | None,
    project_id: str | None,
    state: str,
    sequence: int,
    model_status: str,
    waiting: str | None,
    request: str,
    attempts: str,
    progress: str,
    stop: str | None,
    reason: str | None,
    results: str | None,
    created_at: datetime,
    changed_at: datetime,
    finished_at: datetime | None,
    next_try_at: datetime | None,
) -> str:
    """The data of a state record as JSON, from a job's columns."""
    # Written out: of the values only the project's name may need escaping, and a dictionary made to be
    # encoded once cost the relay a third of its time.
    model = "null" if model_id is None else f'"{model_id}"'
    shown = "null" if state == JobState.REJECTED else request
    return (
        f'{{"job_id":"{job_id}","model_id":{model},"project_id":{_text(project_id)},'
        f'{_attempt(attempts)},"state":"{state}","job_status":"{_STATUS[state]}",'
        f'"model_status":"{model_status}","sequence":{sequence},"waiting_for":{_text(waiting)},'
        f'"not_before":{_time(next_try_at)},"created_at":"{rfc3339(created_at)}",'
        f'"changed_at":"{rfc3339(changed_at)}","finished_at":{_time(finished_at)},'
        f'{_asked(request)},"request":{shown},"progress":{progress},"attempts":{attempts},'
        f'"stop":{stop or "null"},"reason":{reason or "null"},"results":{results or "null"}}}'
    )


_STATUS: Final = {state.value: job_status(state).value for state in JobState}


@lru_cache(maxsize=4_096)
def _text(value: str | None) -> str:
    return write(value)


def _time(value: datetime | None) -> str:
    return "null" if value is None else f'"{rfc3339(value)}"'


#: What follows `requested_by` and `labels` in a request's text. A label's value is text, so this can't
#: stand among them.
_AFTER: Final = ',"trust_ids":['


def _asked(request: str) -> str:
    """`requested_by` and `labels` as members, cut from the request's text."""
    end = request.find(_AFTER)
    if end > 0:
        return request[1:end]
    asked = json.loads(request)
    own = {"requested_by": asked.get("requested_by"), "labels": asked.get("labels", {})}
    return write(own)[1:-1]


def _attempt(attempts: str) -> str:
    """The newest attempt's part of the common fields, as members."""
    if attempts == "[]":
        return '"attempt":0'
    last = json.loads(attempts)[-1]
    known = {"attempt": last["number"], "net": last["net"], "fl_backend": last["fl_backend"]}
    if last["fl_backend_job_id"] is not None:
        known["fl_backend_job_id"] = last["fl_backend_job_id"]
    return write(known)[1:-1]
