"""The researcher's `trainer.py`: loading it, calling its functions, checking what they return.

Promise: whatever the researcher's code does short of ending the process comes out as a `Fault`
that names the function, the cause and the line of their own file; whatever it returns is checked
against what the engine expects, with a message that says how to put it right. No object of theirs
is touched outside a `Guard`. The file sees what a script sees: `sys.argv` is its own path alone,
its folder is first on `sys.path`, `__file__` is absolute; it is imported, so `__name__` is not
"__main__". The functions are `load_data(site, data_dir)`, `initial_parameters(config)`,
`fit(parameters, data, config) -> (parameters, num_examples, metrics)` and
`evaluate(parameters, data, config) -> (num_examples, metrics)`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from service.fl_server.embedded import returned
from service.fl_server.embedded.guard import Fault, Guard, TrainerFault
from service.fl_server.embedded.parameters import Parameters, from_trainer
from service.fl_server.embedded.returned import Metrics

__all__ = ["SIGNATURES", "Fault", "Metrics", "Trainer", "TrainerFault"]

SIGNATURES: Final = {
    "load_data": "load_data(site, data_dir)",
    "initial_parameters": "initial_parameters(config)",
    "fit": "fit(parameters, data, config) -> (parameters, num_examples, metrics)",
    "evaluate": "evaluate(parameters, data, config) -> (num_examples, metrics)",
}


class Trainer:
    """A loaded trainer of one site. Each method raises TrainerFault and nothing else."""

    def __init__(self, app: Path, entrypoint: str, site: str) -> None:
        """Import the file `entrypoint` below the folder `app`, with its own folder importable."""
        self._home = app.resolve()
        self._site = site
        self._file = self._home / entrypoint
        with self._guard("import"):
            self._module = _load(self._file)
            missing = [n for n in SIGNATURES if not callable(getattr(self._module, n, None))]
        if missing:
            wanted = "; ".join(SIGNATURES[name] for name in missing)
            raise TrainerFault(Fault("import", f"{entrypoint} has no function {wanted}"))
        self._data: Any = None

    def load_data(self, data_dir: str) -> None:
        """Let the trainer load the site's data; kept for the calls that follow."""
        with self._guard("load_data"):
            self._data = self._module.load_data(self._site, data_dir)

    def initial_parameters(self, config: Mapping[str, Any]) -> Parameters:
        """The parameters before the first round."""
        with self._guard("initial_parameters"):
            return from_trainer(self._module.initial_parameters(dict(config)))

    def fit(
        self, parameters: Parameters, config: Mapping[str, Any]
    ) -> tuple[Parameters, int, Metrics]:
        """Train on the site's data: the new parameters, examples used, metrics."""
        with self._guard("fit"):
            given = parameters.for_trainer()
            value = self._module.fit(given, self._data, dict(config))
            fitted, examples, metrics = returned.members(
                value, "(parameters, num_examples, metrics)", 3
            )
            return from_trainer(fitted), returned.examples(examples), returned.metrics(metrics)

    def evaluate(self, parameters: Parameters, config: Mapping[str, Any]) -> tuple[int, Metrics]:
        """Measure the parameters on the site's data: examples used, metrics."""
        with self._guard("evaluate"):
            given = parameters.for_trainer()
            value = self._module.evaluate(given, self._data, dict(config))
            examples, metrics = returned.members(value, "(num_examples, metrics)", 2)
            return returned.examples(examples), returned.metrics(metrics)

    def _guard(self, function: str) -> Guard:
        return Guard(function, self._home, self._file)


def _load(file: Path) -> ModuleType:
    sys.path.insert(0, str(file.parent))
    sys.argv = [str(file)]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} can't be imported: it should end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module
