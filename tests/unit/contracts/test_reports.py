"""Reports: open shapes, strict fields."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from service.contracts.inbound import reports
from service.contracts.inbound.translation import command
from service.contracts.wire.envelope import Envelope
from service.contracts.wire.problems import ContractViolation
from service.domain import commands
from service.domain.enums import ModelStatus
from service.domain.values import Metric, Results

JOB = "0b9f4c1e-6a53-4d9b-9d0e-3c7a5f2e1d01"
PATH = "7d2f6a90-1c3b-5e48-9f1d-6b0a4c8e2f13"
RUN: dict[str, Any] = {"job_id": JOB, "attempt": 2, "fl_backend_job_id": "r", "fl_client_name": "s"}


def _report(kind: str, **own: Any) -> Any:
    return command(Envelope("e", "/net", kind, RUN | own))


def test_status_with_results_and_unknown_fields() -> None:
    made = _report(
        reports.STATUS_REPORTED,
        status="RESULTS_UPLOADED",
        results={"uri": "s3://r/x.zip", "sha256": "AB" * 32, "bytes": 2**33, "etag": "1"},
        path_id=PATH,
        reporter="anything",
    )
    assert isinstance(made, commands.ReportStatus)
    assert made.status is ModelStatus.RESULTS_UPLOADED
    assert made.results == Results("s3://r/x.zip", "ab" * 32, 2**33)
    assert (made.job_id, made.attempt, made.run_id, made.fl_client_name) == (UUID(JOB), 2, "r", "s")
    assert made.path_id == UUID(PATH)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (reports.STATUS_REPORTED, {"status": "RUNNING"}),
        (reports.ROUND_REPORTED, {"event_type": "ROUND_STARTED", "global_round": 1}),
        (
            reports.METRICS_REPORTED,
            {"metrics": [{"label": "a", "result": 1, "global_round": 1}]},
        ),
        (reports.LOG_REPORTED, {"log": "x"}),
    ],
)
def test_every_report_may_tell_its_submission(kind: str, own: dict[str, Any]) -> None:
    assert _report(kind, **own, path_id=PATH).path_id == UUID(PATH)
    assert _report(kind, **own).path_id is None


def test_former_word_for_running() -> None:
    assert _report(reports.STATUS_REPORTED, status="TRAINING_STARTED").status is ModelStatus.RUNNING


def test_round_without_round_where_there_is_none() -> None:
    made = _report(reports.ROUND_REPORTED, event_type="JOB_WAITING_FOR_RESOURCES", details={"a": 1})
    assert made.global_round is None
    assert made.details == {"a": 1}


def test_metrics_of_the_reporter_unless_they_name_their_own() -> None:
    made = _report(
        reports.METRICS_REPORTED,
        metrics=[
            {"label": "LOSS", "result": None, "global_round": 0},
            {"label": "ACC", "result": 1, "global_round": 1, "fl_client_name": "t", "x_value": 2.5},
        ],
    )
    assert made.metrics == (
        Metric("LOSS", None, 0, "s"),
        Metric("ACC", 1.0, 1, "t", 2.5),
    )


def test_log() -> None:
    assert _report(reports.LOG_REPORTED, log="x").success is True
    assert _report(reports.LOG_REPORTED, log="x", success=None).success is True
    assert _report(reports.LOG_REPORTED, log="x", success=False).success is False


@pytest.mark.parametrize(
    ("kind", "own", "loc"),
    [
        (reports.STATUS_REPORTED, {"status": "PENDING"}, ("status",)),
        (reports.STATUS_REPORTED, {"status": "running"}, ("status",)),
        (reports.STATUS_REPORTED, {"status": ["RUNNING"]}, ("status",)),
        (reports.STATUS_REPORTED, {}, ("status",)),
        (reports.STATUS_REPORTED, {"status": "RUNNING", "attempt": 0}, ("attempt",)),
        (reports.STATUS_REPORTED, {"status": "RUNNING", "attempt": 1.5}, ("attempt",)),
        (reports.STATUS_REPORTED, {"status": "RUNNING", "job_id": JOB[:-1]}, ("job_id",)),
        (reports.STATUS_REPORTED, {"status": "RUNNING", "path_id": "p"}, ("path_id",)),
        (reports.STATUS_REPORTED, {"status": "RUNNING", "results": {}}, ("results", "uri")),
        (reports.ROUND_REPORTED, {"event_type": "x" * 65}, ("event_type",)),
        (reports.ROUND_REPORTED, {"event_type": ""}, ("event_type",)),
        (reports.ROUND_REPORTED, {"event_type": "ROUND_STARTED"}, ("global_round",)),
        (reports.ROUND_REPORTED, {"event_type": "X", "global_round": 2**31}, ("global_round",)),
        (reports.ROUND_REPORTED, {"event_type": "X", "details": {"a": ["\ud800"]}}, ("details",)),
        (reports.ROUND_REPORTED, {"event_type": "X", "details": {"\0": 1}}, ("details",)),
        (reports.METRICS_REPORTED, {"metrics": {}}, ("metrics",)),
        (
            reports.METRICS_REPORTED,
            {"metrics": [{"label": "a", "global_round": 1}]},
            ("metrics", 0, "result"),
        ),
        (
            reports.METRICS_REPORTED,
            {"metrics": [{"label": "a", "result": True, "global_round": 1}]},
            ("metrics", 0, "result"),
        ),
        (
            reports.METRICS_REPORTED,
            {"metrics": [{"label": "a", "result": 1, "global_round": 1}] * 1001},
            ("metrics",),
        ),
        (reports.LOG_REPORTED, {"log": "a\0"}, ("log",)),
        (reports.LOG_REPORTED, {"log": "a", "success": "yes"}, ("success",)),
    ],
)
def test_broken_reports_name_the_place(
    kind: str, own: dict[str, Any], loc: tuple[str | int, ...]
) -> None:
    with pytest.raises(ContractViolation) as caught:
        _report(kind, **own)
    assert loc in {p.loc for p in caught.value.problems}


@pytest.mark.parametrize("word", ["MODEL_PERSISTED", "CLIENT_FAILED"])
def test_what_may_happen_outside_of_rounds_needs_no_round(word: str) -> None:
    assert _report(reports.ROUND_REPORTED, event_type=word).global_round is None
