"""Everything that must be there before a submission: clients, the runs known before, bundle, upload.

Promise: nothing of it creates a run, so whatever fails here burns no attempt unless it can never succeed.
Each submission has a path id and a bundle prefix of its own, also after a takeover: a worker that wakes
late writes where nobody reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

import structlog

from service.domain.enums import ReasonCode
from service.domain.job import Job
from service.domain.observed import Handle, Staged
from service.domain.values import Attempt
from service.errors import Transient, faultpoint
from service.steps.context import StepContext
from service.steps.leases import HeldJob
from service.steps.net_cache import NetSnapshot
from service.steps.ports import NetClient
from service.steps.runner import lay_hand_down, take_hand_up

log = structlog.get_logger(__name__)

#: The adapter's extension by which a submission is found again without any list.
IDEMPOTENCY = "idempotency"


@dataclass(frozen=True, slots=True)
class Ready:
    """A submission that only has to be opened and sent."""

    number: int
    handle: Handle
    staged: Staged
    extensions: frozenset[str]


def attempt_of(job: Job) -> Attempt:
    """The attempt of a job on a net. TypeError without one: a bug of the caller."""
    if job.attempt is None:
        raise TypeError(f"job {job.job_id} has no attempt")
    return job.attempt


def key_of(job_id: UUID, attempt: int) -> str:
    """The Idempotency-Key: one for all submissions of an attempt, so that they lead to one run."""
    return f"{job_id}:{attempt}"


def path_id_of(job_id: UUID, attempt: int, leases: int, reopened: int) -> UUID:
    """A path id that no other submission has: the holder's lease is in the name, and the count of
    submissions that this holder opened again."""
    again = f".{reopened}" if reopened else ""
    return uuid5(job_id, f"submission:{attempt}.{leases}{again}")


def handle_of(job: Job) -> Handle:
    """The handle of the attempt's last submission. TypeError without one: a bug of the caller."""
    attempt = attempt_of(job)
    if attempt.submission is None:
        raise TypeError(f"job {job.job_id} has no submission")
    return Handle(
        job_id=job.job_id,
        model_id=job.accepted_request.model_id,
        attempt=attempt.number,
        path_id=attempt.submission.path_id,
        key=attempt.submission.key,
        known_runs=attempt.submission.known_runs,
        earlier_paths=attempt.submission.earlier_paths,
    )


async def net_snapshot(context: StepContext, client: NetClient) -> NetSnapshot:
    """The net as its poller saw it a moment ago, else as it answers now."""
    snapshot = context.net_cache.last(client.net.name, context.usual_pause(client) * 2)
    return (
        snapshot
        if snapshot is not None and snapshot.answering
        else await context.net_cache.refresh(client)
    )


class PrepareStep:
    """The step; see the module."""

    def __init__(self, context: StepContext) -> None:
        self._context = context

    async def prepare(self, held: HeldJob, client: NetClient, reopened: int = 0) -> Ready:
        """Make a submission ready for the held attempt.

        Raises errors.Permanent where it can never succeed, with the reason's code; errors.Transient where
        nothing was submitted and it may succeed later; LeaseLost.
        """
        await take_hand_up()
        job, attempt = held.job, attempt_of(held.job)
        path_id = path_id_of(job.job_id, attempt.number, attempt.leases, reopened)
        (snapshot, known), staged = await all_of(
            self._net_ready(held, client),
            self._stage(job, client, path_id),
        )
        held.require()
        faultpoint("prepare.staged")
        before = attempt.submission
        handle = Handle(
            job_id=job.job_id,
            model_id=job.accepted_request.model_id,
            attempt=attempt.number,
            path_id=path_id,
            key=key_of(job.job_id, attempt.number),
            known_runs=known,
            earlier_paths=() if before is None else (*before.earlier_paths, before.path_id),
        )
        await self._upload(held, client, handle, staged)
        faultpoint("prepare.uploaded")
        number = max(attempt.leases, before.number + 1 if before is not None else 1)
        return Ready(number, handle, staged, snapshot.extensions)

    async def _stage(self, job: Job, client: NetClient, path_id: UUID) -> Staged:
        """Freeze the bundle. What follows is waiting for the net, and needs no hand."""
        attempt = attempt_of(job)
        try:
            return await self._context.bundles.stage(
                job.accepted_request,
                net=client.net,
                attempt=attempt.number,
                path_id=path_id,
                slots={p.trust_id: p.slot for p in attempt.participants},
            )
        finally:
            lay_hand_down()

    async def _net_ready(
        self, held: HeldJob, client: NetClient
    ) -> tuple[NetSnapshot, tuple[str, ...]]:
        """A snapshot of the net in which all participants are online, and the runs that it lists now, where a
        lost answer would be looked for among them. An old snapshot never counts against a client."""
        slots = {p.slot for p in attempt_of(held.job).participants}
        snapshot = self._context.net_cache.last(
            client.net.name, self._context.usual_pause(client) * 2
        )
        if snapshot is None or not slots <= snapshot.online:
            snapshot = await self._context.net_cache.refresh(client)
        if not snapshot.answering:
            raise Transient(snapshot.trouble or "no answer", code=ReasonCode.ADAPTER_UNAVAILABLE)
        gone = sorted(slots - snapshot.online)
        if gone:
            detail = f"clients not online on net {client.net.name}: {', '.join(gone[:20])}"
            raise Transient(detail, code=ReasonCode.CLIENTS_UNAVAILABLE)
        if IDEMPOTENCY in snapshot.extensions:
            return snapshot, ()
        return snapshot, tuple(run.run_id for run in (await client.runs(held.call_context)).runs)

    async def _upload(
        self, held: HeldJob, client: NetClient, handle: Handle, staged: Staged
    ) -> None:
        """Hand the bundle's URLs over, made only now since they expire. An upload may be repeated."""
        pauses, request = self._context.retry_pauses(), held.job.accepted_request
        for left in reversed(range(self._context.options.call_tries)):
            held.require()
            try:
                async with client.turn():
                    # After the wait: the job may be another's by now, and URLs expire.
                    held.require()
                    urls = await self._context.bundles.presign(staged)
                    await client.upload(
                        handle,
                        project_id=request.project_id,
                        cohort_query=request.cohort_query,
                        slots=[p.slot for p in attempt_of(held.job).participants],
                        urls=urls,
                    )
                return
            except Transient as exc:
                if not left:
                    raise
                log.info("upload_repeated", job_id=str(held.job_id), error=exc.message)
            await self._context.pause(pauses.next())


async def all_of(*calls: Awaitable[Any]) -> list[Any]:
    """All answers, or the first error once every call has ended: calls to an adapter are never cut off."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers
