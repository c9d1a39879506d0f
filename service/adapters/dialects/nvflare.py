"""FLIP's adapter of NVFLARE: jobs carry the name that stood in the path of their submit.

A run is found by that name. The list grows for ever and is whole; but it keeps calling a job RUNNING
whose server has lost it, so such jobs are looked up in the server's own list and left out when they are
not there. What it lists as aborted may start afterwards.
"""

from __future__ import annotations

from service.adapters.dialects.dialect import (
    Sleep,
    absent,
    observed_run,
    real_sleep,
    unless_unreadable,
)
from service.adapters.fl_api import FlApi
from service.contracts.fl_lists import JobList
from service.domain.enums import FLJobStatus
from service.domain.observed import About, Found, Handle, RunList
from service.errors import Transient


class NvflareDialect:
    """See the module."""

    poll_seconds: float | None = None

    def __init__(self, fl_api: FlApi, *, sleep: Sleep = real_sleep) -> None:
        self._fl_api, self._sleep = fl_api, sleep

    async def serving(self) -> bool:
        """Its `stopped` means idle; a runtime that is down is a 500."""
        status = await self._fl_api.server_status()
        return status is not None and status.lower() != "shutdown"

    async def runs(self, about: About | None = None) -> RunList:
        listed = await self._fl_api.runs(about)
        runs = listed.runs
        if any(run.status is FLJobStatus.RUNNING for run in runs):
            alive = await self._alive()
            if alive is not None:
                runs = [
                    run
                    for run in runs
                    if run.status is not FLJobStatus.RUNNING or run.job_id in alive
                ]
        return RunList(tuple(map(observed_run, runs)), complete=not listed.unreadable)

    async def _alive(self) -> frozenset[str] | None:
        """What the server has; None, and nothing is left out, when it can't be asked."""
        try:
            return await self._fl_api.running_in_server()
        except Transient:
            return None

    async def find_run(self, handle: Handle) -> Found:
        """By name: this submission's first, then those of the attempt's former submissions. The model's id
        as the name is not this submission's alone, so there what was listed before is left out, and what
        is found is provisional."""
        shared = self._fl_api.net.path_id == "model"
        names = [handle.model_id] if shared else [handle.path_id, *reversed(handle.earlier_paths)]
        mine: list[str] = []
        unreadable = 0
        for name in names:
            listed = await self._fl_api.runs(handle.about, name_prefix=str(name))
            unreadable += listed.unreadable
            mine += [
                run.job_id
                for run in listed.runs
                if run.job_id not in handle.known_runs and run.job_id not in mine
            ]
        if shared and len(mine) > 1:
            return Found(None, doubt=f"{len(mine)} runs of this model appeared since the submit")
        if not mine:
            return unless_unreadable(JobList([], unreadable=unreadable), Found(None))
        return Found(mine[0], provisional=shared, extra_runs=tuple(mine[1:]))

    async def fence(self, handle: Handle) -> None:
        """Empty the app, then wait as long as a submit, or a worker that believes in its lease, can take."""
        await self._fl_api.upload_empty(handle, self._fl_api.segment(handle))
        await self._sleep(self._fl_api.late_submit_seconds)

    def is_lost(self, listed: RunList, run_id: str) -> bool:
        return absent(listed, run_id)

    def terminal_is_final(self, status: FLJobStatus) -> bool:
        return status is not FLJobStatus.STOPPED
