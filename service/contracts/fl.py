"""FLIP's contracts, under FLIP's names: what its users and its FL-API adapters already speak.

Promise: names, fields, defaults and leniency are those of FLIP's public hub, so that an unmodified
adapter can be driven and code written for the hub finds its types. `FLBackend.EMBEDDED` and the
file name of the manifests are ours. These models are mutable, as FLIP's are. What breaks the
promise: renaming or adding a field here; whatever we need beside them has a model of its own.

The functions look `ASSETS_DIR` and each other up when they are called; a process with another
assets folder assigns `fl.ASSETS_DIR` once at its start.
"""

# mypy can't see through decorators on a property, which is how pydantic serialises one:
# mypy: disable-error-code="prop-decorator"
from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from service.contracts.package_data import data_path
from service.domain import run_settings
from service.domain.enums import (
    ClientStatus,
    FLAggregators,
    FLBackend,
    FLJobStatus,
    JobStatus,
    ModelStatus,
    NetStatus,
)

__all__ = [
    "ASSETS_DIR",
    "DEFAULT_JOB_TYPE",
    "AggregationWeights",
    "ClientStatus",
    "FLAggregators",
    "FLBackend",
    "FLJobStatus",
    "IClientStatus",
    "IInitiateTrainingInputPayload",
    "IJobMetaData",
    "IJobResponse",
    "INetDetails",
    "INetStatus",
    "IOverridableConfig",
    "IRequiredTrainingInformation",
    "ISchedulerResponse",
    "IServerStatus",
    "IStartTrainingBody",
    "JobRequiredFiles",
    "JobStatus",
    "ModelStatus",
    "NetStatus",
    "required_job_types_file",
]

_log = structlog.get_logger(__name__)

#: The job type of a model whose files and request name none.
DEFAULT_JOB_TYPE = "standard"

#: Folder of the manifests and base templates.
ASSETS_DIR: Path = data_path("assets")

_OFFLINE = frozenset({ClientStatus.NO_REPLY, ClientStatus.DISCONNECTED})


def required_job_types_file(fl_backend: FLBackend) -> Path:
    """Path of the manifest that lists a backend's job types and the files each needs."""
    return ASSETS_DIR / f"job_types_and_required_files.{FLBackend(fl_backend).value}.json"


def _load_job_types_config(fl_backend: FLBackend) -> dict[str, list[str]]:
    """A backend's manifest: job type -> required file names; `{}`, logged, when it can't be used.

    A caller that must tell "no such job type" from "no manifest" asks whether the answer is empty.
    """
    path = required_job_types_file(fl_backend)
    try:
        content: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        _log.warning("job_types_manifest_missing", path=str(path), fl_backend=str(fl_backend))
        return {}
    except (OSError, ValueError, RecursionError) as exc:
        _log.warning("job_types_manifest_unreadable", path=str(path), error=type(exc).__name__)
        return {}
    if not _is_manifest(content):
        _log.warning("job_types_manifest_malformed", path=str(path), fl_backend=str(fl_backend))
        return {}
    assert isinstance(content, dict)
    return content


def _is_manifest(content: object) -> bool:
    """Whether it is an object whose values are lists of text (JSON keys are text already)."""
    return isinstance(content, dict) and all(
        isinstance(name, str)
        and isinstance(files, list)
        and all(isinstance(file, str) for file in files)
        for name, files in content.items()
    )


class IStartTrainingBody(BaseModel):
    """Body of `POST /upload_app/{model_id}`: `trusts` are slots, `project_id` is ciphertext."""

    project_id: str
    cohort_query: str
    trusts: list[str]
    bundle_urls: list[str]


class ISchedulerResponse(BaseModel):
    """What a claim picked: a job (`id`) and the net that will run it."""

    id: UUID
    netId: UUID


class IJobResponse(BaseModel):
    """What a claim hands to the preparation of a job."""

    id: UUID
    model_id: UUID
    trust_ids: list[UUID]


