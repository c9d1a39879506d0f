"""Serves the routes until `stop` is set."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn

from service.errors import Invalid
from service.settings import HttpSettings
from service.store.database import Pool
from service.store.queries import Queries
from service.web.probes import Probes
from service.web.routes import Routes

log = structlog.get_logger(__name__)


class _SignalFreeServer(uvicorn.Server):
    """Leaves the signals to the application."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening(settings: HttpSettings) -> socket.socket:
    """A bound socket; port 0 takes any free one. Raises Invalid when the port is taken."""
    # The protocol is named so that asyncio turns Nagle's delay off.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as exc:
        found.close()
        raise Invalid(
            f"FL_HTTP__PORT: {settings.host}:{settings.port} can't be used ({exc.strerror}); "
            "choose another, or 0 for any free one"
        ) from exc
    return found


async def serve(settings: HttpSettings, pool: Pool, probes: Probes, stop: asyncio.Event) -> None:
    """Until `stop` is set. The address is logged as `web_listens`."""
    sock = listening(settings)
    host, port = sock.getsockname()[:2]
    config = uvicorn.Config(
        Routes(Queries(pool), probes).app(),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    server = _SignalFreeServer(config)
    log.info("web_listens", url=f"http://{host}:{port}")
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="web")
    await stop.wait()
    server.should_exit = True
    await serving
