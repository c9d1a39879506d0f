"""Waiting: a pause that a stop ends, and pauses that grow from one failed try to the next.

Promise: every repetition in the service takes its pauses from `Backoff`, so that growth, limit and jitter are
written once. Nothing here knows a broker, a database or a net. Retry libraries sleep by themselves; our waits
end early (the process stops, a lease is lost, somebody wakes a loop), so only the lengths come from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final

_MOST_DOUBLINGS: Final = 30


class Backoff:
    """The pauses between tries, in seconds: `first`, then twice as long each time, at most `most`.

    `jitter` is the range of the factor that each pause is multiplied by; `draw` gives a number from 0 to 1.
    """

    __slots__ = ("_draw", "_first", "_jitter", "_most", "_tries")

    def __init__(
        self,
        first: float,
        most: float,
        *,
        jitter: tuple[float, float] = (1.0, 1.0),
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first, self._most = first, most
        self._jitter, self._draw = jitter, draw
        self._tries = 0

    def next(self, named: float | None = None) -> float:
        """The pause before the next try; never shorter than what the other side `named`."""
        pause = min(self._most, self._first * 2.0 ** min(self._tries, _MOST_DOUBLINGS))
        self._tries += 1
        low, high = self._jitter
        return max(pause * (low + (high - low) * self._draw()), named or 0.0)

    def reset(self) -> None:
        """A try worked: the next pause is the first one again."""
        self._tries = 0


async def sleep_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `seconds`, or until `stop` is set; not at all when there is nothing to wait."""
    if seconds <= 0:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
