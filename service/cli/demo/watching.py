"""The training as it goes on: a bar of rounds, a bar per hospital, and a line for what matters.

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

from service.cli.demo.story import OF_A_ROUND, TOGETHER, Scores, Story
from service.domain.enums import Lifecycle


class Watching:
    """`hear` is given the story after every event, `say` a line of its own. `names` are by slot."""

    def __init__(self, console: Console, names: Mapping[str, str], rounds: int) -> None:
        self._console = console
        self._names = {**names, TOGETHER: "Rounds"}
        self._rounds = rounds
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._heard = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Since the last event, or since the beginning."""
        return time.monotonic() - self._heard

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Bars while inside, on a terminal."""
        if not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[say]}"),
            Elapsed(),
        )
        with Progress(*columns, console=self._console) as self._bars:
            for place in (TOGETHER, *(p for p in self._names if p != TOGETHER)):
                self._tasks[place] = self._bars.add_task(
                    self._names[place], total=self._rounds, say="waiting"
                )
            yield
        self._bars = None

    def say(self, line: str) -> None:
        """A line above the bars."""
        self._console.print(line, highlight=False)

    def hear(self, story: Story) -> None:
        """Show what the last event changed."""
        self._heard = time.monotonic()
        last = story.last
        if last.word not in OF_A_ROUND:
            reason = last.data.get("reason")
            why = f": {reason['message']}" if reason else ""
            self.say(f"[bold]{last.word.value.replace('_', ' ')}[/]{why}")
            return
        number = last.round or 0
        if last.word is Lifecycle.ROUND_AGGREGATED and self._bars is None:
            if number % max(1, self._rounds // 20) == 0:
                self.say(f"round {number}/{self._rounds}: {_line(story.rounds[number][TOGETHER])}")
        elif self._bars is not None:
            self._move(story, number)

    def _move(self, story: Story, number: int) -> None:
        assert self._bars is not None
        last = story.last
        if last.word is Lifecycle.METRICS_RECORDED:
            for place, scores in story.rounds[number].items():
                if place in self._tasks and place != TOGETHER:
                    self._bars.update(self._tasks[place], completed=number, say=_line(scores))
        elif last.word is Lifecycle.ROUND_AGGREGATED:
            say = _line(story.rounds[number][TOGETHER])
            self._bars.update(self._tasks[TOGETHER], completed=number, say=say)


def _line(scores: Scores) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
