"""Forward-only migrations: `schemas/sql/migrations/NNNN_name.sql`, each in a transaction of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from service.contracts.package_data import data_path
from service.errors import Invalid
from service.settings import DatabaseSettings
from service.store.database import AWAY, connecting, translated

_LOCK = 7_105_822_001
_TABLE = """CREATE TABLE IF NOT EXISTS migration (
    number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now())"""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations(folder: Path | None = None) -> list[Migration]:
    """Those that this version ships, in order. Raises Invalid when their numbers have a gap."""
    folder = folder or data_path("schemas") / "sql" / "migrations"
    found = []
    for path in sorted(folder.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        found.append(Migration(int(number), name, path.read_text("utf-8")))
    if [m.number for m in found] != list(range(1, len(found) + 1)) or not found:
        raise Invalid(f"the migrations in {folder} are not numbered 0001, 0002, ... without a gap")
    return found


async def _connect(settings: DatabaseSettings) -> asyncpg.Connection[asyncpg.Record]:
    with connecting():
        return await asyncpg.connect(settings.dsn.get_secret_value(), timeout=10)


async def migrate(settings: DatabaseSettings) -> list[str]:
    """Apply what is missing; returns the names. Safe to run from several places at once.

    Raises Invalid when the database holds a migration that this version does not ship, or another text.
    """
    wanted = migrations()
    connection = await _connect(settings)
    try:
        with translated():
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            await connection.execute(_TABLE)
            done = await _applied(connection)
            _compare(wanted, done)
            applied = []
            for m in wanted[len(done) :]:
                async with connection.transaction():
                    await connection.execute(m.text)
                    await connection.execute(
                        "INSERT INTO migration (number, name, sha256) VALUES ($1, $2, $3)",
                        m.number,
                        m.name,
                        m.sha256,
                    )
                applied.append(f"{m.number:04}_{m.name}")
            return applied
    finally:
        await connection.close(timeout=5)


async def _applied(connection: asyncpg.Connection[asyncpg.Record]) -> dict[int, str]:
    rows = await connection.fetch("SELECT number, sha256 FROM migration ORDER BY number")
    return {row["number"]: row["sha256"] for row in rows}


def _compare(wanted: list[Migration], done: dict[int, str]) -> None:
    shipped_ones = {m.number: m.sha256 for m in wanted}
    for number, digest in done.items():
        if number not in shipped_ones:
            raise Invalid(
                f"the database is at migration {number}, this version knows {len(wanted)}: "
                "run a newer version of the service"
            )
        if shipped_ones[number] != digest:
            raise Invalid(f"migration {number} of the database differs from the one shipped")


async def missing(settings: DatabaseSettings) -> list[str]:
    """Migrations that are not applied yet; for `doctor` and the start-up check.

    Raises errors.Transient when the database can't be asked, Invalid when it is newer than this version.
    """
    wanted = migrations()
    try:
        connection = await _connect(settings)
    except AWAY as exc:
        raise Invalid(f"the database can't be reached: {exc}") from exc
    try:
        with translated():
            try:
                done = await _applied(connection)
            except asyncpg.UndefinedTableError:
                done = {}
            _compare(wanted, done)
            return [f"{m.number:04}_{m.name}" for m in wanted[len(done) :]]
    finally:
        await connection.close(timeout=5)
