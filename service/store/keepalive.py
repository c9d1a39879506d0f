"""A transaction that works in memory must not look idle to the database.

The server ends a session that stands idle in its transaction for a second: else a frozen writer would hold
all others back. So whoever works on many records between two statements asks here after each of them. It
also gives the event loop its turn, for heartbeats and for whoever else lives in the process.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

from service.store.database import Connection

#: A tenth of what the server allows; the rest is for a machine that is busy with others.
QUIET_SECONDS: Final = 0.1
_T = TypeVar("_T")


class KeepAlive:
    """One transaction's; see the module."""

    def __init__(self, connection: Connection, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._connection = connection
        self._quiet_seconds = quiet_seconds
        self._until = time.monotonic() + quiet_seconds

    @property
    def due(self) -> bool:
        """Has the transaction been quiet for too long?"""
        return time.monotonic() >= self._until

    async def ping(self) -> None:
        """One statement that does nothing."""
        await self._connection.execute("SELECT")
        self._until = time.monotonic() + self._quiet_seconds

    async def over(self, items: Iterable[_T]) -> AsyncIterator[_T]:
        """Each item in turn; between two of them a ping where it is due."""
        for item in items:
            yield item
            if self.due:
                await self.ping()
