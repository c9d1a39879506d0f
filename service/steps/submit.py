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
from service.domain.enums import TRANSIENT_REASONS, JobState, ReasonCode
from service.domain.events import SubmissionOpened, Submitted
from service.domain.job import Job
from service.domain.submit import NET_UNFIT
from service.domain.values import Reason, Submission
from service.errors import Ambiguous, Permanent, Transient, faultpoint
from service.steps.context import StepContext, reason_from
from service.steps.leases import HeldJob, clock
from service.steps.lookup import Lookup
from service.steps.ports import NetClient
from service.steps.prepare import (
    IDEMPOTENCY,
    PrepareStep,
    Ready,
    attempt_of,
    handle_of,
    net_snapshot,
)
from service.steps.runner import lay_hand_down
from service.steps.stop import StopStep

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SubmissionProgress:
    """What this holder did so far. `open_end`: a submission's outcome is not known."""

    open_end: bool
    reopened: int = 0
    keyed: bool = False


class SubmitStep:
    """Drives a claimed or rescued job until its run is known, or it can't have one."""

    def __init__(self, context: StepContext, stopper: StopStep) -> None:
        self._context = context
        self._prepare = PrepareStep(context)
        self._lookup = Lookup(context)
        self._stopper = stopper

    async def drive(self, job: Job) -> None:
        """The whole way from the lease to its end. Raises LeaseLost; errors.Transient when the database is
        unavailable: the lease runs out then, and the job is rescued."""
        with self._context.leases.hold(job) as held:
            if job.state is JobState.STOPPING:
                await self._stopper.stop(held)
                return
            try:
                client = await self._context.client(attempt_of(job).net)
            except Transient as exc:
                await self._net_gone(held, exc)
                return
            progress = SubmissionProgress(open_end=job.state is JobState.SUBMITTING)
            while await self._once(held, client, progress):
                progress.open_end = True

    async def _net_gone(self, held: HeldJob, exc: Transient) -> None:
        """The registry dropped the net. What may run there keeps its reservation until more is known."""
        if held.job.state is JobState.SUBMITTING:
            reason = Reason(ReasonCode.SUBMIT_UNKNOWN, exc.message)
            await self._context.apply(
                held, c.FailAttempt(*held.command_key, reason=reason, run_over=False)
            )
            return
        await self._give_back(held, exc)

    async def _once(self, held: HeldJob, client: NetClient, progress: SubmissionProgress) -> bool:
        """One submission. True: it went out, and its answer was lost."""
        if progress.open_end:
            lay_hand_down()
            if not await self._resolve(held, client, progress):
                return False
        try:
            ready = await self._prepare.prepare(held, client, progress.reopened)
        except Permanent as exc:
            over = not (progress.open_end and progress.keyed)
            reason = reason_from(exc, ReasonCode.INTERNAL_ERROR)
            await self._context.apply(
                held, c.FailAttempt(*held.command_key, reason=reason, run_over=over)
            )
            return False
        except Transient as exc:
            return await self._later(held, progress, exc)
        progress.keyed = IDEMPOTENCY in ready.extensions
        return await self._hand_over(held, client, ready, progress)

    async def _resolve(
        self, held: HeldJob, client: NetClient, progress: SubmissionProgress
    ) -> bool:
        """Find out what became of the last submission. True: nothing, and the job wants another one."""
        verdict = await self._lookup.settle(held, client)
        job = held.job
        if verdict.run_id is not None:
            path_id = handle_of(job).path_id
            await self._found(held, path_id, verdict.run_id, verdict.provisional)
            return False
        submission = attempt_of(job).submission
        sent = 1 + len(submission.earlier_paths) if submission is not None else 1
        progress.keyed = IDEMPOTENCY in await self._extensions(client)
        if verdict.no_run and job.state is JobState.STOPPING:
            await self._context.apply(held, c.ConfirmNoRun(*held.command_key))
            return False
        if verdict.no_run and sent < self._context.options.most_submissions:
            progress.reopened += 1
            await self._context.pause(
                min(0.25 * 2.0**progress.reopened, self._context.options.reopen_most_seconds)
            )
            return True
        if verdict.no_run and not progress.keyed:
            detail = f"{sent} submissions led to no run"
            await self._give_back(held, Transient(detail, code=ReasonCode.ADAPTER_UNAVAILABLE))
            return False
        reason = Reason(
            ReasonCode.SUBMIT_UNKNOWN, verdict.detail or f"{sent} submissions, no trace of a run"
        )
        await self._context.apply(
            held, c.FailAttempt(*held.command_key, reason=reason, run_over=False)
        )
        return False

    async def _extensions(self, client: NetClient) -> frozenset[str]:
        """What the adapter can do. One that does not answer now has not lost what it said before."""
        snapshot = await net_snapshot(self._context, client)
        if snapshot.health is not None:
            return snapshot.extensions
        now = (await self._context.store.net_now()).get(client.net.name)
        return frozenset() if now is None else now.extensions

    async def _later(self, held: HeldJob, progress: SubmissionProgress, exc: Transient) -> bool:
        """Preparing met an obstacle: give the net back, but never with an open end under a key."""
        if not (progress.open_end and progress.keyed):
            await self._give_back(held, exc)
            return False
        await self._context.pause(self._context.options.retry_most_seconds)
        return True

    async def _give_back(self, held: HeldJob, exc: Transient) -> None:
        reason = reason_from(exc, ReasonCode.ADAPTER_UNAVAILABLE)
        if reason.code not in TRANSIENT_REASONS:
            reason = Reason(ReasonCode.ADAPTER_UNAVAILABLE, exc.message)
        command = c.ReleaseNet(*held.command_key, reason=reason, retry_after=exc.retry_after)
        await self._context.apply(held, command)
        log.info("net_given_back", job_id=str(held.job_id), code=reason.code, detail=reason.message)

    async def _hand_over(
        self, held: HeldJob, client: NetClient, ready: Ready, progress: SubmissionProgress
    ) -> bool:
        """Commit the submission and send it, within one turn of the net, so that the call follows its
        commitment at once. True: the call may have been applied, and no answer came."""
        until = clock() + self._context.options.doubt_patience_seconds
        pause = 0.05
        while True:
            async with client.turn():
                held.require()
                try:
                    opened = await self._open(held, ready, progress)
                except Transient as exc:  # another submission of this net has no outcome yet
                    doubt = exc
                else:
                    return opened and await self._send(held, client, ready, progress)
            if clock() >= until:
                await self._give_back(held, doubt)
                return False
            await self._context.pause(pause)
            pause = min(pause * 2, 1.0)

    async def _open(self, held: HeldJob, ready: Ready, progress: SubmissionProgress) -> bool:
        """Commit the submission before it is sent. False: there is nothing to send any more.

        Raises errors.Transient while another submission of the net has no outcome.
        """
        command = c.OpenSubmission(*held.command_key, submission=await self._submission(ready))
        decision = await self._context.apply(held, command)
        if any(isinstance(event, SubmissionOpened) for event in decision.events):
            return True
        if decision.reason is not None and decision.reason.code == NET_UNFIT:
            await self._unfit(held, progress, decision.reason.message)
            return False
        job = await self._context.refresh(held)
        if job.state is JobState.STOPPING:
            await self._stopper.stop(held)
        return False

    async def _unfit(self, held: HeldJob, progress: SubmissionProgress, detail: str) -> None:
        """The net lost a member since the claim. Under a key, a submission that was sent may still arrive."""
        if progress.open_end and progress.keyed:
            reason = Reason(ReasonCode.SUBMIT_UNKNOWN, detail)
            await self._context.apply(
                held, c.FailAttempt(*held.command_key, reason=reason, run_over=False)
            )
            return
        await self._give_back(held, Transient(detail, code=ReasonCode.CLIENTS_UNAVAILABLE))

    async def _submission(self, ready: Ready) -> Submission:
        return Submission(
            number=ready.number,
            path_id=ready.handle.path_id,
            key=ready.handle.key,
            known_runs=ready.handle.known_runs,
            opened_at=await self._context.store.now(),
            bundle_prefix=ready.staged.prefix,
            bundle_sha256=ready.staged.sha256,
            config=ready.staged.config,
            earlier_paths=ready.handle.earlier_paths,
        )

    async def _send(
        self, held: HeldJob, client: NetClient, ready: Ready, progress: SubmissionProgress
    ) -> bool:
        """Call the adapter. True: the call may have been applied, and no answer came."""
        options = self._context.options
        pause, left = options.retry_seconds, options.call_tries
        while True:
            held.require()
            faultpoint("submit.opened")
            try:
                run_id = await client.submit(ready.handle)
            except Ambiguous as exc:
                log.warning("submit_answer_lost", job_id=str(held.job_id), error=exc.message)
                return True
            except Permanent as exc:
                over = not (progress.open_end and progress.keyed)
                reason = reason_from(exc, ReasonCode.ADAPTER_REJECTED)
                await self._context.apply(
                    held, c.FailAttempt(*held.command_key, reason=reason, run_over=over)
                )
                return False
            except Transient as exc:
                left -= 1
                if progress.open_end and progress.keyed:
                    return True
                if await self._stopped_unsent(held):
                    return False
                if left <= 0:
                    await self._give_back(held, exc)
                    return False
                named = min(exc.retry_after or 0.0, options.retry_most_seconds)
            else:
                faultpoint("submit.answered")
                await self._found(held, ready.handle.path_id, run_id, provisional=False)
                return False
            await self._context.pause(max(pause, named))
            pause = min(pause * 2, options.retry_most_seconds)

    async def _stopped_unsent(self, held: HeldJob) -> bool:
        """A stop came between two calls of which none was taken: nothing runs."""
        job = await self._context.refresh(held)
        if job.state is not JobState.STOPPING:
            return False
        await self._context.apply(held, c.ConfirmNoRun(*held.command_key))
        return True

    async def _found(self, held: HeldJob, path_id: UUID, run_id: str, provisional: bool) -> None:
        """Keep the run's id, and continue with whatever the job needs by now."""
        attempt = attempt_of(held.job)
        command = c.RecordRun(held.job_id, attempt.number, path_id, run_id, provisional)
        decision = await self._context.record_run(command)
        faultpoint("submit.known")
        self._context.wakeups.poll_now(attempt.net)
        if any(isinstance(event, Submitted) for event in decision.events):
            return
        if decision.reason is not None and decision.reason.code == "other_run":
            log.warning("second_run_found", job_id=str(held.job_id), run=run_id)
            self._context.net_cache.unwanted(attempt.net).add(run_id)
        job = await self._context.refresh(held)
        if job.state is JobState.STOPPING:
            await self._stopper.stop(held)
