"""Handing an attempt to its adapter, so that a crash at any point leaves at most one run, and a known one.

The order is the promise: the submission is committed (key, path id, runs known before), the adapter is
called, its answer is kept. A lost answer is looked for before anything is sent again. A busy or unreachable
adapter that surely took nothing gives the net back and burns no attempt. What breaks it: two adapters
answering for one FL runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import structlog

from service.domain import commands as c
from service.domain.events import SubmissionOpened, Submitted
from service.domain.job import Job
from service.domain.submit import NET_UNFIT
from service.domain.values import Submission, Why
from service.domain.vocabulary import TRANSIENT_REASONS, JobState, Reason
from service.errors import Ambiguous, Permanent, Transient, faultpoint
from service.steps.kit import Kit, why_of
from service.steps.leases import Held, clock
from service.steps.lookup import Lookup
from service.steps.ports import NetClient
from service.steps.prepare import IDEMPOTENCY, Prepare, Ready, attempt_of, handle_of, look_at
from service.steps.stop import Stopper

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Trail:
    """What this holder did so far. `open_end`: a submission's outcome is not known."""

    open_end: bool
    reopened: int = 0
    keyed: bool = False


class Submit:
    """Drives a claimed or rescued job until its run is known, or it can't have one."""

    def __init__(self, kit: Kit, stopper: Stopper) -> None:
        self._kit = kit
        self._prepare = Prepare(kit)
        self._lookup = Lookup(kit)
        self._stopper = stopper

    async def drive(self, job: Job) -> None:
        """The whole way from the lease to its end. Raises LeaseLost; errors.Transient when the database is
        away: the lease runs out then, and the job is rescued."""
        with self._kit.leases.hold(job) as held:
            if job.state is JobState.STOPPING:
                await self._stopper.stop(held)
                return
            try:
                client = await self._kit.client(attempt_of(job).net)
            except Transient as exc:
                await self._net_gone(held, exc)
                return
            trail = _Trail(open_end=job.state is JobState.SUBMITTING)
            while await self._once(held, client, trail):
                trail.open_end = True

    async def _net_gone(self, held: Held, exc: Transient) -> None:
        """The registry dropped the net. What may run there keeps its place until somebody says more."""
        if held.job.state is JobState.SUBMITTING:
            why = Why(Reason.SUBMIT_UNKNOWN, exc.message)
            await self._kit.apply(held, c.FailAttempt(*held.names, why=why, run_over=False))
            return
        await self._give_back(held, exc)

    async def _once(self, held: Held, client: NetClient, trail: _Trail) -> bool:
        """One submission. True: it went out, and its answer was lost."""
        if trail.open_end and not await self._resolve(held, client, trail):
            return False
        try:
            ready = await self._prepare.prepare(held, client, trail.reopened)
        except Permanent as exc:
            over = not (trail.open_end and trail.keyed)
            why = why_of(exc, Reason.INTERNAL_ERROR)
            await self._kit.apply(held, c.FailAttempt(*held.names, why=why, run_over=over))
            return False
        except Transient as exc:
            return await self._later(held, trail, exc)
        trail.keyed = IDEMPOTENCY in ready.extensions
        if not await self._open(held, ready, trail):
            return False
        return await self._send(held, client, ready, trail)

    async def _resolve(self, held: Held, client: NetClient, trail: _Trail) -> bool:
        """Find out what became of the last submission. True: nothing, and the job wants another one."""
        verdict = await self._lookup.settle(held, client)
        job = held.job
        if verdict.run_id is not None:
            path_id = handle_of(job).path_id
            await self._found(held, path_id, verdict.run_id, verdict.provisional)
            return False
        submission = attempt_of(job).submission
        sent = 1 + len(submission.earlier_paths) if submission is not None else 1
        trail.keyed = IDEMPOTENCY in (await look_at(self._kit, client)).extensions
        if verdict.nothing and job.state is JobState.STOPPING:
            await self._kit.apply(held, c.NothingRuns(*held.names))
            return False
        if verdict.nothing and sent < self._kit.pace.most_submissions:
            trail.reopened += 1
            await self._kit.pause(
                min(0.25 * 2.0**trail.reopened, self._kit.pace.reopen_most_seconds)
            )
            return True
        if verdict.nothing and not trail.keyed:
            told = f"{sent} submissions led to no run"
            await self._give_back(held, Transient(told, code=Reason.ADAPTER_UNAVAILABLE))
            return False
        why = Why(Reason.SUBMIT_UNKNOWN, verdict.told or f"{sent} submissions, no word of a run")
        await self._kit.apply(held, c.FailAttempt(*held.names, why=why, run_over=False))
        return False

    async def _later(self, held: Held, trail: _Trail, exc: Transient) -> bool:
        """Preparing met an obstacle: give the net back, but never with an open end under a key."""
        if not (trail.open_end and trail.keyed):
            await self._give_back(held, exc)
            return False
        await self._kit.pause(self._kit.pace.retry_most_seconds)
        return True

    async def _give_back(self, held: Held, exc: Transient) -> None:
        why = why_of(exc, Reason.ADAPTER_UNAVAILABLE)
        if why.code not in TRANSIENT_REASONS:
            why = Why(Reason.ADAPTER_UNAVAILABLE, exc.message)
        command = c.GiveBack(*held.names, why=why, retry_after=exc.retry_after)
        await self._kit.apply(held, command)
        log.info("net_given_back", job_id=str(held.job_id), code=why.code, told=why.message)

    async def _open(self, held: Held, ready: Ready, trail: _Trail) -> bool:
        """Commit the submission before it is sent. False: there is nothing to send any more."""
        until = clock() + self._kit.pace.doubt_patience_seconds
        pause = 0.05
        while True:
            held.require()
            command = c.OpenSubmission(*held.names, submission=await self._submission(ready))
            try:
                decision = await self._kit.apply(held, command)
                break
            except Transient as exc:  # another submission of this net has no outcome yet
                if clock() >= until:
                    await self._give_back(held, exc)
                    return False
            await self._kit.pause(pause)
            pause = min(pause * 2, 1.0)
        if any(isinstance(event, SubmissionOpened) for event in decision.events):
            return True
        if decision.why is not None and decision.why.code == NET_UNFIT:
            await self._unfit(held, trail, decision.why.message)
            return False
        job = await self._kit.refresh(held)
        if job.state is JobState.STOPPING:
            await self._stopper.stop(held)
        return False

    async def _unfit(self, held: Held, trail: _Trail, told: str) -> None:
        """The net lost a member since the claim. Under a key, a submission that was sent may still arrive."""
        if trail.open_end and trail.keyed:
            why = Why(Reason.SUBMIT_UNKNOWN, told)
            await self._kit.apply(held, c.FailAttempt(*held.names, why=why, run_over=False))
            return
        await self._give_back(held, Transient(told, code=Reason.CLIENTS_UNAVAILABLE))

    async def _submission(self, ready: Ready) -> Submission:
        return Submission(
            number=ready.number,
            path_id=ready.handle.path_id,
            key=ready.handle.key,
            known_runs=ready.handle.known_runs,
            opened_at=await self._kit.store.now(),
            bundle_prefix=ready.staged.prefix,
            bundle_sha256=ready.staged.sha256,
            config=ready.staged.config,
            earlier_paths=ready.handle.earlier_paths,
        )

    async def _send(self, held: Held, client: NetClient, ready: Ready, trail: _Trail) -> bool:
        """Call the adapter. True: the call may have been applied, and no answer came."""
        pace = self._kit.pace
        pause, left = pace.retry_seconds, pace.call_tries
        while True:
            held.require()
            faultpoint("submit.opened")
            try:
                run_id = await client.submit(ready.handle)
            except Ambiguous as exc:
                log.warning("submit_answer_lost", job_id=str(held.job_id), error=exc.message)
                return True
            except Permanent as exc:
                over = not (trail.open_end and trail.keyed)
                why = why_of(exc, Reason.ADAPTER_REJECTED)
                await self._kit.apply(held, c.FailAttempt(*held.names, why=why, run_over=over))
                return False
            except Transient as exc:
                left -= 1
                if trail.open_end and trail.keyed:
                    return True
                if await self._stopped_unsent(held):
                    return False
                if left <= 0:
                    await self._give_back(held, exc)
                    return False
                named = min(exc.retry_after or 0.0, pace.retry_most_seconds)
            else:
                faultpoint("submit.answered")
                await self._found(held, ready.handle.path_id, run_id, provisional=False)
                return False
            await self._kit.pause(max(pause, named))
            pause = min(pause * 2, pace.retry_most_seconds)

    async def _stopped_unsent(self, held: Held) -> bool:
        """A stop came between two calls of which none was taken: nothing runs."""
        job = await self._kit.refresh(held)
        if job.state is not JobState.STOPPING:
            return False
        await self._kit.apply(held, c.NothingRuns(*held.names))
        return True

    async def _found(self, held: Held, path_id: UUID, run_id: str, provisional: bool) -> None:
        """Keep the run's id, and go on with whatever the job wants by now."""
        attempt = attempt_of(held.job)
        command = c.KnowRun(held.job_id, attempt.number, path_id, run_id, provisional)
        decision = await self._kit.know(command)
        faultpoint("submit.known")
        self._kit.bells.nudge(attempt.net)
        if any(isinstance(event, Submitted) for event in decision.events):
            return
        if decision.why is not None and decision.why.code == "other_run":
            log.warning("second_run_found", job_id=str(held.job_id), run=run_id)
            self._kit.seen.unwanted(attempt.net).add(run_id)
        job = await self._kit.refresh(held)
        if job.state is JobState.STOPPING:
            await self._stopper.stop(held)
