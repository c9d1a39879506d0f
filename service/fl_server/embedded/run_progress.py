"""How far a run is, on disk after every round, and what it leaves at the end.

Promise: after a crash the last aggregated round is there whole, parameters and metrics, or the one
before; nothing half-written is ever read. The results are one zip: `parameters.npz` (arrays under
their own names), `metrics.json` (per round, aggregated and per site), `result.json` (a summary);
numbers that are not finite are null. What breaks the promise: a file system that renames before
it writes, at a loss of power.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from service.fl_server.embedded.parameters import (
    BadParameters,
    Parameters,
    from_npz,
    named_npz,
    names_of,
    to_npz,
)
from service.fl_server.embedded.plan import Plan
from service.fl_server.embedded.returned import Metrics
from service.fl_server.report_writer import finite

_STATE: Final = "progress.json"
RESULTS: Final = "results.zip"
_NOON_1980: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(slots=True)
class RoundRecord:
    """One aggregated round. `metrics` are the average, `sites` each site's examples and metrics,
    `failed` the causes by slot."""

    round: int
    num_examples: int
    metrics: Metrics
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class RunProgress:
    """The folder of one run's state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rounds: list[RoundRecord] = []
        self.parameters: Parameters | None = None

    def load(self) -> None:
        """Read what an earlier process left; nothing, or something unreadable, is a fresh start."""
        try:
            state = json.loads((self._folder / _STATE).read_bytes())
            rounds = [RoundRecord(**record) for record in state["rounds"]]
            raw = (self._folder / _file(len(rounds))).read_bytes()
            self.parameters = from_npz(raw, state["keys"])
            self.rounds = rounds
        except (OSError, ValueError, KeyError, TypeError, BadParameters):
            self.rounds, self.parameters = [], None

    def save(self, parameters: Parameters, record: RoundRecord) -> None:
        """Keep an aggregated round. Blocks on the disk; call it in a thread."""
        self.rounds.append(record)
        self.parameters = parameters
        now = len(self.rounds)
        _replace(self._folder / _file(now), to_npz(parameters))
        state = {"keys": parameters.keys, "rounds": [asdict(entry) for entry in self.rounds]}
        _replace(self._folder / _STATE, json.dumps(state).encode())
        (self._folder / _file(now - 1)).unlink(missing_ok=True)

    def write_results(self, run_id: str, plan: Plan, slots: Sequence[str]) -> None:
        """Write the zip. Blocks on the disk; call it in a thread."""
        assert self.parameters is not None
        last = self.rounds[-1]
        summary = {
            "run_id": run_id,
            "rounds": len(self.rounds),
            "slots": list(slots),
            "aggregator": plan.aggregator.value,
            "aggregation_weights": dict(plan.weights),
            "config": dict(plan.config),
            "parameters": _shapes(self.parameters),
            "num_examples": last.num_examples,
            "metrics": last.metrics,
            "failed_sites": {r.round: r.failed for r in self.rounds if r.failed},
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            _add(archive, "parameters.npz", named_npz(self.parameters), zipfile.ZIP_STORED)
            _add(archive, "metrics.json", _json({"rounds": [asdict(r) for r in self.rounds]}))
            _add(archive, "result.json", _json(summary))
        _replace(self._folder / RESULTS, buffer.getvalue())

    def drop_state(self) -> None:
        """Remove what only a resumed run would need."""
        for file in self._folder.glob("round-*.npz"):
            file.unlink(missing_ok=True)


def _file(rounds: int) -> str:
    return f"round-{rounds:04d}.npz"


def _shapes(parameters: Parameters) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
        for name, array in zip(names_of(parameters), parameters.arrays, strict=True)
    ]


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(finite(value), indent=2, allow_nan=False).encode()


def _add(archive: zipfile.ZipFile, name: str, raw: bytes, how: int = zipfile.ZIP_DEFLATED) -> None:
    """The same bytes give the same archive: no clock in it."""
    info = zipfile.ZipInfo(name, _NOON_1980)
    info.external_attr = 0o644 << 16
    archive.writestr(info, raw, compress_type=how)


def _replace(path: Path, raw: bytes) -> None:
    fresh = path.with_name(path.name + ".part")
    fresh.write_bytes(raw)
    fresh.replace(path)
