"""What runs next, and where: chosen in SQL, its rows locked, judged afterwards like everything else.

A claim starts from a net with capacity and checks the head of each group that the net serves, so its
cost does not grow with the queue, and a group that can't run hinders nobody. It waits for nothing that it
chooses but a project; what another instance holds it skips.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from service.domain import commands as c
from service.store.database import Connection
from service.store.facts import Runnable, models_taken
from service.store.statements import QUERIES

#: Nets that are looked at in one go: the first has work, unless another instance takes it meanwhile.
_NETS: Final = 8


async def select_claim(
    connection: Connection, holder: str, without: Collection[str], able: Runnable
) -> list[c.Command]:
    """The claim of the best job on the emptiest net with work that is `able` to run it, on none of the nets
    `without`; nothing where none can start."""
    tried, able_to = list(without), (able.backends, able.job_types)
    while nets := await connection.fetch(QUERIES["nets_with_capacity"], tried, _NETS, *able_to):
        for net in nets:
            claim = await _claim_on(connection, net, holder, able)
            if claim is not None:
                return [claim]
        if len(nets) < _NETS:
            break
        tried += [net["name"] for net in nets]
    return []


async def _claim_on(
    connection: Connection, net: asyncpg.Record, holder: str, able: Runnable
) -> c.Claim | None:
    """The claim of the net's best job that nobody else holds."""
    name = net["name"]
    if await connection.fetchval(QUERIES["net_lock"], name) is None:
        return None
    taken: frozenset[UUID] = frozenset()
    if net["by_model"]:
        taken = (await models_taken(connection, [name])).get(name, taken)
    heads = await connection.fetch(
        QUERIES["next_jobs_of_net"], name, net["online"], taken, able.job_types
    )
    for head in heads:
        if await connection.fetchval(QUERIES["job_lock"], head["job_id"]) is None:
            continue
        if await connection.fetchval(QUERIES["project_lock"], head["project_id"]) is not None:
            return c.Claim(head["job_id"], name, holder)
    return None


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
