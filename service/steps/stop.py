"""Ending a run that somebody wants ended, until its backend says that it is over.

Promise: a run is asked to end and then watched; the adapter's word that it was aborted proves nothing, its
list does. A submission whose outcome is unknown is looked for first, so that the run it may have made is
found. What can't be shown yet is tried again with a growing delay, for as long as it takes; only where the
net has left the registry the job ends after a grace, its place kept.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from service.domain import commands as c
from service.domain.events import Stopped
from service.domain.job import Job
from service.domain.observed import RunList
from service.domain.values import Why
from service.domain.vocabulary import JobState, Reason
from service.errors import Permanent, Transient, faultpoint
from service.steps.kit import Kit
from service.steps.leases import Held, clock
from service.steps.lookup import Lookup
from service.steps.ports import NetClient
from service.steps.prepare import attempt_of, handle_of

log = structlog.get_logger(__name__)


class Stopper:
    """The step; see the module."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._lookup = Lookup(kit)

    async def take(self, job: Job) -> None:
        """Stop a job that was taken for it."""
        with self._kit.leases.hold(job) as held:
            await self.stop(held)

    async def stop(self, held: Held) -> None:
        """Go on with the stop of the job in hand. Raises LeaseLost; errors.Transient when the database is
        away."""
        try:
            client = await self._kit.client(attempt_of(held.job).net)
        except Transient as exc:
            await self._delay(held, exc.message)
            return
        run_id = attempt_of(held.job).run_id
        if run_id is None:
            run_id = await self._look_for(held, client)
        if run_id is not None:
            await self._end(held, client, run_id)

    async def _look_for(self, held: Held, client: NetClient) -> str | None:
        """The run of the submission in doubt. None: the stop is over without one."""
        if attempt_of(held.job).submission is None:
            await self._kit.apply(held, c.NothingRuns(*held.names))
            return None
        verdict = await self._lookup.settle(held, client)
        if verdict.run_id is not None:
            handle = handle_of(held.job)
            await self._kit.know(
                c.KnowRun(
                    held.job_id,
                    handle.attempt,
                    handle.path_id,
                    verdict.run_id,
                    verdict.provisional,
                )
            )
            return verdict.run_id
        if verdict.nothing:
            await self._kit.apply(held, c.NothingRuns(*held.names))
        else:
            why = Why(Reason.SUBMIT_UNKNOWN, verdict.told)
            await self._kit.apply(held, c.FailAttempt(*held.names, why=why, run_over=False))
        return None

    async def _end(self, held: Held, client: NetClient, run_id: str) -> None:
        """Abort, then watch the list for a while."""
        pace = self._kit.pace
        told = "the backend still shows the run"
        try:
            await client.abort(run_id, held.about)
        except (Transient, Permanent) as exc:
            told = exc.message
        faultpoint("stop.aborted")
        until = clock() + pace.abort_watch_seconds
        while True:
            held.require()
            began = await self._kit.store.now()
            try:
                listed = await client.runs(held.about)
            except (Transient, Permanent) as exc:
                told = exc.message
                break
            if await self._judge(held, client, run_id, listed, began):
                return
            if clock() >= until:
                break
            await self._kit.pause(pace.abort_look_seconds)
        await self._delay(held, told)

    async def _judge(
        self, held: Held, client: NetClient, run_id: str, listed: RunList, began: datetime
    ) -> bool:
        """Hand the list's word over. True: the job is stopped."""
        run = next((run for run in listed.runs if run.run_id == run_id), None)
        number = attempt_of(held.job).number
        command: c.SeeRun | c.MissRun
        if run is not None:
            settled = self._kit.seen.settled(client, run)
            command = c.SeeRun(
                held.job_id, number, run_id, run.status, run.details, began, settled=settled
            )
        elif client.is_lost(listed, run_id):
            command = c.MissRun(held.job_id, number, run_id, began)
        else:
            return False
        decision = await self._kit.apply(held, command)
        if any(isinstance(event, Stopped) for event in decision.events):
            self._kit.bells.claim.set()
            self._kit.bells.nudge(client.net.name)
            return True
        return (await self._kit.refresh(held)).state is not JobState.STOPPING

    async def _delay(self, held: Held, told: str) -> None:
        why = Why(Reason.ADAPTER_UNAVAILABLE, told)
        await self._kit.apply(held, c.DelayTry(*held.names, why=why))
        log.info("stop_delayed", job_id=str(held.job_id), told=told)
