"""What is made of measured numbers: percentiles, medians, ratios. Pure.

A percentile is the nearest-rank one: a value that was really measured, never one in between. A ratio is
taken within a round, between runs that stood side by side, and then the median over the rounds: the machine's
mood of the minute falls out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, `share` in percent (0 < share <= 100).

    Raises ValueError for no values or a share outside its range.
    """
    if not values:
        raise ValueError("no values")
    if not 0 < share <= 100:
        raise ValueError("a share lies above 0 and at most at 100")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Spread:
    """Times in milliseconds: how many, and how they lie."""

    count: int
    p50: float
    p90: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Of times in seconds. Raises ValueError for none."""
        ms = [value * 1_000 for value in seconds]
        return cls(
            len(ms), percentile(ms, 50), percentile(ms, 90), percentile(ms, 99), percentile(ms, 100)
        )

    def rounded(self) -> dict[str, float]:
        """For JSON: milliseconds with two digits."""
        return {
            "count": self.count,
            "p50_ms": round(self.p50, 2),
            "p90_ms": round(self.p90, 2),
            "p99_ms": round(self.p99, 2),
            "max_ms": round(self.worst, 2),
        }


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One timed run: `requests` in `seconds`. Memory in bytes and processor time in seconds, summed over the
    contestant's processes (not broker and database), None if unknown."""

    who: str
    round: int
    requests: int
    seconds: float
    rss: int | None = None
    pss: int | None = None
    processes: Mapping[str, int | None] | None = None
    cpu: float | None = None

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def rates(runs: Sequence[TimedRun], who: str) -> list[float]:
    """The rates of one contestant, in the order of the rounds."""
    return [run.rate for run in sorted(runs, key=lambda run: run.round) if run.who == who]


def ratio(runs: Sequence[TimedRun], who: str, baseline: str) -> float | None:
    """The median over the rounds of rate over the baseline's rate in the same round; None without both."""
    theirs = {run.round: run.rate for run in runs if run.who == baseline}
    found = [run.rate / theirs[run.round] for run in runs if run.who == who and run.round in theirs]
    return median(found) if found else None


def summary(runs: Sequence[TimedRun], baselines: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per contestant in the order of first appearance: median and all rates, ratios, memory."""
    entries = []
    for who in dict.fromkeys(run.who for run in runs):
        own = [run for run in runs if run.who == who]
        entries.append(
            {
                "who": who,
                "requests": own[0].requests,
                "median_rate": round(median(rates(runs, who)), 1),
                "rates": [round(rate, 1) for rate in rates(runs, who)],
                "ratio": {
                    baseline: round(found, 2)
                    for baseline in baselines
                    if baseline != who and (found := ratio(runs, who, baseline)) is not None
                },
                "cpu_us": _per_request(own),
                "max_rss": _most(run.rss for run in own),
                "max_pss": _most(run.pss for run in own),
            }
        )
    return entries


def _per_request(runs: Sequence[TimedRun]) -> float | None:
    """Microseconds of processor time for a request, the median."""
    known = [run.cpu / run.requests * 1e6 for run in runs if run.cpu is not None]
    return round(median(known), 1) if known else None


def _most(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