class IJobMetaData(BaseModel):
    """One entry of `GET /list_jobs`. `job_id` is the backend's own id, opaque to us."""

    model_config = ConfigDict(extra="ignore")

    job_id: str
    status: FLJobStatus


class IRequiredTrainingInformation(BaseModel):
    """What the trusts need to find the data of a project."""

    project_id: str
    cohort_query: str


class IInitiateTrainingInputPayload(BaseModel):
    """The trusts that shall train, by id: at least one, each once."""

    model_config = ConfigDict(extra="forbid")

    trust_ids: list[UUID] = Field(min_length=1)

    @field_validator("trust_ids")
    @classmethod
    def must_be_unique(cls, value: list[UUID]) -> list[UUID]:
        """Refuse a trust that is named twice.

        Raises:
            ValueError: two entries are the same UUID.
        """
        if len({trust.int for trust in value}) < len(value):
            raise ValueError("'trust_ids' must all be unique entries")
        return value


class INetDetails(BaseModel):
    """A net: its name, the URL of its FL-API adapter, and the runtime behind that."""

    name: str
    endpoint: str
    fl_backend: FLBackend


class IServerStatus(BaseModel):
    """Answer of `GET /check_server_status`; the words differ between runtimes."""

    model_config = ConfigDict(extra="ignore")

    status: str


class IClientStatus(BaseModel):
    """One entry of `GET /check_client_status`, and one client of a net's status.

    Adapters fill `name` (the slot) and `status`; `code` and `fl_kit_slot` are the hub's additions
    once a slot is matched with a trust.
    """

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    name: str
    """The client's slot as an adapter tells it; the trust's name in a net's status."""
    code: str | None = None
    """The trust's short code; null: it has none, or is not known."""
    status: str
    """The client's status in the adapter's words; `no_reply` and `DISCONNECTED` mean gone."""
    fl_kit_slot: str | None = None
    """The client's slot; null in an adapter's own answer."""

    @computed_field
    @property
    def online(self) -> bool:
        """False for the two statuses that mean gone; every other status, known or not, is online."""
        return self.status not in _OFFLINE


class INetStatus(BaseModel):
    """A net as seen from the hub; None where nothing is known."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """The net's name in the registry."""
    fl_backend: FLBackend
    """Its kind of FL runtime."""
    online: bool | None = None
    """Whether its adapter answers and lists clients; null: not known."""
    registered_clients: int | None = None
    """Members of the net; 0 while it is offline, null: not known."""
    net_in_use: bool | None = None
    """Whether a job has a place on it; null: not known."""
    clients: list[IClientStatus]
    """Each member of the net."""


class IOverridableConfig(BaseModel):
    """The settings of a training app that a request may override; None leaves the app's own."""

    LOCAL_ROUNDS: int | None = None
    GLOBAL_ROUNDS: int | None = None
    IGNORE_RESULT_ERROR: bool | None = None
    AGGREGATOR: str | None = None
    AGGREGATION_WEIGHTS: dict[str, float] | None = None


class AggregationWeights:
    """The inclusive limits of one site's aggregation weight."""

    MinimumAggregationWeight = run_settings.MIN_WEIGHT
    MaximumAggregationWeight = run_settings.MAX_WEIGHT


class JobRequiredFiles(BaseModel):
    """The job types of a backend and the files that each needs, read from disk at every call."""

    @classmethod
    def get_required_files(cls, job_type: str, fl_backend: FLBackend) -> list[str]:
        """Names of the files that a model of this job type must have; [] for an unknown one."""
        return list(_load_job_types_config(fl_backend).get(job_type, []))

    @classmethod
    def is_valid_job_type(cls, job_type: str, fl_backend: FLBackend) -> bool:
        """Whether the backend's manifest knows this job type."""
        return job_type in _load_job_types_config(fl_backend)

    @classmethod
    def get_all_job_types_with_files(cls, fl_backend: FLBackend) -> dict[str, list[str]]:
        """A copy of the whole manifest, which the caller may change."""
        return {name: list(files) for name, files in _load_job_types_config(fl_backend).items()}
