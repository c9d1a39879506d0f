"""Examples of `fl.training.stop_requested.v1`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from service.contracts.examples import fixtures
from service.contracts.examples.record import Example, ExampleOutcome, Expected
from service.contracts.inbound.stop import STOP_REQUESTED

_SOURCE: Final = "/hub"
_JOB: Final = {"job_id": str(fixtures.JOB)}
_BROKEN: Final[tuple[tuple[str, str, dict[str, Any], ExampleOutcome, Any], ...]] = (
    (
        "no_target",
        "Neither a job nor a model is named.",
        {"reason": "wrong cohort"},
        ExampleOutcome.DEAD_LETTER,
        ((("job_id",), "missing"),),
    ),
    (
        "misspelt_field",
        "Stops are closed too.",
        _JOB | {"reasn": "wrong cohort"},
        ExampleOutcome.REFUSED,
        ((("reasn",), "extra_forbidden"),),
    ),
    (
        "reason_not_text",
        "A reason is text.",
        {"model_id": str(fixtures.MODEL), "reason": 5},
        ExampleOutcome.REFUSED,
        ((("reason",), "string_type"),),
    ),
)


def examples() -> Iterator[Example]:
    """Valid ones first."""
    asked = {"reason": "wrong cohort", "requested_by": "dr.lee@north.example"}
    yield _example("job", "Stop one job.", str(fixtures.JOB), _JOB | asked)
    model = {"model_id": str(fixtures.MODEL)}
    yield _example("model", "Stop a model's unfinished jobs.", str(fixtures.MODEL), model)
    long = _JOB | {"reason": "because " * 100}
    yield _example("long_reason", "A long reason is cut, not refused.", str(fixtures.JOB), long)
    for name, about, data, outcome, errors in _BROKEN:
        expect = Expected(outcome, errors)
        yield _example(name, about, str(fixtures.JOB), data, expect)


def _example(
    name: str, about: str, key: str, data: dict[str, Any], expect: Expected | None = None
) -> Example:
    head = fixtures.ce_headers(STOP_REQUESTED, f"stop-{name}", _SOURCE)
    return Example(STOP_REQUESTED, name, about, head, key, data=data, expect=expect)
