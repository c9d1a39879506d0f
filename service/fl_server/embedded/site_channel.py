"""The site's end of its channel to the server, kept apart from everything a trainer may touch.

Promise: the channel is no standard stream, has a descriptor that no program asks for, and belongs
to this process alone: a forked child loses it at its birth, and a child that comes back from the
trainer's function is ended instead of answering. Frames are written by a thread of their own,
which no signal handler of the trainer can interrupt; the two threads are none that `threading`
lists. What breaks the promise: closing every descriptor there is; that is seen, and ends the
process with `CHANNEL_LOST`.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import resource
import signal
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from service.fl_server.embedded import frames

#: Exit codes that the server has a text for.
CHANNEL_LOST: Final = 76
BROKEN: Final = 70
_MOST_DESCRIPTORS: Final = 4_096
_KEPT_FREE: Final = 32

Request = tuple[frames.Stamp, frames.Message, bytes]


def out_of_the_way(descriptor: int) -> int:
    """A copy of a descriptor near the upper end, closed in programs that are started."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, _MOST_DESCRIPTORS)
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(3, top - _KEPT_FREE))


class Channel:
    """Requests in, answers out, for one process."""

    def __init__(self, descriptor: int) -> None:
        """Take over the socket `descriptor`."""
        self._descriptor = out_of_the_way(descriptor)
        os.close(descriptor)
        self._identity = self._seen()
        self._process = os.getpid()
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._answers: SimpleQueue[tuple[bytes, bytes]] = SimpleQueue()
        os.register_at_fork(after_in_child=self._let_go)
        _thread.start_new_thread(self._read_on, ())
        _thread.start_new_thread(self._write_on, ())

    @property
    def here(self) -> bool:
        """Whether this is still the site's own process and not one that it forked."""
        return os.getpid() == self._process

    def next(self) -> Request:
        """The next request; waits. What a signal handler of the trainer raises meanwhile is lost."""
        while True:
            with suppress(BaseException):
                return self._requests.get()

    def answer(self, parts: tuple[bytes, bytes]) -> None:
        """Send an encoded frame; ends this process when it is a forked one."""
        if not self.here:
            os._exit(0)
        self._answers.put(parts)

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes of the requests."""
        return os.read(self._descriptor, min(size, 1 << 20))

    def _read_on(self) -> None:
        """Read while the trainer computes, so that the server's end is seen at once."""
        try:
            while self._seen() == self._identity:
                self._requests.put(frames.read(self))
        except (frames.Closed, ConnectionError):
            # What the trainer may have started goes with its process group.
            os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(0)
        except OSError:
            pass
        os._exit(CHANNEL_LOST)

    def _write_on(self) -> None:
        while True:
            for part in self._answers.get():
                rest = memoryview(part)
                while rest:
                    if self._seen() != self._identity:
                        os._exit(CHANNEL_LOST)
                    try:
                        rest = rest[os.write(self._descriptor, rest[: 1 << 24]) :]
                    except ConnectionError:
                        return  # the server is gone; the reader ends the process
                    except OSError:
                        os._exit(CHANNEL_LOST)

    def _seen(self) -> tuple[int, int] | None:
        """Which file the descriptor stands for now."""
        try:
            found = os.fstat(self._descriptor)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _let_go(self) -> None:
        """In a forked child."""
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1
