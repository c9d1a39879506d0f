"""A TCP proxy before a net: passes every byte on, and writes down when each submit arrived.

It reads no more than the first line and headers of a request whose start lies in one piece, which is how
the service's client sends them. It costs both ways a few tens of microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from typing import Final

_SUBMIT: Final = b"POST /submit_job/"
_JOB: Final = re.compile(rb"\r\nfl-job-id: *([0-9a-f-]{36})\r\n", re.IGNORECASE)
_CHUNK: Final = 65_536


class TcpProxy:
    """`submits` gets the time (monotonic seconds) of each job's first submit; wait with `submitted`."""

    def __init__(self) -> None:
        self.url = ""
        self.target = ("127.0.0.1", 0)
        self._submits: dict[str, asyncio.Future[float]] = {}
        self._open: set[asyncio.Task[None]] = set()

    async def submitted(self, job_id: str, seconds: float) -> float:
        """When the submit of this job arrived. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            return await self._future(job_id)

    def _future(self, job_id: str) -> asyncio.Future[float]:
        if job_id not in self._submits:
            self._submits[job_id] = asyncio.get_running_loop().create_future()
        return self._submits[job_id]

    def _look(self, piece: bytes) -> None:
        if not piece.startswith(_SUBMIT):
            return
        now = time.monotonic()
        named = _JOB.search(piece)
        if named is not None:
            future = self._future(named.group(1).decode())
            if not future.done():
                future.set_result(now)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        there, back = await asyncio.open_connection(*self.target)

        async def pump(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, look: bool
        ) -> None:
            while piece := await source.read(_CHUNK):
                if look:
                    self._look(piece)
                sink.write(piece)
                await sink.drain()

        tasks = [
            asyncio.create_task(pump(reader, back, True)),
            asyncio.create_task(pump(there, writer, False)),
        ]
        self._open.update(tasks)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._open.difference_update(tasks)
            back.close()
            writer.close()

    def close(self) -> None:
        """End all connections."""
        for task in self._open:
            task.cancel()


@contextlib.asynccontextmanager
async def tcp_proxy() -> AsyncIterator[TcpProxy]:
    """A proxy, listening on a free port; its target is set before the first call."""
    made = TcpProxy()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    try:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made
    finally:
        server.close()
        made.close()
