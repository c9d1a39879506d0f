"""What an FL runtime must be able to do for the FL-API server, and the values they exchange.

Promise: the server knows a runtime through this protocol alone, so that Flower or NVFLARE become
one more implementation. A runtime owns its runs and keeps them over a restart; the server owns the
apps on disk, the idempotency store and the answers. A runtime raises `http_errors` only. What breaks
the promise: a runtime that starts work inside `submit` before the run would be found by `find`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from service.contracts.fl import IClientStatus, IServerStatus
from service.contracts.inbound.training import SiteResources
from service.domain.enums import FLBackend, FLJobStatus
from service.fl_server.report_outbox import ReportEvent

IDEMPOTENCY = "idempotency"
RESULTS = "results"
REPORTS = "reports"
SELECTION = "selection"


@dataclass(frozen=True, slots=True)
class SubmissionRef:
    """Whose submission a call is about.

    `path_id` is the UUID in the call's path; `key` the Idempotency-Key, `job_id` and `attempt` the
    FL-Job-Id and FL-Attempt headers, each None where the caller sends none.
    """

    path_id: UUID
    key: str | None = None
    job_id: UUID | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class StagedApp:
    """An uploaded bundle: its files lie below `folder`, which never changes after the upload.

    `slots` are the participants by their names in the runtime, in the caller's order. No files at
    all is a lawful upload (it wipes the app) that can't be submitted: `empty`.

    `project_id` and `cohort_query` are the upload's, as they came (perhaps encrypted); `model_id` and
    `resources` are its FL-Model-Id and FL-Resources headers, None where the caller sends none. The
    query is never written to disk, so it is None once the server was started anew: a runtime that
    needs it refuses such an app and asks for another upload.
    """

    path_id: UUID
    folder: Path
    slots: tuple[str, ...]
    empty: bool = False
    project_id: str | None = None
    cohort_query: str | None = field(default=None, repr=False)
    model_id: UUID | None = None
    resources: SiteResources | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as the list shows it. `run_id` is any text, as the runtime writes it; `name` is the path
    id it was submitted under."""

    run_id: str
    status: FLJobStatus
    details: str | None = None
    name: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RunLog:
    """The end of a run's log; `truncated` when there was more before it."""

    text: str
    truncated: bool


class Runtime(Protocol):
    """An FL runtime behind the FL-API. All coroutines may be called at the same time."""

    @property
    def backend(self) -> FLBackend:
        """Which runtime this is."""

    @property
    def extensions(self) -> frozenset[str]:
        """Which of the optional parts of the FL-API are served: see the constants above."""

    @property
    def capacity(self) -> int:
        """Runs that train at once; further ones wait as PENDING."""

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the FL clients."""

    async def start(self) -> None:
        """Take up what an earlier process left; called once, before any request."""

    async def close(self) -> None:
        """Stop working without ending the runs; called once, after the last request."""

    async def server_status(self) -> IServerStatus:
        """The runtime's own status."""

    async def clients(self) -> list[IClientStatus]:
        """One entry per slot."""

    async def check(self, app: StagedApp) -> None:
        """Look an uploaded app over without running it.

        Raises:
            BadApp: it can't be run; the message says what to change.
        """

    async def submit(self, app: StagedApp, ref: SubmissionRef) -> str:
        """Take a run on and answer its id at once; the work starts later.

        Raises:
            BadApp: the app can't be run.
        """

    async def find(self, ref: SubmissionRef) -> str | None:
        """The run that an earlier submit of this submission made, whose answer was not kept."""

    async def runs(self) -> list[RunView]:
        """All runs that are still known, oldest first."""

    async def abort(self, run_id: str) -> RunView:
        """End a run, whatever it does now; one that is over stays what it is.

        Raises:
            NoSuchRun: there is none.
        """

    async def logs(self, run_id: str, max_chars: int) -> RunLog:
        """The end of a run's log.

        Raises:
            NoSuchRun: there is none.
        """

    async def results(self, run_id: str) -> Path:
        """The zip of a finished run.

        Raises:
            NoSuchRun: no such run, or it ended without results.
            Busy: it is not over.
        """

    def apps_in_use(self) -> frozenset[Path]:
        """Folders of apps that runs may still read."""


class ReportSink(Protocol):
    """Where a runtime's reports go: `reporter.Reporter`, which sends them to the status topic."""

    async def start(self) -> None:
        """Begin to send."""

    async def close(self) -> None:
        """Stop sending; what is not sent stays."""

    def enqueue(self, report: ReportEvent, required: bool) -> None:
        """Take a report over; one that isn't `required` may be dropped when there are too many."""
