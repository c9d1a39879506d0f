"""An adapter with its runtime, in memory: what really runs, and how it misbehaves.

Three kinds as the steps meet them: `keyed` knows idempotency keys, `named` runs bear the path id, `plain`
runs bear nothing and can only be told by difference. `faults` are the names of misbehaviours, drawn by
`share` for each call, or put into `script` to come next.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from service.domain.enums import RUN_OVER, FLJobStatus
from service.domain.observed import About, Client, Found, Handle, Health, Run, RunList
from service.domain.registry import Net
from service.errors import Ambiguous, Permanent, Transient

S = FLJobStatus


def archive() -> bytes:
    """A small zip archive, as a run leaves it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as whole:
        whole.writestr("model.npz", b"weights")
    return content.getvalue()


ZIP = archive()
AWAY = "the adapter is unavailable"


@dataclass
class RealRun:
    run_id: str
    handle: Handle | None
    began: float
    runs_for: float
    waits: float = 0.2  #: pending
    ended: float | None = None
    how: FLJobStatus = S.FINISHED
    forgotten: bool = False

    def status(self, now: float) -> FLJobStatus:
        if self.ended is not None and now >= self.ended:
            return self.how
        if now < self.began + self.waits:
            return S.PENDING
        return S.RUNNING if now < self.began + self.waits + self.runs_for else S.FINISHED

    def alive(self, now: float) -> bool:
        return self.status(now) not in RUN_OVER


