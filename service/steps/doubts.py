"""Submissions whose outcome was given up: their job has ended, but their net is blocked while a run may live.

Promise: such a place becomes free by evidence alone: the run is found (and then aborted like any orphan), or
a fence and two looks show that there is none. An operator's release does the same at once.
"""

from __future__ import annotations

import structlog

from service.domain import commands as c
from service.domain.observed import Handle, SlotRow
from service.errors import Permanent, Transient
from service.steps.kit import Kit
from service.steps.lookup import Lookup
from service.steps.ports import NetClient
from service.steps.prepare import look_at

log = structlog.get_logger(__name__)


class Doubts:
    """The step of one net; see the module."""

    def __init__(self, kit: Kit, net: str) -> None:
        self._kit = kit
        self._net = net
        self._lookup = Lookup(kit)

    async def step(self) -> float | None:
        """One search for every such place. Raises errors.Transient when the database is away."""
        kit = self._kit
        open_ends = [
            row
            for row in await kit.store.slots(self._net)
            if row.run_id is None and row.handle is not None and not row.current
        ]
        if not open_ends:
            return None
        if not await kit.may_poll(self._net):
            return None
        client = await kit.client(self._net)
        for row in open_ends:
            try:
                await self._settle(client, row)
            except (Transient, Permanent) as exc:
                log.info("doubt_stays", net=self._net, job_id=str(row.job_id), told=exc.message)
        return None

    async def _settle(self, client: NetClient, row: SlotRow) -> None:
        look = await look_at(self._kit, client)
        if row.handle is None or not look.answering:
            return
        found = await self._lookup.surely_nothing(client, row.handle, look.extensions)
        if found.run_id is not None:
            await self._kit.store.apply([_known(row.handle, found.run_id, found.provisional)])
            self._kit.bells.nudge(self._net)
        elif found.doubt is None:
            log.info("doubt_ended", net=self._net, job_id=str(row.job_id))
            await self._kit.store.apply([c.ReleaseSlot(row.job_id, row.attempt)])
            self._kit.bells.news()


def _known(handle: Handle, run_id: str, provisional: bool) -> c.KnowRun:
    return c.KnowRun(handle.job_id, handle.attempt, handle.path_id, run_id, provisional)
