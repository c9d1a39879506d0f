"""The researcher's `trainer.py`: loading it, calling its functions, checking what they return.

Promise: whatever the researcher's code does short of ending the process comes out as a `CallFailure`
that names the function, the cause and the line of their own file; whatever it returns is checked
against what the engine expects, with a message that says how to put it right. The functions are
`load_data(site, data_dir)`, `initial_parameters(config)`,
`fit(parameters, data, config) -> (parameters, num_examples, metrics)` and
`evaluate(parameters, data, config) -> (num_examples, metrics)`.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from service.fl_server.embedded.parameters import BadParameters, Parameters, from_trainer

SIGNATURES: Final = {
    "load_data": "load_data(site, data_dir)",
    "initial_parameters": "initial_parameters(config)",
    "fit": "fit(parameters, data, config) -> (parameters, num_examples, metrics)",
    "evaluate": "evaluate(parameters, data, config) -> (num_examples, metrics)",
}
_MAX_CAUSE: Final = 400
_MAX_TRACE: Final = 6_000
_MAX_METRICS: Final = 200
_MAX_LABEL: Final = 128
#: What every reader of JSON takes as a whole number.
_MAX_EXAMPLES: Final = 2**53

Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class CallFailure:
    """Why a call into the trainer gave nothing usable."""

    function: str
    cause: str
    trace: str = ""


class TrainerFault(ValueError):
    """A call into the trainer failed; `fault` says why."""

    def __init__(self, fault: CallFailure) -> None:
        super().__init__(f"{fault.function}: {fault.cause}")
        self.fault = fault


class _Guard:
    """Turns what foreign code raises inside the block into a TrainerFault. This is the one edge
    where any exception may come out: the code is the researcher's."""

    def __init__(self, function: str, home: Path) -> None:
        self._function = function
        self._home = home

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        raise TrainerFault(self._fault(error)) from error

    def _fault(self, error: BaseException) -> CallFailure:
        if isinstance(error, SystemExit):
            what = f"the trainer ended the program with sys.exit({error.code!r})"
        else:
            what = "".join(traceback.format_exception_only(error)).strip()
            what = what.splitlines()[-1] if isinstance(error, SyntaxError) else what
        where = self._where(error)
        text = "".join(traceback.format_exception(error))
        return CallFailure(self._function, f"{what[:_MAX_CAUSE]}{where}", text[-_MAX_TRACE:])

    def _where(self, error: BaseException) -> str:
        """The last line of the researcher's own files on the way to the error."""
        if isinstance(error, SyntaxError) and error.filename:
            return f" ({self._own(error.filename) or error.filename} line {error.lineno})"
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            own = self._own(frame.filename)
            if own is not None:
                return f" ({own} line {frame.lineno})"
        return ""

    def _own(self, filename: str) -> str | None:
        try:
            return str(Path(filename).resolve().relative_to(self._home))
        except ValueError:
            return None


class Trainer:
    """A loaded trainer of one site. Each method raises TrainerFault and nothing else."""

    def __init__(self, app: Path, entrypoint: str, site: str) -> None:
        """Import the file `entrypoint` below the folder `app`, with its own folder importable."""
        self._home = app.resolve()
        self._site = site
        file = self._home / entrypoint
        with _Guard("import", self._home):
            self._module = _load(file)
        missing = [n for n in SIGNATURES if not callable(getattr(self._module, n, None))]
        if missing:
            wanted = "; ".join(SIGNATURES[name] for name in missing)
            raise TrainerFault(CallFailure("import", f"{entrypoint} has no function {wanted}"))
        self._data: Any = None

    def load_data(self, data_dir: str) -> None:
        """Let the trainer load the site's data; kept for the calls that follow."""
        self._data = self._call("load_data", self._site, data_dir)

    def initial_parameters(self, config: Mapping[str, Any]) -> Parameters:
        """The parameters before the first round."""
        value = self._call("initial_parameters", dict(config))
        return _checked("initial_parameters", value)

    def fit(
        self, parameters: Parameters, config: Mapping[str, Any]
    ) -> tuple[Parameters, int, Metrics]:
        """Train on the site's data: the new parameters, examples used, metrics."""
        value = self._call("fit", parameters.for_trainer(), self._data, dict(config))
        if not isinstance(value, tuple | list) or len(value) != 3:
            raise _wrong(
                "fit", f"it should return (parameters, num_examples, metrics){_got(value)}"
            )
        return _checked("fit", value[0]), _examples("fit", value[1]), _metrics("fit", value[2])

    def evaluate(self, parameters: Parameters, config: Mapping[str, Any]) -> tuple[int, Metrics]:
        """Measure the parameters on the site's data: examples used, metrics."""
        value = self._call("evaluate", parameters.for_trainer(), self._data, dict(config))
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise _wrong("evaluate", f"it should return (num_examples, metrics){_got(value)}")
        return _examples("evaluate", value[0]), _metrics("evaluate", value[1])

    def _call(self, function: str, *arguments: Any) -> Any:
        call: Callable[..., Any] = getattr(self._module, function)
        with _Guard(function, self._home):
            return call(*arguments)


def _load(file: Path) -> ModuleType:
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} can't be imported: it should end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _wrong(function: str, what: str) -> TrainerFault:
    return TrainerFault(CallFailure(function, what))


def _got(value: object) -> str:
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f", not {type(value).__name__}{size}"


def _checked(function: str, value: object) -> Parameters:
    try:
        return from_trainer(value)
    except BadParameters as exc:
        raise _wrong(function, str(exc)) from exc


def _examples(function: str, value: Any) -> int:
    number = _number(value)
    if number is None or not math.isfinite(number) or number < 0 or number != int(number):
        raise _wrong(
            function, f"num_examples should be a whole number of 0 or more, not {str(value)[:80]}"
        )
    if number > _MAX_EXAMPLES:
        raise _wrong(function, f"num_examples should be at most {_MAX_EXAMPLES}, not {number:g}")
    return int(number)


def _metrics(function: str, value: Any) -> Metrics:
    """Metrics with numbers that are not finite as None."""
    if not isinstance(value, Mapping):
        raise _wrong(function, f"metrics should be a dict of numbers by name{_got(value)}")
    if len(value) > _MAX_METRICS:
        raise _wrong(function, f"{len(value)} metrics; at most {_MAX_METRICS}")
    metrics: Metrics = {}
    for key, member in value.items():
        number = _number(member)
        if not isinstance(key, str) or not 0 < len(key.strip()) <= _MAX_LABEL or number is None:
            raise _wrong(
                function,
                f"metric {str(key)[:60]!r} should be a number under a short name,"
                f" not {type(member).__name__}",
            )
        metrics[key] = number if math.isfinite(number) else None
    return metrics


def _number(value: Any) -> float | None:
    """A number, numpy's scalars and arrays of one element included; None for anything else."""
    if getattr(value, "size", None) == 1 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Real):
        try:
            return float(value)
        except (OverflowError, ValueError):
            return None
    return None
