"""The one write path: every change of a job is one transaction in this order.

1. the admission   2. offsets, fenced   3. event ids   4. jobs, locked by id   5. facts   6. the fold, in
memory   7. jobs, parked records, dead letters   8. queue entries, slots, counters   9. heads and events
10. COMMIT

What a transaction locks it locks in this order, sorted within each kind: so writers wait for each other,
and never in a circle. It never stands idle for long, however many records it judges.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from service.domain import commands as c
from service.domain import jobless
from service.domain.decision import Decision, Outcome
from service.domain.enums import JobState
from service.domain.events import ResultsRecovered
from service.domain.job import Job
from service.errors import faultpoint
from service.store import admission, inbox, jobs, model_stops
from service.store.database import Connection, Pool, transaction
from service.store.event_log import EventLog
from service.store.facts import FactReader
from service.store.keepalive import KeepAlive
from service.store.occupancy import OccupancyDelta, SchedulingGroups
from service.store.records import (
    BatchRefused,
    DeadLetter,
    InboundItem,
    OffsetFence,
    OffsetMoved,
    RecordRef,
    dead_letter,
    dead_letter_of,
)
from service.store.statements import QUERIES
from service.store.unit_of_work import UnitOfWork, job_ids, origin_of

__all__ = [
    "Applier",
    "BatchRefused",
    "DeadLetter",
    "InboundItem",
    "OffsetFence",
    "OffsetMoved",
    "RecordRef",
]

_NO_RECORD: Final = RecordRef("", 0, 0, 0, None, None, ())
#: Chooses commands inside the transaction, its rows locked; None or nothing: roll back, do nothing.
Choose = Callable[[Connection], Awaitable[Sequence[c.Command]]]


@dataclass(frozen=True, slots=True)
class Committed:
    """What a committed transaction did, for whoever waits for it."""

    decisions: list[Decision]
    states: frozenset[JobState] = frozenset()
    events: int = 0
    work_available: bool = False  #: a job became ready, or a reservation was released
    model_stops: bool = False  #: a stop by model was accepted


@dataclass(slots=True)
class _Work:
    """One transaction's items and what comes of them beside the jobs."""

    items: Sequence[InboundItem]
    group: str
    decisions: list[Decision] = field(default_factory=list)
    dead: list[tuple[RecordRef, DeadLetter]] = field(default_factory=list)
    outcomes: dict[bytes, str] = field(default_factory=dict)
    park: list[tuple[InboundItem, UUID, bool]] = field(default_factory=list)
    resolved: list[int] = field(default_factory=list)
    forget: list[bytes] = field(default_factory=list)
    model_stops: bool = False


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
        work = _Work(items, fence.consumer_group if fence else "")
        async with transaction(self._pool) as connection:
            await admission.admit(connection, (item.command for item in items))
            if fence is not None:
                await inbox.move_offsets(connection, fence)
            repeated = await inbox.dedupe_event_ids(connection, items)
            committed, keys = await self._write(connection, work, repeated)
            faultpoint("apply.before_commit")
        faultpoint("apply.committed")
        self._groups.remember(keys)
        return committed

    async def apply_commands(self, commands: Sequence[c.Command]) -> Committed:
        """Commands of our own steps: one decision each."""
        async with transaction(self._pool) as connection:
            await admission.admit(connection, commands)
            committed, keys = await self._write(connection, _own(commands), {})
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
            committed, keys = await self._write(connection, _own(commands), {})
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
            rows = await connection.fetch(QUERIES["parked_due"], limit, only)
            if not rows:
                return 0, Committed([])
            work, expired = _restored(rows)
            if refused is not None:
                letter = dead_letter_of(refused)
                work.items = [
                    InboundItem(None, item.source_record, dead=letter) for item in work.items
                ]
            committed, keys = await self._write(connection, work, {}, expired)
            gone = await connection.fetch(QUERIES["parked_delete"], work.resolved)
            if len(gone) != len(work.resolved):
                raise OffsetMoved("another instance resolved a parked record first")
        self._groups.remember(keys)
        return len(work.resolved), committed

    # --- the transaction's middle -----------------------------------------------------------------

    async def _write(
        self,
        connection: Connection,
        work: _Work,
        repeated: dict[int, Decision],
        expired: dict[int, asyncpg.Record] | None = None,
    ) -> tuple[Committed, set[UUID]]:
        unit = await self._load(connection, work, repeated)
        alive = KeepAlive(connection)
        await self._judge(connection, unit, work, repeated, alive)
        if expired is not None:
            _end_expired(unit, work, expired)
        new = []
        for row in unit.new_rows():
            new.append(row)
            if alive.due:
                await alive.ping()
        if new:
            await jobs.insert(connection, new)
        changed = unit.changed()
        if changed:
            await jobs.update(connection, changed, self._lease_seconds)
        for item, job_id, is_stop in work.park:
            await inbox.park(connection, work.group, item, job_id, is_stop, self._parked_seconds)
        await inbox.insert_dead_letters(connection, work.group, work.dead)
        await inbox.keep_outcomes(connection, work.outcomes)
        if work.forget:
            await connection.execute(QUERIES["ids_forget"], work.forget)
        keys = await self._groups.ensure(connection, unit.new_groups(), unit.facts)
        occupancy = unit.occupancy()
        await occupancy.write(connection)
        await unit.log.write(connection)
        recovered = _recovered(work)
        if recovered:
            await connection.execute(QUERIES["states_due_upsert"], recovered)
        return _committed(work, unit, occupancy), keys

    async def _load(
        self, connection: Connection, work: _Work, repeated: dict[int, Decision]
    ) -> UnitOfWork:
        wanted = [i.command for n, i in enumerate(work.items) if n not in repeated]
        ids = job_ids(wanted)
        before: dict[UUID, Job] = {}
        partitions: dict[UUID, int] = {}
        if ids:
            before, partitions = await jobs.lock_many(connection, ids)
        firsts = [
            command
            for command in wanted
            if isinstance(command, c.RequestTraining | c.RejectRequest)
            and command.job_id not in before
        ]
        projects = {c_.request.project_id for c_ in firsts if isinstance(c_, c.RequestTraining)}
        projects |= {
            before[command.job_id].accepted_request.project_id
            for command in wanted
            if isinstance(command, c.Claim) and command.job_id in before
        }
        tells = any(isinstance(command, c.ReportWaiting) for command in wanted)
        claimed = [command.net for command in wanted if isinstance(command, c.Claim)]
        facts = await self._facts.read(
            connection,
            projects=sorted(projects),
            new_jobs=job_ids(firsts),
            claimed=None if tells else claimed,
        )
        return UnitOfWork(facts, EventLog(self._partitions), before, partitions)

    async def _judge(
        self,
        connection: Connection,
        unit: UnitOfWork,
        work: _Work,
        repeated: dict[int, Decision],
        alive: KeepAlive,
    ) -> None:
        await self._parked_stops(connection, unit, work, alive)
        stops: list[tuple[int, c.StopModel]] = []
        for index, item in enumerate(work.items):
            if item.dead is not None or item.command is None:
                if item.dead is not None:
                    work.dead.append((item.source_record, item.dead))
                work.decisions.append(Decision(outcome=Outcome.IGNORED))
            elif index in repeated:
                work.decisions.append(repeated[index])
                if repeated[index].outcome is Outcome.CONFLICT:
                    work.dead.append((item.source_record, _letter(repeated[index])))
            elif isinstance(item.command, c.StopModel):
                stops.append((index, item.command))
                work.decisions.append(Decision())
            else:
                decision = self._one(unit, item, index)
                work.decisions.append(decision)
                self._keep(work, item, decision)
            if alive.due:
                await alive.ping()
        for index, stop in stops:
            decision = await model_stops.accept(connection, unit, work.items, index, stop, alive)
            work.decisions[index] = decision
            work.model_stops = True
            self._keep(work, work.items[index], decision)
        new = list(unit.new())
        if new:
            await self._waiting_records(connection, unit, work, new, alive)

    def _one(self, unit: UnitOfWork, item: InboundItem, index: int | None = None) -> Decision:
        command = item.command
        if isinstance(command, c.RefuseStop):
            decision = jobless.refuse_stop(command)
            return unit.answer(decision, command.job_id, command.model_id, command.origin)
        assert isinstance(command, c.Command)
        return unit.apply(command, index)

    def _keep(self, work: _Work, item: InboundItem, decision: Decision) -> None:
        if decision.outcome is Outcome.PARKED and isinstance(item.command, c.Command):
            is_stop = isinstance(item.command, c.RequestStop)
            work.park.append((item, item.command.job_id, is_stop))
        if item.event_key is not None and decision.outcome is not Outcome.APPLIED:
            code = decision.reason.code if decision.reason is not None else ""
            work.outcomes[item.event_key] = f"{decision.outcome}:{code}".rstrip(":")

    async def _parked_stops(
        self, connection: Connection, unit: UnitOfWork, work: _Work, alive: KeepAlive
    ) -> None:
        """The transaction that enters `submitting` checks once more for stops that came first."""
        opening = [i.command.job_id for i in work.items if isinstance(i.command, c.OpenSubmission)]
        if opening:
            rows = await connection.fetch(QUERIES["parked_stops_of_jobs"], opening)
            await self._resolve(connection, unit, work, rows, alive)

    async def _waiting_records(
        self,
        connection: Connection,
        unit: UnitOfWork,
        work: _Work,
        new: list[UUID],
        alive: KeepAlive,
    ) -> None:
        """Stops and reports that came before their request, in this batch or an earlier one."""
        rows = await connection.fetch(QUERIES["parked_of_jobs"], new)
        await self._resolve(connection, unit, work, rows, alive)
        still = []
        for item, job_id, is_stop in work.park:
            if alive.due:
                await alive.ping()
            if job_id in unit.jobs and isinstance(item.command, c.Command):
                decision = unit.apply(item.command)
                if decision.outcome is not Outcome.PARKED:
                    continue
            still.append((item, job_id, is_stop))
        work.park = still

    async def _resolve(
        self,
        connection: Connection,
        unit: UnitOfWork,
        work: _Work,
        rows: list[asyncpg.Record],
        alive: KeepAlive,
    ) -> None:
        resolved = []
        for record in rows:
            if alive.due:
                await alive.ping()
            item = inbox.restore(record)
            dead = item.dead
            if dead is None:
                try:
                    if self._one(unit, item).outcome is Outcome.PARKED:
                        continue
                except BatchRefused as exc:
                    dead = dead_letter_of(exc)
            if dead is not None:
                work.group = work.group or record["consumer_group"]
                work.dead.append((item.source_record, dead))
                _forget(work, record)
            resolved.append(record["id"])
        if resolved:
            await connection.execute(QUERIES["parked_delete"], resolved)


