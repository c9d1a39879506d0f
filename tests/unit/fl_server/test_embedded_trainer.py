"""A wrong trainer is told what to put right, in terms of its own functions and lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.fl_server.embedded.parameters import (
    BadParameters,
    from_npz,
    from_trainer,
    named_npz,
    problem_with,
    to_npz,
)
from service.fl_server.embedded.trainer import Trainer, TrainerFault
from tests.conformance.fl_server_fixtures import ADDING, changed


@pytest.fixture(autouse=True)
def _no_trace_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def trainer(tmp_path: Path, source: str) -> Trainer:
    (tmp_path / "app").mkdir(exist_ok=True)
    (tmp_path / "app/trainer.py").write_text(source)
    return Trainer(tmp_path, "app/trainer.py", "Trust_2")


def fault_of_a_round(tmp_path: Path, source: str) -> str:
    with pytest.raises(TrainerFault) as caught:
        one_round(trainer, tmp_path, source)
    return str(caught.value)


def one_round(make: Callable[[Path, str], Trainer], tmp_path: Path, source: str) -> None:
    made = make(tmp_path, source)
    made.load_data(str(tmp_path / "Trust_2"))
    parameters = made.initial_parameters({})
    fitted, _, _ = made.fit(parameters, {"ROUND": 1})
    made.evaluate(fitted, {"ROUND": 1})


def test_a_right_trainer_goes_through(tmp_path: Path) -> None:
    made = trainer(tmp_path, ADDING)
    made.load_data(str(tmp_path / "Trust_2"))
    start = made.initial_parameters({})
    fitted, examples, metrics = made.fit(start, {"ROUND": 1})
    assert (examples, metrics) == (20, {"loss": 0.5})
    given = fitted.for_trainer()
    assert isinstance(given, dict)
    assert given["w"].tolist() == [[2, 2], [2, 2]]
    assert start.arrays[0].sum() == 0  # fit works on copies
    assert made.evaluate(fitted, {}) == (20, {"level": 2.0, "odd": None})


FIT_RETURNS = '10 * data, {"loss": 1.0 / data}'
WRONG = {
    "no fit": (changed("def fit", "def fitt"), "app/trainer.py has no function fit(parameters, "),
    "raises": (
        changed("    return int(site", "    1 / 0\n    return int(site"),
        "load_data: ZeroDivisionError: division by zero (app/trainer.py line 10)",
    ),
    "exits": (changed("    time.sleep", "    raise SystemExit(3)\n    time.sleep"), "sys.exit(3)"),
    "import": (changed("import time", "import no_such_module"), "import: ModuleNotFoundError"),
    "nested": (changed("return 10 * data, {", "return np.zeros(2)[7], {"), "evaluate: IndexError"),
    "two": (changed(FIT_RETURNS, "10 * data"), "fit: it should return (parameters, num_examples"),
    "none": (changed("    return 10 * data, {", "    10 * data, {"), "not NoneType"),
    "examples": (changed(FIT_RETURNS, '-1, {"loss": 1.0}'), "num_examples should be a whole"),
    "half": (changed(FIT_RETURNS, '2.5, {"loss": 1.0}'), "num_examples should be a whole"),
    "nan": (changed(FIT_RETURNS, 'float("nan"), {}'), "num_examples should be a whole"),
    "metrics": (changed(FIT_RETURNS, '3, {"loss": "low"}'), "metric 'loss' should be a number"),
    "label": (changed(FIT_RETURNS, "3, {'x' * 200: 1}"), "under a short name"),
    "list": (changed(FIT_RETURNS, "3, [1.0]"), "metrics should be a dict"),
    "parameters": (changed('"w": parameters["w"] + data', '"w": "much"'), "['w'] holds"),
    "ragged": (changed('"w": parameters["w"] + data', '"w": [[1], [1, 2]]'), "['w'] can't be made"),
    "nothing": (
        changed('{"w": np.zeros((2, 2)), "b": np.zeros(1, dtype=np.float32)}', "[]"),
        "emp",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_trainer_is_told_what_to_put_right(tmp_path: Path, name: str) -> None:
    source, told = WRONG[name]
    assert told in fault_of_a_round(tmp_path, source)


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    source = changed(FIT_RETURNS, 'np.int64(7), {"loss": np.float32(0.5), "a": np.array([1])}')
    made = trainer(tmp_path, source)
    made.load_data(str(tmp_path / "Trust_2"))
    _, examples, metrics = made.fit(made.initial_parameters({}), {})
    assert (examples, metrics) == (7, {"loss": 0.5, "a": 1.0})


def test_a_trainer_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/neighbour_of_the_trainer.py").write_text("SIZE = 3\n")
    source = changed(
        "def initial_parameters(config):",
        "from neighbour_of_the_trainer import SIZE\n\ndef initial_parameters(config):",
    )
    assert trainer(tmp_path, changed("(2, 2)", "SIZE", source)).initial_parameters({})


def test_parameters_travel_whole() -> None:
    named = from_trainer({"layer/one": np.arange(6.0).reshape(2, 3), "file": 2, "naïve": [True]})
    back = from_npz(to_npz(named), list(named.keys or ()))
    assert back.keys == named.keys
    assert all((a == b).all() for a, b in zip(back.arrays, named.arrays, strict=True))
    assert set(np.load(__import__("io").BytesIO(named_npz(named))).files) == set(named.keys or ())
    with pytest.raises(BadParameters):
        from_npz(b"no zip", None)
    with pytest.raises(BadParameters):
        from_npz(to_npz(named), ["one"])


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"w": [1.0, float("nan")], "b": 1.0}, "parameters['w'] has 1 of 2 values"),
        ({"w": [1.0, float("inf")], "b": 1.0}, "not finite"),
        ({"w": [1.0, 2.0, 3.0], "b": 1.0}, "shape (3,), it came in as (2,)"),
        ({"w": [1.0, 2.0]}, "lack ['b']"),
        ({"w": [1.0, 2.0], "b": 1.0, "c": 1.0}, "have ['c']"),
        ([[1.0, 2.0], 1.0], "came in as a dict and went out as a list"),
    ],
)
def test_an_update_must_fit_what_it_came_from(update: object, told: str) -> None:
    reference = from_trainer({"w": [0.0, 0.0], "b": 0.0})
    assert told in (problem_with(from_trainer(update), reference) or "")
    assert problem_with(from_trainer({"b": 1.0, "w": [1.0, 1.0]}), reference) is None


@pytest.mark.parametrize(
    ("dtype", "update", "told"),
    [
        ("float32", [1e300], "1 of 1 values beyond the range of float32"),
        ("float16", np.array([100_000]), "beyond the range of float16"),
        ("float64", np.array([1e300]), None),
        ("int8", [300.0], "beyond the range of int8"),
        ("int8", [126.6], None),
        ("uint8", np.array([-1]), "beyond the range of uint8"),
        ("int64", [2.0**63], "beyond the range of int64"),
        ("int64", np.array([True]), None),
        ("complex64", [1e300], "beyond the range of complex64"),
        ("complex64", [1.0], None),
        ("longdouble", np.array(["1e4000"], np.longdouble), "beyond the range of float"),
        ("float32", [1j], "holds complex128, it came in as float32"),
        ("bool", [1.0], None),
    ],
)
def test_an_update_must_fit_the_models_types(dtype: str, update: object, told: str | None) -> None:
    problem = problem_with(from_trainer([update]), from_trainer([np.zeros(1, dtype)]))
    assert problem == told if told is None else told in (problem or "")
