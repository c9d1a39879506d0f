"""Jobs, nets and supervisors of steps in one harness. `PauseSwitch` makes a supervisor's process stop as
SIGSTOP or SIGKILL would: none of its calls goes out or comes back until it is opened again."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID, uuid5

from service.adapters.lane import Lane
from service.domain import commands as c
from service.domain.enums import FLBackend, JobState, ModelStatus
from service.domain.facts import JobLimits
from service.domain.job import Job
from service.domain.registry import Net, Project, Registry, Trust
from service.domain.values import Origin, Request
from service.errors import Transient
from service.steps.context import StepContext
from service.steps.net_status import NetStatusStep
from service.steps.options import StepOptions
from service.steps.ports import BundleStore, JobStore, NetClient, ReportProgress
from service.steps.supervisor import StepSupervisor
from tests.unit.steps.sim.fake_bundles import FakeBundles
from tests.unit.steps.sim.fake_net import FakeNet
from tests.unit.steps.sim.fake_reports import FakeReports
from tests.unit.steps.sim.fake_store import FakeStore

SPACE = UUID("00000000-0000-4000-8000-000000000000")
TRUSTS = tuple(uuid5(SPACE, f"trust {n}") for n in range(3))
PROJECT = "p1"
ORIGIN = Origin("e1", "test")
LIMITS = JobLimits(missing_grace_seconds=5.0)


def net_named(name: str, **more: Any) -> Net:
    members = {trust: f"{name}-slot-{n}" for n, trust in enumerate(TRUSTS)}
    return Net(name, uuid5(SPACE, name), FLBackend.EMBEDDED, "http://net", members, **more)


def request(number: int, **more: Any) -> Request:
    fields: dict[str, Any] = {
        "job_id": uuid5(SPACE, f"job {number}"),
        "model_id": uuid5(SPACE, f"model {number}"),
        "project_id": PROJECT,
        "cohort_query": "q",
        "trust_ids": TRUSTS,
        "min_trusts": len(TRUSTS),
        "content_hash": b"h",
        "origin": ORIGIN,
        "job_type": None,
        "max_attempts": 5,
    }
    return Request(**(fields | more))


class PauseSwitch:
    """Closed: whoever calls waits, on the way in as on the way out."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._buried = False

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def guard(self, part: object) -> Any:
        return _Guarded(part, self)

    @property
    def closed(self) -> bool:
        return not self._open.is_set()

    def bury(self) -> None:
        """The process is gone permanently: let its tasks end, without any effect."""
        self._buried = True
        self._open.set()

    async def pass_(self) -> None:
        await self._open.wait()
        if self._buried:
            raise Transient("this process was killed")


class _Guarded:
    def __init__(self, part: object, pause_switch: PauseSwitch) -> None:
        self._part, self._pause_switch = part, pause_switch

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._pause_switch.pass_()
            try:
                return await found(*args, **kwargs)
            finally:
                await self._pause_switch.pass_()

        return call


class _Client(_Guarded):
    """A net's client in one process; its turns are those of the real ones, by leases of the store."""

    def __init__(self, part: object, pause_switch: PauseSwitch, lane: Lane) -> None:
        super().__init__(part, pause_switch)
        self.turn = lane.turn


class FakeNets:
    """The clients of one process, named `holder` in leases."""

    def __init__(
        self, nets: dict[str, FakeNet], pause_switch: PauseSwitch, store: FakeStore, holder: str
    ) -> None:
        self._nets, self._pause_switch = nets, pause_switch
        self._store, self._holder = pause_switch.guard(store), holder
        self._lanes: dict[str, Lane] = {}
        self._registered: frozenset[str] = frozenset()

    def client(self, name: str) -> NetClient:
        if name not in self._nets or name not in self._registered:
            raise Transient(f"{name} left the registry", code="adapter_unavailable")
        lane = self._lanes.setdefault(name, Lane(name, self._lease))
        return cast("NetClient", _Client(self._nets[name], self._pause_switch, lane))

    async def _lease(self, name: str, seconds: float) -> bool:
        return bool(await self._store.lease(name, self._holder, seconds))

    def follow(self, registry: Registry) -> None:
        self._registered = frozenset(registry.nets)

    async def close(self) -> None:
        return None