def _recovered(work: _Work) -> list[UUID]:
    """Jobs that changed after their end: no event follows, so their state is published by itself."""
    return sorted(
        item.command.job_id
        for item, decision in zip(work.items, work.decisions, strict=True)
        if isinstance(item.command, c.Command)
        and any(isinstance(event, ResultsRecovered) for event in decision.events)
    )


def _own(commands: Sequence[c.Command]) -> _Work:
    """The work of commands that came from no record."""
    return _Work([InboundItem(command, _NO_RECORD) for command in commands], "")


def _restored(rows: list[asyncpg.Record]) -> tuple[_Work, dict[int, asyncpg.Record]]:
    items, by_index = [], {}
    for index, record in enumerate(rows):
        items.append(inbox.restore(record))
        by_index[index] = record
    return _Work(items, rows[0]["consumer_group"]), by_index


def _end_expired(unit: UnitOfWork, work: _Work, rows: dict[int, asyncpg.Record]) -> None:
    """What still waits stays parked until its time runs out: then a report is a dead letter, a stop is
    refused."""
    work.park.clear()
    for index, record in rows.items():
        if work.items[index].dead is not None:  # `_judge` dead-letters it
            work.resolved.append(record["id"])
            _forget(work, record)
        elif work.decisions[index].outcome is not Outcome.PARKED:
            work.resolved.append(record["id"])
        elif record["until"] <= unit.facts.now:
            work.resolved.append(record["id"])
            item = work.items[index]
            decision = jobless.expired(item.command)
            if decision.outcome is Outcome.EXPIRED:
                work.dead.append((item.source_record, _letter(decision)))
                _forget(work, record)
            else:
                unit.answer(decision, record["job_id"], None, origin_of(item.command))


def _letter(decision: Decision) -> DeadLetter:
    """The dead letter of a decision whose reason is one."""
    reason = decision.reason
    assert reason is not None, f"{decision.outcome} says why"
    return dead_letter(reason.code, reason.message)


def _forget(work: _Work, record: asyncpg.Record) -> None:
    """Forget a dead letter's event id: it may be sent again."""
    if record["event_id"] is not None:
        work.forget.append(record["event_id"])


def _committed(work: _Work, unit: UnitOfWork, occupancy: OccupancyDelta) -> Committed:
    return Committed(
        work.decisions,
        frozenset(unit.states()),
        len(unit.log.rows),
        bool(occupancy.ready_in or occupancy.reservations_out),
        work.model_stops,
    )
