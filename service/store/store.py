"""`Store`: the steps' and the consumer's one door to the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

import asyncpg
import structlog

from service.domain import commands as c
from service.domain.decision import Decision
from service.domain.eligibility import eligible_nets, why_waiting
from service.domain.enums import ACTIVE, JobState, ReservationState
from service.domain.events import LeaseTaken, Started
from service.domain.job import Job
from service.domain.observed import Handle, Reservation
from service.domain.registry import NetNow, Registry
from service.domain.values import Origin
from service.settings import RetentionSettings
from service.store import clean, inbound, jobs, registry
from service.store.apply import Applier, Committed
from service.store.batch import RACES, BatchRefused, Fence, Fenced, Item
from service.store.database import Pool, reading, transaction
from service.store.facts import FactReader, read_nets
from service.store.pick import free_work, pick
from service.store.statements import Q

log = structlog.get_logger(__name__)


class Store:
    """See `service.steps.ports.JobStore` for what each method promises. `listeners` are told of every commit:
    hints beside polling, for the relay and the steps of the same process. Raises errors.Transient when the
    database is away; `apply_batch` also Fenced and BatchRefused."""

    def __init__(
        self,
        pool: Pool,
        facts: FactReader,
        *,
        partitions: int,
        lease_seconds: float = 10.0,
        parked_seconds: float = 86_400.0,
        retention: RetentionSettings | None = None,
    ) -> None:
        self.pool = pool
        self.listeners: list[Callable[[Committed], None]] = []
        self._facts = facts
        self._retention = retention or RetentionSettings()
        self._lease_seconds = lease_seconds
        self._applier = Applier(
            pool,
            facts,
            partitions=partitions,
            lease_seconds=lease_seconds,
            parked_seconds=parked_seconds,
        )

    # --- writing ----------------------------------------------------------------------------------

    async def apply_batch(self, items: Sequence[Item], fence: Fence | None) -> list[Decision]:
        """A batch of inbound records, with their offsets, in one transaction."""
        return self._done(await self._applier.records(items, fence))

    async def apply(self, commands: Iterable[c.Command]) -> list[Decision]:
        wanted = list(commands)
        return self._done(await self._applier.commands(wanted)) if wanted else []

    async def claim(self, holder: str) -> Job | None:
        commands, committed = await self._applier.chosen(lambda conn: pick(conn, holder))
        decisions = self._done(committed)
        if not commands or not any(isinstance(e, Started) for e in decisions[0].events):
            return None
        return await self.get(cast("c.Claim", commands[0]).job_id)

    async def take(self, states: Iterable[JobState], holder: str, limit: int) -> list[Job]:
        wanted = [str(s) for s in states if s in ACTIVE]
        commands, committed = await self._applier.chosen(
            lambda conn: free_work(conn, wanted, holder, limit)
        )
        taken = [
            command.job_id
            for command, decision in zip(commands, self._done(committed), strict=True)
            if any(isinstance(event, LeaseTaken) for event in decision.events)
        ]
        if not taken:
            return []
        async with reading(self.pool) as connection:
            found = await jobs.peek_all(connection, taken)
        return [job for job in found.values() if job.lease and job.lease.holder == holder]

    async def renew(self, leases: Mapping[UUID, int]) -> set[UUID]:
        if not leases:
            return set()
        async with transaction(self.pool) as connection:
            return await jobs.renew(connection, dict(leases), self._lease_seconds)

    async def feed_parked(self, limit: int) -> int:
        try:
            return await self._feed(limit)
        except BatchRefused:
            async with reading(self.pool) as connection:
                rows = await connection.fetch(Q["parked_ripe"], limit, None)
            return sum([await self._feed_one(row["id"]) for row in rows])

    async def _feed(
        self, limit: int, only: int | None = None, refused: BatchRefused | None = None
    ) -> int:
        try:
            fed, committed = await self._applier.parked(limit, only, refused)
        except Fenced:
            return 0
        self._done(committed)
        return fed

    async def _feed_one(self, parked_id: int) -> int:
        """Feed one parked record by itself: what can't be judged or stored costs itself alone."""
        try:
            return await self._feed(1, parked_id)
        except BatchRefused as exc:
            if exc.sqlstate in RACES:
                return 0
            log.warning("parked_record_isolated", parked_id=parked_id, error=exc.message)
            return await self._feed(1, parked_id, exc)

    async def stop_models(self, limit: int) -> int:
        async with reading(self.pool) as connection:
            stops = await connection.fetch(Q["model_stops"])
        stopped = 0
        for stop in stops:
            async with reading(self.pool) as connection:
                rows = await connection.fetch(
                    Q["model_stop_jobs"], stop["model_id"], stop["at"], limit
                )
            origin = Origin(stop["correlation_id"], stop["source"])
            commands = [
                c.RequestStop(row["job_id"], stop["reason"], stop["requested_by"], origin)
                for row in rows
            ]
            stopped += len(commands)
            await self.apply(commands)
            if not rows:
                async with transaction(self.pool) as connection:
                    await connection.execute(Q["model_stop_done"], stop["id"])
        return stopped

    async def save_net(
        self,
        name: str,
        *,
        answering: bool,
        online: frozenset[UUID],
        extensions: frozenset[str],
        strays: tuple[str, ...] | None,
        body: bytes,
    ) -> None:
        async with transaction(self.pool) as connection:
            known = await self._facts.registry(connection)
            await registry.save_net(
                connection,
                known,
                name,
                answering=answering,
                online=online,
                extensions=extensions,
                strays=strays,
                body=body.decode(),
            )
        self._done(Committed([], ready=True))

    async def lease(self, name: str, holder: str, ttl_seconds: float) -> bool:
        async with transaction(self.pool) as connection:
            return (
                await connection.fetchval(Q["outbox_lease_take"], name, holder, ttl_seconds)
                is not None
            )

    async def buried(self, limit: int) -> list[UUID]:
        async with reading(self.pool) as connection:
            rows = await connection.fetch(Q["tombstones_acknowledged"], limit)
        return [row["job_id"] for row in rows]

    async def clean(self, buried: Sequence[UUID], limit: int) -> int:
        return await clean.clean(self.pool, self._retention, buried, limit)

    # --- offsets ----------------------------------------------------------------------------------

    async def offsets(
        self, group: str, places: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], int]:
        async with transaction(self.pool) as connection:
            return await inbound.offsets(connection, group, places)

    async def start_offsets(
        self, group: str, starts: Mapping[tuple[str, int], int]
    ) -> dict[tuple[str, int], int]:
        async with transaction(self.pool) as connection:
            return await inbound.start_offsets(connection, group, starts)

    # --- reading ----------------------------------------------------------------------------------

    async def get(self, job_id: UUID) -> Job | None:
        async with reading(self.pool) as connection:
            return await jobs.peek(connection, job_id)

    async def now(self) -> datetime:
        async with reading(self.pool) as connection:
            return cast("datetime", await connection.fetchval("SELECT clock_timestamp()"))

    async def registry(self) -> Registry:
        async with reading(self.pool) as connection:
            return await self._facts.registry(connection)

    async def net_now(self) -> Mapping[str, NetNow]:
        async with reading(self.pool) as connection:
            row = await connection.fetchrow(Q["facts"])
        return read_nets(row["nets"] if row is not None else None)

    async def slots(self, net: str) -> list[Reservation]:
        async with reading(self.pool) as connection:
            rows = await connection.fetch(Q["slots_of_net"], net)
            found = await jobs.peek_all(connection, [row["job_id"] for row in rows])
        return [slot_row(row, found[row["job_id"]]) for row in rows if row["job_id"] in found]

    async def known_runs(self, net: str, run_ids: Sequence[str]) -> set[str]:
        async with reading(self.pool) as connection:
            rows = await connection.fetch(Q["runs_known"], net, list(run_ids))
        return {row["run_id"] for row in rows}

    async def due(self, limit: int) -> list[UUID]:
        async with reading(self.pool) as connection:
            return [row["job_id"] for row in await connection.fetch(Q["due_jobs"], limit)]

    async def waiting_heads(self, limit: int) -> list[tuple[UUID, str | None, int]]:
        async with reading(self.pool) as connection:
            rows = await connection.fetch(Q["position_heads"], limit)
            if not rows:
                return []
            first = {row["group_id"]: row["job_id"] for row in reversed(rows)}
            heads = await jobs.peek_all(connection, list(first.values()))
            projects = {job.accepted_request.project_id for job in heads.values()}
            facts = await self._facts.read(connection, projects=sorted(projects), claimed=None)
        codes: dict[UUID, str | None] = {
            group: why_waiting(
                job.accepted_request, eligible_nets(job.accepted_request, facts), facts
            )
            for group, job_id in first.items()
            if (job := heads.get(job_id)) is not None
        }
        return [
            (row["job_id"], codes[row["group_id"]], position)
            for position, row in enumerate(rows, 1)
            if row["group_id"] in codes
        ]

    def _done(self, committed: Committed) -> list[Decision]:
        for listener in self.listeners:
            listener(committed)
        return committed.decisions


def slot_row(row: asyncpg.Record, job: Job) -> Reservation:
    """A place on a net together with what its job says of it."""
    attempt = next(a for a in job.attempts if a.number == row["attempt"])
    handed = attempt.submission
    handle = None
    if handed is not None:
        handle = Handle(
            job_id=job.job_id,
            model_id=job.accepted_request.model_id,
            attempt=attempt.number,
            path_id=handed.path_id,
            key=handed.key,
            known_runs=handed.known_runs,
            earlier_paths=handed.earlier_paths,
        )
    return Reservation(
        job_id=job.job_id,
        attempt=attempt.number,
        net=row["net"],
        state=ReservationState(row["state"]),
        job_state=job.state,
        current=attempt is job.attempt and not job.terminal and job.state in ACTIVE,
        run_id=attempt.run_id,
        handle=handle,
        changed_at=attempt.changed_at,
    )
