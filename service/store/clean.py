"""Retention. A job's tombstone goes out first; its rows go after the broker acknowledged it.

Only what is at or below the relay's hint is ever deleted, and a job's id and content stay much longer than
its rows: an old `job_id` must never train again.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from service.settings import RetentionSettings
from service.store.database import Pool, transaction
from service.store.statements import Q


async def clean(pool: Pool, keep: RetentionSettings, buried: Sequence[UUID], limit: int) -> int:
    """One page of everything that is due; returns how many rows went (jobs, ids, refusals).

    Of the jobs only `buried` go, whose bundles are gone: whatever is acknowledged meanwhile waits, or
    nobody would know of its bundles any more."""
    async with transaction(pool) as connection:
        old = [r["job_id"] for r in await connection.fetch(Q["old_jobs"], keep.jobs_days, limit)]
        if old:
            await connection.execute(Q["tombstones_make"], old)
    gone = 0
    async with transaction(pool) as connection:
        ids = [r["job_id"] for r in await connection.fetch(Q["buried_jobs"], buried)]
        if ids:
            await connection.execute(Q["retire"], ids)
            await connection.execute(Q["events_drop"], ids)
            await connection.execute(Q["runs_drop"], ids)
            await connection.execute(Q["jobs_drop"], ids)
            gone += len(ids)
        await connection.execute(Q["tombstones_drop"])
        for name, days in (
            ("ids_drop", keep.inbound_ids_days),
            ("retired_drop", keep.job_ids_days),
            ("refusals_drop", keep.jobs_days),
        ):
            tag = await connection.execute(Q[name], days, limit)
            gone += int(tag.rsplit(" ", 1)[-1])
        await connection.execute(Q["dead_letters_drop"], keep.dead_letters_days)
    return gone
