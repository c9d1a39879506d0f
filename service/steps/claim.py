"""From the queue onto a net: as many claims as there are hands free, each driven on its own.

Promise: a claim is followed by the next one at once while there is something to claim, so that a burst
does not wait for a clock; one slow upload holds back nobody else.
"""

from __future__ import annotations

from service.domain.vocabulary import JobState
from service.errors import faultpoint
from service.steps.kit import Kit
from service.steps.runner import Tasks
from service.steps.taking import Taking


class Claim:
    """The step; see the module. `driving` works on what was claimed."""

    def __init__(self, kit: Kit, driving: Taking, tasks: Tasks) -> None:
        self._kit = kit
        self._driving = driving
        self._tasks = tasks

    async def step(self) -> float | None:
        """Claim until nothing can start now, or all hands are busy. Raises errors.Transient when the
        database is away."""
        while self._tasks.room > 0 and not self._kit.closing.is_set():
            job = await self._kit.store.claim(self._kit.holder)
            if job is None:
                break
            faultpoint("claim.claimed")
            if job.state is JobState.PREPARING:
                self._driving.start(job)
        return None
