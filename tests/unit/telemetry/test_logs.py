"""Logs hide what must not leave, whoever logs it; metrics have bounded names."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from service.ingest.status import IngestStatus
from service.relay.status import RelayStatus
from service.telemetry import logs
from service.telemetry.metrics import INGEST, RELAY, Metrics


@pytest.fixture
def written(kept_logging: None) -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    return stream


def test_secrets_are_dropped_by_name_at_any_depth(written: io.StringIO) -> None:
    structlog.get_logger("x").info(
        "request_seen",
        cohort_query="select * from patients",
        project_id="p1",
        nested={"data": [{"cohort_query": "select 1", "password": "hunter2"}]},
        aws_secret_access_key="abc",
        lease_token=7,
        job_id="j1",
    )
    line = json.loads(written.getvalue())
    text = written.getvalue()
    for secret in ("select", "p1", "hunter2", "abc"):
        assert secret not in text
    assert (line["lease_token"], line["job_id"], line["event"]) == (7, "j1", "request_seen")


@pytest.mark.parametrize(
    ("text", "kept", "gone"),
    [
        (
            "GET https://s3.local/bundles/a.py?X-Amz-Signature=0a1b2c&X-Amz-Expires=3600 failed",
            "https://s3.local/bundles/a.py",
            "0a1b2c",
        ),
        ("postgresql://fl:hunter2@db:5432/fl is unavailable", "@db:5432/fl", "hunter2"),
        ("sent Authorization: Bearer eyJhbGciOi.J9", "Bearer", "eyJhbGciOi"),
    ],
)
def test_secrets_are_cut_out_of_texts(text: str, kept: str, gone: str) -> None:
    cleaned = logs.clean_text(text)
    assert kept in cleaned
    assert gone not in cleaned


def test_a_trace_is_cleaned_too(written: io.StringIO) -> None:
    try:
        raise OSError("https://s3/b/k?X-Amz-Signature=deadbeef is closed")
    except OSError:
        structlog.get_logger("x").exception("fetch_failed")
    assert "deadbeef" not in written.getvalue()
    assert "is closed" in written.getvalue()


def test_libraries_log_in_the_same_form(written: io.StringIO) -> None:
    logging.getLogger("some.library").warning("cannot reach http://a/b?token=xyz")
    line = json.loads(written.getvalue())
    assert line["level"] == "warning"
    assert "xyz" not in written.getvalue()


def test_parts_are_read_when_somebody_scrapes() -> None:
    metrics, ingest = Metrics(), IngestStatus()
    metrics.follow("ingest", lambda: ingest, INGEST)
    metrics.follow("relay", lambda: None, RELAY)
    ingest.records = 12
    text = metrics.text().decode()
    assert "fl_ingest_records_total 12.0" in text
    assert "fl_relay" not in text
    metrics.follow("relay", RelayStatus, RELAY)
    assert "fl_relay_hanging_transactions 0.0" in metrics.text().decode()


def test_gauges_follow_the_counts_and_forget_what_is_gone() -> None:
    metrics = Metrics()
    net = {"answering": 1, "online": 3, "occupied": 1, "capacity": 2, "strays": 0, "in_doubt": 0}
    net["unknown_statuses"] = 0
    counts = {
        "parked": 1,
        "dead_letters_unsent": 0,
        "outbox_lag": 5,
        "quarantined": 0,
        "oldest_queued_seconds": 1.5,
    }
    metrics.take_counts({**counts, "jobs": {"queued": 3}, "nets": {"net-1": net}})
    assert 'fl_jobs{state="queued"} 3.0' in metrics.text().decode()
    metrics.take_counts({**counts, "jobs": {"running": 1}, "nets": {}})
    text = metrics.text().decode()
    assert 'state="queued"' not in text
    assert "net-1" not in text
    assert "fl_outbox_lag_events 5.0" in text
