"""Was there a run? The search for a submission whose answer was lost.

Promise: a run is adopted only when it can be detail apart from everybody else's; "nothing" is said only when
no call that is still on its way can make a run any more; everything between these two is asked again, until
its time is over. Where the adapter knows keys a second submit under the same key leads to the same run, so
one search is enough before sending it; a stop, which sends nothing, needs the certainty of two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from service.domain.enums import JobState
from service.domain.job import Job
from service.domain.observed import Found, Handle
from service.errors import Permanent, Transient
from service.steps.context import StepContext
from service.steps.leases import HeldJob
from service.steps.ports import NetClient
from service.steps.prepare import IDEMPOTENCY, attempt_of, handle_of, net_snapshot

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`run_id`: found. Else `no_run`: certainly none (under a key: sending again is safe). Neither: its time
    is over, and `detail` says what stood in the way."""

    run_id: str | None = None
    provisional: bool = False
    no_run: bool = False
    detail: str = ""


class Lookup:
    """See the module."""

    def __init__(self, context: StepContext) -> None:
        self._context = context

    async def find(self, client: NetClient, handle: Handle, extensions: frozenset[str]) -> Found:
        """One search. Runs of our other attempts are detail apart, further runs of this one are aborted.

        Raises errors.Transient and errors.Permanent of the adapter.
        """
        net = client.net.name
        if IDEMPOTENCY not in extensions:
            listed = [run.run_id for run in (await client.runs(handle.about)).runs]
            ours = await self._context.store.known_runs(net, listed)
            known = (*handle.known_runs, *sorted(ours - set(handle.known_runs)))
            handle = replace(handle, known_runs=known)
        found = await client.find_run(handle, extensions)
        for extra in found.extra_runs:
            log.warning("second_run_found", job_id=str(handle.job_id), net=net, run=extra)
            self._context.net_cache.unwanted(net).add(extra)
            await client.abort(extra, handle.about)
        return found

    async def settle(self, held: HeldJob, client: NetClient) -> Verdict:
        """Search until there is a verdict. `held.job` is fresh afterwards.

        Raises LeaseLost; errors.Transient when the database is unavailable.
        """
        pauses, detail = self._context.retry_pauses(), "the adapter gave no usable answer"
        while True:
            held.require()
            job = await self._context.refresh(held)
            attempt = attempt_of(job)
            if attempt.run_id is not None:  # a report was faster
                return Verdict(attempt.run_id, attempt.provisional)
            try:
                found = await self._judge(held, client)
                if found.run_id is not None:
                    return Verdict(found.run_id, found.provisional)
                if found.doubt is None:
                    return Verdict(no_run=True)
                detail = found.doubt
            except (Transient, Permanent) as exc:
                detail = exc.message
            if await self._too_late(job):
                return Verdict(detail=detail)
            log.info("submission_looked_for", job_id=str(held.job_id), detail=detail)
            await self._context.pause(pauses.next())

    async def _too_late(self, job: Job) -> bool:
        submission = attempt_of(job).submission
        limit = timedelta(seconds=self._context.options.submit_unknown_seconds)
        return (
            submission is not None
            and await self._context.store.now() - submission.opened_at >= limit
        )

    async def _judge(self, held: HeldJob, client: NetClient) -> Found:
        """One search, as thorough as its consequence needs. Nothing is an answer only of a living
        adapter."""
        snapshot = await net_snapshot(self._context, client)
        if not snapshot.answering:
            raise Transient(snapshot.trouble or "no answer")
        handle, extensions = handle_of(held.job), snapshot.extensions
        first = await self.find(client, handle, extensions)
        if first.run_id is not None or first.doubt is not None:
            return first
        keyed = IDEMPOTENCY in extensions
        if keyed and held.job.state is not JobState.STOPPING:
            return first
        return await self.surely_nothing(client, handle, extensions, held)

    async def surely_nothing(
        self,
        client: NetClient,
        handle: Handle,
        extensions: frozenset[str],
        held: HeldJob | None = None,
    ) -> Found:
        """Make sure that a late submit fails and nothing is on its way any more, then search twice."""
        if IDEMPOTENCY not in extensions:
            await client.fence(handle, extensions)
        found = await self.find(client, handle, extensions)
        if found.run_id is None and found.doubt is None:
            await self._context.pause(self._context.options.fence_wait_seconds)
            if held is not None:
                held.require()
            found = await self.find(client, handle, extensions)
        return found
