"""No body that we publish is larger than its topic takes; what is cut is named and keeps its shape."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.contracts.outbound import lifecycle
from service.contracts.outbound import state as states
from service.contracts.outbound.lifecycle import CompletedData
from service.contracts.outbound.state import StateData
from service.contracts.outbound.truncate import BODY_BYTES, truncate_to
from tests.unit.contracts.test_lifecycle import LIVES, _jobs

JOB, COMPLETED = _jobs(LIVES["happy"])[-1]


def _told() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lifecycle.body(JOB, COMPLETED))
    return found


def _state() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(states.body(JOB))
    return found


def test_what_fits_is_left_as_it_is() -> None:
    body = json.dumps(_told())
    assert truncate_to(body) is body
    wide = json.dumps({"log": "é" * 400_000}, ensure_ascii=False)
    assert truncate_to(wide) is wide


def test_a_config_that_is_too_large_is_left_out_and_named() -> None:
    told = {**_told(), "config": {"vocabulary": "y" * 1_100_000}}
    cut = truncate_to(json.dumps(told))
    assert len(cut.encode()) <= BODY_BYTES
    data = json.loads(cut)
    CompletedData.model_validate(data)
    assert data["truncated"] == ["config"]
    assert data["metrics"] == told["metrics"]


@settings(max_examples=20, deadline=None)
@example(4_000, 900, 1, 1)
@example(1, 1, 300, 40)
@example(1, 1, 1, 20_000)
@given(st.integers(1, 1_000), st.integers(1, 900), st.integers(1, 30), st.integers(1, 300))
def test_a_state_of_any_size_fits_and_keeps_its_shape(
    metrics: int, label: int, attempts: int, trusts: int
) -> None:
    state = _state()
    one = state["progress"]["metrics"][0]
    state["progress"]["metrics"] = [{**one, "label": "é" * label}] * metrics
    last = state["attempts"][-1]
    last["participants"] = last["participants"][:1] * trusts
    state["attempts"] = [last] * attempts
    body = json.dumps(state, ensure_ascii=False)
    cut = truncate_to(body)
    assert len(cut.encode()) <= BODY_BYTES
    data = json.loads(cut)
    StateData.model_validate(data)
    assert data["sequence"] == state["sequence"]
    assert data["attempts"][-1]["number"] == last["number"]
    assert bool(data.get("truncated")) == (len(body.encode()) > BODY_BYTES)


def test_a_state_is_cut_from_the_first_byte_too_many() -> None:
    state = _state()
    state["request"]["config"] = {"é": ""}
    rest = BODY_BYTES - len(json.dumps(state, ensure_ascii=False).encode())
    state["request"]["config"] = {"é": "x" * rest}
    body = json.dumps(state, ensure_ascii=False)
    assert truncate_to(body) is body
    state["request"]["config"] = {"é": "x" * (rest + 1)}
    cut = json.loads(truncate_to(json.dumps(state, ensure_ascii=False)))
    StateData.model_validate(cut)
    assert (cut["truncated"], cut["request"]["config"]) == (["request.config"], {})
