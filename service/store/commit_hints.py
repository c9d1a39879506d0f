"""Hints between processes: what one has committed, another learns at once instead of at its next poll.

LISTEN and NOTIFY on a connection of their own, after the commit: inside a working transaction a NOTIFY would
make all commits queue. Hints are coalesced, at most one statement in 20 ms, and lossy: whoever acts on them
polls as well, and takes a lost connection for a hint of everything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final

import asyncpg
import structlog

from service.domain.enums import JobState
from service.errors import Transient
from service.settings import DatabaseSettings
from service.store.database import Connection, Pool, reading, translated
from service.store.statements import QUERIES
from service.store.work import Committed

log = structlog.get_logger(__name__)

CHANNEL: Final = "fl_job_commit"
_BETWEEN_SECONDS: Final = 0.02
_RECONNECT_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 2.0


class Hint(StrEnum):
    """What a commit may be news for."""

    EVENTS = "events"  #: the relay has something to publish
    READY = "ready"  #: a job became ready, or a reservation was released
    STOPPING = "stopping"
    COLLECTING = "collecting"
    MODEL_STOPS = "model_stops"
    REGISTRY = "registry"


def hints_of(committed: Committed) -> frozenset[Hint]:
    """What a commit is news for."""
    found = {
        Hint.EVENTS: committed.events > 0,
        Hint.READY: committed.work_available,
        Hint.STOPPING: JobState.STOPPING in committed.states,
        Hint.COLLECTING: JobState.COLLECTING in committed.states,
        Hint.MODEL_STOPS: committed.model_stops,
    }
    return frozenset(hint for hint, given in found.items() if given)


async def send_hint(pool: Pool, hint: Hint) -> None:
    """Send one hint to every process, from one that does not run `CommitHints` (a command)."""
    async with reading(pool) as connection:
        await connection.execute(QUERIES["hint_send"], CHANNEL, hint)


class CommitHints:
    """One process's two ends; see the module. `on_hints` is called with what others committed."""

    def __init__(
        self, settings: DatabaseSettings, on_hints: Callable[[frozenset[Hint]], None]
    ) -> None:
        self._settings = settings
        self._on_hints = on_hints
        self._unsent: set[Hint] = set()
        self._news = asyncio.Event()

    def publish(self, hints: Iterable[Hint]) -> None:
        """Send these to the other processes soon."""
        self._unsent.update(hints)
        if self._unsent:
            self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; without the database it waits for it."""
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._news.set())
        try:
            while not stop.is_set():
                try:
                    with translated():
                        await self._exchange(stop)
                except (Transient, asyncpg.PostgresError) as exc:
                    log.info("commit_hints_interrupted", error=str(exc))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _RECONNECT_SECONDS)
        finally:
            stopping.cancel()

    async def _exchange(self, stop: asyncio.Event) -> None:
        """Send and receive for as long as the connection lives."""
        connection = await asyncpg.connect(
            self._settings.dsn.get_secret_value(),
            timeout=10,
            command_timeout=self._settings.command_timeout_seconds,
            # A hint that is lost with the server costs nothing: it need not wait for the disk.
            server_settings={
                "application_name": "fl-job-service hints",
                "synchronous_commit": "off",
            },
        )
        try:
            connection.add_termination_listener(lambda _: self._news.set())
            await connection.add_listener(CHANNEL, self._on_notification)
            self._on_hints(frozenset(Hint))  # whatever was sent while nobody listened
            while not stop.is_set() and not connection.is_closed():
                await self._news.wait()
                self._news.clear()
                unsent, self._unsent = self._unsent, set()
                if unsent and not stop.is_set():
                    await connection.execute(
                        QUERIES["hint_send"], CHANNEL, ",".join(sorted(unsent))
                    )
                    await asyncio.sleep(_BETWEEN_SECONDS)
        finally:
            with contextlib.suppress(TimeoutError, OSError, asyncpg.InterfaceError):
                await connection.close(timeout=_CLOSE_SECONDS)

    def _on_notification(
        self, connection: Connection, pid: int, channel: str, payload: object
    ) -> None:
        if pid == connection.get_server_pid():
            return  # our own: who waits in this process was woken by the commit itself
        known = {hint for hint in Hint if hint in str(payload).split(",")}
        if known:
            self._on_hints(frozenset(known))
