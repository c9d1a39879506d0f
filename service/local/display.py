"""Progress of the components on standard error: spinners and bars on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Display
from rich.text import Text

from service.local.component import ComponentProgress, OnProgress
from service.telemetry.terminal import err, say


class _Lines:
    """One line per component: a spinner while it works, a bar while it downloads, a mark when done."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: ComponentProgress) -> None:
        task = self._tasks.get(step.component)
        if task is None:
            task = self._tasks[step.component] = self._display.add_task(
                step.component, total=None, status=""
            )
        if step.finished:
            self._display.update(task, status=step.message, total=1, completed=1)
            self._display.stop_task(task)
        else:
            total = step.total or None
            self._display.update(task, status=step.message, total=total, completed=step.done)


class _Plain:
    """For logs and pipes: one line when a component's step changes, a line per quarter of a download."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}

    def __call__(self, step: ComponentProgress) -> None:
        quarter = 4 * step.done // step.total if step.total else 0
        if self._last.get(step.component) == (step.message, quarter):
            return
        self._last[step.component] = (step.message, quarter)
        share = f" {100 * step.done // step.total} %" if step.total else ""
        say(f"{step.component}: {step.message}{share}", error=True)


@contextmanager
def display(*, quiet: bool) -> Iterator[OnProgress]:
    """Shows progress while inside; `quiet` never draws."""
    console = err()
    if quiet or not console.is_terminal:
        yield _Plain()
        return
    columns = (
        SpinnerColumn(finished_text=Text("✓", style="green")),
        TextColumn("{task.description:<9}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
    )
    with Display(*columns, console=console) as display:
        yield _Lines(display)
