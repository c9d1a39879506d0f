"""The line stops when nearly everything of one partition is undecodable, and not before."""

from __future__ import annotations

import pytest

from service.ingest.dlq_limit import WINDOW, DlqLimit, DlqLimitExceeded


def test_a_full_window_of_garbage_stops_the_line() -> None:
    line = DlqLimit(0.9)
    line.see("t", 0, [True] * (WINDOW - 1))
    with pytest.raises(DlqLimitExceeded, match="MAX_UNDECODABLE_RATIO"):
        line.see("t", 0, [True])


def test_exactly_the_share_is_allowed() -> None:
    line = DlqLimit(0.9)
    line.see("t", 0, ([True] * 9 + [False]) * (WINDOW // 10) * 3)
    with pytest.raises(DlqLimitExceeded):
        line.see("t", 0, [True] * 10)


def test_partitions_are_judged_apart() -> None:
    line = DlqLimit(0.5)
    for _ in range(3):
        line.see("t", 0, [True] * 300)
        line.see("t", 1, [True] * 300)
    with pytest.raises(DlqLimitExceeded, match="partition 1"):
        line.see("t", 1, [False] * 100)


def test_old_garbage_leaves_the_window() -> None:
    line = DlqLimit(0.9)
    line.see("t", 0, [True] * 900)
    line.see("t", 0, [False] * WINDOW)
    line.see("t", 0, [True] * 900)


def test_zero_turns_it_off() -> None:
    DlqLimit(0).see("t", 0, [True] * 5_000)


def test_a_restart_remembers_what_was_buried_before() -> None:
    line = DlqLimit(0.9)
    line.begin("t", 0, undecodable=900, seen=WINDOW)
    with pytest.raises(DlqLimitExceeded):
        line.see("t", 0, [True])


def test_a_restart_near_the_start_of_the_log_waits_for_a_full_window() -> None:
    line = DlqLimit(0.9)
    line.begin("t", 0, undecodable=50, seen=50)
    line.see("t", 0, [True] * (WINDOW - 51))
    with pytest.raises(DlqLimitExceeded):
        line.see("t", 0, [True])
