"""Retention: what is old enough goes, in small portions, so that nobody waits for a big delete."""

from __future__ import annotations

from service.steps.context import StepContext

_LIMIT = 1_000
_BETWEEN_SECONDS = 0.2


async def apply_retention(context: StepContext) -> float | None:
    """One portion; the next one soon while there is more. Raises errors.Transient when the database or
    the object store is unavailable."""
    purgeable = await context.store.purgeable(_LIMIT)
    for job_id in purgeable:
        # Before its row goes: a crash in between repeats this, and nothing is left behind for ever.
        await context.bundles.remove(job_id)
    gone = await context.store.clean(purgeable, _LIMIT)
    return _BETWEEN_SECONDS if gone >= _LIMIT else None
