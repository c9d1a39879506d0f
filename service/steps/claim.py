"""From the queue onto a net: as many claims as there are workers free, each driven on its own.

Promise: a claim is followed by the next one at once while there is something to claim, so that a burst
does not wait for a clock; a slow net, or many, holds back nobody else: its jobs wait for it without a hand,
and no more of them are claimed at once than a net's share.
"""

from __future__ import annotations

from service.domain.enums import JobState
from service.errors import faultpoint
from service.steps.context import StepContext
from service.steps.runner import Tasks
from service.steps.takeover import LeasePuller


class ClaimStep:
    """The step; see the module. `driving` works on what was claimed."""

    def __init__(self, context: StepContext, driving: LeasePuller, tasks: Tasks) -> None:
        self._context = context
        self._driving = driving
        self._tasks = tasks

    async def step(self) -> float | None:
        """Claim until nothing can start now, or all workers are busy. Raises errors.Transient when the
        database is unavailable."""
        while self._tasks.room > 0 and not self._context.closing.is_set():
            job = await self._context.store.claim(self._context.holder, self._tasks.full)
            if job is None:
                break
            faultpoint("claim.claimed")
            if job.state is JobState.PREPARING:
                self._driving.start(job)
        return None
