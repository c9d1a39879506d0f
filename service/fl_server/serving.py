"""Listening: a socket on a free or given port, uvicorn on it, and the signal when it is ready.

Promise: `serve` gives the URL only when requests are answered, leaves on SIGTERM or SIGINT with the
runs kept on disk, and `serving` does the same inside a test.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.errors import Invalid


def listening(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any free one.

    Raises:
        Invalid: the address can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left open asyncio doesn't turn Nagle's algorithm off: 40 ms an answer.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as exc:
        bound.close()
        raise Invalid(f"can't listen on {host}:{port}: {exc.strerror}") from exc
    return bound


def url_of(bound: socket.socket) -> str:
    """The base URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _UvicornServer(uvicorn.Server):
    """Signals are the caller's: uvicorn would end the process by the signal it got."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp) -> uvicorn.Server:
    return _UvicornServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="on",
            http="h11",
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
    )


async def _started(server: uvicorn.Server, task: asyncio.Task[None]) -> bool:
    while not server.started:
        if task.done():
            return False
        await asyncio.sleep(0.005)
    return True


async def serve(app: ASGIApp, bound: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` gets the URL once."""
    server = _server(app)

    def leave() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    if await _started(server, task):
        ready(url_of(bound))
    await task


@asynccontextmanager
async def serving(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve while the block runs, without touching the process's signals; the URL."""
    bound = listening(host, port)
    server = _server(app)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        await _started(server, task)
        yield url_of(bound)
    finally:
        server.should_exit = True
        await task
        bound.close()
