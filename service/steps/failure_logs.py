"""Why a run failed, in its own words: the end of its log, asked for once its adapter lists it as failed.

Promise: only a run that is over is asked about (a public adapter blocks for a minute on a pending one); each
once; nobody waits for an answer longer than its time, and no other run of the net waits for it at all. The
words are bounded, on one line, without control characters. Without a log the failure is told without one.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

import structlog

from service.domain.observed import Run
from service.errors import Permanent, Transient
from service.steps.leases import clock
from service.steps.ports import NetClient

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 4
_LINES: Final = 12
_LINE: Final = 240
_MOST: Final = 1_500
#: The last line of a Python traceback: an error's name, and what it says.
_ERROR: Final = re.compile(r"^[\w.]*(Error|Exception|Exit|Interrupt|Failure)\b.*")
_EMPTY: Final = frozenset({"", "(empty)"})


@dataclass(slots=True)
class _Asked:
    """A question under way, or answered."""

    since: float
    task: asyncio.Task[str | None]


class FailureLogs:
    """Those of one net. `ready` is set whenever an answer has come."""

    def __init__(self, seconds: float, ready: asyncio.Event | None = None) -> None:
        """`seconds`: how long an end may be held back for its log."""
        self._seconds = seconds
        self._ready = ready
        self._asked: dict[str, _Asked] = {}
        self._running: set[asyncio.Task[str | None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def cause(self, client: NetClient, run: Run) -> tuple[bool, str | None]:
        """(whether the wait is over, what is known of the failure). Asks for the log the first time."""
        asked = self._asked.get(run.run_id)
        if asked is None:
            task = asyncio.create_task(self._ask(client, run.run_id), name="failure log")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            asked = self._asked[run.run_id] = _Asked(clock(), task)
        if asked.task.done():
            broke = asked.task.cancelled() or asked.task.exception() is not None
            return True, told(run.details, None if broke else asked.task.result())
        # A question that is given up is never cut off: the call ends by its own time limit.
        over = clock() - asked.since >= self._seconds
        return over, run.details

    def forget(self, run_ids: set[str]) -> None:
        """Drop the answers about all runs but these."""
        for run_id in self._asked.keys() - run_ids:
            del self._asked[run_id]

    async def _ask(self, client: NetClient, run_id: str) -> str | None:
        try:
            async with self._slots:
                return await client.logs(run_id)
        except (Transient, Permanent) as exc:
            log.info("failure_log_not_had", net=client.net.name, run=run_id, error=exc.message)
            return None
        finally:
            if self._ready is not None:
                self._ready.set()


def told(details: str | None, text: str | None) -> str | None:
    """A failure in a line: what the list says of it, the error that ended its log, the log's last lines."""
    lines = [" ".join(_plain(line).split())[:_LINE] for line in (text or "").splitlines()]
    lines = [line for line in lines if line not in _EMPTY]
    parts = [details] if details else []
    errors = [line for line in lines if _ERROR.match(line)]
    if errors:
        parts.append(errors[-1])
    tail = " | ".join(lines[-_LINES:])
    if tail:
        whole = "; ".join(parts)
        parts.append("log: …" + tail[-max(_MOST - len(whole) - 8, 0) :])
    return "; ".join(parts)[:_MOST] or None


def _plain(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)
