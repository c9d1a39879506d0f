"""The edge to a researcher's code: whatever it raises, or its objects raise, becomes a `Fault`.

Promise: inside `Guard` no exception is fatal, `SystemExit`, `KeyboardInterrupt` and exceptions
whose own text, class or metaclass raise included; the fault names the function, the cause and the
line of the researcher's own file. `reading` names the returned field at hand and says what to
return instead. What breaks the promise: code that ends the process, or that never returns. Needs
the standard library alone.
"""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

_MAX_TEXT: Final = 240
_MAX_TRACE: Final = 6_000
#: How argparse and click end a program whose command line lacks something.
_BAD_USAGE: Final = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call into the trainer gave nothing usable."""

    function: str
    cause: str
    trace: str = ""


class TrainerFault(ValueError):
    """A call into the trainer failed; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.function}: {fault.cause}")
        self.fault = fault


class Unusable(ValueError):
    """A returned value can't be used: `what` is wrong, and `advice` says what to return instead.

    `error` is what reading the value raised, if it did, with its traceback.
    """

    def __init__(
        self,
        what: str,
        advice: str = "",
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.what = what if error is None else f"{what}: {describe(error)[:_MAX_TEXT]}"
        self.advice = advice
        self.error = error
        self.trace = trace
        super().__init__(f"{self.what}; {advice}" if advice else self.what)


class Reading:
    """Names the field that is being read: what its objects raise becomes an `Unusable`."""

    __slots__ = ("_advice", "_kind", "_what")

    def __init__(self, what: str, advice: str, kind: type[Unusable] = Unusable) -> None:
        """`what` is a statement, such as "metric 'loss' can't be read"."""
        self._what = what
        self._advice = advice
        self._kind = kind

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not issubclass(type(error), Unusable):
            raise self._kind(self._what, self._advice, error, trace) from None


class Guard:
    """Turns what foreign code raises inside the block into a TrainerFault. This is the one edge
    where any exception may come out: the code is the researcher's.

    `home` is the app's folder; `beside` the trainer's file, whose neighbours a path may mean.
    """

    def __init__(self, function: str, home: Path, beside: Path | None = None) -> None:
        self._function = function
        self._home = home
        self._beside = beside

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or type(error) is TrainerFault:
            return
        if isinstance(type(error), type) and issubclass(type(error), Unusable):
            raise TrainerFault(self._unusable(error, trace)) from None
        raise TrainerFault(self._raised(error, trace)) from None

    def _unusable(self, error: BaseException, trace: TracebackType | None) -> Fault:
        """A refused value; a subclass of `Unusable` that a trainer made up is a raised error."""
        what, advice, inner = "", "", None
        with suppress(BaseException):
            assert isinstance(error, Unusable)
            what, advice, inner, trace = error.what, error.advice, error.error, error.trace
            what = str.__str__(what)
        if not what:
            return self._raised(error, trace)
        where = "" if inner is None else self._where(inner, trace)
        told = "" if inner is None else formatted(inner, trace)
        return Fault(self._function, f"{what}{where}{f'; {advice}' if advice else ''}", told)

    def _raised(self, error: BaseException, trace: TracebackType | None) -> Fault:
        if issubclass(type(error), SystemExit):
            what = self._exit(error)
        else:
            what = describe(error)
            if issubclass(type(error), SyntaxError):
                what = what.splitlines()[-1]
        cause = f"{what[:_MAX_TEXT]}{self._where(error, trace)}{self._neighbour(error)}"
        return Fault(self._function, cause, formatted(error, trace))

    def _exit(self, error: BaseException) -> str:
        code: object = None
        shown = "a code that can't be read"
        with suppress(BaseException):
            code = SystemExit.__dict__["code"].__get__(error)
            shown = str.__str__(repr(code))[:80]
        text = f"the trainer ended the program with sys.exit({shown})"
        if type(code) is int and code == _BAD_USAGE and self._function == "import":
            text += ": it gets no command line, so each argument needs a default"
        return text

    def _where(self, error: BaseException, trace: TracebackType | None) -> str:
        """The last line of the researcher's own files on the way to the error."""
        if issubclass(type(error), SyntaxError):
            with suppress(BaseException):
                filename, line = getattr(error, "filename", None), getattr(error, "lineno", None)
                if type(filename) is str and type(line) is int:
                    return f" ({self._own(filename) or Path(filename).name} line {line})"
        found = ""
        for frame, line in traceback.walk_tb(trace):
            own = self._own(frame.f_code.co_filename)
            if own is not None:
                found = f" ({own} line {line})"
        return found

    def _own(self, filename: str) -> str | None:
        try:
            return str(Path(filename).resolve().relative_to(self._home))
        except (ValueError, OSError):
            return None

    def _neighbour(self, error: BaseException) -> str:
        """Says so when a file that was looked for in the working folder lies beside the trainer."""
        if self._beside is not None and issubclass(type(error), FileNotFoundError):
            with suppress(BaseException):
                name = str.__str__(getattr(error, "filename", ""))[:80]
                if not Path(name).is_absolute() and (self._beside.parent / name).exists():
                    return (
                        f"; the file lies beside {self._beside.name}, not in the working folder:"
                        f" open Path(__file__).parent / {name!r}"
                    )
        return ""


def describe(error: BaseException) -> str:
    """`Kind: text` of an exception, also of one whose text or class can't be read."""
    with suppress(BaseException):
        text = str.__str__("".join(traceback.format_exception_only(error))).strip()
        if text:
            return text
    return f"{kind_of(error)}, whose text can't be read"


def formatted(error: BaseException, trace: TracebackType | None) -> str:
    """The end of an exception's traceback; without the exception's own part where that raises."""
    with suppress(BaseException):
        told = traceback.format_exception(type(error), error, trace)
        return str.__str__("".join(told))[-_MAX_TRACE:]
    with suppress(BaseException):
        return str.__str__("".join(traceback.format_tb(trace)))[-_MAX_TRACE:]
    return ""


def kind_of(value: object) -> str:
    """The name of a value's class, past whatever its metaclass says."""
    with suppress(BaseException):
        return str.__str__(type.__dict__["__name__"].__get__(type(value)))[:80]
    return "an object"
