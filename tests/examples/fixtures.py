"""Who appears in the examples: the same job, model, trusts and net everywhere."""

from __future__ import annotations

from typing import Final
from uuid import UUID

JOB: Final = UUID("0b9f4c1e-6a53-4d9b-9d0e-3c7a5f2e1d01")
OTHER_JOB: Final = UUID("0b9f4c1e-6a53-4d9b-9d0e-3c7a5f2e1d02")
MODEL: Final = UUID("4e1d7c2a-90b3-4f6e-8f0d-1a2b3c4d5e6f")
NORTH: Final = UUID("5b1c0f3e-0d6a-4c5f-9a37-2f6a1f0e7a01")
EAST: Final = UUID("5b1c0f3e-0d6a-4c5f-9a37-2f6a1f0e7a02")
SOUTH: Final = UUID("5b1c0f3e-0d6a-4c5f-9a37-2f6a1f0e7a03")
TRUSTS: Final = (NORTH, EAST, SOUTH)
SLOTS: Final = ("Trust_1", "Trust_2", "Trust_3")
QUERY: Final = "SELECT * FROM lesions WHERE year >= 2015"
RUN: Final = "c5f0d9b2-7a41-4f11-8a55-0d2f9e6b7a10"
PATH: Final = "7d2f6a90-1c3b-5e48-9f1d-6b0a4c8e2f13"
TIME: Final = "2026-03-02T09:15:00Z"
TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def ce_headers(event_type: str, event_id: str, source: str, **more: str) -> dict[str, str]:
    """Headers of an inbound record in binary mode."""
    return {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": source,
        "ce_type": event_type,
        "ce_time": TIME,
        **{f"ce_{name}": text for name, text in more.items()},
    }
