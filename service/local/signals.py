"""How a command that has started something ends: TERM and a closed terminal unwind it like Ctrl-C.

Promises that the clean-up runs once and whole: a second TERM or hangup is ignored, and what is printed to
a terminal that is gone harms nothing. What breaks it: SIGKILL, and a second Ctrl-C outside `shielded`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
T = TypeVar("T")

# The work of `finish`: torn out of a running loop, its tasks would be destroyed half-way.
_working: list[asyncio.Task[Any]] = []


@contextmanager
def ends_on_terminate() -> Iterator[None]:
    """Inside, TERM and HUP raise KeyboardInterrupt, or cancel what `finish` runs. `nohup` is respected."""
    terminals = [number for number in (0, 1, 2) if _is_terminal(number)]

    def unwind(number: int, _: FrameType | None) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGHUP:
            _leave(terminals)
        if _working:
            task = _working[-1]
            task.get_loop().call_soon_threadsafe(task.cancel)
            return
        raise KeyboardInterrupt

    handled = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handled.append(signal.SIGHUP)
    before = {number: signal.signal(number, unwind) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(coroutine: Coroutine[Any, Any, T], run: Callable[..., Any] = asyncio.run) -> T:
    """Run it to its end, by `run`. Raises KeyboardInterrupt, after its own clean-up, when a signal
    cancelled it."""

    async def noted() -> T:
        task = asyncio.current_task()
        assert task is not None
        _working.append(task)
        try:
            found = await coroutine
        finally:
            _working.remove(task)
        if task.cancelling():
            # The signal came with the last step: nobody noticed, but it has to count.
            raise asyncio.CancelledError
        return found

    try:
        ended: T = run(noted())
        return ended
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextmanager
def shielded() -> Iterator[None]:
    """Another signal must not leave half of it running."""
    numbers = (signal.SIGINT, *_ENDING)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_terminal(number: int) -> bool:
    try:
        return os.isatty(number)
    except OSError:
        return False


def _leave(terminals: list[int]) -> None:
    """Writing to a terminal that is gone is an error, in the middle of the clean-up."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in terminals:
        os.dup2(nowhere, number)
    os.close(nowhere)
