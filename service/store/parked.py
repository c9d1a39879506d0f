"""Parked records: stops and reports that came before their job, or before its submission was answered.

They are judged in the transaction that makes their job known, and once more where they might have been
missed: when a submission opens (stops), and by a step that looks for those whose job is there by now. One
whose job never comes ends with its time limit: a stop is refused, a report is a dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from service.contracts.inbound import translation
from service.contracts.wire.envelope import Undecodable
from service.contracts.wire.problems import ContractViolation
from service.domain import commands as c
from service.domain import jobless
from service.domain.decision import Outcome
from service.store.database import Connection
from service.store.keepalive import KeepAlive
from service.store.outbox import decode_headers, encode_headers
from service.store.records import (
    INVALID_REPORT,
    UNDECODABLE,
    BatchRefused,
    InboundItem,
    RecordRef,
    dead_letter,
    dead_letter_of,
)
from service.store.statements import QUERIES
from service.store.unit_of_work import UnitOfWork, origin_of
from service.store.work import Work


async def due(
    connection: Connection, limit: int, only: int | None = None
) -> Sequence[asyncpg.Record]:
    """Those whose job is known by now or whose time ran out; `only` the one with this id."""
    rows: Sequence[asyncpg.Record] = await connection.fetch(QUERIES["parked_due"], limit, only)
    return rows


def restored(rows: Sequence[asyncpg.Record], refused: BatchRefused | None = None) -> Work:
    """Their work. `refused`: a record alone was why its batch was refused, and becomes a dead letter."""
    items = [_restore(row) for row in rows]
    if refused is not None:
        letter = dead_letter_of(refused)
        items = [InboundItem(None, item.source_record, dead=letter) for item in items]
    return Work(items, rows[0]["consumer_group"], rows)


async def judge_stops(
    connection: Connection, unit: UnitOfWork, work: Work, alive: KeepAlive
) -> None:
    """The transaction that enters `submitting` checks once more for stops that came first."""
    opening = [i.command.job_id for i in work.items if isinstance(i.command, c.OpenSubmission)]
    if opening:
        rows = await connection.fetch(QUERIES["parked_stops_of_jobs"], opening)
        await _resolve(connection, unit, work, rows, alive)


async def judge_waiting(
    connection: Connection, unit: UnitOfWork, work: Work, alive: KeepAlive
) -> None:
    """Stops and reports that came before the request of a new job, in this batch or an earlier one."""
    new = list(unit.new())
    if not new:
        return
    rows = await connection.fetch(QUERIES["parked_of_jobs"], new)
    await _resolve(connection, unit, work, rows, alive)
    still = []
    async for parking in alive.over(work.parking):
        if parking.job_id in unit.jobs:
            decision = unit.judge(parking.item.command)
            if decision.outcome is not Outcome.PARKED:
                continue
        still.append(parking)
    work.parking = still


def end_expired(unit: UnitOfWork, work: Work) -> None:
    """Of the records that were parked already, those that are judged or whose time ran out wait no longer;
    the others stay as they are."""
    if not work.rows:
        return
    work.parking.clear()
    for item, row, decision in zip(work.items, work.rows, work.decisions, strict=True):
        if item.dead is not None:  # it is among the dead letters
            work.forget(row)
        elif decision.outcome is Outcome.PARKED:
            if row["until"] > unit.facts.now:
                continue
            over = jobless.expired(item.command)
            if over.outcome is Outcome.EXPIRED:
                work.bury(item, over)
                work.forget(row)
            else:
                unit.answer(over, row["job_id"], None, origin_of(item.command))
        work.resolved.append(row["id"])


async def insert(connection: Connection, work: Work, seconds: float) -> None:
    """Keep the records whose job is not known yet for so long."""
    for parking in work.parking:
        ref = parking.item.source_record
        await connection.execute(
            QUERIES["parked_insert"],
            parking.job_id,
            parking.is_stop,
            parking.item.event_key,
            ref.topic,
            ref.partition,
            ref.offset,
            ref.timestamp_ms,
            work.group,
            ref.key,
            ref.value,
            encode_headers(ref.headers),
            seconds,
        )


async def delete(connection: Connection, ids: Sequence[int]) -> int:
    """They wait no longer. How many did: another instance may have resolved some first."""
    return len(await connection.fetch(QUERIES["parked_delete"], ids))


async def _resolve(
    connection: Connection,
    unit: UnitOfWork,
    work: Work,
    rows: Sequence[asyncpg.Record],
    alive: KeepAlive,
) -> None:
    resolved = []
    async for row in alive.over(rows):
        item = _restore(row)
        dead = item.dead
        if dead is None:
            try:
                if unit.judge(item.command).outcome is Outcome.PARKED:
                    continue
            except BatchRefused as exc:
                dead = dead_letter_of(exc)
        if dead is not None:
            work.group = work.group or row["consumer_group"]
            work.dead.append((item.source_record, dead))
            work.forget(row)
        resolved.append(row["id"])
    if resolved:
        await delete(connection, resolved)


def _restore(row: asyncpg.Record) -> InboundItem:
    """A parked record's item, decoded again. After an upgrade it may be a dead letter's: then it must
    not hold up what is resolved with it."""
    ref = RecordRef(
        row["topic"],
        row["partition"],
        row["offset"],
        row["timestamp_ms"],
        row["key"],
        row["value"],
        decode_headers(row["headers"]),
    )
    headers = [(name, value) for name, value in ref.headers if value is not None]
    try:
        _, command = translation.read(ref.key, ref.value, headers)
    except ContractViolation as exc:
        kind = UNDECODABLE if isinstance(exc, Undecodable) else INVALID_REPORT
        return InboundItem(None, ref, dead=dead_letter(kind, exc.message))
    return InboundItem(command, ref)
