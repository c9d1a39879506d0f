"""Percentiles are measured values, ratios are taken within rounds, and the tables show what was measured."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from bench.ingest import HANDLER, OURS, SEQUENTIAL
from bench.statistics import Spread, TimedRun, percentile, rates, ratio, summary
from bench.tables import ingest_document, ingest_table, latency_document, latency_table


def _runs() -> list[TimedRun]:
    return [
        TimedRun(OURS, 1, 1_000, 1.0, 50 * 2**20, 40 * 2**20, {"service": 50}, 0.1),
        TimedRun(SEQUENTIAL, 1, 1_000, 2.0),
        TimedRun(HANDLER, 1, 100, 10.0),
        TimedRun(SEQUENTIAL, 2, 1_000, 1.0),
        TimedRun(OURS, 2, 1_000, 2.0, 60 * 2**20, None, {"service": 60}, 0.3),
        TimedRun(OURS, 3, 1_000, 0.5),
        TimedRun(SEQUENTIAL, 3, 1_000, 1.5),
    ]


@pytest.mark.parametrize(
    ("share", "wanted"), [(50, 50), (90, 90), (99, 99), (100, 100), (0.5, 1), (99.5, 100)]
)
def test_a_percentile_is_the_nearest_rank(share: float, wanted: float) -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, share) == wanted


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 1) == percentile([7.0], 99) == 7.0


@pytest.mark.parametrize("share", [0, -1, 100.1])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        percentile([1.0], share)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_spread_is_in_milliseconds() -> None:
    assert Spread.of([0.001, 0.002, 0.010]).rounded() == {
        "count": 3, "p50_ms": 2.0, "p90_ms": 10.0, "p99_ms": 10.0, "max_ms": 10.0,
    }  # fmt: skip


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # Round by round 2, 0.5 and 3; the ratio of the median rates would be 1.
    assert ratio(_runs(), OURS, SEQUENTIAL) == pytest.approx(2.0)


def test_a_round_without_the_rival_does_not_count() -> None:
    assert ratio(_runs(), OURS, HANDLER) == pytest.approx(100.0)
    assert ratio(_runs(), OURS, "nobody") is None


def test_rates_come_in_the_order_of_the_rounds() -> None:
    assert rates(list(reversed(_runs())), OURS) == [1_000, 500, 2_000]


def test_a_summary_names_everybody_once_with_the_most_memory() -> None:
    entries = {entry["who"]: entry for entry in summary(_runs(), (SEQUENTIAL, HANDLER))}
    assert list(entries) == [OURS, SEQUENTIAL, HANDLER]
    assert entries[OURS]["ratio"] == {SEQUENTIAL: 2.0, HANDLER: 100.0}
    assert entries[OURS]["max_rss"] == 60 * 2**20
    assert entries[OURS]["max_pss"] == 40 * 2**20
    assert entries[OURS]["cpu_us"] == 200.0
    assert SEQUENTIAL not in entries[SEQUENTIAL]["ratio"]
    assert entries[SEQUENTIAL]["max_rss"] is None


def _text(table: Any) -> str:
    written = io.StringIO()
    Console(file=written, width=200).print(table)
    return written.getvalue()


def test_the_ingest_table_and_document_say_the_same() -> None:
    document = json.loads(json.dumps(ingest_document(_runs())))
    assert [entry["median_rate"] for entry in document["contestants"]] == [1_000, 666.7, 10]
    assert len(document["runs"]) == len(_runs())
    row = next(line for line in _text(ingest_table(_runs())).splitlines() if OURS in line)
    assert "1,000 500 2,000" in row
    assert "2.00" in row
    assert "60 MiB" in row


def test_the_latency_table_and_document_say_the_same() -> None:
    spreads = {"queued": Spread.of([0.010] * 99 + [0.050])}
    document = latency_document(spreads, 1.234, warmup=5)
    assert document["spreads"]["queued"]["p99_ms"] == 10.0
    assert document["queued_p99_ratio"] == 1.23
    assert document["warmup"] == 5
    text = _text(latency_table(spreads, 1.234))
    assert "10.0" in text
    assert "1.23 times" in text