@dataclass
class FakeNet:
    net: Net
    kind: str = "keyed"
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    share: float = 0.0
    script: dict[str, list[str]] = field(default_factory=dict)
    down: bool = False
    serves: bool = True
    offline: set[str] = field(default_factory=set)
    train_seconds: float = 20.0
    abort_seconds: float = 0.3
    revives: bool = (
        False  #: an aborted pending run starts all the same, after having been shown as over
    )
    results_of: bytes | None = ZIP
    says: str | None = None  #: a word for every run's status that nobody knows
    seconds_of_results: float = 0.0
    log_of: str | None = None
    seconds_of_logs: float = 0.01
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    real: list[RealRun] = field(default_factory=list)
    uploads: dict[UUID, Sequence[str]] = field(default_factory=dict)
    fenced: set[UUID] = field(default_factory=set)
    in_flight: int = 0
    on_create: Callable[[FakeNet, RealRun], None] | None = None
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _later: set[asyncio.Task[None]] = field(default_factory=set)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _enter(self, call: str, about: str, *faults: str, seconds: float = 0.01) -> str:
        """Note the call, let its time pass, and draw its misbehaviour; '' for none."""
        self.calls.append((self.now(), call, about))
        await asyncio.sleep(seconds)
        if self.script.get(call):
            return self.script[call].pop(0)
        if self.down:
            raise Transient(AWAY, code="adapter_unavailable")
        if faults and self.rng.random() < self.share:
            return self.rng.choice(faults)
        return ""

    def _plain(self, fault: str) -> None:
        if fault == "away":
            raise Transient(AWAY, code="adapter_unavailable")

    @property
    def poll_seconds(self) -> float | None:
        return self.net.poll_seconds

    @property
    def extensions(self) -> frozenset[str]:
        return frozenset({"idempotency", "results"} if self.kind == "keyed" else ())

    # --- reading ----------------------------------------------------------------------------------

    async def health(self) -> Health:
        self._plain(await self._enter("health", "", "away"))
        return Health("1", self.extensions)

    async def serving(self) -> bool:
        self._plain(await self._enter("serving", ""))
        return self.serves

    async def clients(self) -> tuple[Client, ...]:
        self._plain(await self._enter("clients", ""))
        return tuple(
            Client(
                slot, "no_reply" if slot in self.offline else "no_jobs", slot not in self.offline
            )
            for slot in self.net.members.values()
        )

    async def runs(self, about: About | None = None) -> RunList:
        self._plain(await self._enter("runs", "", "away"))
        now = self.now()
        return RunList(
            tuple(
                Run(r.run_id, None, self.says) if self.says else Run(r.run_id, r.status(now), None)
                for r in self.real
                if not r.forgotten
            ),
            True,
        )

    def is_lost(self, listed: RunList, run_id: str) -> bool:
        return listed.complete and all(run.run_id != run_id for run in listed.runs)

    def terminal_is_final(self, status: FLJobStatus) -> bool:
        return not (self.revives and status is S.STOPPED)

    async def logs(self, run_id: str) -> str | None:
        self._plain(await self._enter("logs", run_id, "away", seconds=self.seconds_of_logs))
        run = self.find(run_id)
        assert run is not None
        assert run.status(self.now()) is not S.PENDING, "a pending run's log blocks the adapter"
        return self.log_of

    async def find_run(self, handle: Handle, extensions: frozenset[str]) -> Found:
        self._plain(await self._enter("find_run", str(handle.path_id), "away"))
        paths = (handle.path_id, *handle.earlier_paths)
        real = [r for r in self.real if not r.forgotten]
        if self.kind == "keyed":
            mine = [r.run_id for r in real if r.handle is not None and r.handle.key == handle.key]
        elif self.kind == "named":
            mine = [r.run_id for r in real if r.handle is not None and r.handle.path_id in paths]
        else:
            if self.in_flight:
                return Found(None, doubt="a submission is in flight")
            mine = [r.run_id for r in real if r.run_id not in handle.known_runs]
            if len(mine) > 1:
                return Found(None, doubt="more than one new run")
            return Found(mine[0], provisional=True) if mine else Found(None)
        return Found(mine[0], extra_runs=tuple(mine[1:])) if mine else Found(None)

    @asynccontextmanager
    async def results(
        self, run_id: str, about: About | None = None
    ) -> AsyncIterator[AsyncIterator[bytes] | None]:
        self._plain(await self._enter("results", run_id, "away"))
        if self.results_of is None:
            yield None
            return

        async def chunks() -> AsyncIterator[bytes]:
            await asyncio.sleep(self.seconds_of_results)
            yield self.results_of or b""

        yield chunks()

    # --- changing ---------------------------------------------------------------------------------

    async def upload(
        self,
        handle: Handle,
        *,
        project_id: str,
        cohort_query: str,
        slots: Sequence[str],
        urls: Sequence[str],
    ) -> None:
        fault = await self._enter("upload", str(handle.path_id), "away", "lost", seconds=0.05)
        self._plain(fault)
        if fault == "rejected":
            raise Permanent("400: bad bundle", code="adapter_rejected")
        self.uploads[handle.path_id] = tuple(slots)
        if fault == "lost":
            raise Ambiguous("no answer", code="adapter_unavailable")

    async def submit(self, handle: Handle) -> str:
        kinds = ("away", "lost_before", "lost_after", "late", "busy")
        fault = await self._enter("submit", str(handle.path_id), *kinds, seconds=0.05)
        self._plain(fault)
        if fault == "busy":
            raise Transient("409: a submission is in progress", code="adapter_unavailable")
        if fault == "rejected":
            raise Permanent("invalid job definition", code="adapter_rejected")
        if fault == "late":
            self._spawn(self._create_late(handle, self.rng.uniform(0.5, 4.0)))
        if fault in ("late", "lost_before"):
            raise Ambiguous("no answer", code="adapter_unavailable")
        run_id = self.create(handle)
        if run_id is None:
            raise Permanent("404: no app was uploaded", code="adapter_rejected")
        if fault == "lost_after":
            raise Ambiguous("no answer", code="adapter_unavailable")
        return run_id

    def create(self, handle: Handle | None) -> str | None:
        """Start a run. Under a key that has one: that one. None where the app is not there."""
        if handle is not None:
            known = [r for r in self.real if r.handle is not None and r.handle.key == handle.key]
            if self.kind == "keyed" and known:
                return known[0].run_id
            if handle.path_id in self.fenced or handle.path_id not in self.uploads:
                return None
        run_id = f"{self.net.name}-{next(self._ids)}"
        run = RealRun(run_id, handle, self.now(), self.train_seconds)
        self.real.append(run)
        if self.on_create is not None:
            self.on_create(self, run)
        return run_id

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _create_late(self, handle: Handle, seconds: float) -> None:
        self.in_flight += 1
        await asyncio.sleep(seconds)
        self.create(handle)
        self.in_flight -= 1

    async def fence(self, handle: Handle, extensions: frozenset[str]) -> None:
        if self.kind == "keyed":
            return
        self._plain(await self._enter("fence", str(handle.path_id), "away"))
        self.fenced |= {handle.path_id, *handle.earlier_paths}
        await asyncio.sleep(5.0)

    async def abort(self, run_id: str, about: About | None = None) -> None:
        fault = await self._enter("abort", run_id, "away", "ignored")
        self._plain(fault)
        run = self.find(run_id)
        if run is None or fault == "ignored" or not run.alive(self.now()):
            return
        if run.ended is None or run.ended < self.now():
            run.ended, run.how = self.now() + self.abort_seconds, S.STOPPED
        if self.revives and run.status(self.now()) is S.PENDING:
            self._spawn(self._revive(run))

    async def _revive(self, run: RealRun) -> None:
        await asyncio.sleep(self.abort_seconds + 5.0)
        run.ended, run.began, self.revives = None, self.now(), False

    # --- for the tests ----------------------------------------------------------------------------

    def find(self, run_id: str) -> RealRun | None:
        return next((r for r in self.real if r.run_id == run_id), None)

    def count(self, call: str) -> int:
        return sum(1 for _, name, _ in self.calls if name == call)

    def alive(self) -> list[RealRun]:
        return [r for r in self.real if r.alive(self.now()) and not r.forgotten]
