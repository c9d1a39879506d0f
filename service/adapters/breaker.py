"""A circuit breaker: after several failures in a row a net is left alone for a while.

Promise: while it is open a call is refused at once, naming the seconds to wait; then one single call is
let through, and its outcome closes the breaker or opens it for longer. What breaks it: a caller that
does not settle what it was admitted to.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from service.clock import Backoff
from service.domain.enums import ReasonCode
from service.errors import Transient

_FAILURES: Final = 5
_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 30.0


class Breaker:
    """One net's breaker. Not thread-safe: it lives in one event loop."""

    def __init__(
        self,
        name: str,
        *,
        failures: int = _FAILURES,
        first_seconds: float = _FIRST_SECONDS,
        longest_seconds: float = _LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._name, self._limit = name, failures
        self._first, self._clock = first_seconds, clock
        self._failed = 0  # in a row
        #: How long it stays open: each opening in a row is longer than the one before.
        self._openings = Backoff(first_seconds, longest_seconds, jitter=(0.5, 1.0), draw=jitter)
        self._open_until: float | None = None
        self._probing = False

    def admit(self, *, always: bool = False) -> None:
        """Pass, or refuse. Whoever passed calls `settle` once. `always` lets a health check through: it is
        how an adapter that answers again is noticed.

        Raises:
            Transient: `adapter_unavailable` with the seconds to wait.
        """
        if self._open_until is None or always:
            return
        wait = self._open_until - self._clock()
        if wait > 0 or self._probing:
            raise Transient(
                f"net {self._name} failed {self._failed} times in a row and is left alone",
                code=ReasonCode.ADAPTER_UNAVAILABLE,
                retry_after=max(wait, self._first),
            )
        self._probing = True

    def settle(self, worked: bool | None) -> None:
        """Record the outcome; None: the call was given up without one."""
        self._probing = False
        if worked is None:
            return
        if worked:
            self._failed = 0
            self._openings.reset()
            self._open_until = None
            return
        self._failed += 1
        if self._failed >= self._limit:
            self._open_until = self._clock() + self._openings.next()
