"""What the consumer is doing, for health checks and metrics. Plain numbers, written by the consumer alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class IngestStatus:
    """`heartbeat`: monotonic time of the poll loop's last turn; `moved`: of the last batch stored.

    `joined`: partitions are assigned and their offsets known. `stopped`: why it gave up, permanently.
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
    fenced: int = 0
    errors: int = 0
    rebalances: int = 0

    def record_heartbeat(self) -> None:
        self.heartbeat = time.monotonic()
