"""Work whose holder went away, and work whose driver broke.

A rescued job in `submitting` is looked for before anything is sent: its earlier holder may be in the middle
of its call. One in `preparing` is prepared anew, under a path id of its own. A driver that broke on a bug
ends what surely has no run, and leaves everything else to time limits: no job is driven round in circles.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from service.domain import commands as c
from service.domain.enums import JobState, ReasonCode
from service.domain.job import Job
from service.domain.values import Reason
from service.steps.context import StepContext

log = structlog.get_logger(__name__)

#: What a claim's driver works on, whoever claimed it.
DRIVEN = frozenset({JobState.PREPARING, JobState.SUBMITTING})


async def on_crash(context: StepContext, taken: Job, exc: Exception) -> None:
    """What follows a bug met while working on a job. Raises errors.Transient when the database is
    unavailable."""
    job = await context.store.get(taken.job_id)
    if job is None or job.lease is None or taken.lease is None or job.attempt is None:
        return
    if job.lease.token != taken.lease.token:
        return
    names = (job.job_id, job.attempt_number, taken.lease.token)
    reason = Reason(
        ReasonCode.INTERNAL_ERROR, f"the service met an error of its own: {type(exc).__name__}"
    )
    if job.state is JobState.PREPARING:
        await context.store.apply([c.FailAttempt(*names, reason=reason, run_over=True)])
    elif job.state is JobState.SUBMITTING and job.attempt.submission is not None:
        age = await context.store.now() - job.attempt.submission.opened_at
        if age >= timedelta(seconds=context.options.submit_unknown_seconds):
            unknown = Reason(ReasonCode.SUBMIT_UNKNOWN, reason.message)
            await context.store.apply([c.FailAttempt(*names, reason=unknown, run_over=False)])
    elif job.state in (JobState.STOPPING, JobState.COLLECTING):
        await context.store.apply([c.DeferStep(*names, reason=reason)])
