"""Ending a run that somebody wants ended, until its backend says that it is over.

Promise: a run is asked to end and then watched; the adapter's statement that it was aborted proves nothing,
its list does. A submission whose outcome is unknown is looked for first, so that the run it may have made is
found. What can't be shown yet is tried again with a growing delay, for as long as it takes; only where the
net has left the registry the job ends after a grace, its reservation kept.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode
from service.domain.events import Stopped
from service.domain.job import Job
from service.domain.observed import RunList
from service.domain.values import Reason
from service.errors import Permanent, Transient, faultpoint
from service.steps.context import StepContext
from service.steps.leases import HeldJob, clock
from service.steps.lookup import Lookup
from service.steps.ports import NetClient
from service.steps.prepare import attempt_of, handle_of
from service.steps.runner import lay_hand_down

log = structlog.get_logger(__name__)


class StopStep:
    """The step; see the module."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._lookup = Lookup(context)

    async def take(self, job: Job) -> None:
        """Stop a job that was taken for it."""
        with self._context.leases.hold(job) as held:
            await self.stop(held)

    async def stop(self, held: HeldJob, *, no_run: bool = False) -> None:
        """Continue the stop of the held job; `no_run`: its holder knows that nothing runs. Raises
        LeaseLost; errors.Transient when the database is unavailable."""
        if no_run:
            await self._context.apply(held, c.ConfirmNoRun(*held.command_key))
            return
        lay_hand_down()  # it is the net that takes its time
        try:
            client = await self._context.client(attempt_of(held.job).net)
        except Transient as exc:
            await self._delay(held, exc.message)
            return
        run_id = attempt_of(held.job).run_id
        if run_id is None:
            run_id = await self._look_for(held, client)
        if run_id is not None:
            await self._end(held, client, run_id)

    async def _look_for(self, held: HeldJob, client: NetClient) -> str | None:
        """The run of the submission in doubt. None: the stop is over without one."""
        if attempt_of(held.job).submission is None:
            await self._context.apply(held, c.ConfirmNoRun(*held.command_key))
            return None
        verdict = await self._lookup.settle(held, client)
        if verdict.run_id is not None:
            handle = handle_of(held.job)
            await self._context.record_run(
                c.RecordRun(
                    held.job_id,
                    handle.attempt,
                    handle.path_id,
                    verdict.run_id,
                    verdict.provisional,
                )
            )
            return verdict.run_id
        if verdict.no_run:
            await self._context.apply(held, c.ConfirmNoRun(*held.command_key))
        else:
            reason = Reason(ReasonCode.SUBMIT_UNKNOWN, verdict.detail)
            await self._context.apply(
                held, c.FailAttempt(*held.command_key, reason=reason, run_over=False)
            )
        return None

    async def _end(self, held: HeldJob, client: NetClient, run_id: str) -> None:
        """Abort, then watch the list for a while."""
        options = self._context.options
        detail = "the backend still shows the run"
        try:
            await client.abort(run_id, held.call_context)
        except (Transient, Permanent) as exc:
            detail = exc.message
        faultpoint("stop.aborted")
        between = max(options.abort_look_seconds, client.poll_seconds or 0.0)
        until = clock() + max(options.abort_watch_seconds, between)
        while True:
            held.require()
            began = await self._context.store.now()
            try:
                listed = await client.runs(held.call_context)
            except (Transient, Permanent) as exc:
                detail = exc.message
                break
            if await self._judge(held, client, run_id, listed, began):
                return
            if clock() >= until:
                break
            await self._context.pause(between)
        await self._delay(held, detail)

    async def _judge(
        self, held: HeldJob, client: NetClient, run_id: str, listed: RunList, began: datetime
    ) -> bool:
        """Apply what the list shows. True: the job is stopped."""
        run = next((run for run in listed.runs if run.run_id == run_id), None)
        number = attempt_of(held.job).number
        command: c.ObserveRun | c.ObserveRunMissing
        if run is not None:
            settled = self._context.net_cache.settled(client, run)
            command = c.ObserveRun(
                held.job_id, number, run_id, run.status, run.details, began, settled=settled
            )
        elif client.is_lost(listed, run_id):
            command = c.ObserveRunMissing(held.job_id, number, run_id, began)
        else:
            return False
        decision = await self._context.apply(held, command)
        if any(isinstance(event, Stopped) for event in decision.events):
            self._context.wakeups.claim.set()
            self._context.wakeups.poll_now(client.net.name)
            return True
        return (await self._context.refresh(held)).state is not JobState.STOPPING

    async def _delay(self, held: HeldJob, detail: str) -> None:
        reason = Reason(ReasonCode.ADAPTER_UNAVAILABLE, detail)
        await self._context.apply(held, c.DeferStep(*held.command_key, reason=reason))
        log.info("stop_delayed", job_id=str(held.job_id), detail=detail)
