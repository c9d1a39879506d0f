"""`PostgresStore`: the steps' and the consumer's one door to the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

import asyncpg
import structlog

from service.domain import commands as c
from service.domain.decision import Decision
from service.domain.eligibility import eligible_nets, why_waiting
from service.domain.enums import ACTIVE, JobState, ReservationState, WaitingCode
from service.domain.events import LeaseTaken, Started
from service.domain.job import Job
from service.domain.observed import Handle, Reservation
from service.domain.registry import Net, NetNow, Registry
from service.domain.values import Origin
from service.errors import Transient
from service.settings import RetentionSettings
from service.store import inbox, jobs, model_stops, parked, registry, registry_review, retention
from service.store.apply import Applier
from service.store.claim import select_claim, select_expired
from service.store.database import Connection, Pool, reading, transaction
from service.store.facts import FactReader, read_nets
from service.store.records import RACES, BatchRefused, InboundItem, OffsetFence, OffsetMoved
from service.store.statements import QUERIES
from service.store.work import Committed

log = structlog.get_logger(__name__)

#: How long a job that a rule fails on waits for its next look.
_PUT_OFF_SECONDS = 60.0
#: For so long one instance reviews jobs after a registry, and others leave it to that one.
_REVIEW_SECONDS = 10.0
#: Those who watch nets use at most this part of the connections at once: there may be hundreds of nets, and
#: reading records and moving jobs must not wait behind all of them.
_WATCHERS_SHARE = 3


class PostgresStore:
    """See `service.steps.ports.JobStore` for what each method promises. `listeners` are called after every
    commit: a wake-up beside polling, for the relay and the steps of the same process. Raises
    errors.Transient when the database is unavailable; `apply_batch` also OffsetMoved and BatchRefused."""

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
        self._watching = asyncio.Semaphore(max(1, pool.get_max_size() // _WATCHERS_SHARE))
        self._applier = Applier(
            pool,
            facts,
            partitions=partitions,
            lease_seconds=lease_seconds,
            parked_seconds=parked_seconds,
        )

    # --- writing ----------------------------------------------------------------------------------

    async def apply_batch(
        self, items: Sequence[InboundItem], fence: OffsetFence | None
    ) -> list[Decision]:
        """A batch of inbound records, with their offsets, in one transaction."""
        return self._done(await self._applier.apply_records(items, fence))

    async def apply(self, commands: Iterable[c.Command]) -> list[Decision]:
        wanted = list(commands)
        return self._done(await self._applier.apply_commands(wanted)) if wanted else []

    async def apply_each(self, commands: Iterable[c.Command]) -> list[Decision]:
        wanted = list(commands)
        try:
            return await self.apply(wanted)
        except BatchRefused as exc:
            if len(wanted) > 1:
                middle = len(wanted) // 2
                first = await self.apply_each(wanted[:middle])
                return first + await self.apply_each(wanted[middle:])
            if exc.sqlstate not in RACES:
                await self._put_off(wanted[0], exc)
            return []

    async def _put_off(self, command: c.Command, cause: BatchRefused) -> None:
        """A command that can't be judged or stored: told, and its job's time put off, so that it does not
        stand at the head of every page."""
        log.error(
            "command_isolated",
            command=type(command).__name__,
            job_id=str(command.job_id),
            error=cause.message,
        )
        async with reading(self.pool) as connection:
            await connection.execute(QUERIES["due_put_off"], command.job_id, _PUT_OFF_SECONDS)

    async def claim(self, holder: str, without: Collection[str] = ()) -> Job | None:
        commands, committed = await self._applier.apply_selected(
            lambda conn: select_claim(conn, holder, without, self._facts.runnable())
        )
        decisions = self._done(committed)
        if not commands or not any(isinstance(e, Started) for e in decisions[0].events):
            return None
        return await self.get(cast("c.Claim", commands[0]).job_id)

    async def take(
        self, states: Iterable[JobState], holder: str, limit: int, without: Collection[str] = ()
    ) -> list[Job]:
        wanted = [str(s) for s in states if s in ACTIVE]
        commands, committed = await self._applier.apply_selected(
            lambda conn: select_expired(conn, wanted, holder, limit, without)
        )
        taken = [
            command.job_id
            for command, decision in zip(commands, self._done(committed), strict=True)
            if any(isinstance(event, LeaseTaken) for event in decision.events)
        ]
        if not taken:
            return []
        async with reading(self.pool) as connection:
            found = await jobs.get_many(connection, taken)
        return [job for job in found.values() if job.lease and job.lease.holder == holder]

    async def renew(self, leases: Mapping[UUID, int]) -> set[UUID]:
        if not leases:
            return set()
        async with transaction(self.pool) as connection:
            return await jobs.renew(connection, dict(leases), self._lease_seconds)

    async def resolve_parked(self, limit: int) -> int:
        try:
            return await self._resolve(limit)
        except BatchRefused:
            async with reading(self.pool) as connection:
                rows = await parked.due(connection, limit)
            return sum([await self._resolve_one(row["id"]) for row in rows])

    async def _resolve(
        self, limit: int, only: int | None = None, refused: BatchRefused | None = None
    ) -> int:
        try:
            resolved, committed = await self._applier.apply_parked(limit, only, refused)
        except OffsetMoved:
            return 0
        self._done(committed)
        return resolved

    async def _resolve_one(self, parked_id: int) -> int:
        """Resolve one parked record by itself: what can't be judged or stored costs itself alone."""
        try:
            return await self._resolve(1, parked_id)
        except BatchRefused as exc:
            if exc.sqlstate in RACES:
                return 0
            log.warning("parked_record_isolated", parked_id=parked_id, error=exc.message)
            return await self._resolve(1, parked_id, exc)

    async def stop_models(self, limit: int) -> int:
        stopped, trouble = 0, None
        async for stop in model_stops.pending(self.pool):
            try:
                stopped += await self._stop_model(stop, limit)
            except Transient as exc:
                trouble = exc  # the stops behind this one are carried out all the same
        if trouble is not None and not stopped:
            raise trouble
        return stopped

    async def _stop_model(self, stop: asyncpg.Record, limit: int) -> int:
        """One page of a stop's jobs; its row goes when none is left."""
        async with reading(self.pool) as connection:
            rows = await connection.fetch(
                QUERIES["model_stop_jobs"], stop["model_id"], stop["at"], limit
            )
        if not rows:
            async with reading(self.pool) as connection:
                await connection.execute(QUERIES["model_stop_delete"], stop["id"])
            return 0
        origin = Origin(stop["correlation_id"], stop["source"])
        reason, who = stop["reason"], stop["requested_by"]
        return len(
            await self.apply_each(
                [c.RequestStop(row["job_id"], reason, who, origin) for row in rows]
            )
        )

    async def review_registry(self, holder: str, limit: int) -> int:
        page = await registry_review.next_page(self.pool, limit)
        if page is None or not await self.lease("review_registry", holder, _REVIEW_SECONDS):
            return 0
        if page.jobs:
            await self.apply_each([c.Review(job_id) for job_id in page.jobs])
        await registry_review.finish_page(self.pool, page)
        return max(1, len(page.jobs))

    async def save_net(
        self,
        name: str,
        *,
        answering: bool,
        online: frozenset[UUID],
        extensions: frozenset[str],
        strays: tuple[str, ...] | None,
        body: bytes,
        unknown_statuses: tuple[str, ...] | None = None,
    ) -> None:
        async with self._watching, transaction(self.pool) as connection:
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
                unknown_statuses=unknown_statuses,
            )
        self._done(Committed([], work_available=answering))

    async def lease(self, name: str, holder: str, ttl_seconds: float) -> bool:
        async with self._watching, transaction(self.pool) as connection:
            return (
                await connection.fetchval(
                    QUERIES["outbox_lease_acquire"], name, holder, ttl_seconds
                )
                is not None
            )

    async def purgeable(self, limit: int) -> list[UUID]:
        async with reading(self.pool) as connection:
            rows = await connection.fetch(QUERIES["tombstones_acknowledged"], limit)
        return [row["job_id"] for row in rows]

    async def clean(self, purgeable: Sequence[UUID], limit: int) -> int:
        return await retention.clean(self.pool, self._retention, purgeable, limit)

    # --- offsets ----------------------------------------------------------------------------------

    async def offsets(
        self, group: str, partitions: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], int]:
        async with transaction(self.pool) as connection:
            return await inbox.offsets(connection, group, partitions)

    async def start_offsets(
        self, group: str, starts: Mapping[tuple[str, int], int]
    ) -> dict[tuple[str, int], int]:
        async with transaction(self.pool) as connection:
            return await inbox.start_offsets(connection, group, starts)

    # --- reading ----------------------------------------------------------------------------------

    async def get(self, job_id: UUID) -> Job | None:
        async with reading(self.pool) as connection:
            return await jobs.get(connection, job_id)

    async def now(self) -> datetime:
        async with reading(self.pool) as connection:
            return cast("datetime", await connection.fetchval("SELECT clock_timestamp()"))

    async def registry(self) -> Registry:
        async with reading(self.pool) as connection:
            return await self._facts.registry(connection)

    async def draining(self) -> Mapping[str, Net]:
        async with reading(self.pool) as connection:
            return await registry.draining(connection)

    async def net_now(self) -> Mapping[str, NetNow]:
        async with self._watching, reading(self.pool) as connection:
            row = await connection.fetchrow(QUERIES["facts"])
        return read_nets(row["nets"] if row is not None else None)

    async def reservations(self, net: str) -> list[Reservation]:
        async with self._watching, reading(self.pool) as connection:
            rows = await connection.fetch(QUERIES["reservations_of_net"], net)
            found = await jobs.get_many(connection, [row["job_id"] for row in rows])
        return [reservation_of(row, found[row["job_id"]]) for row in rows if row["job_id"] in found]

    async def known_runs(self, net: str, run_ids: Sequence[str]) -> set[str]:
        async with reading(self.pool) as connection:
            rows = await connection.fetch(QUERIES["runs_select"], net, list(run_ids))
        return {row["run_id"] for row in rows}

    async def due(self, limit: int) -> list[UUID]:
        async with reading(self.pool) as connection:
            return [row["job_id"] for row in await connection.fetch(QUERIES["due_jobs"], limit)]

    async def waiting_heads(self, limit: int) -> list[tuple[UUID, str | None, int]]:
        async with reading(self.pool) as connection:
            rows = await connection.fetch(QUERIES["position_heads"], limit)
            later = await connection.fetch(QUERIES["delayed_heads"], limit - len(rows))
            codes = await self._codes(connection, rows)
        found = [
            (row, codes[row["group_id"]], position)
            for position, row in enumerate(rows, 1)
            if row["group_id"] in codes
        ]
        behind = len(rows) + 1
        found += [(row, WaitingCode.NOT_BEFORE, n) for n, row in enumerate(later, behind)]
        return [(row["job_id"], code, n) for row, code, n in found if code != row["waiting"]]

    async def _codes(
        self, connection: Connection, rows: Sequence[asyncpg.Record]
    ) -> dict[UUID, str | None]:
        """By group: what holds its first job back."""
        if not rows:
            return {}
        first = {row["group_id"]: row["job_id"] for row in reversed(rows)}
        heads = await jobs.get_many(connection, list(first.values()))
        projects = {job.accepted_request.project_id for job in heads.values()}
        facts = await self._facts.read(connection, projects=sorted(projects), claimed=None)
        return {
            group: why_waiting(
                job.accepted_request, eligible_nets(job.accepted_request, facts), facts
            )
            for group, job_id in first.items()
            if (job := heads.get(job_id)) is not None
        }

    def _done(self, committed: Committed) -> list[Decision]:
        for listener in self.listeners:
            listener(committed)
        return committed.decisions


def reservation_of(row: asyncpg.Record, job: Job) -> Reservation:
    """A reservation on a net together with what its job says of it."""
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
