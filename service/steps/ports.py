"""What the steps need of the world: four protocols, since a simulation replaces these four.

Everything crossing a port is a value of `domain` or of this file, everything raised is one of
`service.errors`. The real ones are `service.store.PostgresStore`, `service.adapters.AdapterClients`,
`service.bundles.S3Bundles` and `service.ingest.progress.ReadProgress`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from service.domain.commands import Command
from service.domain.decision import Decision
from service.domain.enums import FLJobStatus, JobState
from service.domain.job import Job
from service.domain.observed import (
    About,
    Client,
    Found,
    Handle,
    Health,
    Reservation,
    RunList,
    Staged,
)
from service.domain.registry import Net, NetNow, Registry
from service.domain.values import Request, Results

# --- nets ----------------------------------------------------------------------------------------


class NetClient(Protocol):
    """One net's adapter. Raises errors.Transient (`adapter_unavailable`, with retry_after), errors.Permanent
    (`adapter_rejected`), and `Ambiguous` where a POST may have been applied."""

    net: Net

    @property
    def poll_seconds(self) -> float | None:
        """The pause between two questions that the registry, or else the adapter's kind, asks for; None: the
        service's own paces rule."""
        ...

    async def health(self) -> Health: ...
    async def serving(self) -> bool:
        """Is the runtime behind the adapter up? (`check_server_status`, read per dialect)"""
        ...

    async def clients(self) -> tuple[Client, ...]: ...
    def turn(self) -> AbstractAsyncContextManager[None]:
        """The net's turn for uploads and submits: one at a time over all instances. Raises errors.Transient
        when it can't be asked for."""
        ...

    async def upload(
        self,
        handle: Handle,
        *,
        project_id: str,
        cohort_query: str,
        slots: Sequence[str],
        urls: Sequence[str],
    ) -> None: ...
    async def submit(self, handle: Handle) -> str: ...
    async def runs(self, about: About | None = None) -> RunList: ...
    async def find_run(self, handle: Handle, extensions: frozenset[str]) -> Found:
        """Look for the run that a submission with a lost answer may have made: by key, by the path id
        in the names, else by the difference to `known_runs`."""
        ...

    async def fence(self, handle: Handle, extensions: frozenset[str]) -> None:
        """Make sure that a late submit of this handle can't succeed any more (no-op where keys rule)."""
        ...

    async def abort(self, run_id: str, about: About | None = None) -> None: ...
    async def logs(self, run_id: str) -> str | None:
        """The tail of a run's log, None where the adapter has none."""
        ...

    def results(
        self, run_id: str, about: About | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes] | None]:
        """The results as a stream of chunks; None where there are none (404)."""
        ...

    def is_lost(self, listed: RunList, run_id: str) -> bool:
        """May the run's absence from this list count as a miss?"""
        ...

    def terminal_is_final(self, status: FLJobStatus) -> bool:
        """False where this runtime may still start a run that it lists as aborted."""
        ...


class NetClients(Protocol):
    """The clients of all registered nets; follows the registry."""

    def client(self, name: str) -> NetClient:
        """Raises errors.Transient when the net left the registry."""
        ...

    def follow(self, registry: Registry) -> None:
        """Take over a new registry: clients of changed nets are made anew."""
        ...

    async def close(self) -> None: ...


# --- bundles -------------------------------------------------------------------------------------


class BundleStore(Protocol):
    """Raises errors.Permanent with the staging codes of `ReasonCode`, errors.Transient when S3 is
    unavailable."""

    async def stage(
        self,
        request: Request,
        *,
        net: Net,
        attempt: int,
        path_id: UUID,
        slots: Mapping[UUID, str],
    ) -> Staged: ...
    async def remove(self, job_id: UUID) -> int:
        """Delete all bundles of a finished job, not its results; how many objects went."""
        ...

    async def presign(self, staged: Staged) -> tuple[str, ...]: ...
    async def store_results(
        self, job_id: UUID, attempt: int, chunks: AsyncIterator[bytes]
    ) -> Results:
        """Stream to `<results bucket>/<job_id>/<attempt>/results.zip`, hashing on the way."""
        ...


