"""The demo's trainer computes what it says: scores as scikit-learn's, a gradient that is the loss's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from service.demo import baselines
from service.fl_server.embedded.trainer import Trainer


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("t", baselines.model_files() / "trainer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((baselines.model_files() / "config.json").read_text())
    return found


def test_scores_are_the_usual_ones(trainer: ModuleType) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 200).astype(float)
    p = np.round(rng.random(200), 1) * 0.98 + 0.01  # with many ties
    scores = trainer.scores(y, p)
    assert scores["auc"] == pytest.approx(roc_auc_score(y, p))
    assert scores["loss"] == pytest.approx(log_loss(y, p))
    assert scores["accuracy"] == np.mean((p > 0.5) == (y > 0.5))


def test_auc_of_one_class_is_no_number(trainer: ModuleType) -> None:
    assert np.isnan(trainer.auc(np.ones(3), np.array([0.1, 0.5, 0.9])))


def test_one_full_step_follows_the_losses_slope(
    trainer: ModuleType, config: dict[str, Any]
) -> None:
    rng = np.random.default_rng(2)
    low, high = np.array(config["FEATURE_LOW"]), np.array(config["FEATURE_HIGH"])
    x = low + (high - low) * rng.random((12, 30))
    y = rng.integers(0, 2, 12).astype(float)
    rate = 1e-3
    step = {**config, "LOCAL_ROUNDS": 1, "BATCH_SIZE": 12, "LEARNING_RATE": rate, "WEIGHT_DECAY": 0}
    begin = {"weights": rng.normal(size=30) * 0.1, "intercept": np.array([0.2])}
    after, examples, _ = trainer.fit(begin, (x, y, x, y), step)
    assert examples == 12

    def loss(weights: Any) -> float:
        moved = {"weights": weights, "intercept": begin["intercept"]}
        return float(trainer.log_loss(y, trainer.predict(moved, x, config)))

    for i in (0, 13, 29):
        nudge = np.zeros(30)
        nudge[i] = 1e-5
        slope = (loss(begin["weights"] + nudge) - loss(begin["weights"] - nudge)) / 2e-5
        assert (begin["weights"][i] - after["weights"][i]) / rate == pytest.approx(slope, rel=1e-4)


def test_local_rounds_are_honoured(trainer: ModuleType, config: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    data = (rng.random((20, 30)), rng.integers(0, 2, 20).astype(float))
    begin = trainer.initial_parameters(config)
    one, two = (
        trainer.fit(begin, data, {**config, "ROUND": 1, "LOCAL_ROUNDS": n})[0] for n in (1, 2)
    )
    assert not np.allclose(one["weights"], two["weights"])
    assert not begin["weights"].any()  # what came in is left as it was


def test_the_engine_takes_it(tmp_path: Path, config: dict[str, Any]) -> None:
    loaded = Trainer(baselines.model_files(), "trainer.py", "Trust_1")
    assert loaded.initial_parameters(config).keys == ("weights", "intercept")
