"""Runs that only pretend: their status is what the script says, at once or by a clock.

Promise: the same answers as a real runtime in shape and error, nothing trained; everything is in
memory, so "the adapter restarted" is a new one. `finish_after` and `run_after` are seconds from the
submit; None leaves the status to the script. `new_run_id` makes the runs' ids: any text.
"""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from service.contracts.fl import IClientStatus, IServerStatus
from service.domain.enums import ClientStatus, FLBackend, FLJobStatus
from service.fl_server.http_errors import BadApp, Busy, NoSuchRun
from service.fl_server.runtime import (
    IDEMPOTENCY,
    REPORTS,
    RESULTS,
    SELECTION,
    RunLog,
    RunView,
    StagedApp,
    SubmissionRef,
)

ALL: frozenset[str] = frozenset({IDEMPOTENCY, RESULTS, REPORTS, SELECTION})
_OVER = frozenset({FLJobStatus.FINISHED, FLJobStatus.FAILED, FLJobStatus.STOPPED})


@dataclass(slots=True)
class ScriptedRun:
    """One pretended run; the test may change any of it."""

    run_id: str
    path_id: UUID
    ref: SubmissionRef
    app: StagedApp
    status: FLJobStatus = FLJobStatus.PENDING
    details: str | None = None
    log: str = ""
    result: Path | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def slots(self) -> tuple[str, ...]:
        """The sites that take part."""
        return self.app.slots


class ScriptedRuntime:
    """A runtime for tests. `abortable=False` answers an abort and keeps running."""

    def __init__(
        self,
        folder: Path,
        slots: Iterable[str],
        *,
        backend: FLBackend = FLBackend.EMBEDDED,
        extensions: Iterable[str] = ALL,
        capacity: int = 1_000,
        run_after: float | None = 0.0,
        finish_after: float | None = None,
        new_run_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self.folder = folder
        self.slots = tuple(slots)
        self.backend = backend
        self.extensions = frozenset(extensions)
        self.capacity = capacity
        self.run_after = run_after
        self.finish_after = finish_after
        self.new_run_id = new_run_id
        self.abortable = True
        self.named = True
        self.server_status_text = "RUNNING"
        self.client_statuses: dict[str, str] = {}
        self.by_id: dict[str, ScriptedRun] = {}

    async def start(self) -> None:
        """Nothing was left."""

    async def close(self) -> None:
        """Stop the clocks."""
        for run in self.by_id.values():
            for timer in run.timers:
                timer.cancel()

    async def server_status(self) -> IServerStatus:
        """The script's status."""
        return IServerStatus(status=self.server_status_text)

    async def clients(self) -> list[IClientStatus]:
        """CONNECTED unless the script sets another status."""
        return [
            IClientStatus(name=slot, status=self.client_statuses.get(slot, ClientStatus.CONNECTED))
            for slot in self.slots
        ]

    async def check(self, app: StagedApp) -> None:
        """Slots, and JSON files that should be JSON."""
        unknown = [slot for slot in app.slots if slot not in self.slots]
        if unknown and SELECTION in self.extensions:
            raise BadApp(f"unknown trust(s): {', '.join(unknown)}")
        for file in app.folder.rglob("config.json"):
            try:
                json.loads(file.read_bytes())
            except ValueError as exc:
                raise BadApp(f"{file.name} can't be read: {exc}") from exc

    async def submit(self, app: StagedApp, ref: SubmissionRef) -> str:
        """A new run each time: that the same key makes one is the server's doing."""
        run = ScriptedRun(self.new_run_id(), app.path_id, ref, app)
        self.by_id[run.run_id] = run
        for after, status in (
            (self.run_after, FLJobStatus.RUNNING),
            (self.finish_after, FLJobStatus.FINISHED),
        ):
            if after is not None:
                loop = asyncio.get_running_loop()
                run.timers.append(loop.call_later(after, self._move, run, status))
        return run.run_id

    def _move(self, run: ScriptedRun, status: FLJobStatus) -> None:
        if run.status not in _OVER:
            run.status = status

    async def find(self, ref: SubmissionRef) -> str | None:
        """By key."""
        for run in self.by_id.values():
            if ref.key is not None and run.ref.key == ref.key:
                return run.run_id
        return None

    async def runs(self) -> list[RunView]:
        """All that the script has not removed."""
        return [self._view(run) for run in self.by_id.values()]

    async def abort(self, run_id: str) -> RunView:
        """STOPPED, unless the script makes aborts idle."""
        run = self._run(run_id)
        if self.abortable:
            self._move(run, FLJobStatus.STOPPED)
        return self._view(run)

    async def logs(self, run_id: str, max_chars: int) -> RunLog:
        """The script's text."""
        text = self._run(run_id).log
        return RunLog(text[-max_chars:], len(text) > max_chars)

    async def results(self, run_id: str) -> Path:
        """The script's file, or a small zip that is made up."""
        run = self._run(run_id)
        if run.status not in _OVER:
            raise Busy(f"job {run_id} is {run.status.value}: there are no results yet")
        if run.status is not FLJobStatus.FINISHED:
            raise NoSuchRun(f"job {run_id} is {run.status.value} and has no results")
        if run.result is None:
            run.result = self.folder / f"{uuid4()}.zip"
            with zipfile.ZipFile(run.result, "w") as archive:
                archive.writestr("result.json", json.dumps({"run_id": run_id}))
        return run.result

    def apps_in_use(self) -> frozenset[Path]:
        """None: nothing is ever read."""
        return frozenset()

    def _run(self, run_id: str) -> ScriptedRun:
        if run_id not in self.by_id:
            raise NoSuchRun(f"no such job: {run_id[:80]}")
        return self.by_id[run_id]

    def _view(self, run: ScriptedRun) -> RunView:
        name = str(run.path_id) if self.named else None
        return RunView(run.run_id, run.status, run.details, name, run.ref.key)
