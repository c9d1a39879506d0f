"""The fold: each item of a transaction is judged in order, in memory.

Stops by model come last of their batch, since they mean the jobs that it makes; then the records that
waited for one of those jobs.
"""

from __future__ import annotations

from service.domain import commands as c
from service.domain.decision import Decision, Outcome
from service.store import model_stops, parked
from service.store.database import Connection
from service.store.keepalive import KeepAlive
from service.store.unit_of_work import UnitOfWork
from service.store.work import Work


async def judge(connection: Connection, unit: UnitOfWork, work: Work, alive: KeepAlive) -> None:
    """One decision for each item; a dead letter's is IGNORED. Raises BatchRefused."""
    await parked.judge_stops(connection, unit, work, alive)
    stops: list[tuple[int, c.StopModel]] = []
    async for index, item in alive.over(enumerate(work.items)):
        if (
            isinstance(item.command, c.StopModel)
            and item.dead is None
            and index not in work.repeated
        ):
            stops.append((index, item.command))
            work.decisions.append(Decision())  # until its turn comes
        else:
            work.decisions.append(_judged(unit, work, index))
    for index, stop in stops:
        decision = await model_stops.accept(connection, unit, work.items, index, stop)
        work.decisions[index] = decision
        work.model_stops = True
        work.keep(work.items[index], decision)
    await parked.judge_waiting(connection, unit, work, alive)


def _judged(unit: UnitOfWork, work: Work, index: int) -> Decision:
    item = work.items[index]
    if item.dead is not None:
        work.dead.append((item.source_record, item.dead))
    if item.dead is not None or item.command is None:
        return Decision(outcome=Outcome.IGNORED)
    if index in work.repeated:
        decision = work.repeated[index]
        if decision.outcome is Outcome.CONFLICT:
            work.bury(item, decision)
        return decision
    decision = unit.judge(item.command, index)
    work.keep(item, decision)
    return decision
