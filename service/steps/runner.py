"""What every loop needs: a pause that something can end early, patience with a world in the way, and an end.

Promise: an error of one step ends neither its loop nor another one. Transient errors grow the pause, with
jitter; anything else is logged with its trace, counted, and tried again, since a loop that ended would be
a job that nobody drives. When the process is asked to end, each loop finishes the turn it is in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import structlog

from service.clock import Backoff, sleep_or_stop
from service.errors import Permanent, ServiceError, Transient
from service.steps.leases import LeaseLost, clock

log = structlog.get_logger(__name__)

#: Called after every turn with the step's name, the outcome (ok, transient, error) and seconds.
OnStep = Callable[[str, str, float], None]

_LONGEST = 30.0


def no_metrics(step: str, outcome: str, seconds: float) -> None:
    """The `OnStep` of somebody who keeps no metrics."""


class Loop:
    """Runs `step` again and again. The step answers how long to pause, None for the usual pause.

    Setting `wake` ends a pause at once; while the step runs it is remembered.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[float | None]],
        *,
        pause: float,
        wake: asyncio.Event | None = None,
        most: float = _LONGEST,
        on_step: OnStep = no_metrics,
    ) -> None:
        """`pause` and `most` in seconds: between two turns, and at most after errors."""
        self.name = name
        self.wake = wake or asyncio.Event()
        self._step = step
        self._pause = pause
        self._on_step = on_step
        self._backoff = Backoff(min(max(pause, 0.2), 1.0), most, jitter=(0.5, 1.0))
        self._ended = False

    def end(self) -> None:
        """Let the loop end after the turn it is in."""
        self._ended = True
        self.wake.set()

    async def run(self, closing: asyncio.Event) -> None:
        """Until `end` is called, or `closing` is set and `wake` with it."""
        while not closing.is_set() and not self._ended:
            self.wake.clear()
            pause = await self._run_once()
            if pause > 0 and not closing.is_set() and not self._ended:
                await sleep_or_stop(self.wake, pause)
            else:
                await asyncio.sleep(0)

    async def _run_once(self) -> float:
        began, outcome = clock(), "ok"
        try:
            pause = await self._step()
            self._backoff.reset()
            return self._pause if pause is None else pause
        except ServiceError as exc:
            outcome = "transient" if isinstance(exc, Transient) else "error"
            log.warning("step_failed", step=self.name, code=exc.code, error=exc.message)
            return self._backoff.next(exc.retry_after if isinstance(exc, Transient) else None)
        except Exception as exc:
            outcome = "error"
            log.exception("step_broke", step=self.name, error=type(exc).__name__)
            return self._backoff.next()
        finally:
            self._on_step(self.name, outcome, clock() - began)


class Hand:
    """What a piece of work needs while it works: one of its process's few. Whoever waits for a net lays it
    down, so that no net, however slow, keeps another's work from being done."""

    def __init__(self, tasks: Tasks, freed: Callable[[], None] | None = None) -> None:
        """`freed` is called when the last hand that was missing is laid down."""
        self._tasks = tasks
        self._freed = freed
        self.held = False

    def grab(self) -> None:
        """Take it at once, whether or not one is free."""
        if not self.held:
            self.held = True
            self._tasks.hands += 1

    def lay_down(self) -> None:
        if self.held:
            self.held = False
            self._tasks.hands -= 1
            self._tasks.laid_down.set()
            if self._freed is not None and self._tasks.room == 1:
                self._freed()

    async def take_up(self) -> None:
        """Wait until one is free, and take it."""
        while not self.held:
            if self._tasks.room > 0:
                self.grab()
                return
            self._tasks.laid_down.clear()
            await self._tasks.laid_down.wait()


_hand: ContextVar[Hand | None] = ContextVar("hand", default=None)


def lay_hand_down() -> None:
    """The running piece of work waits for a net from here on. Nothing outside of `Tasks`."""
    hand = _hand.get()
    if hand is not None:
        hand.lay_down()


async def take_hand_up() -> None:
    """The running piece of work works from here on. Nothing outside of `Tasks`."""
    hand = _hand.get()
    if hand is not None:
        await hand.take_up()


class Tasks:
    """A bounded set of pieces of work under way, each isolated from the others.

    `limit` bounds those that have a hand, `share` those that are for one net, with or without a hand.
    """

    def __init__(
        self, name: str, limit: int, *, share: int | None = None, on_step: OnStep = no_metrics
    ) -> None:
        self._name = name
        self._limit = limit
        self.share = max(1, limit // 4) if share is None else share
        self._on_step = on_step
        self._running: set[asyncio.Task[None]] = set()
        self._of_net: Counter[str] = Counter()
        self.hands = 0
        self.laid_down = asyncio.Event()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def room(self) -> int:
        """How many hands are free."""
        return self._limit - self.hands

    @property
    def full(self) -> frozenset[str]:
        """Nets with as much under way as one may have."""
        return frozenset(net for net, number in self._of_net.items() if number >= self.share)

    def start(
        self,
        work: Coroutine[Any, Any, None],
        *,
        net: str = "",
        on_crash: Callable[[Exception], Awaitable[None]] | None = None,
        done: Callable[[], None] | None = None,
        **about: str,
    ) -> None:
        """Begin `work` with a hand; `on_crash` gets an error that is a bug, `done` is called at the end."""
        hand = Hand(self, done)
        hand.grab()
        task = asyncio.create_task(self._guarded(work, hand, on_crash, about), name=self._name)
        self._running.add(task)
        self._of_net[net] += 1

        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._of_net[net] -= 1
            hand.lay_down()
            if done is not None:
                done()

        task.add_done_callback(ended)

    async def _guarded(
        self,
        work: Coroutine[Any, Any, None],
        hand: Hand,
        on_crash: Callable[[Exception], Awaitable[None]] | None,
        about: dict[str, str],
    ) -> None:
        began, outcome = clock(), "ok"
        _hand.set(hand)
        try:
            await work
        except LeaseLost:
            log.info("work_released", step=self._name, **about)
        except Transient as exc:
            outcome = "transient"
            log.warning(
                "work_interrupted", step=self._name, code=exc.code, error=exc.message, **about
            )
        except Exception as exc:
            outcome = "error"
            log.exception("work_broke", step=self._name, error=type(exc).__name__, **about)
            if on_crash is not None:
                with contextlib.suppress(Transient, Permanent, LeaseLost):
                    await on_crash(exc)
        finally:
            self._on_step(self._name, outcome, clock() - began)

    async def drain(self, seconds: float) -> int:
        """Wait for what runs, at most `seconds`; then let go of the rest. Returns how many were let go:
        their leases run out, and another instance continues with them."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.gather(*left, return_exceptions=True)
        return len(left)
