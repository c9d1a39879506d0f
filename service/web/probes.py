"""What the health routes ask of the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Probes:
    """`alive`: the loops make progress. `ready`: None, or what is missing. `started`: the schema is
    current."""

    alive: Callable[[], bool]
    ready: Callable[[], Awaitable[str | None]]
    started: Callable[[], Awaitable[bool]]
    metrics: Metrics
