"""All steps of a process, put together: which loops run, what wakes them, and how they end.

`Crew.run` returns when `stop` is set and the work under way has ended or its grace is over. Jobs that are
put down then are found by their leases; nothing here has to be saved. Loops per net come and go with the
registry.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from service.domain.job import Job
from service.domain.vocabulary import JobState
from service.errors import Transient
from service.steps import rescue
from service.steps.claim import Claim
from service.steps.clean import clean
from service.steps.collect import Collect
from service.steps.doubts import Doubts
from service.steps.kit import Bells, Kit, poll_lease
from service.steps.net_status import NetStatus
from service.steps.pace import Pace
from service.steps.ports import Bundles, Nets, Reports, Store
from service.steps.reconcile import Reconcile
from service.steps.runner import Loop, OnStep, Tasks, no_account
from service.steps.stop import Stopper
from service.steps.submit import Submit
from service.steps.sweep import Sweep
from service.steps.taking import Taking

log = structlog.get_logger(__name__)

Step = Callable[[], Awaitable[float | None]]


class Crew:
    """See the module. `schedule` claims, prepares and submits; `reconcile` does everything else.

    `bells` may share its events with whoever commits work for the steps; `holder` is this process's name
    in leases, never used twice.
    """

    def __init__(
        self,
        store: Store,
        nets: Nets,
        bundles: Bundles,
        reports: Reports,
        pace: Pace,
        *,
        holder: str,
        bells: Bells | None = None,
        on_step: OnStep = no_account,
        schedule: bool = True,
        reconcile: bool = True,
    ) -> None:
        self.kit = Kit(
            store, nets, bundles, reports, pace, holder=holder, bells=bells, on_step=on_step
        )
        self._schedule = schedule
        self._reconcile = reconcile
        self._loops: list[Loop] = []
        self._per_net: dict[str, tuple[list[Loop], list[asyncio.Task[None]]]] = {}
        self._registry_version = -1
        self._followed = asyncio.Event()
        self._driving = Tasks("drive", pace.workers, on_step)
        self._stopping = Tasks("stop", pace.workers, on_step)
        self._collecting = Tasks("collect", pace.workers, on_step)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, then at most the grace. Errors of steps stay within."""
        kit = self.kit
        renewing = asyncio.create_task(self._keep_leases(), name="renew leases")
        watching = self._loop("registry", self._follow, kit.pace.registry_seconds)
        tasks = [asyncio.create_task(watching.run(kit.closing), name="registry")]
        first = asyncio.create_task(self._followed.wait())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({first, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for loop in self._make_loops():
                tasks.append(asyncio.create_task(loop.run(kit.closing), name=loop.name))
            await stopped
        finally:
            first.cancel()
            stopped.cancel()
            await self._end(tasks)
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        """Let the loops finish their turn and the work its grace; give the nets' leases back."""
        kit = self.kit
        kit.closing.set()
        per_net = [task for _, running in self._per_net.values() for task in running]
        for loop in (*self._loops, *(lo for loops, _ in self._per_net.values() for lo in loops)):
            loop.wake.set()
        left = await asyncio.gather(
            _within(kit.pace.grace_seconds, [*tasks, *per_net]),
            *(
                work.drain(kit.pace.grace_seconds)
                for work in (self._driving, self._stopping, self._collecting)
            ),
        )
        if sum(left):
            log.warning("work_left_behind", loops=left[0], jobs=sum(left[1:]))
        for net in self._per_net:
            with contextlib.suppress(Transient):
                await kit.store.lease(poll_lease(net), kit.holder, 0.0)

    async def _keep_leases(self) -> None:
        """Also while the process ends, so that the work under way may end well."""
        never = asyncio.Event()
        pause = self.kit.pace.renew_seconds
        loop = Loop("renew", self._renew, pause=pause, most=pause, on_step=self.kit.on_step)
        await loop.run(never)

    async def _renew(self) -> float | None:
        await self.kit.leases.renew()
        return None

    # --- the loops --------------------------------------------------------------------------------

    def _loop(self, name: str, step: Step, pause: float, bell: asyncio.Event | None = None) -> Loop:
        loop = Loop(name, step, pause=pause, wake=bell, on_step=self.kit.on_step)
        self._loops.append(loop)
        return loop

    def _make_loops(self) -> list[Loop]:
        made = len(self._loops)
        stopper = Stopper(self.kit)
        submit = Submit(self.kit, stopper)
        driving = self._taking(rescue.DRIVEN, submit.drive, self._driving, self.kit.bells.claim)
        if self._schedule:
            claim = Claim(self.kit, driving, self._driving)
            self._loop("claim", claim.step, self.kit.pace.claim_poll_seconds, self.kit.bells.claim)
        if self._reconcile:
            self._upkeep(driving, stopper)
        return self._loops[made:]

    def _upkeep(self, driving: Taking, stopper: Stopper) -> None:
        kit, pace, bells = self.kit, self.kit.pace, self.kit.bells
        stops = self._taking({JobState.STOPPING}, stopper.take, self._stopping, bells.stop)
        collect = Collect(kit)
        collects = self._taking(
            {JobState.COLLECTING}, collect.take, self._collecting, bells.collect
        )
        sweep = Sweep(kit)
        self._loop("rescue", driving.step, pace.sweep_seconds, bells.rescue)
        self._loop("stop", stops.step, pace.claim_poll_seconds, bells.stop)
        self._loop("collect", collects.step, pace.claim_poll_seconds, bells.collect)
        self._loop("feed_parked", sweep.feed_parked, pace.sweep_seconds)
        self._loop("review_due", sweep.review_due, pace.sweep_seconds)
        self._loop("stop_models", sweep.stop_models, pace.sweep_seconds)
        self._loop("tell_waiting", sweep.tell_waiting, pace.sweep_seconds * 5)
        self._loop("clean", partial(clean, kit), pace.clean_seconds)

    def _taking(
        self,
        states: set[JobState] | frozenset[JobState],
        work: Callable[[Job], Coroutine[Any, Any, None]],
        tasks: Tasks,
        bell: asyncio.Event,
    ) -> Taking:
        return Taking(self.kit, states, work, partial(rescue.broke, self.kit), tasks, bell)

    # --- the nets ---------------------------------------------------------------------------------

    async def _follow(self) -> float | None:
        """Take over the registry when its version changed; loops for new nets, none for gone ones."""
        registry = await self.kit.store.registry()
        if registry.version != self._registry_version or not self._followed.is_set():
            self.kit.nets.follow(registry)
            self._registry_version = registry.version
            if self._reconcile:
                for name in registry.nets.keys() - self._per_net.keys():
                    self._add_net(name)
                for name in self._per_net.keys() - registry.nets.keys():
                    await self._drop_net(name)
            self.kit.bells.news()
            self._followed.set()
        return None

    def _add_net(self, name: str) -> None:
        kit, pace = self.kit, self.kit.pace
        looks, lists = asyncio.Event(), asyncio.Event()
        kit.bells.looks[name], kit.bells.nets[name] = looks, lists
        on_step = kit.on_step
        idle, slow = pace.idle_poll_seconds, max(pace.settle_seconds, pace.fence_wait_seconds)
        loops = [
            Loop("net_status", NetStatus(kit, name).step, pause=idle, wake=looks, on_step=on_step),
            Loop("reconcile", Reconcile(kit, name).step, pause=idle, wake=lists, on_step=on_step),
            Loop("doubts", Doubts(kit, name).step, pause=slow, on_step=on_step),
        ]
        tasks = [
            asyncio.create_task(loop.run(kit.closing), name=f"{loop.name} {name}") for loop in loops
        ]
        self._per_net[name] = (loops, tasks)

    async def _drop_net(self, name: str) -> None:
        loops, tasks = self._per_net.pop(name)
        self.kit.bells.looks.pop(name, None)
        self.kit.bells.nets.pop(name, None)
        for loop in loops:
            loop.end()
        await _within(self.kit.pace.grace_seconds, tasks)


async def _within(seconds: float, tasks: list[asyncio.Task[None]]) -> int:
    """Wait for the tasks' end; cancel what is left after `seconds`. Returns how many those were."""
    if not tasks:
        return 0
    _, left = await asyncio.wait(tasks, timeout=seconds)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return len(left)
