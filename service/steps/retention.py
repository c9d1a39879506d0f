"""Retention: what is old enough goes, in small portions, so that nobody waits for a big delete.

One instance does it at a time: the others would delete the same rows.
"""

from __future__ import annotations

from typing import Final

from service.clock import sleep_or_stop
from service.steps.context import StepContext

#: Rows of one portion, and jobs whose bundles go with one turn.
_LIMIT: Final = 5_000
_JOBS: Final = 200
_BETWEEN_SECONDS: Final = 0.2
#: Longer than a portion takes; each takes the lease anew.
_LEASE: Final = "clean"
_LEASE_SECONDS: Final = 120.0


async def apply_retention(context: StepContext) -> float | None:
    """One turn: the portions of some jobs, until none of their rows is left; the next one soon while there
    is more. Raises errors.Transient when the database or the object store is unavailable."""
    if not await _mine(context):
        return None
    purgeable = await context.store.purgeable(_JOBS)
    for job_id in purgeable:
        # Before its row goes: a crash in between repeats this, and nothing is left behind for ever.
        await context.bundles.remove(job_id)
    while True:
        if not await _mine(context):
            return None
        gone = await context.store.clean(purgeable, _LIMIT)
        if gone < _LIMIT or context.closing.is_set():
            break
        await sleep_or_stop(context.closing, _BETWEEN_SECONDS)
    return _BETWEEN_SECONDS if len(purgeable) >= _JOBS else None


async def _mine(context: StepContext) -> bool:
    return await context.store.lease(_LEASE, context.holder, _LEASE_SECONDS)
