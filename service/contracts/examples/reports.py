"""Examples of the four report types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from service.contracts.examples import fixtures
from service.contracts.examples.record import Example, ExampleOutcome, Expected
from service.contracts.inbound.reports import (
    LOG_REPORTED,
    METRICS_REPORTED,
    ROUND_REPORTED,
    STATUS_REPORTED,
)

_RUN: Final[dict[str, Any]] = {"job_id": str(fixtures.JOB), "attempt": 1}
_KNOWN: Final = {
    "model_id": str(fixtures.MODEL),
    "fl_backend_job_id": fixtures.RUN,
    "path_id": fixtures.PATH,
    "fl_client_name": "Trust_1",
}
_VALID: Final[tuple[tuple[str, str, str, dict[str, Any]], ...]] = (
    (STATUS_REPORTED, "running", "The run trains.", {"status": "RUNNING"}),
    (
        STATUS_REPORTED,
        "former_word",
        "Older apps say TRAINING_STARTED for RUNNING; unknown fields are tolerated.",
        {"status": "TRAINING_STARTED", "reporter_version": "1.4"},
    ),
    (
        STATUS_REPORTED,
        "results",
        "The run is over and says where its results are.",
        _KNOWN
        | {
            "status": "RESULTS_UPLOADED",
            "results": {
                "uri": f"s3://results/{fixtures.JOB}/1/results.zip",
                "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
                "bytes": 5_000_000_000,
            },
        },
    ),
    (
        STATUS_REPORTED,
        "error",
        "The app failed.",
        {"status": "ERROR", "detail": "trainer.py: ValueError in fit"},
    ),
    (
        ROUND_REPORTED,
        "round_started",
        "A round began.",
        {"event_type": "ROUND_STARTED", "global_round": 1, "details": {"total_rounds": 5}},
    ),
    (
        ROUND_REPORTED,
        "client_result",
        "A site returned its result.",
        _KNOWN | {"event_type": "CLIENT_RESULT_RECEIVED", "global_round": 1},
    ),
    (
        ROUND_REPORTED,
        "waiting_for_resources",
        "This one belongs to no round.",
        {"event_type": "JOB_WAITING_FOR_RESOURCES", "details": {"attempt": 1, "final": False}},
    ),
    (
        ROUND_REPORTED,
        "other_event",
        "The vocabulary is open.",
        {"event_type": "MODEL_PERSISTED"},
    ),
    (
        METRICS_REPORTED,
        "metrics",
        "Two numbers of a round; one was not finite.",
        _KNOWN
        | {
            "metrics": [
                {"label": "ACCURACY", "result": 0.93, "global_round": 2},
                {
                    "label": "LOSS",
                    "result": None,
                    "global_round": 2,
                    "x_value": 140,
                    "x_label": "step",
                    "fl_client_name": "Trust_2",
                },
            ]
        },
    ),
    (LOG_REPORTED, "log", "A line of the log.", {"log": "round 2 of 5 aggregated"}),
    (
        LOG_REPORTED,
        "failure",
        "A line that tells a failure.",
        {"log": "Trust_2 ran out of memory", "success": False},
    ),
)
_BROKEN: Final[tuple[tuple[str, str, str, dict[str, Any], Any], ...]] = (
    (
        STATUS_REPORTED,
        "unknown_status",
        "The vocabulary of states is closed.",
        {"status": "SLEEPING"},
        ((("status",), "enum"),),
    ),
    (
        STATUS_REPORTED,
        "no_attempt",
        "Without the attempt nobody knows which run is meant.",
        {"status": "RUNNING", "attempt": None},
        ((("attempt",), "int_type"),),
    ),
    (
        STATUS_REPORTED,
        "long_detail",
        "A detail has at most 500 characters.",
        {"status": "ERROR", "detail": "x" * 501},
        ((("detail",), "string_too_long"),),
    ),
    (
        ROUND_REPORTED,
        "round_zero",
        "Rounds count from 1.",
        {"event_type": "ROUND_STARTED", "global_round": 0},
        ((("global_round",), "greater_than_equal"),),
    ),
    (
        ROUND_REPORTED,
        "no_round",
        "A round's event needs its round.",
        {"event_type": "ROUND_AGGREGATED"},
        ((("global_round",), "missing"),),
    ),
    (
        ROUND_REPORTED,
        "nul_in_details",
        "Details have no NUL either.",
        {"event_type": "MODEL_PERSISTED", "details": {"path": ["a", "b\u0000"]}},
        ((("details",), "free_form"),),
    ),
    (
        METRICS_REPORTED,
        "result_not_number",
        "A result is a number.",
        {"metrics": [{"label": "LOSS", "result": "low", "global_round": 1}]},
        ((("metrics", 0, "result"), "float_type"),),
    ),
    (
        METRICS_REPORTED,
        "no_metrics",
        "At least one.",
        {"metrics": []},
        ((("metrics",), "too_short"),),
    ),
    (
        LOG_REPORTED,
        "long_log",
        "A log has at most 8,000 characters.",
        {"log": "x" * 8_001},
        ((("log",), "string_too_long"),),
    ),
    (
        LOG_REPORTED,
        "attempt_too_large",
        "Integers fit 32 bits.",
        {"log": "hello", "attempt": 2_147_483_648},
        ((("attempt",), "less_than_equal"),),
    ),
)


def examples() -> Iterator[Example]:
    """Valid ones first."""
    for event_type, name, about, own in _VALID:
        yield _example(event_type, name, about, own)
    for event_type, name, about, own, errors in _BROKEN:
        expect = Expected(ExampleOutcome.DEAD_LETTER, errors)
        yield _example(event_type, name, about, own, expect)


def _example(
    event_type: str, name: str, about: str, own: dict[str, Any], expect: Expected | None = None
) -> Example:
    word = event_type.split(".")[2].removesuffix("_reported")
    head = fixtures.ce_headers(
        event_type, f"{word}-{name}", "/fl-api/net-1", subject=str(fixtures.JOB)
    )
    return Example(event_type, name, about, head, str(fixtures.JOB), data=_RUN | own, expect=expect)
