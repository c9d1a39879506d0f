"""Upkeep of what no message and no answer will move: parked records, passed times, stops by model, approvals
taken back, waiting.

Each is a step of its own with its own pause, so that one that is slow or failing holds back no other. A
round that was full is followed by the next at once.
"""

from __future__ import annotations

from uuid import UUID

from service.domain.commands import ReportWaiting, Review
from service.steps.context import StepContext

_LIMIT = 500
_HEADS = 100  #: this many jobs at the head of the queue get a report of why they wait


class Maintenance:
    """The steps; see the module. All raise errors.Transient when the database is unavailable."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        #: heads that nothing but their turn kept from starting at the last look
        self._next: set[UUID] = set()

    async def resolve_parked(self) -> float | None:
        """Join parked stops and reports with their jobs."""
        fed = await self._context.store.resolve_parked(_LIMIT)
        if fed:
            self._context.wakeups.wake_all()
        return 0.0 if fed >= _LIMIT else None

    async def review_due(self) -> float | None:
        """Review the jobs whose time has come: delays, limits, deadlines, approvals."""
        due = await self._context.store.due(_LIMIT)
        if not due:
            return None
        await self._context.store.apply_each([Review(job_id) for job_id in due])
        self._context.wakeups.wake_all()
        return 0.0 if len(due) >= _LIMIT else None

    async def review_registry(self) -> float | None:
        """Look again at the jobs whose approvals a new registry took back."""
        done = await self._context.store.review_registry(self._context.holder, _LIMIT)
        if not done:
            return None
        self._context.wakeups.wake_all()
        return 0.0

    async def stop_models(self) -> float | None:
        """Continue stops by model."""
        stopped = await self._context.store.stop_models(_LIMIT)
        if stopped:
            self._context.wakeups.wake_all()
        return 0.0 if stopped >= _LIMIT else None

    async def report_waiting(self) -> float | None:
        """Report what newly keeps the heads of the queue from starting, and what does so no longer. That is
        reported when it still holds at the next look: else a net that is free for a moment, and claimed at
        once, would cost every job behind it two events."""
        heads = await self._context.store.waiting_heads(_HEADS)
        reports = [
            ReportWaiting(job_id, code, position)
            for job_id, code, position in heads
            if code is not None or job_id in self._next
        ]
        self._next = {job_id for job_id, code, _ in heads if code is None}
        if reports:
            await self._context.store.apply_each(reports)
        return None
