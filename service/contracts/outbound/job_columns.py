"""A job's parts as JSON texts: at once columns of the job table and pieces of `fl.job.state.v1`.

`write_*` freeze a part, `read_*` take it up again; `read(write(x)) == x` for every part (a test holds it).
The request's text never holds `cohort_query`, and submissions are kept apart: neither is published.
Times are ISO 8601 with offset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from service.contracts.wire.strict_json import write
from service.domain.enums import FLBackend, ReservationState
from service.domain.values import (
    Attempt,
    Metric,
    Origin,
    Participant,
    Problem,
    Progress,
    Reason,
    Rejection,
    Request,
    Resources,
    Results,
    SiteProgress,
    Stop,
    Submission,
)


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


# --- request --------------------------------------------------------------------------------------


def write_request(request: Request | Rejection) -> str:
    """All that was asked for, defaults filled in, without `cohort_query`."""
    if isinstance(request, Rejection):
        return write({"requested_by": request.requested_by})
    resources = request.resources
    return write(
        {
            # These two come first: a state record takes them over as text, up to `trust_ids`.
            "requested_by": request.requested_by,
            "labels": request.labels,
            "trust_ids": request.trust_ids,
            "fl_backend": request.fl_backend,
            "job_type": request.job_type,
            "config": request.config,
            "app_config": request.app_config,
            "model_files": None
            if request.model_files_uri is None
            else {"uri": request.model_files_uri, "sha256": request.model_files_sha256},
            "priority": request.priority,
            "min_trusts": request.min_trusts,
            "resources": {
                "num_gpus": resources.num_gpus,
                "mem_per_gpu_gib": resources.mem_per_gpu_gib,
            },
            "max_attempts": request.max_attempts,
            "not_before": _time(request.not_before),
            "deadline": _time(request.deadline),
            "max_runtime_seconds": request.max_runtime_seconds,
            "max_stall_seconds": request.max_stall_seconds,
        }
    )


def read_request(
    text: str,
    *,
    job_id: UUID,
    model_id: UUID,
    project_id: str,
    cohort_query: str,
    content_hash: bytes,
    origin: Origin,
) -> Request:
    """The request of a row; what the text leaves out comes from the row's other columns."""
    data = json.loads(text)
    files = data["model_files"]
    return Request(
        job_id=job_id,
        model_id=model_id,
        project_id=project_id,
        cohort_query=cohort_query,
        trust_ids=tuple(UUID(t) for t in data["trust_ids"]),
        min_trusts=data["min_trusts"],
        content_hash=content_hash,
        origin=origin,
        fl_backend=None if data["fl_backend"] is None else FLBackend(data["fl_backend"]),
        job_type=data["job_type"],
        config=data["config"],
        app_config=data["app_config"],
        model_files_uri=None if files is None else files["uri"],
        model_files_sha256={} if files is None else files["sha256"],
        priority=data["priority"],
        resources=Resources(**data["resources"]),
        max_attempts=data["max_attempts"],
        not_before=_read_time(data["not_before"]),
        deadline=_read_time(data["deadline"]),
        max_runtime_seconds=data["max_runtime_seconds"],
        max_stall_seconds=data["max_stall_seconds"],
        requested_by=data["requested_by"],
        labels=data["labels"],
    )


def read_requested_by(text: str) -> str | None:
    value = json.loads(text).get("requested_by")
    return None if value is None else str(value)


# --- reasons, results, stop -----------------------------------------------------------------------


def reason_object(reason: Reason | None) -> dict[str, Any] | None:
    """A reason as the JSON object that every published shape uses."""
    if reason is None:
        return None
    return {
        "code": reason.code,
        "message": reason.message,
        "errors": [{"loc": list(p.loc), "msg": p.msg, "type": p.type} for p in reason.errors],
    }


def _reason_of(data: Mapping[str, Any] | None) -> Reason | None:
    if data is None:
        return None
    errors = tuple(Problem(tuple(p["loc"]), p["msg"], p["type"]) for p in data["errors"])
    return Reason(data["code"], data["message"], errors)


def write_reason(reason: Reason | None) -> str | None:
    return None if reason is None else write(reason_object(reason))


def read_reason(text: str | None) -> Reason | None:
    return None if text is None else _reason_of(json.loads(text))


def results_object(results: Results | None) -> dict[str, Any] | None:
    if results is None:
        return None
    return {"uri": results.uri, "sha256": results.sha256, "bytes": results.bytes}


def write_results(results: Results | None) -> str | None:
    return None if results is None else write(results_object(results))


def read_results(text: str | None) -> Results | None:
    return None if text is None else Results(**json.loads(text))


def write_stop(stop: Stop | None) -> str | None:
    if stop is None:
        return None
    origin = stop.origin
    return write(
        {
            "reason": stop.reason,
            "requested_by": stop.requested_by,
            "at": _time(stop.at),
            "code": stop.code,
            "event_id": origin.event_id if origin else None,
            "source": origin.source if origin else None,
        }
    )


