"""The one write path: every change of a job is one transaction in this order.

1. the admission (`admission`)   2. offsets, fenced (`inbox`)   3. event ids (`inbox`)
4. jobs, locked by id, and the facts (`loading`)   5. the fold, in memory (`judging`, `parked`)
6. jobs (`jobs`)   7. parked records (`parked`)   8. dead letters and outcomes (`inbox`)
9. queue entries, slots, counters (`occupancy`)   10. heads and events (`event_log`)
11. states published without an event (`state_records`)   12. COMMIT

What a transaction locks it locks in this order, sorted within each kind: so writers wait for each other,
and never in a circle. It never stands idle for long, however many records it judges. Here is the order
alone; what a step does is in the file of its subject.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from service.domain import commands as c
from service.errors import faultpoint
from service.store import admission, inbox, jobs, judging, loading, parked, state_records
from service.store.database import Connection, Pool, transaction
from service.store.facts import FactReader
from service.store.keepalive import KeepAlive
from service.store.occupancy import SchedulingGroups
from service.store.records import BatchRefused, InboundItem, OffsetFence, OffsetMoved
from service.store.work import Committed, Work

#: Chooses commands inside the transaction, its rows locked; None or nothing: roll back, do nothing.
Choose = Callable[[Connection], Awaitable[Sequence[c.Command]]]


class Applier:
    """Owns nothing but caches: any number of them, in any number of processes, may work at once."""

    def __init__(
        self,
        pool: Pool,
        facts: FactReader,
        *,
        partitions: int,
        lease_seconds: float,
        parked_seconds: float,
    ) -> None:
        self._pool = pool
        self._facts = facts
        self._partitions = partitions
        self._lease_seconds = lease_seconds
        self._parked_seconds = parked_seconds
        self._groups = SchedulingGroups()

    async def apply_records(
        self, items: Sequence[InboundItem], fence: OffsetFence | None
    ) -> Committed:
        """A batch of records. One decision each; a dead letter's is IGNORED.

        Raises Fenced, BatchRefused, errors.Transient; then nothing of it is stored, or (a Transient at
        COMMIT) all of it.
        """
        work = Work(items, fence.consumer_group if fence else "")
        async with transaction(self._pool) as connection:
            await admission.admit(connection, (item.command for item in items))
            if fence is not None:
                await inbox.move_offsets(connection, fence)
            work.repeated = await inbox.dedupe_event_ids(connection, items)
            committed, keys = await self._write(connection, work)
            faultpoint("apply.before_commit")
        faultpoint("apply.committed")
        self._groups.remember(keys)
        return committed

    async def apply_commands(self, commands: Sequence[c.Command]) -> Committed:
        """Commands of our own steps: one decision each."""
        async with transaction(self._pool) as connection:
            await admission.admit(connection, commands)
            committed, keys = await self._write(connection, Work.of_commands(commands))
            faultpoint("apply.before_commit")
        faultpoint("apply.committed")
        self._groups.remember(keys)
        return committed

    async def apply_selected(self, choose: Choose) -> tuple[Sequence[c.Command], Committed]:
        """Commands that SQL chooses within the transaction (a claim, a lease)."""
        async with transaction(self._pool) as connection:
            await admission.share(connection)
            commands = await choose(connection)
            if not commands:
                return (), Committed([])
            committed, keys = await self._write(connection, Work.of_commands(commands))
        self._groups.remember(keys)
        return commands, committed

    async def apply_parked(
        self, limit: int, only: int | None = None, refused: BatchRefused | None = None
    ) -> tuple[int, Committed]:
        """Resolve parked records whose job exists, end those whose time ran out; `only` the one with this id.
        When that was `refused` alone, it becomes a dead letter.

        Raises Fenced, BatchRefused, errors.Transient.
        """
        async with transaction(self._pool) as connection:
            rows = await parked.due(connection, limit, only)
            if not rows:
                return 0, Committed([])
            work = parked.restored(rows, refused)
            committed, keys = await self._write(connection, work)
            if await parked.delete(connection, work.resolved) != len(work.resolved):
                raise OffsetMoved("another instance resolved a parked record first")
        self._groups.remember(keys)
        return len(work.resolved), committed

    async def _write(self, connection: Connection, work: Work) -> tuple[Committed, set[UUID]]:
        """From the load to the events: what every transaction does between its first locks and its end."""
        unit = await loading.load(connection, self._facts, work.wanted(), self._partitions)
        alive = KeepAlive(connection)
        await judging.judge(connection, unit, work, alive)
        parked.end_expired(unit, work)
        await jobs.insert(connection, [row async for row in alive.over(unit.new_rows())])
        await jobs.update(connection, unit.changed(), self._lease_seconds)
        await parked.insert(connection, work, self._parked_seconds)
        await inbox.insert_dead_letters(connection, work.group, work.dead)
        await inbox.keep_outcomes(connection, work.outcomes)
        await inbox.forget(connection, work.forgotten)
        keys = await self._groups.ensure(connection, unit.new_groups(), unit.facts)
        occupancy = unit.occupancy()
        await occupancy.write(connection)
        await unit.log.write(connection)
        await state_records.publish(connection, work.recovered())
        return work.committed(unit, occupancy), keys
