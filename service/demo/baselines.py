"""What the federated model is measured against: each hospital alone, and all data in one place.

Promises that every baseline is trained by the same trainer with the same config for as many rounds, and
that all are measured on the same test set, which no training saw.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from service.contracts.package_data import data_path
from service.demo.dataset import FILE
from service.errors import MissingDependency, Permanent

FEDERATED: Final = "federated"
POOLED: Final = "pooled"


def model_files() -> Path:
    """The folder with the demo's `trainer.py` and `config.json`. Raises MissingDependency."""
    folder = data_path("assets") / "demo"
    if not (folder / "trainer.py").is_file():
        raise MissingDependency(f"the demo's trainer is not in {folder}: install the package again")
    return folder


def parameters_of(results: bytes) -> dict[str, Any]:
    """The parameters in a results.zip. Raises Permanent when it is no such thing."""
    try:
        with zipfile.ZipFile(io.BytesIO(results)) as archive:
            raw = archive.read("parameters.npz")
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as exc:
        raise Permanent(f"the results hold no parameters: {exc}") from exc


def compare(
    federated: Mapping[str, Any],
    config: Mapping[str, Any],
    data_root: Path,
    slots: Sequence[str],
    test: Path,
) -> dict[str, dict[str, float]]:
    """Scores on the test set: of `federated`, of each slot alone, and of `pooled`."""
    trainer = _trainer()
    sites = {slot: trainer.load_data(slot, str(data_root / slot)) for slot in slots}
    pooled = tuple(np.concatenate(parts) for parts in zip(*sites.values(), strict=True))
    x, y = trainer.read_patients(test / FILE)

    def score(parameters: Any) -> dict[str, float]:
        return dict(trainer.evaluate(parameters, (x[:0], y[:0], x, y), config)[1])

    found = {FEDERATED: score(federated)}
    for name, data in {**sites, POOLED: pooled}.items():
        parameters = trainer.initial_parameters(config)
        for number in range(1, int(config["GLOBAL_ROUNDS"]) + 1):
            parameters, _, _ = trainer.fit(parameters, data, {**config, "ROUND": number})
        found[name] = score(parameters)
    return found


def _trainer() -> ModuleType:
    file = model_files() / "trainer.py"
    spec = importlib.util.spec_from_file_location("demo_trainer", file)
    if spec is None or spec.loader is None:
        raise MissingDependency(f"{file} can't be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
