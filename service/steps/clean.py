"""Retention: what is old enough goes, in small portions, so that nobody waits for a big delete."""

from __future__ import annotations

from service.steps.kit import Kit

_LIMIT = 1_000
_BETWEEN_SECONDS = 0.2


async def clean(kit: Kit) -> float | None:
    """One portion; the next one soon while there is more. Raises errors.Transient when the database is
    away."""
    gone = await kit.store.clean(_LIMIT)
    return _BETWEEN_SECONDS if gone >= _LIMIT else None
