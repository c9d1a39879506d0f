"""What differs between adapters, as one protocol: which run is ours, when one is gone, when one is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from service.contracts.fl_lists import JobList, ListedRun
from service.domain.enums import FLJobStatus
from service.domain.observed import About, Found, Handle, Run, RunList

Sleep = Callable[[float], Awaitable[None]]

real_sleep: Final[Sleep] = asyncio.sleep


class Dialect(Protocol):
    """How one kind of adapter is read. Raises what `FlApi` raises.

    `poll_seconds`: the pause between two questions that this kind of adapter can bear, None where any can.
    """

    poll_seconds: float | None

    async def serving(self) -> bool:
        """Is the runtime behind the adapter up?"""
        ...

    async def runs(self, about: About | None = None) -> RunList:
        """The runs, and whether the list is whole."""
        ...

    async def find_run(self, handle: Handle) -> Found:
        """The run of a submission whose response was lost."""
        ...

    async def fence(self, handle: Handle) -> None:
        """Make a late submit of this handle fail, and wait until none can be in flight."""
        ...

    def is_lost(self, listed: RunList, run_id: str) -> bool:
        """May the run's absence from this list count as a miss?"""
        ...

    def terminal_is_final(self, status: FLJobStatus) -> bool:
        """Does a run of this terminal status never start again?"""
        ...


def observed_run(run: ListedRun) -> Run:
    """A listed run as the steps read it; a status that nobody knows is kept as it was spelled."""
    details = run.status_details if run.status is not None else run.word or run.status_details
    return Run(run.job_id, run.status, details)


def absent(listed: RunList, run_id: str) -> bool:
    """A whole list without the run."""
    return listed.complete and all(run.run_id != run_id for run in listed.runs)


def by_difference(listed: JobList, handle: Handle) -> Found:
    """What is listed now and was not before the call. Only exactly one may be taken for ours, and an entry
    that can't be read may be one."""
    fresh = [run.job_id for run in listed.runs if run.job_id not in handle.known_runs]
    if len(fresh) > 1:
        return Found(None, doubt=f"{len(fresh)} runs appeared since the submit")
    return unless_unreadable(listed, Found(fresh[0], provisional=True) if fresh else Found(None))


def unless_unreadable(listed: JobList, found: Found) -> Found:
    """What was found in a list, in doubt where an entry can't be read: it may be the run, or another one."""
    if not listed.unreadable or (found.run_id is not None and not found.provisional):
        return found
    return Found(None, doubt=f"{listed.unreadable} entries of the adapter's list can't be read")
