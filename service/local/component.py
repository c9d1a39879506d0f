"""What every component of the embedded stack has in common: ports, a preparation, a start, a test.

Promises the stack one shape for four very different servers. A component knows nothing of the others
and starts nothing itself: the stack does, so that one rule decides what runs and what is stopped.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Final

from service.errors import MissingDependency
from service.local.process import Launch

INSTALL_LINE: Final = "pip install 'fl-job-service[local]'"


@dataclass(frozen=True, slots=True)
class ComponentProgress:
    """A step of one component. `done` of `total` bytes while something is downloaded, else 0 of 0."""

    component: str
    message: str
    done: int = 0
    total: int = 0
    finished: bool = False


OnProgress = Callable[[ComponentProgress], None]


def silent(_: ComponentProgress) -> None:
    """Reports to nobody."""


class Component(ABC):
    """One server. `dir` holds its data, `ports` its port numbers by use, the client's first."""

    name: ClassVar[str]
    port_uses: ClassVar[tuple[str, ...]]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 10.0
    start_seconds: ClassVar[float] = 60.0

    def __init__(self, dir: Path, ports: dict[str, int]) -> None:
        self.dir = dir
        self.ports = ports

    @property
    def port(self) -> int:
        """The port that clients use."""
        return self.ports[self.port_uses[0]]

    @abstractmethod
    def check(self) -> None:
        """Raise MissingDependency when this component can't be had here. Quick, changes nothing."""

    @abstractmethod
    def prepare(self, report: OnProgress) -> None:
        """Fetch and write what the start needs; quick when it was done before."""

    @abstractmethod
    def launch(self) -> Launch:
        """The command that starts the server in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server does its work now, not only listens."""

    def complete(self) -> None:
        """What is done once after every start, when the server is ready."""
        return None

    def clean(self) -> None:
        """Put away what a stopped server leaves outside `dir`."""
        return None


def require(module: str, component: str) -> None:
    """Raise MissingDependency with the install line when the package behind a component isn't installed."""
    if find_spec(module) is None:
        raise MissingDependency(f"{component} needs the extra 'local': {INSTALL_LINE}")
