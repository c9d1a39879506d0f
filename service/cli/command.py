"""What every command shares: its settings, and a database pool for its while."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from service.settings import Settings, load
from service.store.database import Pool, close_pool, open_pool
from service.telemetry.terminal import say

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
        say(f"using the settings of {_LOCAL_ENV}", error=True)
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


def read_uuid(text: str, what: str) -> UUID:
    """Raises typer.BadParameter (wrong usage) when the text is no UUID."""
    try:
        return UUID(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{what} must be a UUID like 6f1c…-…, not {text[:60]!r}") from exc
