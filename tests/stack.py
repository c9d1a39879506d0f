"""The real parts that tests run against: one stack per run, a database and topics per test.

Promises: the broker, database and object store start at the first test that asks, once per run,
also under xdist (workers share them through a lock), and are stopped when the run ends; what a
killed run left behind is stopped by the next one. Tests are skipped, with the reason in one line,
only where a part can't be had at all; a part that fails to start is an error.

`FL_TEST_STACK=DIR` uses a stack that runs already and leaves it running. The usual settings
(`FL_KAFKA__BOOTSTRAP_SERVERS`, `FL_DATABASE__DSN`, `FL_S3__ENDPOINT_URL`) replace single parts.
"""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from service.errors import MissingDependency
from service.local.env_file import ADDRESS_OF
from service.local.folder_lock import folder_lock
from service.local.postgres import packaged
from service.local.process import ProcessRecord, start_time_of
from service.local.stack import Stack

SERVERS: Final = ("kafka", "postgres", "s3")
_RUN_DIR: Final = "FL_TEST_RUN_DIR"
_PREFIX: Final = f"fl-job-service-tests-{getpass.getuser()}-"
_AWS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass
class RunningStack:
    """A stack that answers. `env` has all its settings, shared by every test of the run."""

    dir: Path
    env: dict[str, str]
    _made: list[str] = field(default_factory=list)

    @property
    def bootstrap(self) -> str:
        return self.env["FL_KAFKA__BOOTSTRAP_SERVERS"]

    def settings_for(
        self, topic_prefix: str | None = None, database: str | None = None
    ) -> dict[str, str]:
        """The settings with a topic prefix, a consumer group and a database of one's own.

        Both are made up when not given; a database that is made up is created, empty.
        """
        name = topic_prefix if topic_prefix is not None else f"t{uuid.uuid4().hex[:10]}."
        return self.env | {
            "FL_KAFKA__TOPIC_PREFIX": name,
            "FL_KAFKA__GROUP_ID": f"{name or 'plain.'}service",
            "FL_DATABASE__DSN": self.dsn(database or self.create_database()),
        }

    def dsn(self, database: str) -> str:
        """The connection string of a database of this server."""
        return urlsplit(self.env["FL_DATABASE__DSN"])._replace(path=f"/{database}").geturl()

    def create_database(self, *, migrated: bool = False) -> str:
        """A new database's name: empty, or with the service's schema (copied from a template)."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        template = self._template() if migrated else "template1"
        self.psql(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._made.append(name)
        return name

    def drop_database(self, name: str) -> None:
        """Drop one, whoever is connected to it."""
        self.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        with suppress(ValueError):
            self._made.remove(name)

    def drop_all(self) -> None:
        """Drop every database that this process made."""
        for name in list(self._made):
            self.drop_database(name)

    def psql(self, sql: str, database: str | None = None) -> str:
        """Run SQL and return the rows as text, columns split by `|`."""
        where = self.dsn(database) if database else self.env["FL_DATABASE__DSN"]
        program = packaged() / "pginstall" / "bin" / "psql"
        argv = [str(program), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, where]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode != 0:
            raise AssertionError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def _template(self) -> str:
        """The migrated database that others are copied from, made by the first who asks."""
        from service.store.migrate import migrations

        texts = "".join(migration.sha256 for migration in migrations())
        name = f"fl_template_{hashlib.sha256(texts.encode()).hexdigest()[:12]}"
        with folder_lock(self.dir / "template.lock", lambda: None):
            if not self.psql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
                fresh = f"{name}_new"
                self.psql(f"DROP DATABASE IF EXISTS {fresh} WITH (FORCE)")
                self.psql(f"CREATE DATABASE {fresh}")
                _migrate(self.dsn(fresh))
                self.psql(f"ALTER DATABASE {fresh} RENAME TO {name}")
        return name


def _migrate(dsn: str) -> None:
    # Imported late: tests that need no schema shall not fail with the store.
    from service.settings import DatabaseSettings
    from service.store.migrate import migrate

    run_apart(lambda: migrate(DatabaseSettings(dsn=SecretStr(dsn))))


def run_apart(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run a coroutine to its end in a thread of its own: a loop may be running in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(work())).result()


# -- the life of the shared stack ---------------------------------------------------------------


def claim_run_dir() -> None:
    """Called where the run begins (not in a worker): name the folder that its workers share."""
    os.environ[_RUN_DIR] = str(Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getpid()}")


def stop_run() -> None:
    """Called where the run ends: stop the shared stack if any test asked for it."""
    folder = os.environ.get(_RUN_DIR)
    if folder and Path(folder).exists():
        Stack(Path(folder)).down(wipe=True)


def stop_abandoned() -> None:
    """Stop the stacks of runs whose process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = ProcessRecord.read(folder / "owner")
        if owner is not None and not owner.alive():
            Stack(folder).down(wipe=True)


def _start_shared() -> RunningStack:
    chosen = os.environ.get("FL_TEST_STACK")
    if chosen:
        info = Stack(Path(chosen), components=SERVERS, environ={}).up()
        return RunningStack(info.dir, info.env)
    folder = Path(os.environ[_RUN_DIR])
    folder.mkdir(mode=0o711, exist_ok=True)
    owner = int(folder.name.rpartition("-")[2])
    # Every worker writes the same; where two do at once, one of them finds its file moved already.
    with suppress(FileNotFoundError):
        ProcessRecord(owner, start_time_of(owner) or "").write(folder / "owner")
    stop_abandoned()
    given = {key: os.environ[key] for key in (*ADDRESS_OF.values(), *_AWS) if key in os.environ}
    info = Stack(folder, components=SERVERS, environ=given).up()
    return RunningStack(info.dir, info.env)


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """The run's broker, database and object store; its S3 keys are in the environment meanwhile."""
    try:
        running = _start_shared()
    except MissingDependency as missing:
        pytest.skip(str(missing))
    patch = pytest.MonkeyPatch()
    for key in _AWS:
        if key in running.env:
            patch.setenv(key, running.env[key])
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield running
    patch.undo()
    running.drop_all()


@pytest.fixture
def fresh_env(stack: RunningStack) -> Iterator[dict[str, str]]:
    """Settings with topics of its own and an empty database, for one test."""
    yield from _with_database(stack, migrated=False)


@pytest.fixture
def migrated_env(stack: RunningStack) -> Iterator[dict[str, str]]:
    """Settings with topics of its own and a database with the service's schema, for one test."""
    yield from _with_database(stack, migrated=True)


@pytest.fixture(scope="module")
def module_env(stack: RunningStack) -> Iterator[dict[str, str]]:
    """Settings with topics of its own and a database with the service's schema, for one module."""
    yield from _with_database(stack, migrated=True)


def _with_database(stack: RunningStack, *, migrated: bool) -> Iterator[dict[str, str]]:
    name = stack.create_database(migrated=migrated)
    yield stack.settings_for(database=name)
    stack.drop_database(name)


@pytest.fixture
def private_stack() -> Iterator[Callable[..., Stack]]:
    """Makes stacks of a test's own, to be killed and repaired; each is wiped at the test's end.

    Called with the keywords of `Stack` (`components=...`); the stack is not started yet.
    """
    made: list[Stack] = []

    def make(**keywords: Any) -> Stack:
        folder = Path(tempfile.mkdtemp(prefix="fl-job-service-private-"))
        folder.chmod(0o711)
        made.append(Stack(folder, environ={}, **keywords))
        return made[-1]

    yield make
    for each in made:
        each.down(wipe=True)
