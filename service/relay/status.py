"""What the relay is doing, for health checks and metrics. Plain numbers, written by the relay alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Hanging:
    """A partition whose last stable offset stays below the high watermark; `since` is monotonic."""

    partition: int
    stable_offset: int
    high_watermark: int
    since: float

    def seconds(self) -> float:
        return time.monotonic() - self.since


@dataclass(slots=True)
class RelayStatus:
    """`heartbeat`: the monotonic time of the loop's last turn, leading or not; while broker or database are
    unavailable turns are up to a minute apart. `stopped`: why it waits for an operator."""

    leading: bool = False
    heartbeat: float = field(default_factory=time.monotonic)
    published: int = 0
    transactions: int = 0
    takeovers: int = 0
    errors: int = 0
    unknown_records: int = 0
    stopped: str | None = None
    last_error: str | None = None
    hanging: dict[int, Hanging] = field(default_factory=dict)
    net_status_sent: int = 0
    tombstones_sent: int = 0
    dead_letters_sent: int = 0
    side_publisher_errors: int = 0

    def record_heartbeat(self) -> None:
        self.heartbeat = time.monotonic()
