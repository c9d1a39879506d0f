"""A net's lane: uploads and submits go to its adapter one at a time, whichever process sends them.

Promise: between entering and leaving a turn nobody else is in one for this net. Within a process turns come
in the order in which they were asked for; between processes the lane is a named lease that is renewed while
the turn lasts, given back at its end, and free for others soon after its holder died. What breaks it: a
database that is unavailable for longer than the lease lasts while a call is under way; then two calls may
meet, each under a path id of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

import structlog

from service.errors import Transient

_log = structlog.get_logger(__name__)

#: Take or prolong the lease of this name for so many seconds (0: give it back); False: somebody else has it.
LaneLease = Callable[[str, float], Awaitable[bool]]

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0

#: The lanes whose turn the running task is in.
_entered: ContextVar[tuple[Lane, ...]] = ContextVar("entered_lanes", default=())


class Lane:
    """See the module. Without a `lease` the lane is one of this process alone."""

    def __init__(self, net: str, lease: LaneLease | None = None, *, seconds: float = 10.0) -> None:
        self._name, self._lease, self._seconds = f"lane:{net}", lease, seconds
        self._net = net
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn, and keep it until the end of the block. Within a turn a further one of the same
        lane is entered at once.

        Raises:
            Transient: the lease can't be asked for, since the database is unavailable.
        """
        entered = _entered.get()
        if self in entered:
            yield
            return
        async with self._lock:
            token = _entered.set((*entered, self))
            try:
                async with self._leased():
                    yield
            finally:
                _entered.reset(token)

    @asynccontextmanager
    async def _leased(self) -> AsyncIterator[None]:
        if self._lease is None:
            yield
            return
        pause = _FIRST_PAUSE
        while not await self._lease(self._name, self._seconds):
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)
        renewing = asyncio.create_task(self._renew(self._lease), name=self._name)
        try:
            yield
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing
            with contextlib.suppress(Transient):  # it runs out by itself
                await self._lease(self._name, 0.0)

    async def _renew(self, lease: LaneLease) -> None:
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                kept = await lease(self._name, self._seconds)
            except Transient as exc:
                _log.warning("lane_not_renewed", net=self._net, error=exc.message)
                continue
            if not kept:
                _log.warning("lane_lost", net=self._net)
                return
