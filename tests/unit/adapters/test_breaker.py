"""The breaker: open after failures in a row, one probe, longer with every new opening."""

from __future__ import annotations

import pytest

from service.adapters.breaker import Breaker
from service.errors import Transient


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock) -> Breaker:
    return Breaker(
        "net-1", failures=3, first_seconds=1, longest_seconds=4, clock=clock, jitter=lambda: 1.0
    )


def fail(one: Breaker, times: int = 3) -> None:
    for _ in range(times):
        one.admit()
        one.settle(False)


def test_it_opens_after_failures_in_a_row_only() -> None:
    one = breaker(Clock())
    fail(one, 2)
    one.admit()
    one.settle(True)
    fail(one, 2)
    fail(one, 1)
    with pytest.raises(Transient) as refused:
        one.admit()
    assert refused.value.code == "adapter_unavailable"
    assert refused.value.retry_after == 1.0


def test_one_probe_at_a_time_and_success_closes() -> None:
    clock = Clock()
    one = breaker(clock)
    fail(one)
    clock.now = 1.01
    one.admit()
    with pytest.raises(Transient):
        one.admit()
    one.settle(True)
    one.admit()
    one.settle(None)
    one.admit()


def test_a_failed_probe_opens_for_longer_up_to_the_limit() -> None:
    clock = Clock()
    one = breaker(clock)
    fail(one)
    for wait in (2, 4, 4):
        clock.now += 4.01
        fail(one, 1)
        with pytest.raises(Transient) as refused:
            one.admit()
        assert refused.value.retry_after == pytest.approx(wait)


def test_a_probe_given_up_lets_the_next_one_try() -> None:
    clock = Clock()
    one = breaker(clock)
    fail(one)
    clock.now = 2
    one.admit()
    one.settle(None)
    one.admit()


def test_a_health_check_passes_an_open_breaker_and_closes_it() -> None:
    one = breaker(Clock())
    fail(one)
    one.admit(always=True)
    one.settle(True)
    one.admit()


def test_jitter_spreads_the_waiting() -> None:
    clock = Clock()
    one = Breaker("n", failures=1, first_seconds=10, clock=clock, jitter=lambda: 0.0)
    fail(one, 1)
    clock.now = 5.01
    one.admit()