def read_stop(text: str | None) -> Stop | None:
    if text is None:
        return None
    data = json.loads(text)
    origin = None if data["event_id"] is None else Origin(data["event_id"], data["source"])
    at = datetime.fromisoformat(data["at"])
    return Stop(data["reason"], data["requested_by"], at, data["code"], origin=origin)


# --- attempts -------------------------------------------------------------------------------------


def participants_object(participants: tuple[Participant, ...]) -> list[dict[str, object]]:
    return [{"trust_id": p.trust_id, "slot": p.slot} for p in participants]


def write_attempts(attempts: tuple[Attempt, ...]) -> str:
    """The attempts without their submissions."""
    if not attempts:
        return "[]"
    return write(
        [
            {
                "number": a.number,
                "net": a.net,
                "fl_backend": a.backend,
                "participants": participants_object(a.participants),
                "started_at": _time(a.started_at),
                "changed_at": _time(a.changed_at),
                "slot": a.reservation,
                "leases": a.leases,
                "fl_backend_job_id": a.run_id,
                "provisional": a.provisional,
                "submitted_at": _time(a.submitted_at),
                "running_at": _time(a.running_at),
                "ended_at": _time(a.ended_at),
                "reason": reason_object(a.reason),
                "missed": a.missing_polls,
                "missing_since": _time(a.missing_since),
                "burnt": a.counts_as_attempt,
            }
            for a in attempts
        ]
    )


def write_submissions(attempts: tuple[Attempt, ...]) -> str:
    """{attempt number: its last submission}, private to the service."""
    if not attempts:
        return "{}"
    return write(
        {
            str(a.number): {
                "number": s.number,
                "path_id": s.path_id,
                "key": s.key,
                "known_runs": s.known_runs,
                "opened_at": _time(s.opened_at),
                "bundle_prefix": s.bundle_prefix,
                "bundle_sha256": s.bundle_sha256,
                "config": s.config,
                "earlier_paths": s.earlier_paths,
            }
            for a in attempts
            if (s := a.submission) is not None
        }
    )


def _submission(data: Mapping[str, Any] | None) -> Submission | None:
    if data is None:
        return None
    return Submission(
        number=data["number"],
        path_id=UUID(data["path_id"]),
        key=data["key"],
        known_runs=tuple(data["known_runs"]),
        opened_at=datetime.fromisoformat(data["opened_at"]),
        bundle_prefix=data["bundle_prefix"],
        bundle_sha256=data["bundle_sha256"],
        config=data["config"],
        earlier_paths=tuple(UUID(p) for p in data["earlier_paths"]),
    )


def read_attempts(text: str, submissions: str) -> tuple[Attempt, ...]:
    if text == "[]":
        return ()
    handed = json.loads(submissions)
    return tuple(
        Attempt(
            number=a["number"],
            net=a["net"],
            backend=FLBackend(a["fl_backend"]),
            participants=tuple(
                Participant(UUID(p["trust_id"]), p["slot"]) for p in a["participants"]
            ),
            started_at=datetime.fromisoformat(a["started_at"]),
            changed_at=datetime.fromisoformat(a["changed_at"]),
            reservation=ReservationState(a["slot"]),
            leases=a["leases"],
            submission=_submission(handed.get(str(a["number"]))),
            run_id=a["fl_backend_job_id"],
            provisional=a["provisional"],
            submitted_at=_read_time(a["submitted_at"]),
            running_at=_read_time(a["running_at"]),
            ended_at=_read_time(a["ended_at"]),
            reason=_reason_of(a["reason"]),
            missing_polls=a["missed"],
            missing_since=_read_time(a["missing_since"]),
            counts_as_attempt=a["burnt"],
        )
        for a in json.loads(text)
    )


# --- progress -------------------------------------------------------------------------------------


def metric_object(metric: Metric) -> dict[str, Any]:
    return {
        "label": metric.label,
        "result": metric.result,
        "global_round": metric.global_round,
        "fl_client_name": metric.fl_client_name,
        "x_value": metric.x_value,
        "x_label": metric.x_label,
    }


_NO_PROGRESS = Progress()


def write_progress(progress: Progress) -> str:
    if progress is _NO_PROGRESS or progress == _NO_PROGRESS:
        return "{}"
    return write(
        {
            "round": progress.round,
            "aggregated": progress.aggregated,
            "total": progress.total,
            "sites": [
                {
                    "slot": s.slot,
                    "global_round": s.global_round,
                    "state": s.state,
                    "detail": s.detail,
                }
                for s in progress.sites
            ],
            "metrics": [metric_object(m) for m in progress.metrics],
            "last_sign_at": _time(progress.last_activity_at),
        }
    )


def read_progress(text: str) -> Progress:
    if text == "{}":
        return _NO_PROGRESS
    data = json.loads(text)
    return Progress(
        round=data["round"],
        aggregated=data["aggregated"],
        total=data["total"],
        sites=tuple(SiteProgress(**s) for s in data["sites"]),
        metrics=tuple(Metric(**m) for m in data["metrics"]),
        last_activity_at=_read_time(data["last_sign_at"]),
    )
