"""The server's end of one site's channel: one call at a time, answered once.

Promise: `exchange` returns the answer to the very call it made or raises; after the process's end
it raises within a moment, also when a child of it still holds the channel. Calls are numbered, and
each carries a number drawn for it, so that nobody else's answer is taken (`frames`).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from asyncio.subprocess import Process
from contextlib import suppress

from service.fl_server.embedded import frames, processes

_BUFFER = 1 << 18


class SiteConnection:
    """A channel to a site's process. `start` the process with `theirs.fileno()` inherited, then
    `open` it."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self._process: Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._watching: asyncio.Task[None] | None = None
        self._calls = 0

    async def open(self, process: Process) -> None:
        """Begin to talk to the process, which has the other end now."""
        self.theirs.close()
        self._process = process
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=self._ours, limit=_BUFFER
        )
        self._watching = asyncio.create_task(self._watch(process, self._writer))

    async def exchange(self, message: frames.Message, body: bytes) -> tuple[frames.Message, bytes]:
        """Ask, and wait for the answer.

        Raises:
            frames.Closed, ConnectionError: the process is gone.
            frames.Refused: what came is not this call's answer.
            frames.FrameTooLarge: there is more to say than a frame carries.
        """
        assert self._process is not None
        assert self._reader is not None
        assert self._writer is not None
        self._calls += 1
        stamp = frames.Stamp(self._calls, secrets.randbits(64), self._process.pid)
        for part in frames.encode(stamp, message, body):
            self._writer.write(part)
        await self._writer.drain()
        return await frames.read_async(self._reader, stamp)

    async def close(self) -> None:
        """Give the channel up."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._writer is not None:
            self._writer.transport.abort()
            with suppress(OSError):
                await self._writer.wait_closed()
        self._ours.close()
        self.theirs.close()

    @staticmethod
    async def _watch(process: Process, writer: asyncio.StreamWriter) -> None:
        """Let go of the channel a moment after the process's end."""
        await process.wait()
        await asyncio.sleep(processes.GRACE_SECONDS)
        writer.transport.abort()
