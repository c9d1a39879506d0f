"""Waiting: pauses that grow, and a pause that a stop ends."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.clock import Backoff, sleep_or_stop


def test_pauses_double_up_to_the_limit() -> None:
    pauses = Backoff(0.5, 3.0)
    assert [pauses.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_try_that_worked_begins_anew() -> None:
    pauses = Backoff(1.0, 8.0)
    pauses.next()
    pauses.next()
    pauses.reset()
    assert pauses.next() == 1.0


def test_no_pause_is_shorter_than_what_the_other_side_named() -> None:
    pauses = Backoff(1.0, 2.0)
    assert pauses.next(7.0) == 7.0
    assert pauses.next(0.1) == 2.0


@pytest.mark.parametrize(("draw", "pause"), [(0.0, 5.0), (0.5, 7.5), (1.0, 10.0)])
def test_jitter_is_a_factor_from_its_range(draw: float, pause: float) -> None:
    assert Backoff(10.0, 60.0, jitter=(0.5, 1.0), draw=lambda: draw).next() == pause


def test_ten_thousand_failed_tries_are_no_overflow() -> None:
    pauses = Backoff(0.2, 30.0)
    assert [pauses.next() for _ in range(10_000)][-1] == 30.0


async def test_a_stop_ends_a_pause() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, stop.set)
    began = time.monotonic()
    await sleep_or_stop(stop, 30.0)
    assert time.monotonic() - began < 5
