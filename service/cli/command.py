"""What every command shares: its settings, its way to print, and a database pool for its while."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from rich.console import Console

from service.contracts.wire.envelope import rfc3339
from service.settings import Settings, load
from service.store.database import Pool, close_pool, open_pool

EnvFile = Annotated[
    Path | None,
    typer.Option("--env-file", help="KEY=value lines with the settings; `local up` writes one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

_LOCAL_ENV = Path(".local/env")
T = TypeVar("T")


def settings_of(env_file: Path | None) -> Settings:
    """The settings of this call. Without any, those of a stack that `local up` started here are taken.

    Raises Invalid naming every bad variable.
    """
    given = any(key in os.environ for key in ("FL_DATABASE__DSN", "FL_KAFKA__BOOTSTRAP_SERVERS"))
    if env_file is None and not given and _LOCAL_ENV.is_file():
        env_file = _LOCAL_ENV
        print(f"using the settings of {_LOCAL_ENV}", file=sys.stderr)
    return load(env_file)


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    return asyncio.run(coroutine)


@asynccontextmanager
async def pool_of(settings: Settings) -> AsyncIterator[Pool]:
    """A pool for one command. Raises errors.Transient when the database is unavailable."""
    pool = await open_pool(settings.database)
    try:
        yield pool
    finally:
        await close_pool(pool)


#: Width of tables that go into a file or a pipe: what reads them must not lose half an id.
_PIPE_WIDTH = 240


def out() -> Console:
    """Standard output: as wide as the terminal, or wide enough for every table."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def print_json(value: object) -> None:
    """One JSON value, whatever of it is no JSON as text."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=plain))


def plain(value: object) -> str:
    """What JSON has no form for: times as RFC 3339, the rest as text."""
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def read_uuid(text: str, what: str) -> UUID:
    """Raises typer.BadParameter (wrong usage) when the text is no UUID."""
    try:
        return UUID(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{what} must be a UUID like 6f1c…-…, not {text[:60]!r}") from exc


def render(as_json: bool, value: object, table: Callable[[], object]) -> None:
    """Print for machines or for people."""
    if as_json:
        print_json(value)
    else:
        out().print(table())
