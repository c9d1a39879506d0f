"""A run's log file: the engine's lines and what the sites print, each marked with its site.

Promise: the file never grows beyond its bound, however much a trainer prints (what follows is
drained and dropped); the tail can be read while the run is in progress.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from service.fl_server.runtime import RunLog

MAX_BYTES: Final = 8 * 2**20
_MAX_LINE: Final = 4_000
_NOT_TEXT: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class LogFile:
    """The log of one run, appended to by one process."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._left = max_bytes - (path.stat().st_size if path.exists() else 0)
        self._file = path.open("ab", buffering=0)

    def line(self, text: str, who: str = "engine") -> None:
        """Append one line, cut to 4,000 characters, without terminal codes."""
        if self._left <= 0:
            return
        now = datetime.now(UTC).strftime("%H:%M:%S")
        clean = _NOT_TEXT.sub("", text)[:_MAX_LINE]
        raw = f"{now} {who} | {clean}\n".encode("utf-8", "replace")
        self._left -= len(raw)
        if self._left <= 0:
            raw = f"{now} engine | the log is full: nothing more is kept\n".encode()
        self._file.write(raw)

    async def follow(self, stream: asyncio.StreamReader, who: str) -> None:
        """Append every line of a site's output until it ends."""
        rest = b""
        while chunk := await stream.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MAX_LINE:
                lines.append(rest)
                rest = b""
            for line in lines:
                if line.strip():
                    self.line(line.decode("utf-8", "replace").rstrip("\r"), who)
        if rest.strip():
            self.line(rest.decode("utf-8", "replace"), who)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def tail(path: Path, max_chars: int) -> RunLog:
    """The last `max_chars` characters of a log; empty when there is none yet."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - 4 * max_chars))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return RunLog("", truncated=False)
    return RunLog(text[-max_chars:], truncated=size > 4 * max_chars or len(text) > max_chars)
