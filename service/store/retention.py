"""Retention. A job's tombstone goes out first; its rows go after the broker acknowledged it.

Only what is at or below the relay's checkpoint is ever deleted, and a job's id and content stay much longer
than its rows: an old `job_id` must never train again.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from service.settings import RetentionSettings
from service.store.database import Pool, transaction
from service.store.statements import QUERIES


async def clean(pool: Pool, keep: RetentionSettings, purgeable: Sequence[UUID], limit: int) -> int:
    """One page of everything that is due; returns how many rows went (jobs, ids, refusals).

    Of the jobs only `purgeable` go, whose bundles are gone: whatever is acknowledged meanwhile waits, or
    nobody would know of its bundles any more."""
    async with transaction(pool) as connection:
        old = [
            r["job_id"] for r in await connection.fetch(QUERIES["old_jobs"], keep.jobs_days, limit)
        ]
        if old:
            await connection.execute(QUERIES["tombstones_insert"], old)
    gone = 0
    async with transaction(pool) as connection:
        ids = [r["job_id"] for r in await connection.fetch(QUERIES["purgeable_jobs"], purgeable)]
        if ids:
            await connection.execute(QUERIES["retired_insert"], ids)
            await connection.execute(QUERIES["events_delete"], ids)
            await connection.execute(QUERIES["runs_delete"], ids)
            await connection.execute(QUERIES["states_due_drop"], ids)
            await connection.execute(QUERIES["jobs_delete"], ids)
            gone += len(ids)
        await connection.execute(QUERIES["tombstones_delete"])
        for name, days in (
            ("ids_delete", keep.inbound_ids_days),
            ("retired_delete", keep.job_ids_days),
            ("refusals_delete", keep.jobs_days),
        ):
            tag = await connection.execute(QUERIES[name], days, limit)
            gone += int(tag.rsplit(" ", 1)[-1])
        await connection.execute(QUERIES["dead_letters_delete"], keep.dead_letters_days)
    return gone
