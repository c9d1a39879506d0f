"""The relay's settings, with the reason for each number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """Times in seconds.

    `batch_events`: most events in one Kafka transaction, whose markers cost the broker more than records.
    `idle_poll` is the longest wait for events that another process wrote; while events came within
    `busy_for`, `busy_poll` holds.
    """

    lease_seconds: float = 1.5
    lease_max_seconds: float = 30.0
    stalled_after: float = 10.0
    batch_events: int = 2_500
    batch_bytes: int = 8 * 1024 * 1024
    busy_poll: float = 0.005
    busy_for: float = 2.0
    idle_poll: float = 0.025
    pause_after_error: float = 0.5
    transaction_timeout_ms: int = 60_000
    broker_deadline: float = 9.0
    scan_deadline: float = 10.0
    hanging_check: float = 10.0
    side_publisher_poll: float = 0.25
    accept_log: bool = False
