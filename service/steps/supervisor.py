"""All steps of a process, put together: which loops run, what wakes them, and how they end.

`StepSupervisor.run` returns when `stop` is set and the work under way has ended or its grace is over. Jobs
that are released then are found by their leases; nothing here has to be saved. Loops per net come and go with
the registry.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from service.domain.enums import JobState
from service.domain.job import Job
from service.errors import Transient
from service.steps import rescue
from service.steps.claim import ClaimStep
from service.steps.collect import CollectStep
from service.steps.context import StepContext, Wakeups, poll_lease
from service.steps.maintenance import Maintenance
from service.steps.net_status import NetStatusStep
from service.steps.options import StepOptions
from service.steps.ports import BundleStore, JobStore, NetClients, ReportProgress
from service.steps.reconcile import ReconcileStep
from service.steps.retention import apply_retention
from service.steps.runner import Loop, OnStep, Tasks, no_metrics
from service.steps.stop import StopStep
from service.steps.submit import SubmitStep
from service.steps.takeover import LeasePuller
from service.steps.unresolved import UnresolvedSubmissions

log = structlog.get_logger(__name__)

Step = Callable[[], Awaitable[float | None]]


@dataclass(frozen=True, slots=True)
class _NetLoops:
    """The loops of one net, and the tasks in which they run."""

    loops: list[Loop]
    tasks: list[asyncio.Task[None]]
    draining: bool


class StepSupervisor:
    """See the module. `schedule` claims, prepares and submits; `reconcile` does everything else.

    `wakeups` may share its events with whoever commits work for the steps; `holder` is this process's name
    in leases, never used twice.
    """

    def __init__(
        self,
        store: JobStore,
        nets: NetClients,
        bundles: BundleStore,
        reports: ReportProgress,
        options: StepOptions,
        *,
        holder: str,
        wakeups: Wakeups | None = None,
        on_step: OnStep = no_metrics,
        schedule: bool = True,
        reconcile: bool = True,
    ) -> None:
        self.context = StepContext(
            store, nets, bundles, reports, options, holder=holder, wakeups=wakeups, on_step=on_step
        )
        self._schedule = schedule
        self._reconcile = reconcile
        self._loops: list[Loop] = []
        self._per_net: dict[str, _NetLoops] = {}
        self._draining: frozenset[str] = frozenset()
        self._registry_version = -1
        self._followed = asyncio.Event()
        self._driving = Tasks("drive", options.workers, share=options.workers, on_step=on_step)
        self._stopping = Tasks("stop", options.workers, on_step=on_step)
        self._collecting = Tasks("collect", options.workers, on_step=on_step)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, then at most the grace. Errors of steps stay within."""
        context = self.context
        renewing = asyncio.create_task(self._keep_leases(), name="renew leases")
        watching = self._loop("registry", self._follow, context.options.registry_seconds)
        tasks = [asyncio.create_task(watching.run(context.closing), name="registry")]
        first = asyncio.create_task(self._followed.wait())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({first, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for loop in self._make_loops():
                tasks.append(asyncio.create_task(loop.run(context.closing), name=loop.name))
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
        context = self.context
        context.closing.set()
        nets = list(self._per_net.values())
        per_net = [task for running in nets for task in running.tasks]
        for loop in (*self._loops, *(loop for running in nets for loop in running.loops)):
            loop.wake.set()
        left = await asyncio.gather(
            _within(context.options.grace_seconds, [*tasks, *per_net]),
            *(
                work.drain(context.options.grace_seconds)
                for work in (self._driving, self._stopping, self._collecting)
            ),
        )
        if sum(left):
            log.warning("work_left_behind", loops=left[0], jobs=sum(left[1:]))
        for net in self._per_net:
            with contextlib.suppress(Transient):
                await context.store.lease(poll_lease(net), context.holder, 0.0)

    async def _keep_leases(self) -> None:
        """Also while the process ends, so that the work under way may end well."""
        never = asyncio.Event()
        pause = self.context.options.renew_seconds
        loop = Loop("renew", self._renew, pause=pause, most=pause, on_step=self.context.on_step)
        await loop.run(never)

    async def _renew(self) -> float | None:
        await self.context.leases.renew()
        return None

    # --- the loops --------------------------------------------------------------------------------

    def _loop(self, name: str, step: Step, pause: float, wake: asyncio.Event | None = None) -> Loop:
        loop = Loop(name, step, pause=pause, wake=wake, on_step=self.context.on_step)
        self._loops.append(loop)
        return loop

    def _make_loops(self) -> list[Loop]:
        made = len(self._loops)
        stopper = StopStep(self.context)
        submit = SubmitStep(self.context, stopper)
        driving = self._puller(
            rescue.DRIVEN, submit.drive, self._driving, self.context.wakeups.claim
        )
        if self._schedule:
            claim = ClaimStep(self.context, driving, self._driving)
            self._loop(
                "claim",
                claim.step,
                self.context.options.claim_poll_seconds,
                self.context.wakeups.claim,
            )
        if self._reconcile:
            self._upkeep(driving, stopper)
        return self._loops[made:]

    def _upkeep(self, driving: LeasePuller, stopper: StopStep) -> None:
        context, options, wakeups = self.context, self.context.options, self.context.wakeups
        stops = self._puller({JobState.STOPPING}, stopper.take, self._stopping, wakeups.stop)
        collect = CollectStep(context)
        collects = self._puller(
            {JobState.COLLECTING}, collect.take, self._collecting, wakeups.collect
        )
        maintenance = Maintenance(context)
        self._loop("rescue", driving.step, options.sweep_seconds, wakeups.rescue)
        self._loop("stop", stops.step, options.claim_poll_seconds, wakeups.stop)
        self._loop("collect", collects.step, options.claim_poll_seconds, wakeups.collect)
        self._loop("resolve_parked", maintenance.resolve_parked, options.sweep_seconds)
        self._loop("review_due", maintenance.review_due, options.sweep_seconds)
        self._loop(
            "review_registry", maintenance.review_registry, options.sweep_seconds, wakeups.registry
        )
        self._loop(
            "stop_models", maintenance.stop_models, options.sweep_seconds, wakeups.model_stops
        )
        self._loop("tell_waiting", maintenance.report_waiting, options.sweep_seconds * 5)
        self._loop("clean", partial(apply_retention, context), options.clean_seconds)

    def _puller(
        self,
        states: set[JobState] | frozenset[JobState],
        work: Callable[[Job], Coroutine[Any, Any, None]],
        tasks: Tasks,
        wake: asyncio.Event,
    ) -> LeasePuller:
        return LeasePuller(
            self.context, states, work, partial(rescue.on_crash, self.context), tasks, wake
        )

    # --- the nets ---------------------------------------------------------------------------------

    async def _follow(self) -> float | None:
        """Take over the registry when its version changed; loops for new nets, none for gone ones, and those
        of a net that left while something of ours is on it until that is over."""
        registry, draining = await self.context.follow()
        if draining.keys() != self._draining:
            log.info("nets_draining", nets=sorted(draining))
        changed = registry.version != self._registry_version or draining.keys() != self._draining
        if changed or not self._followed.is_set():
            self._registry_version = registry.version
            self._draining = frozenset(draining)
            if self._reconcile:
                await self._run_loops(frozenset(registry.nets), self._draining)
            self.context.wakeups.wake_all()
            self._followed.set()
        return None

    async def _run_loops(self, registered: frozenset[str], draining: frozenset[str]) -> None:
        """Loops for exactly these nets; of one that drains nobody asks how it is."""
        for name, running in list(self._per_net.items()):
            if name not in registered | draining or running.draining != (name in draining):
                await self._drop_net(name)
        for name in (registered | draining) - self._per_net.keys():
            self._add_net(name, draining=name in draining)

    def _add_net(self, name: str, *, draining: bool) -> None:
        context, options = self.context, self.context.options
        status_wake, runs_wake = asyncio.Event(), asyncio.Event()
        context.wakeups.status_polls[name], context.wakeups.run_polls[name] = status_wake, runs_wake
        on_step = context.on_step
        idle, slow = (
            options.idle_poll_seconds,
            max(options.settle_seconds, options.fence_wait_seconds),
        )
        loops = [
            Loop(
                "reconcile",
                ReconcileStep(context, name).step,
                pause=idle,
                wake=runs_wake,
                on_step=on_step,
            ),
            Loop("doubts", UnresolvedSubmissions(context, name).step, pause=slow, on_step=on_step),
        ]
        if not draining:
            status = NetStatusStep(context, name)
            loops.append(
                Loop("net_status", status.step, pause=idle, wake=status_wake, on_step=on_step)
            )
        tasks = [
            asyncio.create_task(loop.run(context.closing), name=f"{loop.name} {name}")
            for loop in loops
        ]
        self._per_net[name] = _NetLoops(loops, tasks, draining)

    async def _drop_net(self, name: str) -> None:
        running = self._per_net.pop(name)
        self.context.wakeups.status_polls.pop(name, None)
        self.context.wakeups.run_polls.pop(name, None)
        for loop in running.loops:
            loop.end()
        await _within(self.context.options.grace_seconds, running.tasks)


async def _within(seconds: float, tasks: list[asyncio.Task[None]]) -> int:
    """Wait for the tasks' end; cancel what is left after `seconds`. Returns how many those were."""
    if not tasks:
        return 0
    _, left = await asyncio.wait(tasks, timeout=seconds)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return len(left)
