"""Processes whose end is seen, whatever they left running.

Promise: after a process's own end `wait` returns within `GRACE_SECONDS` and its pipes are closed,
also when a child of it still holds them; `end_marked` ends what carries a mark in its environment,
which children inherit through new sessions. What breaks the promise: a child that drops its
environment; a system without /proc, where `end_marked` does nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

#: Seconds in which what an ended process wrote may still be read from its pipes.
GRACE_SECONDS: Final = 1.0
_BUFFER: Final = 1 << 16
_PASSES: Final = 5


class _LetsGo(SubprocessStreamProtocol):
    """Closes the pipes a moment after the process's end: asyncio waits for every holder of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(_BUFFER, loop)
        self._own_loop = loop
        self._own: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process runs."""
        self._own = cast("asyncio.SubprocessTransport", transport)
        super().connection_made(transport)

    def process_exited(self) -> None:
        """The process ended; its pipes perhaps not."""
        super().process_exited()
        self._own_loop.call_later(GRACE_SECONDS, self._let_go)

    def _let_go(self) -> None:
        assert self._own is not None
        self._own.close()


async def start(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], inherited: Sequence[int] = ()
) -> Process:
    """Start a process in a session of its own, with nothing on its standard input and one pipe for
    both outputs. It keeps the descriptors `inherited`.

    Raises:
        OSError: it can't be started.
    """
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: _LetsGo(loop),
        *command,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        cwd=cwd,
        env=env,
        pass_fds=inherited,
        start_new_session=True,
    )
    return Process(transport, protocol, loop)


def end_marked(name: str, value: str) -> int:
    """End every process of ours that was started with `name=value`; how many. Blocks briefly."""
    mark = os.fsencode(f"{name}={value}")
    ended: set[int] = set()
    for _ in range(_PASSES):  # a process may start another while we look
        found = _end_once(mark)
        if not found:
            break
        ended |= found
    return len(ended)


def _end_once(mark: bytes) -> set[int]:
    ended = set()
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid == os.getpid():
            continue
        try:
            # Held open, so that the number can't become another process's in between.
            process = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                ended.add(pid)
        except OSError:
            continue
        finally:
            os.close(process)
    return ended
