"""What every step is given: the four ports, its pace, what is in hand, and the bells that wake others.

`apply` is the steps' way to the one write path: it repeats what the database did not confirm for as long
as the lease is held, which is safe since every command names attempt and token, and it puts the work down
when the answer is that somebody else holds it.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import structlog

from service.domain.commands import Command, KnowRun
from service.domain.decision import Decision, Outcome
from service.domain.job import Job
from service.domain.values import Why
from service.domain.vocabulary import TERMINAL, Reason
from service.errors import ServiceError, Transient
from service.steps.leases import Held, LeaseLost, Leases, clock
from service.steps.pace import Pace
from service.steps.ports import Bundles, NetClient, Nets, Reports, Store
from service.steps.runner import OnStep, no_account, wait
from service.steps.seen import Seen

log = structlog.get_logger(__name__)

#: The code of the store's Transient for a second open submission on one net.
NET_IN_DOUBT = "net_in_doubt"


@dataclass(slots=True)
class Bells:
    """Each wakes one loop. `nets`: one for each net's reconciler, `looks` for each net's poller."""

    claim: asyncio.Event = field(default_factory=asyncio.Event)
    rescue: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    collect: asyncio.Event = field(default_factory=asyncio.Event)
    nets: dict[str, asyncio.Event] = field(default_factory=dict)
    looks: dict[str, asyncio.Event] = field(default_factory=dict)

    def news(self) -> None:
        """Something was written that any step may be waiting for."""
        for bell in (self.claim, self.stop, self.collect):
            bell.set()

    def nudge(self, net: str) -> None:
        """Look at this net's list at once."""
        if net in self.nets:
            self.nets[net].set()

    def look(self, net: str) -> None:
        """Ask this net's adapter and clients at once."""
        if net in self.looks:
            self.looks[net].set()


def poll_lease(net: str) -> str:
    """The named lease of whoever looks at this net."""
    return f"poll:{net}"


def why_of(exc: ServiceError, otherwise: str) -> Why:
    """An error as the reason of a decision: its own code where that is one, else `otherwise`."""
    return Why(exc.code if exc.code in set(Reason) else otherwise, exc.message)


class Kit:
    """See the module. `holder` names this process in leases, never used twice."""

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
    ) -> None:
        self.store = store
        self.nets = nets
        self.bundles = bundles
        self.reports = reports
        self.pace = pace
        self.holder = holder
        self.on_step = on_step
        self.leases = Leases(store, pace)
        self.seen = Seen(pace.settle_seconds)
        self.bells = bells or Bells()
        self.closing = asyncio.Event()
        self.list_pauses: dict[str, float] = {}  #: between two lists of a net now, in seconds

    async def may_poll(self, net: str) -> bool:
        """Take or keep the lease of whoever looks at this net. It outlives two pauses of the net's lists
        and no more: a net with runs must not go unwatched for long after its watcher died."""
        seconds = max(3.0, 2 * self.list_pauses.get(net, self.pace.idle_poll_seconds))
        return await self.store.lease(poll_lease(net), self.holder, seconds)

    async def pause(self, seconds: float) -> None:
        """Wait, with some jitter. Raises LeaseLost when the process is asked to end meanwhile: whoever
        takes the work over will not have to wait for us."""
        await wait(self.closing, seconds * random.uniform(0.8, 1.2))
        if self.closing.is_set():
            raise LeaseLost("the process ends")

    async def client(self, net: str) -> NetClient:
        """The net's client; a registry that changed a moment ago is read first.

        Raises errors.Transient when the net left the registry.
        """
        try:
            return self.nets.client(net)
        except Transient:
            self.nets.follow(await self.store.registry())
            return self.nets.client(net)

    async def apply(self, held: Held, command: Command) -> Decision:
        """Apply a command of the job in hand; see the module.

        Raises LeaseLost, and errors.Transient with NET_IN_DOUBT.
        """
        pause = self.pace.retry_seconds
        while True:
            try:
                decision = (await self.store.apply([command]))[0]
            except Transient as exc:
                if exc.code == NET_IN_DOUBT:
                    raise
                log.warning("not_confirmed", job_id=str(held.job_id), error=exc.message)
                await self.pause(pause)
                pause = min(pause * 2, self.pace.retry_most_seconds)
                held.require()
                continue
            if decision.outcome is Outcome.FENCED:
                held.lost = True
                raise LeaseLost(f"job {held.job_id} is held by somebody else, or over")
            return decision

    async def refresh(self, held: Held) -> Job:
        """The job as it stands now. Raises LeaseLost when it is over, or not ours any more."""
        job = await self.store.get(held.job_id)
        if job is None or job.state in TERMINAL or job.lease is None:
            raise LeaseLost(f"job {held.job_id} is over, or nobody holds it")
        if job.lease.token != held.token:
            raise LeaseLost(f"job {held.job_id} is held by somebody else")
        held.job = job
        return job

    async def know(self, command: KnowRun) -> Decision:
        """Keep an adapter's word about a run, whatever happened to the job and its lease meanwhile.

        Tries for as long as a lost answer would be looked for. Raises errors.Transient after that.
        """
        until = clock() + self.pace.submit_unknown_seconds
        pause = self.pace.retry_seconds
        while True:
            try:
                return (await self.store.apply([command]))[0]
            except Transient as exc:
                if clock() >= until:
                    raise
                log.warning("not_confirmed", job_id=str(command.job_id), error=exc.message)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self.pace.retry_most_seconds)
