"""Upkeep of what no message and no answer will move: parked records, passed times, stops by model, waiting.

Each is a step of its own with its own pause, so that one that is slow or failing holds back no other. A
round that was full is followed by the next at once.
"""

from __future__ import annotations

from service.domain.commands import Review, TellWaiting
from service.steps.kit import Kit

_LIMIT = 500
_HEADS = 100  #: this many jobs at the head of the queue are told why they wait


class Sweep:
    """The steps; see the module. All raise errors.Transient when the database is away."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def feed_parked(self) -> float | None:
        """Join parked stops and reports with their jobs."""
        fed = await self._kit.store.feed_parked(_LIMIT)
        if fed:
            self._kit.bells.news()
        return 0.0 if fed >= _LIMIT else None

    async def review_due(self) -> float | None:
        """Look again at the jobs whose time has come: delays, limits, deadlines, approvals."""
        due = await self._kit.store.due(_LIMIT)
        if not due:
            return None
        await self._kit.store.apply([Review(job_id) for job_id in due])
        self._kit.bells.news()
        return 0.0 if len(due) >= _LIMIT else None

    async def stop_models(self) -> float | None:
        """Go on with stops by model."""
        told = await self._kit.store.stop_models(_LIMIT)
        if told:
            self._kit.bells.news()
        return 0.0 if told >= _LIMIT else None

    async def tell_waiting(self) -> float | None:
        """Say why the heads of the queue can't start."""
        heads = await self._kit.store.waiting_heads(_HEADS)
        told = [TellWaiting(job_id, code, position) for job_id, code, position in heads if code]
        if told:
            await self._kit.store.apply(told)
        return None
