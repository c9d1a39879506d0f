"""LeasePuller over work: what nobody holds, and what a holder who went away left behind.

Promise: of one net's jobs no more are taken than its share, so that a slow net's work, however much there
is of it, leaves hands for that of others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from service.domain.enums import JobState
from service.domain.job import Job
from service.steps.context import StepContext
from service.steps.runner import Tasks


class LeasePuller:
    """A step that takes jobs in `states`, as many as `tasks` has hands free for, and works on each."""

    def __init__(
        self,
        context: StepContext,
        states: Iterable[JobState],
        work: Callable[[Job], Coroutine[Any, Any, None]],
        on_crash: Callable[[Job, Exception], Awaitable[None]],
        tasks: Tasks,
        wake: asyncio.Event,
    ) -> None:
        self._context = context
        self._states = frozenset(states)
        self._work = work
        self._on_crash = on_crash
        self._tasks = tasks
        self._wake = wake

    async def step(self) -> float | None:
        """One round. Raises errors.Transient when the database is unavailable."""
        # All of one turn may be of one net: so no turn takes more than the share of one.
        most = min(self._tasks.room, self._tasks.share)
        if most <= 0:
            return None
        full = self._tasks.full
        jobs = await self._context.store.take(self._states, self._context.holder, most, full)
        for job in jobs:
            self.start(job)
        return 0.0 if len(jobs) >= most else None

    def start(self, job: Job) -> None:
        """Work on a job whose lease is ours."""

        async def on_crash(exc: Exception) -> None:
            await self._on_crash(job, exc)

        net = "" if job.attempt is None else job.attempt.net
        about = {"job_id": str(job.job_id)}
        self._tasks.start(self._work(job), net=net, on_crash=on_crash, done=self._wake.set, **about)
