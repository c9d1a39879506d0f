"""A stack for one measurement, and for every run on it a database and topics of its own.

The stack lives in a temporary folder and is gone at the end, whatever happens. Addresses in the environment
are not used: figures of a shared broker or database would say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import yaml

from service.bundles import ensure_buckets
from service.kafka.clients import admin
from service.kafka.topics import ensure_topics, plan, raise_errors
from service.local.component import ComponentProgress
from service.local.stack import Stack
from service.settings import S3Settings, Settings, load
from service.store.migrate import migrate
from service.store.registry import apply_registry_file

from .processes import Process, start
from .requests import PROJECT, TRUSTS

#: Where nobody listens: a net that never comes online, so that every job stays queued.
NOWHERE: Final = "http://127.0.0.1:9"
SLOTS: Final = ("Trust_1", "Trust_2", "Trust_3")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BenchRun:
    """A run's own database and topics. `env` is the whole environment of its processes."""

    name: str
    env: Mapping[str, str]
    settings: Settings
    folder: Path

    def start(self, module: str, *arguments: str, out: Path | None = None) -> Process:
        """A process of this run; `module` is what follows `python -m`, `out` takes its standard output."""
        log = self.folder / f"{self.name}-{module.lstrip('.')}.log"
        return start(module, arguments, self.env, log, out)

    async def connect(self) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(self.settings.database.dsn.get_secret_value())


class BenchStack:
    """The running stack. `run` makes runs on it."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self._env = env
        self.folder = folder

    @contextlib.asynccontextmanager
    async def run(self, name: str, endpoint: str = NOWHERE) -> AsyncIterator[BenchRun]:
        """A fresh database with schema and registry, and fresh topics; all of it is dropped at the end."""
        database = name.replace("-", "_")
        await self._psql(f"CREATE DATABASE {database}")
        base, _, _ = self._env["FL_DATABASE__DSN"].rpartition("/")
        env = {
            **self._env,
            "FL_DATABASE__DSN": f"{base}/{database}",
            "FL_KAFKA__TOPIC_PREFIX": f"{name}.",
            "FL_KAFKA__GROUP_ID": name,
            "FL_HTTP__PORT": "0",
            "FL_LOG__LEVEL": "warning",
            "FL_LOG__FORMAT": "json",
        }
        env.pop("FL_REGISTRY_FILE", None)
        with _environment(env):
            settings = load()
        raise_errors(await ensure_topics(settings.kafka))
        await migrate(settings.database)
        registry = self.folder / f"{name}.yaml"
        registry.write_text(yaml.safe_dump(_registry(endpoint)))
        await apply_registry_file(settings.database, registry)
        try:
            yield BenchRun(name, env, settings, self.folder)
        finally:
            async with admin(settings.kafka) as client:
                await client.delete_topics([item.name for item in plan(settings.kafka)])
            await self._psql(f"DROP DATABASE {database} WITH (FORCE)")

    async def settle(self) -> None:
        """Let the last run's work be written, so that the next one doesn't pay for it."""
        await self._psql("CHECKPOINT")
        await asyncio.sleep(1.0)

    async def _psql(self, statement: str) -> None:
        connection = await asyncpg.connect(self._env["FL_DATABASE__DSN"])
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def _registry(endpoint: str) -> dict[str, Any]:
    return {
        "trusts": [
            {"id": trust, "name": f"Bench Hospital {n}"} for n, trust in enumerate(TRUSTS, 1)
        ],
        "nets": [
            {
                "name": "net-1",
                "fl_backend": "embedded",
                "endpoint": endpoint,
                "capacity": 8,
                "members": dict(zip(TRUSTS, SLOTS, strict=True)),
            }
        ],
        "projects": [{"id": PROJECT, "approved_trusts": list(TRUSTS)}],
    }


@contextlib.contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """The process's environment as given, FL_ and AWS_ settings of the caller put away meanwhile."""
    before = dict(os.environ)
    for key in before:
        if key.startswith(("FL_", "AWS_")):
            del os.environ[key]
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.asynccontextmanager
async def bench_stack(say: Say, *, object_store: bool = True) -> AsyncIterator[BenchStack]:
    """A stack of broker, database and, unless it has no work, object store, up while the block runs.

    Raises errors.MissingDependency without the extra `local`.
    """
    with tempfile.TemporaryDirectory(prefix="fl-bench-") as made:
        folder = Path(made)
        # The database may run as another user and must reach its own folder.
        await asyncio.to_thread(folder.chmod, 0o711)
        parts = ("kafka", "postgres", "s3") if object_store else ("kafka", "postgres")
        stack = Stack(folder / "stack", components=parts, environ={})
        began = time.monotonic()
        say(f"starting {', '.join(parts)}")
        shown: dict[str, str] = {}

        def report(step: ComponentProgress) -> None:
            if step.finished or (step.total and shown.get(step.component) != step.message):
                shown[step.component] = step.message
                say(f"{step.component}: {step.message}")

        try:
            info = await asyncio.to_thread(stack.up, report)
            say(f"stack up after {time.monotonic() - began:.1f} s")
            with _environment(_passed_on(info.env)):
                settings = load()
                if object_store:
                    await _buckets(settings.s3)
                yield BenchStack(_passed_on(info.env), folder)
        finally:
            await asyncio.to_thread(stack.down, wipe=True)


async def _buckets(s3: S3Settings) -> None:
    await ensure_buckets(
        [
            s3.model_files_bucket,
            s3.app_base_bucket,
            s3.app_destination_bucket,
            s3.results_bucket,
        ],
        endpoint_url=s3.endpoint_url,
        region=s3.region,
    )


def _passed_on(env: Mapping[str, str]) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    return {**kept, **env, "AWS_EC2_METADATA_DISABLED": "true"}
