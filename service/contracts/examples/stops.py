"""Examples of `fl.training.stop_requested.v1`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from service.contracts.examples import cast
from service.contracts.examples.record import Example, Expected, Outcome
from service.contracts.stop import STOP_REQUESTED

_SOURCE: Final = "/hub"
_JOB: Final = {"job_id": str(cast.JOB)}
_BROKEN: Final[tuple[tuple[str, str, dict[str, Any], Outcome, Any], ...]] = (
    (
        "no_target",
        "Neither a job nor a model is named.",
        {"reason": "wrong cohort"},
        Outcome.DEAD_LETTER,
        ((("job_id",), "missing"),),
    ),
    (
        "misspelt_field",
        "Stops are closed too.",
        _JOB | {"reasn": "wrong cohort"},
        Outcome.REFUSED,
        ((("reasn",), "extra_forbidden"),),
    ),
    (
        "reason_not_text",
        "A reason is text.",
        {"model_id": str(cast.MODEL), "reason": 5},
        Outcome.REFUSED,
        ((("reason",), "string_type"),),
    ),
)


def examples() -> Iterator[Example]:
    """Valid ones first."""
    asked = {"reason": "wrong cohort", "requested_by": "dr.lee@north.example"}
    yield _example("job", "Stop one job.", str(cast.JOB), _JOB | asked)
    model = {"model_id": str(cast.MODEL)}
    yield _example("model", "Stop a model's unfinished jobs.", str(cast.MODEL), model)
    long = _JOB | {"reason": "because " * 100}
    yield _example("long_reason", "A long reason is cut, not refused.", str(cast.JOB), long)
    for name, about, data, outcome, errors in _BROKEN:
        expect = Expected(outcome, errors)
        yield _example(name, about, str(cast.JOB), data, expect)


def _example(
    name: str, about: str, key: str, data: dict[str, Any], expect: Expected | None = None
) -> Example:
    head = cast.ce_headers(STOP_REQUESTED, f"stop-{name}", _SOURCE)
    return Example(STOP_REQUESTED, name, about, head, key, data=data, expect=expect)
