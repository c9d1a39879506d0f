"""Adapters that name their extensions in `/health`: our own FL-API servers.

With `idempotency` the key finds the run and makes a second submit harmless, so nothing needs a fence.
Without it (a small server that implements only the contract) runs are told apart by difference.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from service.domain.observed import About, Found, Handle, RunList
from service.domain.vocabulary import FLBackend, FLJobStatus
from service.nets.calls import Calls
from service.nets.dialects.dialect import (
    LEASE_SECONDS,
    Sleep,
    absent,
    by_difference,
    real_sleep,
    seen,
)

IDEMPOTENCY: Final = "idempotency"
_DOWN: Final = frozenset({"shutdown", "not started"})


class OurDialect:
    """See the module. `extensions` are those that the adapter named."""

    def __init__(
        self, calls: Calls, extensions: Collection[str], *, sleep: Sleep = real_sleep
    ) -> None:
        self._calls, self._sleep = calls, sleep
        self._knows_keys = IDEMPOTENCY in extensions

    async def serving(self) -> bool:
        """Any word but those that mean down; on Flower `STOPPED` does, elsewhere it means idle."""
        word = await self._calls.server_status()
        if word is None or word.lower() in _DOWN:
            return False
        return not (self._calls.net.backend is FLBackend.FLOWER and word.upper() == "STOPPED")

    async def runs(self, about: About | None = None) -> RunList:
        return RunList(tuple(map(seen, await self._calls.runs(about))), complete=True)

    async def find_run(self, handle: Handle) -> Found:
        if not self._knows_keys:
            return by_difference(await self._calls.runs(handle.about), handle)
        listed = await self._calls.runs(handle.about, idempotency_key=handle.key)
        mine = [run.job_id for run in listed]
        return Found(mine[0], extra_runs=tuple(mine[1:])) if mine else Found(None)

    async def fence(self, handle: Handle) -> None:
        """With keys a late submit answers the same run."""
        if self._knows_keys:
            return
        await self._calls.upload_empty(handle, self._calls.segment(handle))
        await self._sleep(self._calls.submit_seconds + LEASE_SECONDS)

    def is_lost(self, listed: RunList, run_id: str) -> bool:
        return absent(listed, run_id)

    def terminal_is_final(self, status: FLJobStatus) -> bool:
        """NVFLARE behind our server is still NVFLARE: what it lists as aborted may start afterwards."""
        return not (self._calls.net.backend is FLBackend.NVFLARE and status is FLJobStatus.STOPPED)
