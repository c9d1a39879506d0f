"""An app is refused before it runs, with everything that is wrong; the app's own keys pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.domain.enums import FLAggregators
from service.fl_server.embedded.plan import Plan, read_plan
from service.fl_server.http_errors import BadApp
from tests.conformance.fl_server_fixtures import SLOTS, app_files


def plan(tmp_path: Path, **changes: Any) -> Plan:
    files = app_files(config=changes.pop("config", {}))
    for name, raw in {**files, **changes}.items():
        if raw is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(raw)
    return read_plan(tmp_path, SLOTS)


def test_defaults(tmp_path: Path) -> None:
    made = plan(tmp_path, config={"GLOBAL_ROUNDS": None, "LEARNING_RATE": 0.1})
    assert made.rounds == 1
    assert made.aggregator is FLAggregators.InTimeAccumulateWeightedAggregator
    assert made.ignore_result_error is False
    assert made.weight("Trust_1") == 1.0
    assert made.config["LEARNING_RATE"] == 0.1


def test_every_override_is_read(tmp_path: Path) -> None:
    config = {
        "GLOBAL_ROUNDS": 7,
        "LOCAL_ROUNDS": 2,
        "IGNORE_RESULT_ERROR": True,
        "AGGREGATOR": "AccumulateWeightedAggregator",
        "AGGREGATION_WEIGHTS": {"Trust_1": 0.5, "Trust_2": 0},
        "LOCAL_ROUNDS_x": "the app's own",
    }
    made = plan(tmp_path, config=config)
    assert (made.rounds, made.aggregator) == (7, FLAggregators.AccumulateWeightedAggregator)
    assert made.ignore_result_error is True
    assert [made.weight(slot) for slot in SLOTS] == [0.5, 0.0, 1.0]
    assert made.config == config


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"GLOBAL_ROUNDS": 0}, "GLOBAL_ROUNDS should be a whole number from 1 to 1000"),
        ({"GLOBAL_ROUNDS": 2.5}, "GLOBAL_ROUNDS"),
        ({"GLOBAL_ROUNDS": True}, "GLOBAL_ROUNDS"),
        ({"LOCAL_ROUNDS": 1001}, "LOCAL_ROUNDS"),
        ({"IGNORE_RESULT_ERROR": 1}, "true or false"),
        ({"AGGREGATOR": "Median"}, "Unknown aggregator: Median"),
        ({"AGGREGATION_WEIGHTS": [1]}, "AGGREGATION_WEIGHTS must be a dictionary"),
        ({"AGGREGATION_WEIGHTS": {"Trust_1": 1.5}}, "Invalid weight: 1.5"),
        ({"AGGREGATION_WEIGHTS": {"Trust_1": True}}, "Invalid weight"),
        ({"AGGREGATION_WEIGHTS": {"Trust_7": 1}}, "'Trust_7', which is no slot of this net"),
    ],
)
def test_settings_out_of_their_limits(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    with pytest.raises(BadApp) as caught:
        plan(tmp_path, config=config)
    assert told in caught.value.message


def test_all_problems_at_once(tmp_path: Path) -> None:
    config = {"GLOBAL_ROUNDS": 0, "AGGREGATOR": "x"}
    with pytest.raises(BadApp) as caught:
        plan(tmp_path, **{"config": config, "app/trainer.py": b"def fit(:\n"})
    for told in ("GLOBAL_ROUNDS", "Unknown aggregator", "app/trainer.py line 1"):
        assert told in caught.value.message


def _engine(**changes: Any) -> bytes:
    engine = {"format": 1, "entrypoint": "app/trainer.py", "config": "app/config.json"}
    return json.dumps({**engine, **changes}).encode()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"engine.json": None}, "the bundle has no engine.json"),
        ({"engine.json": b"[]"}, "engine.json should hold a JSON object"),
        ({"engine.json": _engine(format=2)}, "format should be 1"),
        ({"engine.json": _engine(entrypoint="../x.py")}, "inside the bundle"),
        ({"engine.json": _engine(entrypoint="/x.py")}, "relative path"),
        ({"engine.json": _engine(entrypoint="app/other.py")}, "no app/other.py"),
        ({"engine.json": _engine(entrypoint="app/config.json")}, "should be a Python file"),
        ({"app/config.json": None}, "the bundle has no app/config.json"),
        ({"app/config.json": b'{"LEARNING_RATE": NaN}'}, "NaN"),
        ({"app/trainer.py": b"\0"}, "app/trainer.py"),
    ],
)
def test_files_that_are_not_as_they_should(
    tmp_path: Path, files: dict[str, bytes | None], told: str
) -> None:
    with pytest.raises(BadApp) as caught:
        plan(tmp_path, **files)
    assert told in caught.value.message
