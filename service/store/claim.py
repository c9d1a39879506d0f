"""What runs next, and where: chosen in SQL, its rows locked, judged afterwards like everything else.

A claim starts from a net with capacity and checks the head of each group that the net serves, so its
cost does not grow with the queue, and a group that can't run hinders nobody. It waits for nothing that it
chooses but a project; what another instance holds it skips.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from service.domain import commands as c
from service.store.database import Connection
from service.store.facts import models_taken
from service.store.statements import QUERIES


async def select_claim(
    connection: Connection, holder: str, without: Collection[str] = ()
) -> list[c.Command]:
    """The claim of the best job on the emptiest net; nothing where none can start."""
    for net in await connection.fetch(QUERIES["nets_with_capacity"], list(without)):
        taken: frozenset[UUID] = frozenset()
        if net["by_model"]:
            taken = (await models_taken(connection, [net["name"]])).get(net["name"], taken)
        heads = await connection.fetch(
            QUERIES["next_jobs_of_net"], net["name"], net["online"], taken
        )
        if not heads or await connection.fetchval(QUERIES["net_lock"], net["name"]) is None:
            continue
        for head in heads:
            if await connection.fetchval(QUERIES["job_lock"], head["job_id"]) is None:
                continue
            if await connection.fetchval(QUERIES["project_lock"], head["project_id"]) is None:
                continue
            return [c.Claim(head["job_id"], net["name"], holder)]
    return []


async def select_expired(
    connection: Connection,
    states: Sequence[str],
    holder: str,
    limit: int,
    without: Collection[str] = (),
) -> list[c.Command]:
    """Leases on jobs in these states that nobody holds and that are due, on no net of `without`."""
    rows = await connection.fetch(QUERIES["expired_work"], list(states), limit, list(without))
    ids: list[UUID] = sorted(row["job_id"] for row in rows)
    return [c.TakeLease(job_id, holder) for job_id in ids]
