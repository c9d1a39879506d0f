"""What the baselines write for a request: the same rows and records as the service, by the shortest way.

The rows fit the service's own schema; the bodies have its shape and size. Nothing is decided here: a baseline
takes every valid request. So a baseline does what the service does, less its promises.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from service.contracts.inbound.training import TrainingRequested

GROUP: Final = uuid5(NAMESPACE_URL, "bench:group")
LIFECYCLE: Final = "fl.job.queued.v1"
STATE: Final = "fl.job.state.v1"
JOB_COLUMNS: Final = (
    "job_id", "model_id", "project_id", "group_id", "kafka_partition", "state", "sequence",
    "model_status", "priority", "eligible", "waiting", "content_hash", "correlation_id", "source",
    "cohort_query", "request", "created_at", "changed_at",
)  # fmt: skip
EVENT_COLUMNS: Final = (
    "partition", "position", "event_id", "job_id", "sequence", "type", "subject", "at", "body",
    "correlation_id", "causation_id",
)  # fmt: skip
READY_COLUMNS: Final = ("group_id", "rank", "created_at", "job_id")

_NOT_PUBLISHED: Final = {"job_id", "model_id", "project_id", "cohort_query"}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
Headers = list[tuple[str, bytes]]


class RequestRows(NamedTuple):
    """One request's rows, and the two records that are published for it."""

    job: tuple[Any, ...]
    event: tuple[Any, ...]
    ready: tuple[Any, ...]
    key: bytes
    lifecycle: bytes
    lifecycle_headers: Headers
    state: bytes
    state_headers: Headers


def take(
    data: TrainingRequested,
    raw: bytes,
    event_id: str,
    source: str,
    at: datetime,
    partition: int,
    position: int,
) -> RequestRows:
    """All that follows from one valid request."""
    job_id = str(data.job_id)
    event_id_out = uuid5(data.job_id, "event:1")
    common = {
        "job_id": job_id,
        "model_id": str(data.model_id),
        "project_id": data.project_id,
        "attempt": 0,
        "state": "queued",
        "job_status": "QUEUED",
        "model_status": "INITIATED",
        "labels": data.labels,
        "requested_by": data.requested_by,
        "fl_backend": data.fl_backend,
    }
    own = {
        "trust_ids": [str(trust) for trust in data.trust_ids],
        "priority": data.priority,
        "warnings": [],
        "waiting_for": "waiting_for_trusts",
    }
    lifecycle = _encode(common | own)
    request = _encode(
        {
            **data.model_dump(mode="json", exclude=_NOT_PUBLISHED),
            "min_trusts": data.min_trusts or len(data.trust_ids),
            "resources": {"num_gpus": 0, "mem_per_gpu_gib": 0},
        }
    )
    stamp = at.isoformat()
    head = _encode(
        common
        | {"sequence": 1, "waiting_for": "waiting_for_trusts", "not_before": None}
        | {"created_at": stamp, "changed_at": stamp, "finished_at": None}
    )
    state = (
        f'{head[:-1]},"request":{request},"progress":{{}},"attempts":[],"stop":null,'
        '"reason":null,"results":null}'
    )
    return RequestRows(
        (
            data.job_id, data.model_id, data.project_id, GROUP, partition, "queued", 1,
            "INITIATED", data.priority, True, "waiting_for_trusts", hashlib.sha256(raw).digest(),
            event_id, source, data.cohort_query, request, at, at,
        ),
        (
            partition, position, event_id_out, data.job_id, 1, LIFECYCLE, job_id, at, lifecycle,
            event_id, event_id,
        ),
        (GROUP, 9 - data.priority, at, data.job_id),
        job_id.encode(),
        lifecycle.encode(),
        _headers(LIFECYCLE, str(event_id_out), stamp, job_id, event_id),
        state.encode(),
        _headers(STATE, str(uuid5(data.job_id, "state:1")), stamp, job_id, event_id),
    )  # fmt: skip


def _headers(kind: str, event_id_out: str, stamp: str, job_id: str, cause: str) -> Headers:
    return [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_source", b"/bench/baseline"),
        ("ce_type", kind.encode()),
        ("ce_dataschema", f"urn:fl-job-service:schema:{kind}".encode()),
        ("ce_id", event_id_out.encode()),
        ("ce_time", stamp.encode()),
        ("ce_subject", job_id.encode()),
        ("ce_sequence", b"1"),
        ("ce_correlationid", cause.encode()),
        ("ce_causationid", cause.encode()),
    ]
