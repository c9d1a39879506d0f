"""Fetching a finished run's results into our own store.

Promise: the results are streamed, hashed on the way, and stand in the store before the job is complete.
An adapter without the `results` extension, or without results, completes the job without them. A try that
fails is repeated with a growing delay, and without training again. A net that reports its rounds is given
time for the last of them: the list may show the end before our consumer has read how it came about, most of
all when it has been unavailable.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping

import structlog

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode
from service.domain.job import Job
from service.domain.values import Results
from service.errors import Permanent, Transient, faultpoint
from service.steps.context import StepContext, reason_from
from service.steps.leases import HeldJob, clock
from service.steps.ports import NetClient
from service.steps.prepare import attempt_of, net_snapshot
from service.steps.runner import lay_hand_down, take_hand_up

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
            lay_hand_down()
            try:
                results, note = await self._fetch(held)
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
            await self._context.apply(
                held, c.StoreResults(*held.command_key, results=results, note=note)
            )
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

    async def _extensions(self, client: NetClient) -> frozenset[str]:
        """What the adapter can do, as it said when it was last asked: whether there is anything to fetch is
        known without asking it again.

        Raises errors.Transient where it was never asked, and does not answer now.
        """
        name = client.net.name
        seen = self._context.net_cache.last(name, math.inf)
        if seen is not None and seen.health is not None:
            return seen.extensions
        now = (await self._context.store.net_now()).get(name)
        if now is not None and now.has_answered and now.extensions:
            return now.extensions
        snapshot = await net_snapshot(self._context, client)
        if snapshot.health is None:
            raise Transient(snapshot.trouble or "no answer", code=ReasonCode.ADAPTER_UNAVAILABLE)
        return snapshot.extensions

    async def _fetch(self, held: HeldJob) -> tuple[Results | None, str | None]:
        """The results in our store, else why there are none."""
        attempt = attempt_of(held.job)
        client = await self._context.client(attempt.net)
        extensions = await self._extensions(client)
        if REPORTS in extensions:
            await self._last_reports(held)
        if RESULTS not in extensions or attempt.run_id is None:
            return None, f"the adapter of net {attempt.net} hands over no results"
        await take_hand_up()
        results = await _store(self._context, client, held.job, held.require)
        if results is None:
            return None, f"net {attempt.net} has no results of this run"
        return results, None


async def _store(
    context: StepContext, client: NetClient, job: Job, before: Callable[[], None] | None = None
) -> Results | None:
    """The results of the job's run, streamed into our store; None where the net has none."""
    attempt = attempt_of(job)
    about = (job.job_id, attempt.number)
    async with client.results(attempt.run_id or "", about) as chunks:
        if chunks is None:
            return None
        if before is not None:
            before()
        return await context.bundles.store_results(job.job_id, attempt.number, chunks)


async def fetch_given_up(context: StepContext, job: Job) -> Results:
    """Fetch the results of a job that ended because they could not be had, without training again. The job's
    end stays; its state says where they lie.

    Raises errors.Transient when net, object store or database is unavailable; errors.Permanent where there is
    nothing to fetch.
    """
    attempt = attempt_of(job)
    results = None
    if attempt.run_id is not None:
        results = await _store(context, await context.client(attempt.net), job)
    if results is None:
        detail = f"net {attempt.net} has no results of this run"
        raise Permanent(detail, code=ReasonCode.RESULTS_UPLOAD_FAILED)
    await context.store.apply([c.RecordResults(job.job_id, attempt.number, results)])
    return results