# --- reports ---------------------------------------------------------------------------------------


class ReportProgress(Protocol):
    """How far the service has read what the nets report, by (topic, partition). Raises errors.Transient."""

    async def report_ends(self) -> Mapping[tuple[str, int], int] | None:
        """Where the reports end now; None when nobody has begun to read them."""
        ...

    async def read_to(self, ends: Mapping[tuple[str, int], int]) -> bool: ...


# --- store ---------------------------------------------------------------------------------------


class JobStore(Protocol):
    """Raises errors.Transient when the database is unavailable; whatever was not confirmed may be
    repeated."""

    async def apply(self, commands: Iterable[Command]) -> list[Decision]:
        """The one write path, for commands without a record: one decision for each, in order."""
        ...

    async def apply_each(self, commands: Iterable[Command]) -> list[Decision]:
        """As `apply`, for commands that have nothing to do with each other: one that can't be judged or
        stored costs itself alone, and has no decision."""
        ...

    async def claim(self, holder: str, without: Collection[str] = ()) -> Job | None:
        """Pick the next (job, net), and claim it, on none of the nets `without`. None: nothing can start
        now."""
        ...

    async def take(
        self, states: Iterable[JobState], holder: str, limit: int, without: Collection[str] = ()
    ) -> list[Job]:
        """Take over jobs in these states that nobody holds, or whose lease ran out, and that are due; none
        whose net is one of `without`."""
        ...

    async def renew(self, leases: Mapping[UUID, int]) -> set[UUID]:
        """Prolong leases by token; what is missing in the answer is lost."""
        ...

    async def get(self, job_id: UUID) -> Job | None: ...
    async def now(self) -> datetime: ...
    async def registry(self) -> Registry: ...
    async def draining(self) -> Mapping[str, Net]:
        """Nets that left the registry while something of ours is on them, as they were registered: followed
        until it is over, and given nothing more."""
        ...

    async def net_now(self) -> Mapping[str, NetNow]: ...
    async def reservations(self, net: str) -> list[Reservation]: ...
    async def known_runs(self, net: str, run_ids: Sequence[str]) -> set[str]:
        """Which of these run ids belonged to any attempt of ours, ever."""
        ...

    async def due(self, limit: int) -> list[UUID]:
        """Jobs whose `due_at` has passed."""
        ...

    async def waiting_heads(self, limit: int) -> list[tuple[UUID, str | None, int]]:
        """Of the first queued jobs those whose published code no longer holds: what holds each back now
        (None: its turn comes), and its position. Those that wait for a time stand behind all others."""
        ...

    async def resolve_parked(self, limit: int) -> int:
        """Apply parked records whose job exists now, end those whose time ran out. Returns how many."""
        ...

    async def stop_models(self, limit: int) -> int:
        """Continue stops by model; returns how many jobs got a stop."""
        ...

    async def review_registry(self, holder: str, limit: int) -> int:
        """Look again at a page of the jobs whose approvals a registry took back; 0 when there is
        nothing to do for this holder."""
        ...

    async def save_net(
        self,
        name: str,
        *,
        answering: bool,
        online: frozenset[UUID],
        extensions: frozenset[str],
        strays: tuple[str, ...] | None,
        body: bytes,
        unknown_statuses: tuple[str, ...] | None = None,
    ) -> None:
        """Keep what a poll saw; `body` is the `fl.net.status.v1` data, published when it changed. None as
        `strays` or `unknown_statuses`: as they were."""
        ...

    async def lease(self, name: str, holder: str, ttl_seconds: float) -> bool:
        """Take or prolong a named lease (a poller's, a sweep's)."""
        ...

    async def purgeable(self, limit: int) -> list[UUID]:
        """Jobs whose rows may go: their tombstones are acknowledged."""
        ...

    async def clean(self, purgeable: Sequence[UUID], limit: int) -> int:
        """Retention; of the jobs the rows of `purgeable` go. Returns how many rows went."""
        ...
