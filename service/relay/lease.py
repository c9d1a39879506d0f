"""Who may lead: a named row with a time to live by the database's clock.

For liveness, not for safety: two leaders at once would harm nothing, since a new transactional producer
fences the old one. A task on a connection of its own renews the lease every third of its time while the
holder makes progress, also while it starts, scans and waits for a commit. A living holder that loses its
lease asks for twice the time next, up to a limit, since it was evidently too slow for it; one that ends by
an error gives the lease back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator

import structlog

from service.errors import Transient
from service.store.outbox import EventOutbox, Session

log = structlog.get_logger(__name__)


def holder_name() -> str:
    """A name for this process, never used twice."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class HeldLease:
    """A lease that was taken. `lost` is set when it is gone, or when the holder stalled for too long."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.lost = asyncio.Event()
        self._progressed = time.monotonic()

    def progress(self) -> None:
        """The holder reports progress; without it the lease is not renewed for long."""
        self._progressed = time.monotonic()

    def idle_seconds(self) -> float:
        return time.monotonic() - self._progressed


class LeaderLease:
    """One name to lead under. Use `async with lease.held() as held`: None means that another leads."""

    def __init__(
        self,
        outbox: EventOutbox,
        name: str,
        *,
        seconds: float,
        max_seconds: float,
        stalled_after: float,
        holder: str | None = None,
    ) -> None:
        self._outbox = outbox
        self.name = name
        self.holder = holder or holder_name()
        self._base = seconds
        self._max = max_seconds
        self._stalled_after = stalled_after
        self.seconds = seconds

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[HeldLease | None]:
        """Take the lease for the block. Raises errors.Transient when the database is unavailable."""
        async with self._outbox.session(relaxed=True) as session:
            token = await session.take_lease(self.name, self.holder, self.seconds)
            if token is None:
                yield None
                return
            held = HeldLease(token)
            began = time.monotonic()
            renewing = asyncio.create_task(self._renew(session, held), name=f"lease {self.name}")
            try:
                yield held
            finally:
                renewing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await renewing
                if not held.lost.is_set():
                    if time.monotonic() - began > 60:
                        self.seconds = self._base
                    with contextlib.suppress(Transient):
                        await session.give_back_lease(self.name, self.holder, token)

    async def _renew(self, session: Session, held: HeldLease) -> None:
        while True:
            await asyncio.sleep(self.seconds / 3)
            if held.idle_seconds() > self._stalled_after:
                log.warning("lease_not_renewed", lease=self.name, idle=held.idle_seconds())
                held.lost.set()
                return
            try:
                kept = await session.renew_lease(self.name, self.holder, held.token, self.seconds)
            except Transient as exc:
                log.warning("lease_not_renewed", lease=self.name, error=exc.message)
                held.lost.set()
                return
            if not kept:
                self.seconds = min(self.seconds * 2, self._max)
                log.warning("lease_lost", lease=self.name, next_seconds=self.seconds)
                held.lost.set()
                return
