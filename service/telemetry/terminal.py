"""The one way to standard output and standard error: text that others wrote reaches a terminal as text.

Promise: nothing that came from an event, a file, a net or an error moves the cursor, changes a title, a
colour or the clipboard, turns the order of letters round, or stands for a line of its own. Such characters
are shown as escapes (`\\x1b`), and square brackets are brackets. `line` makes a value fit for one line; what
is printed past it is cleaned too, line ends apart. JSON stays exact: its own escapes stand for the same
characters. What breaks it: printing elsewhere, which a test forbids.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from service.contracts.wire.envelope import rfc3339
from service.telemetry.printable import IN_LINES, line, lines

__all__ = [
    "Terminal",
    "err",
    "json_text",
    "line",
    "lines",
    "out",
    "plain",
    "print_json",
    "say",
    "styled",
]

#: Width of tables that go into a file or a pipe: what reads them must not lose half an id.
_PIPE_WIDTH: Final = 240


class Terminal(Console):
    """A console whose text is only text: no markup in strings, and every segment cleaned."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control or IN_LINES.search(text) is None:
                yield segment
            else:
                yield Segment(lines(text), style)


def out() -> Terminal:
    """Standard output: as wide as the terminal, or wide enough for every table."""
    return Terminal() if sys.stdout.isatty() else Terminal(width=_PIPE_WIDTH)


def err() -> Terminal:
    """Standard error, for what goes beside a command's own output."""
    return Terminal(stderr=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """One line of pieces, some with a style: `("failed", "bold red")`."""
    return Text.assemble(
        *((line(p), "") if isinstance(p, str) else (line(p[0]), p[1]) for p in parts)
    )


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Print lines as they are, on standard output or standard error."""
    print(lines(text), file=sys.stderr if error else sys.stdout, end=end, flush=True)


def print_json(value: object, *, indent: int | None = 2) -> None:
    """One JSON value, whatever of it is no JSON as text. `indent` None: on one line."""
    print(json_text(value, indent), flush=True)


def json_text(value: object, indent: int | None = None) -> str:
    """Exact JSON, readable beyond ASCII, without a character that a terminal acts upon."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=plain)
    return IN_LINES.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    return json.dumps(found.group())[1:-1] if found.group() != "\x7f" else "\\u007f"


def plain(value: object) -> str:
    """What JSON has no form for: times as RFC 3339, the rest as text."""
    return rfc3339(value) if isinstance(value, datetime) else str(value)
