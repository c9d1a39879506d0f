"""Comparing what an adapter lists with what we believe, one list for all jobs of a net.

Promise: a list judges only runs whose id was committed before the call began, and says so by the database's
time, so that a late answer can't undo what happened meanwhile. What it shows becomes the same commands that
reports make. A live run of ours whose attempt is over is aborted until it ends; a live run that no attempt
ever owned is counted, and aborted only where the registry says so. What breaks it: an adapter that lists
other runtimes' runs as its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from service.clock import Backoff
from service.domain import commands as c
from service.domain.decision import Decision
from service.domain.enums import RUN_OVER
from service.domain.events import ReservationChanged
from service.domain.evolve import is_published
from service.domain.observed import About, Reservation, Run, RunList
from service.errors import Permanent, Transient
from service.steps.context import StepContext
from service.steps.leases import clock
from service.steps.ports import NetClient

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _AbortRetry:
    """When an abort of a run may be repeated."""

    at: float
    pauses: Backoff


class ReconcileStep:
    """The step of one net; see the module."""

    def __init__(self, context: StepContext, net: str) -> None:
        self._context = context
        self._net = net
        self._aborts: dict[str, _AbortRetry] = {}
        self._unknown: dict[str, float] = {}  #: live runs of nobody: since when

    async def step(self) -> float | None:
        """One list, judged. Raises errors.Transient when adapter or database is unavailable."""
        context, options = self._context, self._context.options
        idle = context.nets.client(self._net).net.poll_seconds or options.idle_poll_seconds
        if not await context.may_poll(self._net):
            return min(idle, options.poll_seconds)
        client = context.nets.client(self._net)
        rows = await context.store.reservations(self._net)
        began = await context.store.now()
        listed = await client.runs()
        await self._judge(client, rows, listed, began)
        await self._end_orphans(client, rows, listed)
        busy = bool(rows) and client.net.poll_seconds is None
        context.list_pauses[self._net] = min(idle, options.poll_seconds) if busy else idle
        return context.list_pauses[self._net]

    async def _judge(
        self, client: NetClient, rows: Sequence[Reservation], listed: RunList, began: datetime
    ) -> None:
        runs = {run.run_id: run for run in listed.runs}
        said: list[c.Command] = []
        for row in rows:
            if row.run_id is None:
                continue
            run = runs.get(row.run_id)
            if run is not None:
                settled = self._context.net_cache.settled(client, run)
                said.append(
                    c.ObserveRun(
                        row.job_id,
                        row.attempt,
                        row.run_id,
                        run.status,
                        run.details,
                        began,
                        settled=settled,
                    )
                )
            elif client.is_lost(listed, row.run_id):
                said.append(c.ObserveRunMissing(row.job_id, row.attempt, row.run_id, began))
        self._context.net_cache.forget_ended(self._net, {row.run_id for row in rows if row.run_id})
        if said:
            self._wake(await self._context.store.apply(said))

    def _wake(self, decisions: Iterable[Decision]) -> None:
        """A list with changes may have freed a reservation, or left results to fetch."""
        events = [event for decision in decisions for event in decision.events]
        if any(is_published(event) or isinstance(event, ReservationChanged) for event in events):
            self._context.wakeups.wake_all()
            self._context.wakeups.refresh_status(self._net)

    # --- runs that should not be ------------------------------------------------------------------

    async def _end_orphans(
        self, client: NetClient, rows: Sequence[Reservation], listed: RunList
    ) -> None:
        """Abort what lives although its attempt is over, second runs of one submission, and strays where
        the registry says so."""
        owners = {row.run_id: (row.job_id, row.attempt) for row in rows if row.run_id is not None}
        over = {row.run_id for row in rows if row.run_id is not None and not row.current}
        unwanted = self._context.net_cache.unwanted(self._net)
        unwanted -= {run.run_id for run in listed.runs if run.status in RUN_OVER}
        live = {run.run_id for run in listed.runs if _lives(run)}
        wrong = live & (over | unwanted)
        unowned = await self._unowned(rows, listed)
        if unowned is None:
            self._unknown.clear()
        else:
            freed, nobodys = unowned
            strays = self._strays(nobodys)
            wrong |= freed | (strays if client.net.strays == "abort" else set())
        for gone in self._aborts.keys() - live:
            del self._aborts[gone]
        await self._abort(client, {run_id: owners.get(run_id) for run_id in sorted(wrong)})

    async def _abort(self, client: NetClient, runs: Mapping[str, About | None]) -> None:
        options = self._context.options
        for run_id, about in runs.items():
            again = self._aborts.get(run_id)
            if again is None:
                pauses = Backoff(options.orphan_abort_seconds, options.orphan_most_seconds)
                again = self._aborts[run_id] = _AbortRetry(clock(), pauses)
            if clock() < again.at:
                continue
            again.at = clock() + again.pauses.next()
            log.warning("orphan_aborted", net=self._net, run=run_id)
            try:
                await client.abort(run_id, about)
            except (Transient, Permanent) as exc:
                log.info("abort_failed", net=self._net, run=run_id, error=exc.message)

    def _strays(self, nobodys: set[str]) -> set[str]:
        """Of the live runs of nobody, those that have been so for a while."""
        self._unknown = {run: self._unknown.get(run, clock()) for run in nobodys}
        ripe = clock() - self._context.options.stray_seconds
        strays = {run for run, since in self._unknown.items() if since <= ripe}
        if self._context.net_cache.keep_strays(self._net, strays):
            self._context.wakeups.refresh_status(self._net)
            if strays:
                shown = sorted(strays)[:20]
                log.warning("strays_seen", net=self._net, runs=shown, count=len(strays))
        return strays

    async def _unowned(
        self, rows: Sequence[Reservation], listed: RunList
    ) -> tuple[set[str], set[str]] | None:
        """Live runs that hold no reservation: those of attempts of ours, and those of nobody. None while a
        submission has no answer yet: any of them may be its run."""
        context = self._context
        placed = {row.run_id for row in rows} | context.net_cache.unwanted(self._net)
        live = [run.run_id for run in listed.runs if _lives(run) and run.run_id not in placed]
        if not live:
            return set(), set()
        known = await context.store.known_runs(self._net, live)
        now = await context.store.reservations(self._net)
        if any(row.run_id is None and row.handle is not None for row in now):
            return None
        left = set(live) - {row.run_id for row in now}
        return left & known, left - known


def _lives(run: Run) -> bool:
    """A status that nobody knows counts as life only where something else says so."""
    return run.status is not None and run.status not in RUN_OVER
