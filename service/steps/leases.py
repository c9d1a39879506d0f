"""The jobs that this process works on, and the one renewer of their leases.

Promise: a holder learns at its next decision that its lease is gone; nothing is cancelled in the middle of
a call. A lease that could not be renewed for its whole time counts as lost although nobody said so: another
instance may have the job by then. What breaks it: a step that decides without asking `require`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog

from service.domain.job import Job
from service.domain.observed import About
from service.errors import ServiceError
from service.steps.options import StepOptions
from service.steps.ports import JobStore

log = structlog.get_logger(__name__)


class LeaseLost(ServiceError):
    """Somebody else works on the job now, or it is over: release it and decide nothing more."""

    code = "lease_lost"


def clock() -> float:
    """Seconds of the running loop's clock, which never goes back."""
    return asyncio.get_running_loop().time()


class HeldJob:
    """A held job. `job` is as it was last read under this lease."""

    __slots__ = ("job", "lost", "renewed_at", "seconds", "token")

    def __init__(self, job: Job, token: int, seconds: float) -> None:
        self.job = job
        self.token = token
        self.seconds = seconds
        self.renewed_at = clock()
        self.lost = False

    @property
    def job_id(self) -> UUID:
        return self.job.job_id

    @property
    def call_context(self) -> About:
        """The job and the attempt, as they are sent to adapters."""
        return self.job.job_id, self.job.attempt_number

    @property
    def command_key(self) -> tuple[UUID, int, int]:
        """Job, attempt and token, as a holder's commands name them."""
        return self.job.job_id, self.job.attempt_number, self.token

    def require(self) -> None:
        """Raises LeaseLost when the job is no longer ours, or may not be."""
        if self.lost or clock() - self.renewed_at >= self.seconds:
            self.lost = True
            raise LeaseLost(f"job {self.job_id} is no longer held")

    def confirmed(self, since: float) -> None:
        """The database agreed with this token in an exchange that began at `since`."""
        self.renewed_at = max(self.renewed_at, since)


class Leases:
    """All held jobs."""

    def __init__(self, store: JobStore, options: StepOptions) -> None:
        self._store = store
        self._seconds = options.lease_seconds
        self._held: dict[UUID, HeldJob] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, job_id: UUID) -> bool:
        return job_id in self._held

    @contextmanager
    def hold(self, job: Job) -> Iterator[HeldJob]:
        """Keep the lease of a job that was just claimed or taken. Raises LeaseLost when it has none."""
        if job.lease is None:
            raise LeaseLost(f"job {job.job_id} came without a lease")
        held = HeldJob(job, job.lease.token, self._seconds)
        self._held[job.job_id] = held
        try:
            yield held
        finally:
            if self._held.get(job.job_id) is held:
                del self._held[job.job_id]

    async def renew(self) -> None:
        """One round for all of them. Raises errors.Transient when the database is unavailable."""
        asked = dict(self._held)
        if not asked:
            return
        began = clock()
        kept = await self._store.renew({job_id: held.token for job_id, held in asked.items()})
        for job_id, held in asked.items():
            if job_id in kept:
                held.confirmed(began)
            elif self._held.get(job_id) is held:
                held.lost = True
                log.info("job_lease_lost", job_id=str(job_id), token=held.token)
