"""What a trainer prints, and the site's own words to the run's log beside it.

Promise: the site writes by a descriptor of its own, so that a trainer may replace, close, redirect
or tee its standard streams and neither the site nor the cause of a failure suffers; between two
calls closed streams are opened again. Standard output and error are the log's pipe, line by line,
in UTF-8.
"""

from __future__ import annotations

import faulthandler
import io
import os
import sys
from contextlib import suppress
from typing import Final

from service.fl_server.embedded.site_channel import out_of_the_way

_NAMES: Final = (("stdout", 1), ("stderr", 2))


class Streams:
    """The standard streams of a site's process."""

    def __init__(self) -> None:
        self._log = out_of_the_way(2)
        self._first = [sys.stdout, sys.stderr]
        for stream in self._first:
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
        # A crash inside a library shows in the log where it happened.
        faulthandler.enable(self._log)

    def say(self, text: str) -> None:
        """Write a text to the run's log."""
        rest = text.encode("utf-8", "replace") + b"\n"
        with suppress(OSError):
            while rest:
                rest = rest[os.write(self._log, rest) :]

    def settle(self) -> None:
        """After a call: what is still buffered goes out, and closed streams are opened again."""
        for stream in self._first:
            with suppress(BaseException):
                stream.flush()
        for name, descriptor in _NAMES:
            with suppress(BaseException):
                getattr(sys, name).flush()
            self._open(name, descriptor)
        with suppress(OSError):
            _reopen_input()

    def _open(self, name: str, descriptor: int) -> None:
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.dup2(self._log, descriptor, inheritable=True)
        closed = getattr(sys, name, None) is None
        with suppress(BaseException):
            closed = closed or getattr(sys, name).closed is True
        if closed:
            fresh = os.fdopen(
                descriptor, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False
            )
            setattr(sys, name, fresh)


def _reopen_input() -> None:
    """A closed standard input is empty again, and its number no file of the trainer's next."""
    try:
        os.fstat(0)
    except OSError:
        nothing = os.open(os.devnull, os.O_RDONLY)
        if nothing != 0:
            os.dup2(nothing, 0)
            os.close(nothing)
