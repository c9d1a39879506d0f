"""Stops by model: accepted with their batch, carried out page by page by a step.

A stop means the jobs of its model that are known with its transaction. Those of its own batch it stops at
once; the others are all committed, since accepting it holds the admission alone (`service.store.admission`):
a row in `model_stop` stands for them until none is left. No job of a later request is touched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid5

import asyncpg

from service.domain import commands as c
from service.domain import jobless
from service.domain.decision import Decision, Outcome
from service.store.database import Connection, Pool, reading
from service.store.keepalive import KeepAlive
from service.store.records import InboundItem
from service.store.statements import QUERIES
from service.store.unit_of_work import UnitOfWork

_PAGE: Final = 100
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def pending(pool: Pool) -> AsyncIterator[asyncpg.Record]:
    """Every accepted stop, the oldest first, however many there are."""
    at, last = _BEGINNING, UUID(int=0)
    while True:
        async with reading(pool) as connection:
            stops = await connection.fetch(QUERIES["model_stops"], at, last, _PAGE)
        for stop in stops:
            yield stop
        if len(stops) < _PAGE:
            return
        at, last = stops[-1]["at"], stops[-1]["id"]


async def accept(
    connection: Connection,
    unit: UnitOfWork,
    items: Sequence[InboundItem],
    index: int,
    command: c.StopModel,
    alive: KeepAlive,
) -> Decision:
    """The stop at `index` of a batch whose other records are judged already. Refused where the model has
    no job that it could mean."""
    origin = command.origin
    here = _known_with(unit, items, index, command.model_id)
    there = await connection.fetchval(QUERIES["model_has_jobs"], command.model_id)
    decision = jobless.stop_model(bool(here or there))
    if decision.outcome is Outcome.REFUSED:
        return unit.answer(decision, None, command.model_id, origin)
    for job_id in here:
        unit.apply(c.RequestStop(job_id, command.reason, command.requested_by, origin), index)
        if alive.due:
            await alive.ping()
    if there:
        await connection.execute(
            QUERIES["model_stop_insert"],
            uuid5(command.model_id, f"stop:{origin.source}:{origin.event_id}"),
            command.model_id,
            command.reason,
            command.requested_by,
            origin.event_id,
            origin.source,
            unit.facts.now,
        )
    return decision


def _known_with(
    unit: UnitOfWork, items: Sequence[InboundItem], index: int, model_id: UUID
) -> list[UUID]:
    """The model's jobs that this batch makes, but for those that stand behind the stop in its own
    partition: between partitions there is no order, and a stop must stop."""
    stop = items[index].source_record
    found = []
    for item in items:
        if not isinstance(item.command, c.RequestTraining):
            continue
        request, at = item.command.request, item.source_record
        if request.model_id != model_id or request.job_id in unit.before:
            continue
        same_partition = (at.topic, at.partition) == (stop.topic, stop.partition)
        job = unit.jobs.get(request.job_id)
        if job is None or job.terminal or (same_partition and at.offset > stop.offset):
            continue
        found.append(request.job_id)
    return found
