"""Taking work over: what nobody holds, and what a holder who went away left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from service.domain.job import Job
from service.domain.vocabulary import JobState
from service.steps.kit import Kit
from service.steps.runner import Tasks


class Taking:
    """A step that takes jobs in `states`, as many as `tasks` has room for, and works on each."""

    def __init__(
        self,
        kit: Kit,
        states: Iterable[JobState],
        work: Callable[[Job], Coroutine[Any, Any, None]],
        broke: Callable[[Job, Exception], Awaitable[None]],
        tasks: Tasks,
        bell: asyncio.Event,
    ) -> None:
        self._kit = kit
        self._states = frozenset(states)
        self._work = work
        self._broke = broke
        self._tasks = tasks
        self._bell = bell

    async def step(self) -> float | None:
        """One round. Raises errors.Transient when the database is away."""
        room = self._tasks.room
        if room <= 0:
            return None
        jobs = await self._kit.store.take(self._states, self._kit.holder, room)
        for job in jobs:
            self.start(job)
        return 0.0 if len(jobs) >= room else None

    def start(self, job: Job) -> None:
        """Work on a job whose lease is ours."""

        async def broke(exc: Exception) -> None:
            await self._broke(job, exc)

        about = {"job_id": str(job.job_id)}
        self._tasks.start(self._work(job), broke=broke, done=self._bell.set, **about)
