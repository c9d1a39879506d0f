"""The training while it runs: a bar of rounds, a bar per hospital, and a line for what matters.

Shown on standard error, so that `--json` on standard output stays clean. Where that is no terminal, it
is a line per change and per twentieth of the rounds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.text import Text

from service.demo.lifecycle import OF_A_ROUND, TOGETHER, LifecycleLog, Scores
from service.domain.enums import Lifecycle
from service.telemetry.terminal import styled


class DemoProgress:
    """`on_event` gets the lifecycle after every event, `print` a line of its own. `names` are by slot."""

    def __init__(self, console: Console, names: Mapping[str, str], rounds: int) -> None:
        self._console = console
        self._names = {**names, TOGETHER: "Rounds"}
        self._rounds = rounds
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_event_at = time.monotonic()

    @property
    def seconds_since_last_event(self) -> float:
        """Since the last event, or since the beginning."""
        return time.monotonic() - self._last_event_at

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Bars while inside, on a terminal."""
        if not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description:<15}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            Elapsed(),
        )
        with Progress(*columns, console=self._console) as self._bars:
            for site in (TOGETHER, *(p for p in self._names if p != TOGETHER)):
                self._tasks[site] = self._bars.add_task(
                    self._names[site], total=self._rounds, status="waiting"
                )
            yield
        self._bars = None

    def print(self, line: str | Text) -> None:
        """A line above the bars."""
        self._console.print(line)

    def on_event(self, lifecycle: LifecycleLog) -> None:
        """Show what the last event changed."""
        self._last_event_at = time.monotonic()
        last = lifecycle.last
        if last.event_name not in OF_A_ROUND:
            reason = last.data.get("reason")
            cause = f": {reason['message']}" if reason else ""
            self.print(styled((last.event_name.value.replace("_", " "), "bold"), cause))
            return
        number = last.round or 0
        if last.event_name is Lifecycle.ROUND_AGGREGATED and self._bars is None:
            if number % max(1, self._rounds // 20) == 0:
                self.print(
                    f"round {number}/{self._rounds}: {_line(lifecycle.rounds[number][TOGETHER])}"
                )
        elif self._bars is not None:
            self._move(lifecycle, number)

    def _move(self, lifecycle: LifecycleLog, number: int) -> None:
        assert self._bars is not None
        last = lifecycle.last
        if last.event_name is Lifecycle.METRICS_RECORDED:
            for site, scores in lifecycle.rounds[number].items():
                if site in self._tasks and site != TOGETHER:
                    self._bars.update(self._tasks[site], completed=number, status=_line(scores))
        elif last.event_name is Lifecycle.ROUND_AGGREGATED:
            status = _line(lifecycle.rounds[number][TOGETHER])
            self._bars.update(self._tasks[TOGETHER], completed=number, status=status)


def _line(scores: Scores) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
