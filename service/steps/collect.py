"""Fetching a finished run's results into our own store.

Promise: the results are streamed, hashed on the way, and stand in the store before the job is complete.
An adapter without the `results` extension, or without results, completes the job without them. A try that
fails is repeated with a growing delay, and without training again. A net that reports its rounds is given
time for the last of them: the list may show the end before our consumer has read how it came about, most of
all when it has been unavailable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import structlog

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode
from service.domain.job import Job
from service.domain.values import Results
from service.errors import Permanent, Transient, faultpoint
from service.steps.context import StepContext, reason_from
from service.steps.leases import HeldJob, clock
from service.steps.prepare import attempt_of, net_snapshot

log = structlog.get_logger(__name__)

#: The adapter's extension `GET /results/{id}`.
RESULTS = "results"
#: The extension by which a net publishes its rounds and metrics itself.
REPORTS = "reports"


class CollectStep:
    """The step; see the module."""

    def __init__(self, context: StepContext) -> None:
        self._context = context

    async def take(self, job: Job) -> None:
        """Collect for a job that was taken for it. Raises LeaseLost; errors.Transient when the database is
        unavailable."""
        with self._context.leases.hold(job) as held:
            try:
                results = await self._fetch(held)
            except Transient as exc:
                reason = reason_from(exc, ReasonCode.ADAPTER_UNAVAILABLE)
                command = c.DeferStep(*held.command_key, reason=reason, retry_after=exc.retry_after)
                await self._context.apply(held, command)
                log.info("results_delayed", job_id=str(held.job_id), detail=exc.message)
                return
            except Permanent as exc:
                reason = reason_from(exc, ReasonCode.RESULTS_UPLOAD_FAILED)
                await self._context.apply(
                    held, c.FailAttempt(*held.command_key, reason=reason, run_over=False)
                )
                return
            faultpoint("collect.stored")
            held.require()
            await self._context.apply(held, c.StoreResults(*held.command_key, results=results))
            self._context.wakeups.poll_now(attempt_of(job).net)

    async def _last_reports(self, held: HeldJob) -> None:
        """Wait until the last round was received. A report may be lost permanently: it is given up when its
        time is over and everything reported until then was read."""
        unread, until = True, clock() + self._context.options.reports_seconds
        ends: Mapping[tuple[str, int], int] | None = None
        while unread:
            if clock() >= until:
                with contextlib.suppress(Transient):
                    ends = ends or await self._context.reports.report_ends()
                    unread = ends is None or not await self._context.reports.read_to(ends)
            held.require()
            job = await self._context.store.get(held.job_id)
            if job is None or job.progress.total is None:
                return
            if (
                job.state is not JobState.COLLECTING
                or job.progress.aggregated >= job.progress.total
            ):
                return
            await self._context.pause(0.1 if clock() < until else 1.0)
        log.warning("reports_missing", job_id=str(held.job_id))

    async def _fetch(self, held: HeldJob) -> Results | None:
        attempt = attempt_of(held.job)
        client = await self._context.client(attempt.net)
        snapshot = await net_snapshot(self._context, client)
        if snapshot.health is None:
            raise Transient(snapshot.trouble or "no answer", code=ReasonCode.ADAPTER_UNAVAILABLE)
        if REPORTS in snapshot.extensions:
            await self._last_reports(held)
        if RESULTS not in snapshot.extensions or attempt.run_id is None:
            return None
        async with client.results(attempt.run_id, held.call_context) as chunks:
            if chunks is None:
                return None
            held.require()
            return await self._context.bundles.store_results(held.job_id, attempt.number, chunks)
