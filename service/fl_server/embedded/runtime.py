"""The embedded runtime: takes runs on, trains as many at once as its capacity allows, resumes them.

Promise: a submit writes one row and returns; the run starts after the answer. Runs beyond the
capacity wait as PENDING in their order. An abort ends a run within its round: the site processes
are killed before the answer goes out. After a restart ended runs are listed with their results and
interrupted ones continue after their last aggregated round, a few times at most. A site is taken out
by a file `<folder>/offline/<slot>`: its client shows DISCONNECTED and its runs continue or fail by
IGNORE_RESULT_ERROR. What breaks the promise: two servers over one folder (a lock file prevents it).
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import structlog

from service.contracts.fl import IClientStatus, IServerStatus
from service.domain.enums import ClientStatus, FLBackend, FLJobStatus, ModelStatus
from service.errors import Invalid
from service.fl_server.embedded.plan import read_plan
from service.fl_server.embedded.run_log import LogFile, tail
from service.fl_server.embedded.run_progress import RESULTS, RunProgress
from service.fl_server.embedded.run_store import RunStore, StoredRun
from service.fl_server.embedded.training import NetFolders, Training, TrainingFailed
from service.fl_server.http_errors import BadApp, Busy, NoSuchRun, RuntimeFailed
from service.fl_server.report_writer import ReportWriter
from service.fl_server.runtime import (
    IDEMPOTENCY,
    REPORTS,
    SELECTION,
    ReportSink,
    RunLog,
    RunView,
    StagedApp,
    SubmissionRef,
)
from service.fl_server.runtime import (
    RESULTS as RESULTS_EXTENSION,
)

_log = structlog.get_logger(__name__)

MAX_STARTS: Final = 4
#: Ended runs that are kept, and the bytes that their folders may take together.
KEEP_RUNS: Final = 1_000
KEEP_BYTES: Final = 10 * 2**30
#: Seconds between a submit's answer and the start of its processes.
_AFTER_ANSWER: Final = 0.02
#: Seconds until a net whose disk took nothing tries again.
_RETRY_SECONDS: Final = 5.0
#: What a full, read-only or broken disk raises.
_UNWRITTEN: Final = (OSError, sqlite3.Error)
_STOPPED: Final = "stopped by request"


class EmbeddedRuntime:
    """One embedded net. `slots` are its sites, `folder` its state, `data_root` the sites' data."""

    backend: Final = FLBackend.EMBEDDED

    def __init__(
        self,
        folder: Path,
        slots: Sequence[str],
        data_root: Path,
        *,
        capacity: int = 1,
        call_seconds: float | None = None,
        reporter: ReportSink | None = None,
        keep_runs: int = KEEP_RUNS,
    ) -> None:
        """Raises:
        Invalid: the folder belongs to a running server, or can't be used.
        """
        self._folder = folder
        self.slots = tuple(slots)
        self.capacity = capacity
        self._reporter = reporter
        self._keep_runs = keep_runs
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        (folder / "offline").mkdir(exist_ok=True)
        self._lock = _locked(folder / "lock")
        self._folders = NetFolders(data_root, folder / "offline", call_seconds)
        self._run_store = RunStore(folder / "runs.db")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unsaved_stops: set[str] = set()  #: stopped, and not yet so on disk
        self._retry_timer: asyncio.TimerHandle | None = None
        self._closing = False

    @property
    def extensions(self) -> frozenset[str]:
        """Reports only with a broker."""
        own = {IDEMPOTENCY, RESULTS_EXTENSION, SELECTION}
        return frozenset(own | ({REPORTS} if self._reporter is not None else set()))

    async def start(self) -> None:
        """Resume the runs that an earlier process left."""
        for slot in self.slots:
            (self._folders.data_root / slot).mkdir(parents=True, exist_ok=True)
        if self._reporter is not None:
            await self._reporter.start()
        for run in self._run_store.runs.values():
            if run.over:
                self._report_end(run)
        self._fill()

    async def close(self) -> None:
        """Interrupt all runs (they stay RUNNING on disk) and stop."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reporter is not None:
            await self._reporter.close()
        self._run_store.close()
        self._lock.close()

    async def server_status(self) -> IServerStatus:
        """RUNNING: whoever answers here is alive."""
        return IServerStatus(status="RUNNING")

    async def clients(self) -> list[IClientStatus]:
        """CONNECTED, or DISCONNECTED where the operator's flag file lies."""
        return [
            IClientStatus(
                name=slot,
                status=ClientStatus.DISCONNECTED
                if self._folders.is_offline(slot)
                else ClientStatus.CONNECTED,
            )
            for slot in self.slots
        ]

    async def check(self, app: StagedApp) -> None:
        """Slots, files and config; the trainer's source is compiled, not run."""
        unknown = [slot for slot in app.slots if slot not in self.slots]
        if unknown:
            raise BadApp(
                f"unknown trust(s): {', '.join(s[:80] for s in unknown[:20])};"
                f" this net has {', '.join(self.slots)}"
            )
        await asyncio.to_thread(read_plan, app.folder, self.slots)

    async def submit(self, app: StagedApp, ref: SubmissionRef) -> str:
        """Write the run down; it starts when there is capacity."""
        run = RunStore.new(app, ref)
        if run.run_id in self._run_store.runs:
            return run.run_id
        try:
            (self._run_folder(run)).mkdir(exist_ok=True)
            await asyncio.to_thread(self._run_store.write, run)
        except _UNWRITTEN as exc:
            raise RuntimeFailed(f"the run can't be stored: {_cause(exc)}") from exc
        self._run_store.runs[run.run_id] = run
        asyncio.get_running_loop().call_later(_AFTER_ANSWER, self._fill)
        return run.run_id

    async def find(self, ref: SubmissionRef) -> str | None:
        """The run whose id the key makes."""
        if ref.key is None:
            return None
        run_id = RunStore.id_for(ref.key)
        return run_id if run_id in self._run_store.runs else None

    async def runs(self) -> list[RunView]:
        """All runs that are kept, oldest first."""
        return [_view(run) for run in self._run_store.runs.values()]

    async def abort(self, run_id: str) -> RunView:
        """STOPPED in the list, and its processes gone, when this returns.

        Raises RuntimeFailed when the stop can't be stored; the run's processes are gone then too.
        """
        run = self._run(run_id)
        if run.over:
            return _view(run)
        unwritten: Exception | None = None
        try:
            self._run_store.end(run, FLJobStatus.STOPPED, _STOPPED)
        except _UNWRITTEN as exc:
            self._unsaved_stops.add(run_id)
            unwritten = exc
        task = self._tasks.get(run_id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if unwritten is not None:
            self._cannot_write(unwritten)
            raise RuntimeFailed(f"the stop can't be stored: {_cause(unwritten)}") from unwritten
        self._report_end(run)
        self._fill()
        return _view(run)

    async def logs(self, run_id: str, max_chars: int) -> RunLog:
        """The end of the run's log file; empty while it waits."""
        path = self._run_folder(self._run(run_id)) / "run.log"
        return await asyncio.to_thread(tail, path, max_chars)

    async def results(self, run_id: str) -> Path:
        """The zip of a FINISHED run."""
        run = self._run(run_id)
        if not run.over:
            raise Busy(f"job {run_id} is {run.status.value}: there are no results yet")
        path = self._run_folder(run) / RESULTS
        if run.status is not FLJobStatus.FINISHED or not path.exists():
            raise NoSuchRun(f"job {run_id} is {run.status.value} and has no results")
        return path

    def apps_in_use(self) -> frozenset[Path]:
        """The apps of runs that are not over."""
        return frozenset(run.app for run in self._run_store.runs.values() if not run.over)

    def _run(self, run_id: str) -> StoredRun:
        run = self._run_store.runs.get(run_id)
        if run is None:
            raise NoSuchRun(f"no such job: {run_id[:80]}")
        return run

    def _run_folder(self, run: StoredRun) -> Path:
        return self._folder / "runs" / run.run_id

    def _fill(self) -> None:
        """Start runs while there is capacity: interrupted ones first, then in order."""
        if self._closing:
            return
        try:
            for run_id in sorted(self._unsaved_stops):
                self._save_stop(run_id)
        except _UNWRITTEN as exc:
            self._cannot_write(exc)
            return
        waiting = [
            run
            for run in self._run_store.runs.values()
            if not run.over and run.run_id not in self._tasks
        ]
        waiting.sort(key=lambda run: run.status is not FLJobStatus.RUNNING)
        try:
            for run in waiting[: max(0, self.capacity - len(self._tasks))]:
                self._begin(run)
        except _UNWRITTEN as exc:
            self._cannot_write(exc)

    def _save_stop(self, run_id: str) -> None:
        """Write down the stop of a run that trains no more."""
        run = self._run_store.runs[run_id]
        self._run_store.end(run, FLJobStatus.STOPPED, _STOPPED)
        self._unsaved_stops.discard(run_id)
        self._report_end(run)

    def _cannot_write(self, error: Exception) -> None:
        """The net's disk is full or gone: what could not be written is tried again later."""
        _log.error("runs_not_written", error=str(error), retry_s=_RETRY_SECONDS)
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        self._retry_timer = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._fill)

    def _begin(self, run: StoredRun) -> None:
        if run.starts >= MAX_STARTS:
            details = f"interrupted by {run.starts} restarts of the net: not begun again"
            self._run_store.end(run, FLJobStatus.FAILED, details)
            self._report_end(run)
            asyncio.get_running_loop().call_soon(self._fill)
            return
        self._run_store.begin(run)
        task = asyncio.create_task(self._train(run), name=f"run {run.run_id}")
        self._tasks[run.run_id] = task
        task.add_done_callback(lambda done: self._ended(run, done))

    async def _train(self, run: StoredRun) -> None:
        folder = self._run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        log = LogFile(folder / "run.log")
        try:
            plan = await asyncio.to_thread(read_plan, run.app, self.slots)
            training = Training(
                run.run_id, plan, run.slots, folder, self._folders, self._reports(run), log
            )
            await training.run()
            training.report_final_round()
            self._run_store.end(run, FLJobStatus.FINISHED)
            await asyncio.to_thread(RunProgress(folder).drop_state)
        except (TrainingFailed, BadApp) as exc:
            log.line(f"failed: {exc}")
            self._run_store.end(run, FLJobStatus.FAILED, str(exc))
        finally:
            log.close()

    def _ended(self, run: StoredRun, task: asyncio.Task[None]) -> None:
        """A task that ended by an error of ours ends its run too: nothing waits for ever."""
        self._tasks.pop(run.run_id, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.error("run_broke", run_id=run.run_id, exc_info=error)
            details = f"internal error of the net: {type(error).__name__}: {error}"
            try:
                self._run_store.end(run, FLJobStatus.FAILED, details)
            except _UNWRITTEN as exc:
                # The run begins again after its last saved round.
                self._cannot_write(exc)
                return
        _log.info("run_ended", run_id=run.run_id, status=run.status.value, details=run.details)
        self._report_end(run)
        self._fill()
        try:
            self._prune()
        except _UNWRITTEN as exc:
            _log.error("old_runs_not_removed", error=str(exc))

    def _report_end(self, run: StoredRun) -> None:
        """The last report of a run that did not finish; the same id when reported again."""
        try:
            if run.status is FLJobStatus.FAILED:
                self._reports(run).status(ModelStatus.ERROR, run.details)
            elif run.status is FLJobStatus.STOPPED:
                self._reports(run).status(ModelStatus.STOPPED, run.details)
        except _UNWRITTEN as exc:
            if self._closing:
                return  # it is reported at the next start
            _log.error(
                "end_not_reported", run_id=run.run_id, error=str(exc), retry_s=_RETRY_SECONDS
            )
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._report_end, run)

    def _reports(self, run: StoredRun) -> ReportWriter:
        enqueue = None if self._reporter is None else self._reporter.enqueue
        return ReportWriter(run.run_id, run.path_id, run.job_id, run.attempt, enqueue)

    def _prune(self) -> None:
        """Forget the oldest ended runs beyond what is kept."""
        ended = [run for run in self._run_store.runs.values() if run.over]
        room = KEEP_BYTES
        old: list[StoredRun] = []
        for kept, run in enumerate(reversed(ended), start=1):
            room -= _file_bytes(self._run_folder(run) / RESULTS)
            if kept > self._keep_runs or (room < 0 and kept > 1):
                old.append(run)
        self._run_store.forget(run.run_id for run in old)
        for run in old:
            shutil.rmtree(self._run_folder(run), ignore_errors=True)


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _cause(error: Exception) -> str:
    """Without the path, which is the net's own matter."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _view(run: StoredRun) -> RunView:
    return RunView(run.run_id, run.status, run.details, str(run.path_id), run.key)


def _locked(path: Path) -> IO[bytes]:
    """The open lock file; the lock goes with the process."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        file.close()
        raise Invalid(f"{path.parent} belongs to another running FL-API server") from exc
    return file
