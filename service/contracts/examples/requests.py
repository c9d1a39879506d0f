"""Examples of `fl.training.requested.v1`: what is taken, and what is answered with which errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from service.contracts.examples import fixtures
from service.contracts.examples.record import Example, ExampleOutcome, Expected
from service.contracts.inbound.training import REQUESTED

_SOURCE: Final = "/hub"
_MINIMAL: Final[dict[str, Any]] = {
    "job_id": str(fixtures.JOB),
    "model_id": str(fixtures.MODEL),
    "project_id": "demo",
    "cohort_query": fixtures.QUERY,
    "trust_ids": [str(trust) for trust in fixtures.TRUSTS],
}
_EVERYTHING: Final[dict[str, Any]] = {
    **_MINIMAL,
    "fl_backend": "embedded",
    "job_type": "standard",
    "config": {
        "LOCAL_ROUNDS": 2,
        "GLOBAL_ROUNDS": 10,
        "IGNORE_RESULT_ERROR": True,
        "AGGREGATOR": "InTimeAccumulateWeightedAggregator",
        "AGGREGATION_WEIGHTS": {"Trust_1": 1, str(fixtures.EAST): 0.5},
    },
    "app_config": {"LEARNING_RATE": 0.05, "LAYERS": [32, 16]},
    "model_files": {
        "uri": f"s3://model-files/{fixtures.MODEL}/",
        "sha256": {
            "trainer.py": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
        },
    },
    "priority": 7,
    "min_trusts": 2,
    "resources": {"num_gpus": 1, "mem_per_gpu_gib": 16},
    "max_attempts": 2,
    "not_before": "2026-03-02T10:00:00+01:00",
    "deadline": "2026-03-03T00:00:00Z",
    "max_runtime_seconds": 7200,
    "max_stall_seconds": 600,
    "requested_by": "dr.lee@north.example",
    "labels": {"study": "lesion-7", "stage": "pilot"},
}


def examples() -> Iterator[Example]:
    """Valid ones first."""
    yield _valid("minimal", "Only what must be there.", _MINIMAL)
    yield _valid(
        "everything", "Every field, with a trace.", _EVERYTHING, traceparent=fixtures.TRACE
    )
    yield _valid("nulls", "A null means that the field is left out.", _MINIMAL | _nulls())
    yield Example(
        REQUESTED,
        "structured",
        "The whole event as one JSON object: CloudEvents structured mode.",
        {"content-type": "application/cloudevents+json; charset=UTF-8"},
        str(fixtures.JOB),
        data={
            "specversion": "1.0",
            "id": "request-structured",
            "source": _SOURCE,
            "type": REQUESTED,
            "time": fixtures.TIME,
            "datacontenttype": "application/json",
            "data": _MINIMAL,
        },
    )
    for name, about, change, errors in _BROKEN:
        yield _invalid(name, about, _MINIMAL | change, ExampleOutcome.REJECTED, errors)
    yield _invalid(
        "no_job_id",
        "Nobody can be answered without a usable job_id.",
        _MINIMAL | {"job_id": "job-17"},
        ExampleOutcome.DEAD_LETTER,
        ((("job_id",), "uuid_parsing"),),
    )
    missing = {"job_id": str(fixtures.JOB), "trust_ids": []}
    yield _invalid(
        "all_at_once",
        "Every error is listed, also those between fields.",
        missing | {"min_trusts": 2, "app_config": {"GLOBAL_ROUNDS": 3}, "prioritty": 1},
        ExampleOutcome.REJECTED,
        (
            (("model_id",), "missing"),
            (("project_id",), "missing"),
            (("cohort_query",), "missing"),
            (("trust_ids",), "too_short"),
            (("prioritty",), "extra_forbidden"),
            (("min_trusts",), "value_error"),
            (("app_config", "GLOBAL_ROUNDS"), "value_error"),
        ),
    )


def _nulls() -> dict[str, Any]:
    names = ("fl_backend", "job_type", "model_files", "min_trusts", "resources", "not_before")
    return dict.fromkeys((*names, "deadline", "requested_by", "config"))


def _valid(name: str, about: str, data: dict[str, Any], **more: str) -> Example:
    head = fixtures.ce_headers(REQUESTED, f"request-{name}", _SOURCE, **more)
    return Example(REQUESTED, name, about, head, str(fixtures.JOB), data=data)


def _invalid(
    name: str,
    about: str,
    data: dict[str, Any],
    outcome: ExampleOutcome,
    errors: tuple[tuple[tuple[str | int, ...], str], ...],
) -> Example:
    head = fixtures.ce_headers(REQUESTED, f"request-{name}", _SOURCE)
    expect = Expected(outcome, errors)
    return Example(REQUESTED, name, about, head, str(fixtures.JOB), data=data, expect=expect)


def _between(field: str, value: Any, kind: str) -> tuple[str, str, dict[str, Any], Any]:
    about = f"'{field}' is outside its limits."
    return f"{field}_out_of_range", about, {field: value}, (((field,), kind),)


_WEIGHTS: Final = ("config", "AGGREGATION_WEIGHTS")
_BROKEN: Final[tuple[tuple[str, str, dict[str, Any], Any], ...]] = (
    (
        "repeated_trust",
        "A trust is named twice.",
        {"trust_ids": [str(fixtures.NORTH), str(fixtures.NORTH)]},
        ((("trust_ids",), "value_error"),),
    ),
    (
        "misspelt_field",
        "Requests are closed: a typo must not pass.",
        {"min_trust": 2},
        ((("min_trust",), "extra_forbidden"),),
    ),
    (
        "min_trusts_above_trusts",
        "More trusts must be online than take part.",
        {"min_trusts": 4},
        ((("min_trusts",), "value_error"),),
    ),
    (
        "rounds_not_whole",
        "Rounds are whole numbers.",
        {"config": {"GLOBAL_ROUNDS": 2.5, "LOCAL_ROUNDS": True}},
        ((("config", "GLOBAL_ROUNDS"), "int_type"), (("config", "LOCAL_ROUNDS"), "int_type")),
    ),
    (
        "rounds_out_of_range",
        "Rounds lie between 1 and 1,000.",
        {"config": {"GLOBAL_ROUNDS": 0, "LOCAL_ROUNDS": 1001}},
        (
            (("config", "GLOBAL_ROUNDS"), "greater_than_equal"),
            (("config", "LOCAL_ROUNDS"), "less_than_equal"),
        ),
    ),
    (
        "unknown_aggregator",
        "There are two aggregators.",
        {"config": {"AGGREGATOR": "Median"}},
        ((("config", "AGGREGATOR"), "enum"),),
    ),
    (
        "weight_above_one",
        "A weight lies between 0 and 1.",
        {"config": {"AGGREGATION_WEIGHTS": {"Trust_1": 1.5}}},
        (((*_WEIGHTS, "Trust_1"), "less_than_equal"),),
    ),
    (
        "all_weights_zero",
        "Somebody must have a weight.",
        {"config": {"AGGREGATION_WEIGHTS": {str(trust): 0 for trust in fixtures.TRUSTS}}},
        ((_WEIGHTS, "value_error"),),
    ),
    (
        "config_in_app_config",
        "What the service overrides belongs into 'config'.",
        {"app_config": {"LOCAL_ROUNDS": 3}},
        ((("app_config", "LOCAL_ROUNDS"), "value_error"),),
    ),
    (
        "memory_without_gpus",
        "GPU memory needs GPUs.",
        {"resources": {"num_gpus": 0, "mem_per_gpu_gib": 8}},
        ((("resources", "mem_per_gpu_gib"), "value_error"),),
    ),
    (
        "time_without_offset",
        "A time needs its offset.",
        {"not_before": "2026-03-02T10:00:00"},
        ((("not_before",), "time_parsing"),),
    ),
    (
        "deadline_before_start",
        "The deadline comes after the start.",
        {"not_before": "2026-03-02T10:00:00Z", "deadline": "2026-03-02T09:00:00Z"},
        ((("deadline",), "value_error"),),
    ),
    (
        "nul_in_text",
        "Text has no NUL.",
        {"project_id": "demo\u0000"},
        ((("project_id",), "string_pattern_mismatch"),),
    ),
    (
        "lone_surrogate",
        "Text has no lone surrogate.",
        {"labels": {"study": "\ud800"}},
        ((("labels", "study"), "string_unicode"),),
    ),
    (
        "files_not_in_s3",
        "Model files lie in S3.",
        {"model_files": {"uri": "https://files.example/model/"}},
        ((("model_files", "uri"), "string_pattern_mismatch"),),
    ),
    (
        "unusual_uuid",
        "One UUID has one text.",
        {"model_id": fixtures.MODEL.hex},
        ((("model_id",), "uuid_parsing"),),
    ),
    _between("priority", 10, "less_than_equal"),
    _between("max_attempts", 0, "greater_than_equal"),
    _between("max_runtime_seconds", 59, "greater_than_equal"),
    _between("max_stall_seconds", 604_801, "less_than_equal"),
    _between("cohort_query", "", "string_too_short"),
)
