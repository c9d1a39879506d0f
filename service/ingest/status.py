"""What the consumer is doing, for health checks and metrics. Plain numbers, written by the consumer alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

#: A broker or a database that comes back within this is nobody's concern.
_PATIENCE_SECONDS = 30.0


@dataclass(slots=True)
class IngestStatus:
    """`heartbeat`: monotonic time of the poll loop's last turn; `moved`: of the last batch stored.

    `joined`: partitions are assigned and their offsets known. `stopped`: why it gave up, permanently.
    `stuck`: partitions that can't be read on, with offset and cause. `failing`: since when (monotonic) errors
    follow each other without a batch stored in between.
    """

    heartbeat: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)
    joined: bool = False
    paused: bool = False
    stopped: str | None = None
    records: int = 0
    batches: int = 0
    dead_letters: int = 0
    isolated: int = 0
    unreadable: int = 0
    fenced: int = 0
    errors: int = 0
    rebalances: int = 0
    failing: float | None = None
    last_error: str | None = None
    stuck: dict[tuple[str, int], str] = field(default_factory=dict)

    def record_heartbeat(self) -> None:
        self.heartbeat = time.monotonic()

    def failed(self, error: str) -> None:
        """Something went wrong that is tried again."""
        self.errors += 1
        self.last_error = error
        if self.failing is None:
            self.failing = time.monotonic()

    def stored(self, records: int) -> None:
        """A batch of so many records is stored."""
        self.batches += 1
        self.records += records
        self.moved = time.monotonic()
        self.failing = None

    @property
    def trouble(self) -> str | None:
        """Why it does not read what it should, where that is so; for readiness."""
        if self.stopped is not None:
            return self.stopped
        if self.failing is not None and time.monotonic() - self.failing > _PATIENCE_SECONDS:
            return f"nothing is stored, and reading fails again and again: {self.last_error}"
        if self.stuck:
            told = (f"{topic}/{number} at {why}" for (topic, number), why in self.stuck.items())
            return "can't be read on: " + "; ".join(sorted(told)[:5])
        return None if self.joined else "the consumer group is not joined yet"
