"""Adapters that name their extensions in `/health`: our own FL-API servers.

With `idempotency` the key finds the run and makes a second submit harmless, so nothing needs a fence.
Without it (a small server that implements only the contract) runs are told apart by difference.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from service.adapters.dialects.dialect import (
    Sleep,
    absent,
    by_difference,
    observed_run,
    real_sleep,
    unless_unreadable,
)
from service.adapters.fl_api import FlApi
from service.domain.enums import FLBackend, FLJobStatus
from service.domain.observed import About, Found, Handle, RunList

IDEMPOTENCY: Final = "idempotency"
_DOWN: Final = frozenset({"shutdown", "not started"})


class NativeDialect:
    """See the module. `extensions` are those that the adapter named."""

    poll_seconds: float | None = None

    def __init__(
        self, fl_api: FlApi, extensions: Collection[str], *, sleep: Sleep = real_sleep
    ) -> None:
        self._fl_api, self._sleep = fl_api, sleep
        self._knows_keys = IDEMPOTENCY in extensions

    async def serving(self) -> bool:
        """Any status but those that mean down; on Flower `STOPPED` does, elsewhere it means idle."""
        status = await self._fl_api.server_status()
        if status is None or status.lower() in _DOWN:
            return False
        return not (self._fl_api.net.backend is FLBackend.FLOWER and status.upper() == "STOPPED")

    async def runs(self, about: About | None = None) -> RunList:
        listed = await self._fl_api.runs(about)
        return RunList(tuple(map(observed_run, listed.runs)), complete=not listed.unreadable)

    async def find_run(self, handle: Handle) -> Found:
        if not self._knows_keys:
            return by_difference(await self._fl_api.runs(handle.about), handle)
        listed = await self._fl_api.runs(handle.about, idempotency_key=handle.key)
        mine = [run.job_id for run in listed.runs]
        if mine:
            return Found(mine[0], extra_runs=tuple(mine[1:]))
        return unless_unreadable(listed, Found(None))

    async def fence(self, handle: Handle) -> None:
        """With keys a late submit answers the same run."""
        if self._knows_keys:
            return
        await self._fl_api.upload_empty(handle, self._fl_api.segment(handle))
        await self._sleep(self._fl_api.late_submit_seconds)

    def is_lost(self, listed: RunList, run_id: str) -> bool:
        return absent(listed, run_id)

    def terminal_is_final(self, status: FLJobStatus) -> bool:
        """NVFLARE behind our server is still NVFLARE: what it lists as aborted may start afterwards."""
        return not (self._fl_api.net.backend is FLBackend.NVFLARE and status is FLJobStatus.STOPPED)