@dataclass
class Simulation:
    kind: str = "keyed"
    nets: int = 1
    capacity: int = 1
    options: StepOptions = field(default_factory=StepOptions)
    limits: JobLimits = LIMITS
    seed: int = 0
    net_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        random.seed(self.seed)
        names = [f"net-{n}" for n in range(1, self.nets + 1)]
        registered = {
            name: net_named(name, capacity=self.capacity, **self.net_options) for name in names
        }
        self.registry = Registry(
            1,
            {trust: Trust(trust, f"hospital {n}") for n, trust in enumerate(TRUSTS)},
            registered,
            {PROJECT: Project(PROJECT, frozenset(TRUSTS))},
        )
        self.store = FakeStore(self.registry, self.limits, rng=self.rng)
        self.adapters = {
            name: FakeNet(net, self.kind, rng=self.rng) for name, net in registered.items()
        }
        self.bundles = FakeBundles()
        self.reports = FakeReports()
        self.supervisors: list[
            tuple[StepSupervisor, PauseSwitch, asyncio.Event, asyncio.Task[None]]
        ] = []
        self._background: set[asyncio.Task[None]] = set()

    @property
    def net(self) -> FakeNet:
        return self.adapters["net-1"]

    # --- the service ------------------------------------------------------------------------------

    def context(self, holder: str = "a") -> StepContext:
        """Hands for calling one step by itself."""
        nets = FakeNets(self.adapters, PauseSwitch(), self.store, holder)
        store = cast("JobStore", self.store)
        return StepContext(store, nets, self.bundles, self.reports, self.options, holder=holder)

    def start(self, *, schedule: bool = True, reconcile: bool = True) -> StepSupervisor:
        """Another process of the service."""
        pause_switch, stop = PauseSwitch(), asyncio.Event()
        supervisor = StepSupervisor(
            cast("JobStore", pause_switch.guard(self.store)),
            FakeNets(self.adapters, pause_switch, self.store, f"process-{len(self.supervisors)}"),
            cast("BundleStore", pause_switch.guard(self.bundles)),
            cast("ReportProgress", pause_switch.guard(self.reports)),
            self.options,
            holder=f"process-{len(self.supervisors)}",
            schedule=schedule,
            reconcile=reconcile,
        )
        task = asyncio.create_task(supervisor.run(stop))
        self.supervisors.append((supervisor, pause_switch, stop, task))
        return supervisor

    def kill(self, number: int) -> None:
        """As SIGKILL, or SIGSTOP where `wake` follows."""
        self.supervisors[number][1].close()

    def wake(self, number: int) -> None:
        self.supervisors[number][1].open()

    async def end(self) -> None:
        """Ask every living process to end, wait for it, and bury the killed ones."""
        for _, pause_switch, stop, task in self.supervisors:
            if pause_switch.closed:
                pause_switch.bury()
                task.cancel()
            stop.set()
        await asyncio.gather(*(task for *_, task in self.supervisors), return_exceptions=True)

    # --- the outside ------------------------------------------------------------------------------

    def ask(self, number: int = 1, **more: Any) -> UUID:
        """A training request arrives."""
        wanted = request(number, **more)
        self.store.do(c.RequestTraining(wanted.job_id, wanted))
        return wanted.job_id

    def stop_job(self, job_id: UUID) -> None:
        """A stop arrives; the supervisors are told, as by a commit's signal."""
        self.store.do(c.RequestStop(job_id, "enough", "somebody"))
        for supervisor, _, _, _ in self.supervisors:
            supervisor.context.wakeups.wake_all()

    def report(self, job_id: UUID, status: ModelStatus, run_id: str | None = None) -> None:
        job = self.job(job_id)
        self.store.do(c.ReportStatus(job_id, job.attempt_number, ORIGIN, run_id, status=status))

    def job(self, job_id: UUID) -> Job:
        return self.store.jobs[job_id]

    def state(self, job_id: UUID) -> JobState:
        return self.job(job_id).state

    def code(self, job_id: UUID) -> str | None:
        """The code of what ended the job, or queued it again."""
        reason = self.job(job_id).reason
        return None if reason is None else reason.code

    def words(self, job_id: UUID) -> list[str]:
        """The names of a job's events."""
        return [type(event).__name__ for _, about, event in self.store.log if about == job_id]

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def until(self, what: Callable[[], bool], seconds: float = 120.0) -> float:
        """Wait for it; fails after `seconds` of the virtual clock. Returns how long it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not what():
            states = [
                (str(j.job_id)[:8], j.state.value, j.reason) for j in self.store.jobs.values()
            ]
            assert loop.time() - began < seconds, f"not within {seconds} s: {states}"
            await asyncio.sleep(0.05)
        return loop.time() - began

    async def until_state(self, job_id: UUID, state: JobState, seconds: float = 120.0) -> float:
        return await self.until(lambda: self.state(job_id) is state, seconds)

    def all_over(self) -> bool:
        return all(job.terminal for job in self.store.jobs.values())

    def change_net(self, name: str, **changes: Any) -> None:
        """The operator applies another registry."""
        nets = dict(self.registry.nets)
        nets[name] = self.adapters[name].net = replace(nets[name], **changes)
        self.registry = replace(self.registry, version=self.registry.version + 1, nets=nets)
        self.store.known = self.registry

    def drop_net(self, name: str) -> None:
        """The operator applies a registry without this net."""
        nets = {key: net for key, net in self.registry.nets.items() if key != name}
        self.store.left[name] = self.registry.nets[name]
        self.registry = replace(self.registry, version=self.registry.version + 1, nets=nets)
        self.store.known = self.registry

    async def kit_look(self) -> None:
        """Save what a poller would, once, for a sim without one."""
        await NetStatusStep(self.context("other"), "net-1").step()


def seeds(count: int) -> Iterator[int]:
    """Fixed seeds: a failure names its own, and it replays."""
    return iter(range(1, count + 1))
