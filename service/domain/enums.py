"""Every enum of the service: FLIP's enums, our job states, event names and reason codes.

Nothing else in the project may spell one of these as a literal that it compares with.
FLIP's names and values are those of its public hub; `FLBackend.EMBEDDED` is ours.
"""

from __future__ import annotations

from enum import StrEnum


class FLBackend(StrEnum):
    """Which FL runtime stands behind an FL-API adapter."""

    NVFLARE = "nvflare"
    FLOWER = "flower"
    EMBEDDED = "embedded"


class FLJobStatus(StrEnum):
    """A backend run's status, normalised over all runtimes."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


class ModelStatus(StrEnum):
    """FLIP's statuses of a model, as its user sees them. `TRAINING_STARTED` is accepted as RUNNING."""

    PENDING = "PENDING"
    INITIATED = "INITIATED"
    PREPARED = "PREPARED"
    RUNNING = "RUNNING"
    RESULTS_UPLOADED = "RESULTS_UPLOADED"
    RESULTS_UPLOAD_FAILED = "RESULTS_UPLOAD_FAILED"
    ERROR = "ERROR"
    STOPPED = "STOPPED"


class JobStatus(StrEnum):
    """FLIP's statuses of a job in its queue."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    DELETED = "DELETED"


class NetStatus(StrEnum):
    AVAILABLE = "AVAILABLE"
    BUSY = "BUSY"


class ClientStatus(StrEnum):
    """A client's status in adapters; other statuses exist and mean online."""

    NO_REPLY = "no_reply"
    NO_JOBS = "no_jobs"
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"


class FLAggregators(StrEnum):
    """How a server folds site results: as they arrive, or collected first."""

    InTimeAccumulateWeightedAggregator = "InTimeAccumulateWeightedAggregator"
    AccumulateWeightedAggregator = "AccumulateWeightedAggregator"


class JobState(StrEnum):
    """Where one of our jobs is. The last four are terminal."""

    QUEUED = "queued"
    PREPARING = "preparing"
    SUBMITTING = "submitting"
    RUNNING = "running"
    COLLECTING = "collecting"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    REJECTED = "rejected"


TERMINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.STOPPED, JobState.REJECTED})
ACTIVE = frozenset(set(JobState) - TERMINAL - {JobState.QUEUED})


class ReservationState(StrEnum):
    """An attempt's reservation on a net: HELD while its run may live, QUARANTINED when the job ended
    without the backend's confirmation, RELEASED when the run is known to be over (or never began)."""

    HELD = "held"
    QUARANTINED = "quarantined"
    RELEASED = "free"


class Lifecycle(StrEnum):
    """The event names of the lifecycle topic: the event type is `fl.job.<name>.v1`."""

    QUEUED = "queued"
    REJECTED = "rejected"
    WAITING = "waiting"
    STARTED = "started"
    SUBMITTED = "submitted"
    PREPARED = "prepared"
    RUNNING = "running"
    ROUND_STARTED = "round_started"
    CLIENT_RESULT_RECEIVED = "client_result_received"
    CLIENT_FAILED = "client_failed"
    ROUND_AGGREGATED = "round_aggregated"
    METRICS_RECORDED = "metrics_recorded"
    LOG_RECORDED = "log_recorded"
    RETRY_SCHEDULED = "retry_scheduled"
    STOP_REQUESTED = "stop_requested"
    STOPPED = "stopped"
    RESULTS_PENDING = "results_pending"
    COMPLETED = "completed"
    FAILED = "failed"


class RoundEvent(StrEnum):
    """FLIP's log events of a running job that we read; further ones may come."""

    ROUND_STARTED = "ROUND_STARTED"
    CLIENT_RESULT_RECEIVED = "CLIENT_RESULT_RECEIVED"
    CLIENT_FAILED = "CLIENT_FAILED"
    ROUND_AGGREGATED = "ROUND_AGGREGATED"
    JOB_WAITING_FOR_RESOURCES = "JOB_WAITING_FOR_RESOURCES"


class ReasonCode(StrEnum):
    """Why a job was refused, went back to the queue, or ended. Stable."""

    INVALID_REQUEST = "invalid_request"
    DUPLICATE_CONFLICT = "duplicate_conflict"
    UNKNOWN_JOB = "unknown_job"
    UNKNOWN_JOB_TYPE = "unknown_job_type"
    UNKNOWN_PROJECT = "unknown_project"
    UNKNOWN_TRUST = "unknown_trust"
    TRUST_NOT_APPROVED = "trust_not_approved"
    APPROVAL_REVOKED = "approval_revoked"
    PRIORITY_NOT_ALLOWED = "priority_not_allowed"
    NO_SUCH_NET = "no_such_net"
    MODEL_FILES_MISSING = "model_files_missing"
    REQUIRED_FILE_MISSING = "required_file_missing"
    UNSAFE_PATH = "unsafe_path"
    FILE_COLLISION = "file_collision"
    BUNDLE_TOO_LARGE = "bundle_too_large"
    DIGEST_MISMATCH = "digest_mismatch"
    BAD_MODEL_CONFIG = "bad_model_config"
    ADAPTER_REJECTED = "adapter_rejected"
    ADAPTER_UNAVAILABLE = "adapter_unavailable"
    CLIENTS_UNAVAILABLE = "clients_unavailable"
    MANIFEST_UNAVAILABLE = "manifest_unavailable"  #: seen at staging; a `WaitingCode` too
    SUBMIT_UNKNOWN = "submit_unknown"
    BACKEND_FAILED = "backend_failed"
    BACKEND_LOST = "backend_lost"
    RESULTS_UPLOAD_FAILED = "results_upload_failed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    PENDING_EXCEEDED = "pending_exceeded"
    RUNTIME_EXCEEDED = "runtime_exceeded"
    NO_PROGRESS = "no_progress"
    STOPPED_BY_REQUEST = "stopped_by_request"
    STOPPED_OUTSIDE = "stopped_outside"
    INTERNAL_ERROR = "internal_error"


class WaitingCode(StrEnum):
    """Why a queued job can't start now. Stable."""

    CAPACITY = "waiting_for_capacity"
    TRUSTS = "waiting_for_trusts"
    GPUS = "waiting_for_gpus"
    PROJECT_AT_LIMIT = "project_at_limit"
    NOT_BEFORE = "not_before"
    NET_PAUSED = "net_paused"
    HUB_PAUSED = "hub_paused"
    NET_QUARANTINED = "net_quarantined"
    MANIFEST_UNAVAILABLE = "manifest_unavailable"


#: Reasons after which the same job may be tried again on a net; every other reason ends the job.
TRANSIENT_REASONS = frozenset(
    {
        ReasonCode.ADAPTER_UNAVAILABLE,
        ReasonCode.CLIENTS_UNAVAILABLE,
        ReasonCode.MANIFEST_UNAVAILABLE,
        ReasonCode.BACKEND_LOST,
    }
)

#: Backends whose public adapter passes on only the number of participants, so that a subset of a net's
#: members can't be selected unless the net says it can.
COUNTS_ONLY = frozenset({FLBackend.FLOWER})

#: A backend run that is over.
RUN_OVER = frozenset({FLJobStatus.FINISHED, FLJobStatus.FAILED, FLJobStatus.STOPPED})
