"""Handing an attempt to its adapter, so that a crash at any point leaves at most one run, and a known one.

The order is the promise: the submission is committed (key, path id, runs known before), the adapter is
called, its answer is kept. A lost answer is looked for before anything is sent again. A busy or unreachable
adapter that surely took nothing gives the net back and burns no attempt. What breaks it: two adapters
answering for one FL runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

import structlog

from service.clock import Backoff
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
    reopen_pauses: Backoff
    reopened: int = 0
    keyed: bool = False


class Next(Enum):
    """What follows one part of the work on a submission."""

    CONTINUE = auto()  #: the part is done
    RETRY = auto()  #: it went out and its answer was lost: search, then perhaps another one
    ENDED = auto()  #: the job is not ours to drive any more
    STOP = auto()  #: the job is to stop; a run may exist
    STOP_UNSENT = auto()  #: the job is to stop, and certainly has no run


class SubmitStep:
    """Drives a claimed or rescued job until its run is known, or it can't have one."""

    def __init__(self, context: StepContext, stopper: StopStep) -> None:
        self._context = context
        self._prepare = PrepareStep(context)
        self._lookup = Lookup(context)
        self._stopper = stopper

    async def drive(self, job: Job) -> None:
        """The whole way from the lease to its end; a job that is to stop by then goes to `StopStep` here,
        and nowhere else. Raises LeaseLost; errors.Transient when the database is unavailable: the lease
        runs out then, and the job is rescued."""
        with self._context.leases.hold(job) as held:
            stopping = job.state is JobState.STOPPING
            ended = Next.STOP if stopping else await self._submit(held)
            if ended in (Next.STOP, Next.STOP_UNSENT):
                await self._stopper.stop(held, no_run=ended is Next.STOP_UNSENT)

    async def _submit(self, held: HeldJob) -> Next:
        """Submission after submission until one has an outcome."""
        try:
            client = await self._context.client(attempt_of(held.job).net)
        except Transient as exc:
            await self._net_gone(held, exc)
            return Next.ENDED
        progress = SubmissionProgress(
            open_end=held.job.state is JobState.SUBMITTING,
            reopen_pauses=Backoff(0.5, self._context.options.reopen_most_seconds),
        )
        while (outcome := await self._once(held, client, progress)) is Next.RETRY:
            progress.open_end = True
        return outcome

    async def _net_gone(self, held: HeldJob, exc: Transient) -> None:
        """The registry dropped the net. What may run there keeps its reservation until more is known."""
        if held.job.state is JobState.SUBMITTING:
            reason = Reason(ReasonCode.SUBMIT_UNKNOWN, exc.message)
            await self._context.apply(
                held, c.FailAttempt(*held.command_key, reason=reason, run_over=False)
            )
            return
        await self._give_back(held, exc)

    async def _once(self, held: HeldJob, client: NetClient, progress: SubmissionProgress) -> Next:
        """One submission."""
        if progress.open_end:
            lay_hand_down()
            resolved = await self._resolve(held, client, progress)
            if resolved is not Next.CONTINUE:
                return resolved
        try:
            ready = await self._prepare.prepare(held, client, progress.reopened)
        except Permanent as exc:
            over = not (progress.open_end and progress.keyed)
            reason = reason_from(exc, ReasonCode.INTERNAL_ERROR)
            await self._context.apply(
                held, c.FailAttempt(*held.command_key, reason=reason, run_over=over)
            )
            return Next.ENDED
        except Transient as exc:
            return await self._later(held, progress, exc)
        progress.keyed = IDEMPOTENCY in ready.extensions
        return await self._hand_over(held, client, ready, progress)

    async def _resolve(
        self, held: HeldJob, client: NetClient, progress: SubmissionProgress
    ) -> Next:
        """Find out what became of the last submission. CONTINUE: nothing, and the job wants another one."""
        verdict = await self._lookup.settle(held, client)
        job = held.job
        if verdict.run_id is not None:
            path_id = handle_of(job).path_id
            return await self._found(held, path_id, verdict.run_id, verdict.provisional)
        submission = attempt_of(job).submission
        sent = 1 + len(submission.earlier_paths) if submission is not None else 1
        progress.keyed = IDEMPOTENCY in await self._extensions(client)
        if verdict.no_run and job.state is JobState.STOPPING:
            return Next.STOP_UNSENT
        if verdict.no_run and sent < self._context.options.most_submissions:
            progress.reopened += 1
            await self._context.pause(progress.reopen_pauses.next())
            return Next.CONTINUE
        if verdict.no_run and not progress.keyed:
            detail = f"{sent} submissions led to no run"
            await self._give_back(held, Transient(detail, code=ReasonCode.ADAPTER_UNAVAILABLE))
            return Next.ENDED
        reason = Reason(
            ReasonCode.SUBMIT_UNKNOWN, verdict.detail or f"{sent} submissions, no trace of a run"
        )
        await self._context.apply(
            held, c.FailAttempt(*held.command_key, reason=reason, run_over=False)
        )
        return Next.ENDED

    async def _extensions(self, client: NetClient) -> frozenset[str]:
        """What the adapter can do. One that does not answer now has not lost what it said before."""
        snapshot = await net_snapshot(self._context, client)
        if snapshot.health is not None:
            return snapshot.extensions
        now = (await self._context.store.net_now()).get(client.net.name)
        return frozenset() if now is None else now.extensions

    async def _later(self, held: HeldJob, progress: SubmissionProgress, exc: Transient) -> Next:
        """Preparing met an obstacle: give the net back, but never with an open end under a key."""
        if not (progress.open_end and progress.keyed):
            await self._give_back(held, exc)
            return Next.ENDED
        await self._context.pause(self._context.options.retry_most_seconds)
        return Next.RETRY

    async def _give_back(self, held: HeldJob, exc: Transient) -> None:
        reason = reason_from(exc, ReasonCode.ADAPTER_UNAVAILABLE)
        if reason.code not in TRANSIENT_REASONS:
            reason = Reason(ReasonCode.ADAPTER_UNAVAILABLE, exc.message)
        command = c.ReleaseNet(*held.command_key, reason=reason, retry_after=exc.retry_after)
        await self._context.apply(held, command)
        log.info("net_given_back", job_id=str(held.job_id), code=reason.code, detail=reason.message)

    async def _hand_over(
        self, held: HeldJob, client: NetClient, ready: Ready, progress: SubmissionProgress
    ) -> Next:
        """Commit the submission and send it, within one turn of the net, so that the call follows its
        commitment at once."""
        until = clock() + self._context.options.doubt_patience_seconds
        pauses = Backoff(0.05, 1.0)
        while True:
            async with client.turn():
                held.require()
                try:
                    opened = await self._open(held, ready, progress)
                except Transient as exc:  # another submission of this net has no outcome yet
                    doubt = exc
                else:
                    if opened is not Next.CONTINUE:
                        return opened
                    return await self._send(held, client, ready, progress)
            if clock() >= until:
                await self._give_back(held, doubt)
                return Next.ENDED
            await self._context.pause(pauses.next())

    async def _open(self, held: HeldJob, ready: Ready, progress: SubmissionProgress) -> Next:
        """Commit the submission before it is sent. Other than CONTINUE: there is nothing to send.

        Raises errors.Transient while another submission of the net has no outcome.
        """
        command = c.OpenSubmission(*held.command_key, submission=await self._submission(ready))
        decision = await self._context.apply(held, command)
        if any(isinstance(event, SubmissionOpened) for event in decision.events):
            return Next.CONTINUE
        if decision.reason is not None and decision.reason.code == NET_UNFIT:
            await self._unfit(held, progress, decision.reason.message)
            return Next.ENDED
        return await self._stop_or_end(held)

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
    ) -> Next:
        """Call the adapter. RETRY: the call may have been applied, and no answer came."""
        options = self._context.options
        pauses, left = self._context.retry_pauses(), options.call_tries
        while True:
            held.require()
            faultpoint("submit.opened")
            try:
                run_id = await client.submit(ready.handle)
            except Ambiguous as exc:
                log.warning("submit_answer_lost", job_id=str(held.job_id), error=exc.message)
                return Next.RETRY
            except Permanent as exc:
                over = not (progress.open_end and progress.keyed)
                reason = reason_from(exc, ReasonCode.ADAPTER_REJECTED)
                await self._context.apply(
                    held, c.FailAttempt(*held.command_key, reason=reason, run_over=over)
                )
                return Next.ENDED
            except Transient as exc:
                left -= 1
                if progress.open_end and progress.keyed:
                    return Next.RETRY
                if (await self._context.refresh(held)).state is JobState.STOPPING:
                    return Next.STOP_UNSENT  # between two calls of which none was taken
                if left <= 0:
                    await self._give_back(held, exc)
                    return Next.ENDED
                named = min(exc.retry_after or 0.0, options.retry_most_seconds)
            else:
                faultpoint("submit.answered")
                return await self._found(held, ready.handle.path_id, run_id, provisional=False)
            await self._context.pause(pauses.next(named))

    async def _found(self, held: HeldJob, path_id: UUID, run_id: str, provisional: bool) -> Next:
        """Keep the run's id, and continue with whatever the job needs by now."""
        attempt = attempt_of(held.job)
        command = c.RecordRun(held.job_id, attempt.number, path_id, run_id, provisional)
        decision = await self._context.record_run(command)
        faultpoint("submit.known")
        self._context.wakeups.poll_now(attempt.net)
        if any(isinstance(event, Submitted) for event in decision.events):
            return Next.ENDED
        if decision.reason is not None and decision.reason.code == "other_run":
            log.warning("second_run_found", job_id=str(held.job_id), run=run_id)
            self._context.net_cache.unwanted(attempt.net).add(run_id)
        return await self._stop_or_end(held)

    async def _stop_or_end(self, held: HeldJob) -> Next:
        """The job moved on without us: to a stop, or to something that needs no driver."""
        job = await self._context.refresh(held)
        return Next.STOP if job.state is JobState.STOPPING else Next.ENDED
