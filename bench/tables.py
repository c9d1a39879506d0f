"""The figures for people (rich tables) and for machines (JSON documents)."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table

from .ingest import HANDLER, SEQUENTIAL
from .statistics import Spread, TimedRun, summary

_MIB: Final = 2**20


def _machine() -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def ingest_document(runs: Sequence[TimedRun]) -> dict[str, Any]:
    """Everything about an ingest measurement. Rates in requests per second, memory in bytes."""
    return {
        "bench": "ingest",
        **_machine(),
        "contestants": summary(runs, (SEQUENTIAL, HANDLER)),
        "runs": [
            {
                "who": run.who,
                "round": run.round,
                "requests": run.requests,
                "seconds": round(run.seconds, 3),
                "rate": round(run.rate, 1),
                "cpu_seconds": run.cpu,
                "rss": run.rss,
                "pss": run.pss,
                "processes_rss": dict(run.processes or {}),
            }
            for run in runs
        ],
    }


def ingest_table(runs: Sequence[TimedRun]) -> Table:
    """One row per contestant, medians over the rounds."""
    table = Table(title="Ingest: topic → Postgres → lifecycle and state topics", box=None)
    table.add_column("Contestant")
    for heading in (
        "Requests",
        "Requests/s",
        "Rounds",
        "× sequential",
        "× handler",
        "CPU µs",
        "RSS",
        "PSS",
    ):
        table.add_column(heading, justify="right")
    for entry in summary(runs, (SEQUENTIAL, HANDLER)):
        table.add_row(
            entry["who"],
            f"{entry['requests']:,}",
            f"{entry['median_rate']:,.0f}",
            " ".join(f"{rate:,.0f}" for rate in entry["rates"]),
            _ratio(entry["ratio"].get(SEQUENTIAL)),
            _ratio(entry["ratio"].get(HANDLER)),
            "" if entry["cpu_us"] is None else f"{entry['cpu_us']:.0f}",
            _mib(entry["max_rss"]),
            _mib(entry["max_pss"]),
        )
    return table


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / _MIB:.0f} MiB"


def latency_document(spreads: Mapping[str, Spread], ratio: float, **more: Any) -> dict[str, Any]:
    """Everything about a latency measurement. `ratio`: of the p99s to `queued`, service to pipeline."""
    return {
        "bench": "latency",
        **_machine(),
        **more,
        "spreads": {what: spread.rounded() for what, spread in spreads.items()},
        "queued_p99_ratio": round(ratio, 2),
    }


def latency_table(spreads: Mapping[str, Spread], ratio: float) -> Table:
    """One row per way measured, in milliseconds."""
    table = Table(title="Latency of an idle service, milliseconds", box=None)
    table.add_column("From the request's sending to …")
    for heading in ("Count", "p50", "p90", "p99", "max"):
        table.add_column(heading, justify="right")
    for what, spread in spreads.items():
        times = (spread.p50, spread.p90, spread.p99, spread.worst)
        table.add_row(what, f"{spread.count:,}", *(f"{value:.1f}" for value in times))
    table.caption = f"queued: p99 is {ratio:.2f} times that of the minimal pipeline"
    return table
