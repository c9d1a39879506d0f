"""What every step is given: the four ports, its options, the held jobs, and the wake-ups of other loops.

`apply` is the steps' way to the one write path: it repeats what the database did not confirm for as long
as the lease is held, which is safe since every command names attempt and token, and it releases the work
when the answer is that somebody else holds it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog

from service.clock import Backoff, sleep_or_stop
from service.domain.commands import Command, RecordRun
from service.domain.decision import Decision, Outcome
from service.domain.enums import TERMINAL, ReasonCode
from service.domain.job import Job
from service.domain.registry import Net, Registry
from service.domain.values import Reason
from service.errors import ServiceError, Transient
from service.steps.leases import HeldJob, LeaseLost, Leases, clock
from service.steps.net_cache import NetCache
from service.steps.options import StepOptions
from service.steps.ports import BundleStore, JobStore, NetClient, NetClients, ReportProgress
from service.steps.runner import OnStep, no_metrics

log = structlog.get_logger(__name__)

#: The code of the store's Transient for a second open submission on one net.
NET_IN_DOUBT = "net_in_doubt"


@dataclass(slots=True)
class Wakeups:
    """Each wakes one loop. `run_polls`: one for each net's reconciler, `status_polls` for each net's
    poller."""

    claim: asyncio.Event = field(default_factory=asyncio.Event)
    rescue: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    collect: asyncio.Event = field(default_factory=asyncio.Event)
    model_stops: asyncio.Event = field(default_factory=asyncio.Event)
    registry: asyncio.Event = field(default_factory=asyncio.Event)
    run_polls: dict[str, asyncio.Event] = field(default_factory=dict)
    status_polls: dict[str, asyncio.Event] = field(default_factory=dict)

    def wake_all(self) -> None:
        """Something was written that any step may be waiting for."""
        for wake in (self.claim, self.stop, self.collect):
            wake.set()

    def poll_now(self, net: str) -> None:
        """List this net's runs at once."""
        if net in self.run_polls:
            self.run_polls[net].set()

    def refresh_status(self, net: str) -> None:
        """Poll this net's adapter and clients at once."""
        if net in self.status_polls:
            self.status_polls[net].set()


def poll_lease(net: str) -> str:
    """The named lease of whoever polls this net."""
    return f"poll:{net}"


def reason_from(exc: ServiceError, otherwise: str) -> Reason:
    """An error as the reason of a decision: its own code where that is one, else `otherwise`."""
    return Reason(exc.code if exc.code in set(ReasonCode) else otherwise, exc.message)


class StepContext:
    """See the module. `holder` names this process in leases, never used twice."""

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
    ) -> None:
        self.store = store
        self.nets = nets
        self.bundles = bundles
        self.reports = reports
        self.options = options
        self.holder = holder
        self.on_step = on_step
        self.leases = Leases(store, options)
        self.net_cache = NetCache(options.settle_seconds)
        self.wakeups = wakeups or Wakeups()
        self.closing = asyncio.Event()
        self.list_pauses: dict[str, float] = {}  #: between two lists of a net now, in seconds

    async def may_poll(self, net: str) -> bool:
        """Take or keep the lease of whoever polls this net. It outlives two pauses of the net's lists
        and no more: a net with runs must not go unwatched for long after its watcher died."""
        seconds = max(3.0, 2 * self.list_pauses.get(net, self.options.idle_poll_seconds))
        return await self.store.lease(poll_lease(net), self.holder, seconds)

    def usual_pause(self, client: NetClient) -> float:
        """Seconds between two polls of a net, and between two lists of one without runs."""
        return client.poll_seconds or self.options.idle_poll_seconds

    async def pause(self, seconds: float) -> None:
        """Wait, with some jitter. Raises LeaseLost when the process is asked to end meanwhile: whoever
        takes the work over will not have to wait for us."""
        await sleep_or_stop(self.closing, seconds * random.uniform(0.8, 1.2))
        if self.closing.is_set():
            raise LeaseLost("the process ends")

    def retry_pauses(self) -> Backoff:
        """The pauses of a call that is made again in place; `pause` adds the jitter."""
        return Backoff(self.options.retry_seconds, self.options.retry_most_seconds)

    async def client(self, net: str) -> NetClient:
        """The net's client; a registry that changed a moment ago is read first.

        Raises errors.Transient when the net left the registry.
        """
        try:
            return self.nets.client(net)
        except Transient:
            await self.follow()
            return self.nets.client(net)

    async def follow(self) -> tuple[Registry, Mapping[str, Net]]:
        """Let the clients follow the registry as it is now, and the nets that drain beside it. Returns both.

        Raises errors.Transient when the database is unavailable.
        """
        registry = await self.store.registry()
        gone = await self.store.draining()
        draining = {name: net for name, net in gone.items() if name not in registry.nets}
        self.nets.follow(replace(registry, nets={**draining, **registry.nets}))
        return registry, draining

    async def apply(self, held: HeldJob, command: Command) -> Decision:
        """Apply a command of the held job; see the module.

        Raises LeaseLost, and errors.Transient with NET_IN_DOUBT.
        """
        pauses = self.retry_pauses()
        while True:
            try:
                decision = (await self.store.apply([command]))[0]
            except Transient as exc:
                if exc.code == NET_IN_DOUBT:
                    raise
                log.warning("not_confirmed", job_id=str(held.job_id), error=exc.message)
                await self.pause(pauses.next())
                held.require()
                continue
            if decision.outcome is Outcome.LEASE_LOST:
                held.lost = True
                raise LeaseLost(f"job {held.job_id} is held by somebody else, or over")
            return decision

    async def refresh(self, held: HeldJob) -> Job:
        """The job as it stands now. Raises LeaseLost when it is over, or not ours any more."""
        job = await self.store.get(held.job_id)
        if job is None or job.state in TERMINAL or job.lease is None:
            raise LeaseLost(f"job {held.job_id} is over, or nobody holds it")
        if job.lease.token != held.token:
            raise LeaseLost(f"job {held.job_id} is held by somebody else")
        held.job = job
        return job

    async def record_run(self, command: RecordRun) -> Decision:
        """Record an adapter's statement about a run, whatever happened to the job and its lease meanwhile.

        Tries for as long as a lost answer would be looked for. Raises errors.Transient after that.
        """
        until = clock() + self.options.submit_unknown_seconds
        pauses = self.retry_pauses()
        while True:
            try:
                return (await self.store.apply([command]))[0]
            except Transient as exc:
                if clock() >= until:
                    raise
                log.warning("not_confirmed", job_id=str(command.job_id), error=exc.message)
            await asyncio.sleep(pauses.next())
