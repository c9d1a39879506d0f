"""Submissions whose outcome was given up: their job has ended, but their net is blocked while a run may live.

Promise: such a reservation is released by evidence alone: the run is found (and then aborted like any
orphan), or a fence and two searches show that there is no run. An operator's release does the same at once.
"""

from __future__ import annotations

import structlog

from service.domain import commands as c
from service.domain.observed import Handle, Reservation
from service.errors import Permanent, Transient
from service.steps.context import StepContext
from service.steps.lookup import Lookup
from service.steps.ports import NetClient
from service.steps.prepare import net_snapshot

log = structlog.get_logger(__name__)


class UnresolvedSubmissions:
    """The step of one net; see the module."""

    def __init__(self, context: StepContext, net: str) -> None:
        self._context = context
        self._net = net
        self._lookup = Lookup(context)

    async def step(self) -> float | None:
        """One search for every such reservation. Raises errors.Transient when the database is unavailable."""
        context = self._context
        open_ends = [
            row
            for row in await context.store.reservations(self._net)
            if row.run_id is None and row.handle is not None and not row.current
        ]
        if not open_ends:
            return None
        if not await context.may_poll(self._net):
            return None
        client = await context.client(self._net)
        for row in open_ends:
            try:
                await self._settle(client, row)
            except (Transient, Permanent) as exc:
                log.info("doubt_stays", net=self._net, job_id=str(row.job_id), detail=exc.message)
        return None

    async def _settle(self, client: NetClient, row: Reservation) -> None:
        snapshot = await net_snapshot(self._context, client)
        if row.handle is None or not snapshot.answering:
            return
        found = await self._lookup.surely_nothing(client, row.handle, snapshot.extensions)
        if found.run_id is not None:
            await self._context.store.apply([_known(row.handle, found.run_id, found.provisional)])
            self._context.wakeups.poll_now(self._net)
        elif found.doubt is None:
            log.info("doubt_ended", net=self._net, job_id=str(row.job_id))
            await self._context.store.apply([c.ReleaseReservation(row.job_id, row.attempt)])
            self._context.wakeups.wake_all()


def _known(handle: Handle, run_id: str, provisional: bool) -> c.RecordRun:
    return c.RecordRun(handle.job_id, handle.attempt, handle.path_id, run_id, provisional)
