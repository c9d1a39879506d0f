"""The demo's patients: scikit-learn's breast-cancer data, split over three hospitals and a test set.

Promises the same split every time: a fifth of all patients is kept apart as the test set, the rest go
to the hospitals unevenly, in number and in how many of their patients are ill. No patient is in two
sites.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.local.nets import SLOTS

FILE: Final = "patients.csv"
TEST: Final = "test"
_SEED: Final = 20
_TEST_SHARE: Final = 0.2
#: Each hospital's share of the benign and of the malignant patients: 60, 25 and 15 % of all together.
_SHARES: Final = ((0.60, 0.60), (0.34, 0.10), (0.06, 0.30))


@dataclass(frozen=True, slots=True)
class Patients:
    """How many patients lie in one place, and how many of them have a malignant mass."""

    total: int
    malignant: int


def write(data_root: Path, apart: Path) -> dict[str, Patients]:
    """Write `<data_root>/<slot>/patients.csv` for each hospital and the test set into `apart`.

    Returns who lies where, by slot, the test set as `test`.
    """
    from sklearn.datasets import load_breast_cancer

    data: Any = load_breast_cancer()
    ill = 1 - data.target
    names = [str(name) for name in data.feature_names]
    found = {}
    for site, rows in _split(ill).items():
        folder = apart if site == TEST else data_root / site
        _write_csv(folder / FILE, names, data.data[rows], ill[rows])
        found[site] = Patients(len(rows), int(ill[rows].sum()))
    return found


def _split(ill: Any) -> Mapping[str, Any]:
    rng = np.random.default_rng(_SEED)
    sites: dict[str, list[Any]] = {name: [] for name in (TEST, *SLOTS)}
    for kind in (0, 1):
        rows = rng.permutation(np.flatnonzero(ill == kind))
        cut = round(len(rows) * _TEST_SHARE)
        sites[TEST].append(rows[:cut])
        rest = rows[cut:]
        begin = 0
        for slot, shares in zip(SLOTS, _SHARES, strict=True):
            end = begin + round(len(rest) * shares[kind])
            last = slot == SLOTS[-1]
            sites[slot].append(rest[begin:] if last else rest[begin:end])
            begin = end
    return {site: rng.permutation(np.concatenate(rows)) for site, rows in sites.items()}


def _write_csv(path: Path, names: list[str], x: Any, ill: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    with fresh.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*names, "malignant"])
        for values, label in zip(x.tolist(), ill.tolist(), strict=True):
            rows.writerow([*values, label])
    fresh.replace(path)
