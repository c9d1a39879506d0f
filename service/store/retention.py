"""Retention. A job's tombstone goes out first; its rows go after the broker acknowledged it.

Only what is at or below the relay's checkpoint is ever deleted, and a job's id and content stay much longer
than its rows: an old `job_id` must never train again. A page is bounded by the rows that it deletes, events
above all: a job with a million of them goes in as many pages as it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from service.settings import RetentionSettings
from service.store.database import Connection, Pool, transaction
from service.store.statements import QUERIES


async def clean(pool: Pool, keep: RetentionSettings, purgeable: Sequence[UUID], limit: int) -> int:
    """One page of everything that is due, at most `limit` rows of each kind; returns how many rows went.

    Of the jobs only `purgeable` go, whose bundles are gone: whatever is acknowledged meanwhile waits, or
    nobody would know of its bundles any more."""
    async with transaction(pool) as connection:
        old = [
            r["job_id"] for r in await connection.fetch(QUERIES["old_jobs"], keep.jobs_days, limit)
        ]
        if old:
            await connection.execute(QUERIES["tombstones_insert"], old)
    gone = 0
    if purgeable:
        async with transaction(pool) as connection:
            gone += await _drop(connection, QUERIES["events_delete"], list(purgeable), limit)
        async with transaction(pool) as connection:
            gone += await _jobs(connection, purgeable)
    for name, days in (
        ("ids_delete", keep.inbound_ids_days),
        ("retired_delete", keep.job_ids_days),
        ("refusals_delete", keep.jobs_days),
        ("dead_letters_delete", keep.dead_letters_days),
    ):
        async with transaction(pool) as connection:
            gone += await _drop(connection, QUERIES[name], days, limit)
    async with transaction(pool) as connection:
        await connection.execute(QUERIES["tombstones_delete"], limit)
    return gone


async def _jobs(connection: Connection, purgeable: Sequence[UUID]) -> int:
    """The rows of the jobs that have no event left."""
    ids = [r["job_id"] for r in await connection.fetch(QUERIES["purgeable_jobs"], purgeable)]
    if ids:
        await connection.execute(QUERIES["retired_insert"], ids)
        await connection.execute(QUERIES["runs_delete"], ids)
        await connection.execute(QUERIES["states_due_delete"], ids)
        await connection.execute(QUERIES["jobs_delete"], ids)
    return len(ids)


async def _drop(connection: Connection, statement: str, *values: object) -> int:
    """How many rows a DELETE took."""
    tag = await connection.execute(statement, *values)
    return int(tag.rsplit(" ", 1)[-1])
