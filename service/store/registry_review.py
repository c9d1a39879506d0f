"""The review of jobs after a registry took approvals back: behind its transaction, in pages, once for all.

The registry's own transaction marks the groups that are no longer approved. A step looks at their jobs
again, those that are not in the queue first since their data is in use, and a group's mark goes with its
last page: what a crash interrupts another instance ends. Every job that was judged by an older registry is
committed when the marks are made (`service.store.admission`), so none is missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from service.domain.group import Group
from service.domain.registry import Registry
from service.store.database import Connection, Pool, reading
from service.store.keepalive import KeepAlive
from service.store.statements import QUERIES

#: Groups that one page looks into.
_GROUPS: Final = 20


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs to look at, the groups that end with them, and where the group that does not goes on."""

    queued: bool
    version: int
    jobs: list[UUID]
    ended: list[UUID]
    last: asyncpg.Record | None


async def mark(connection: Connection, registry: Registry, groups: Mapping[UUID, Group]) -> None:
    """Keep which groups this registry does not approve; in its own transaction."""
    alive = KeepAlive(connection)
    revoked: list[UUID] = []
    for group_id, group in groups.items():
        if not all(registry.approved(group.project_id, trust) for trust in group.trust_ids):
            revoked.append(group_id)
        if alive.due:
            await alive.ping()
    await connection.execute(QUERIES["review_clear"])
    if revoked:
        await connection.execute(QUERIES["review_mark"], revoked, registry.version)


async def next_page(pool: Pool, limit: int) -> Page | None:
    """The next jobs to look at again; None when no review is open."""
    async with reading(pool) as connection:
        marks = await connection.fetch(QUERIES["review_groups"], _GROUPS)
        if not marks:
            return None
        queued = marks[0]["queued"]
        rows = await connection.fetch(
            QUERIES["review_jobs_queued" if queued else "review_jobs_off_queue"],
            [m["group_id"] for m in marks],
            [m["after_rank"] for m in marks],
            [m["after_at"] for m in marks],
            [m["after_job"] for m in marks],
            limit,
        )
    last = rows[-1] if len(rows) == limit else None
    ended = [m["group_id"] for m in marks if last is None or m["group_id"] < last["group_id"]]
    return Page(queued, marks[0]["version"], [row["job_id"] for row in rows], ended, last)


async def finish_page(pool: Pool, page: Page) -> None:
    """Go on behind this page."""
    async with reading(pool) as connection:
        await connection.execute(QUERIES["review_done"], page.queued, page.ended, page.version)
        last = page.last
        if last is not None:
            await connection.execute(
                QUERIES["review_move"],
                page.queued,
                last["group_id"],
                page.version,
                last["rank"],
                last["created_at"],
                last["job_id"],
            )
