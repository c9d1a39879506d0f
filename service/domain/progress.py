"""What a run reports, and what is observed of it: reports from inside it, and entries in its adapter's
list."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from service.domain import commands as c
from service.domain import events as e
from service.domain.decision import PARKED, Decision, applied, ignored
from service.domain.enums import (
    RUN_OVER,
    FLJobStatus,
    JobState,
    Lifecycle,
    ModelStatus,
    ReasonCode,
    ReservationState,
    RoundEvent,
)
from service.domain.facts import Facts
from service.domain.job import Job, evolve
from service.domain.limits import next_running_due
from service.domain.results import completed, vouched_for
from service.domain.retry import fail_or_retry
from service.domain.sizes import portions
from service.domain.stop import stopped
from service.domain.submit import submitted
from service.domain.values import Attempt, Reason, Results

_ROUND_EVENTS = {
    RoundEvent.ROUND_STARTED: Lifecycle.ROUND_STARTED,
    RoundEvent.CLIENT_RESULT_RECEIVED: Lifecycle.CLIENT_RESULT_RECEIVED,
    RoundEvent.CLIENT_FAILED: Lifecycle.CLIENT_FAILED,
    RoundEvent.ROUND_AGGREGATED: Lifecycle.ROUND_AGGREGATED,
}
_SITE_STATES = {Lifecycle.CLIENT_RESULT_RECEIVED: "returned", Lifecycle.CLIENT_FAILED: "failed"}
_RANK = {"training": 0, "returned": 1, "failed": 2}
_HEARD = frozenset({JobState.RUNNING, JobState.COLLECTING, JobState.STOPPING})
#: Those in which the attempt has a submission, so that a report of another run can be recognised.
_KNOWN = _HEARD | {JobState.SUBMITTING}


def report(job: Job | None, command: c.Report, facts: Facts) -> Decision:
    """Any of the four reports. One for another attempt, or after the end, changes nothing; one for a job
    (or a submission) not known yet waits; one in `submitting` proves that the submit arrived."""
    if job is None:
        return PARKED
    attempt = job.attempt
    if attempt is None or command.attempt != attempt.number:
        return ignored("other_attempt", f"the job is at attempt {job.attempt_number}")
    if job.state in _KNOWN and (other := _of_another(job, attempt, command)):
        return ignored("other_run", other)
    before: list[e.Event] = []
    if job.state is JobState.SUBMITTING:
        if command.run_id is None:
            return PARKED
        before = [submitted(job, attempt, command.run_id, facts, provisional=False)]
        job = evolve(job, before[0])
        attempt = job.attempts[-1]
    elif job.state not in _HEARD:
        return ignored("not_running", f"the job is {job.state}")
    elif command.run_id is not None and (attempt.run_id is None or attempt.provisional):
        before = [e.RunIdentified(at=facts.now, attempt=attempt.number, run_id=command.run_id)]
    events = _judge(job, attempt, command, facts)
    return applied(*before, *(events or [e.ActivitySeen(at=facts.now)]))


def _of_another(job: Job, attempt: Attempt, command: c.Report) -> str | None:
    """Why a report speaks of another run than the attempt's own, in words; None: it may be its own. A run id
    that is known for certain decides; before that the path id does, where the report has one. An adapter that
    answers by the model's id reports that instead: it can't be distinguished from a former submission's."""
    if command.run_id is not None and attempt.run_id is not None and not attempt.provisional:
        if command.run_id == attempt.run_id:
            return None
        return f"the attempt's run is {attempt.run_id}, not {command.run_id}"
    if command.path_id is None or command.path_id == job.accepted_request.model_id:
        return None
    submission = attempt.submission
    paths = () if submission is None else (submission.path_id, *submission.earlier_paths)
    if command.path_id in paths:
        return None
    return f"path id {command.path_id} is of no submission of this attempt"


def _judge(job: Job, attempt: Attempt, command: c.Report, facts: Facts) -> list[e.Event]:
    if isinstance(command, c.ReportStatus):
        return _status(job, attempt, command, facts)
    if job.state is JobState.STOPPING:
        return []
    if isinstance(command, c.ReportRound):
        return _round(job, attempt, command, facts)
    if isinstance(command, c.ReportMetrics):
        metrics = tuple(
            m if m.fl_client_name else replace(m, fl_client_name=command.fl_client_name)
            for m in command.metrics
        )
        return [e.MetricsRecorded(at=facts.now, metrics=part) for part in portions(metrics)]
    if isinstance(command, c.ReportLog):
        return [e.LogRecorded(at=facts.now, log=command.log, success=command.success)]
    return []


def _running(job: Job, attempt: Attempt, facts: Facts) -> list[e.Event]:
    """`running` is published once, at the first activity that shows the run training."""
    if job.state is not JobState.RUNNING or job.model_status is ModelStatus.RUNNING:
        return []
    started = replace(attempt, running_at=facts.now)
    activity = replace(job, progress=replace(job.progress, last_activity_at=facts.now))
    due = next_running_due(activity, started, facts)
    return [e.Running(at=facts.now, attempt=attempt.number, due_at=due)]


def _status(job: Job, attempt: Attempt, command: c.ReportStatus, facts: Facts) -> list[e.Event]:
    status = command.status
    if status is ModelStatus.PREPARED:
        fresh = job.state is JobState.RUNNING and job.model_status is ModelStatus.INITIATED
        return [e.Prepared(at=facts.now)] if fresh else []
    if status is ModelStatus.RUNNING:
        return _running(job, attempt, facts)
    if status is ModelStatus.RESULTS_UPLOADED:
        return _uploaded(job, attempt, command.results, facts)
    endings = {
        ModelStatus.ERROR: (ReasonCode.BACKEND_FAILED, "the run reported an error"),
        ModelStatus.RESULTS_UPLOAD_FAILED: (
            ReasonCode.RESULTS_UPLOAD_FAILED,
            "the run could not upload its results",
        ),
        ModelStatus.STOPPED: (
            ReasonCode.STOPPED_OUTSIDE,
            "the run was stopped, but not by this service",
        ),
    }
    if status not in endings:
        return []
    # A report is the app's statement, not the backend's: the reservation stays until the list agrees.
    if job.state is JobState.STOPPING and job.stop is not None:
        return [stopped(job.stop, ReservationState.QUARANTINED, facts)]
    code, text = endings[status]
    return [
        e.Failed(
            at=facts.now,
            reason=Reason(code, command.detail or text),
            reservation=ReservationState.QUARANTINED,
        )
    ]


def _uploaded(job: Job, attempt: Attempt, results: Results | None, facts: Facts) -> list[e.Event]:
    if job.state is JobState.STOPPING and job.stop is not None:
        return [stopped(job.stop, ReservationState.QUARANTINED, facts)]
    if results is not None and vouched_for(results, attempt, facts):
        return [completed(job, attempt, results, ReservationState.QUARANTINED, facts)]
    if job.state is JobState.RUNNING:
        return [
            e.ResultsPending(
                at=facts.now,
                attempt=attempt.number,
                reservation=attempt.reservation,
                claimed=results,
            )
        ]
    return []


def _round(job: Job, attempt: Attempt, command: c.ReportRound, facts: Facts) -> list[e.Event]:
    try:
        event_name = _ROUND_EVENTS[RoundEvent(command.event_type)]
    except (ValueError, KeyError):
        return [_as_log(command, facts)]
    number = command.global_round
    if number is None:
        if event_name is not Lifecycle.CLIENT_FAILED:
            return [_as_log(command, facts)]
        number = 0  # it failed before the first round, and may never reach one
    slot = command.fl_client_name
    state = _SITE_STATES.get(event_name, "training")
    if not _is_news(job, event_name, number, slot, state):
        # Its site reported a round since: the cause must not be lost for that.
        late = command.global_round is None and not _failed_before(job, slot)
        return [_as_log(command, facts, success=False)] if late else []
    details = dict(command.details or {})
    trust = next((p.trust_id for p in attempt.participants if p.slot == slot), None)
    text = details.get("error") or details.get("cause") or details.get("detail")
    reported = e.RoundReported(
        at=facts.now,
        event_name=event_name,
        global_round=number,
        details=details,
        total_rounds=job.progress.total,
        trust_id=trust,
        slot=slot if event_name in _SITE_STATES else None,
        site_state=state,
        site_detail=str(text)[:500] if text and state == "failed" else None,
    )
    return [*_running(job, attempt, facts), reported] if number else [reported]


def _is_news(job: Job, event_name: Lifecycle, number: int, slot: str | None, state: str) -> bool:
    progress = job.progress
    if event_name is Lifecycle.ROUND_STARTED:
        return number > progress.round
    if event_name is Lifecycle.ROUND_AGGREGATED:
        return number > progress.aggregated
    seen = next((s for s in progress.sites if s.slot == slot), None)
    return seen is None or (number, _RANK[state]) > (seen.global_round, _RANK[seen.state])


def _failed_before(job: Job, slot: str | None) -> bool:
    """Was it published that the site failed before the first round?"""
    return any(s.slot == slot and s.global_round == 0 for s in job.progress.sites)


def _as_log(command: c.ReportRound, facts: Facts, success: bool = True) -> e.LogRecorded:
    parts = [command.event_type]
    if command.fl_client_name:
        parts.append(command.fl_client_name)
    if command.details:
        parts.append(", ".join(f"{k}={v}" for k, v in sorted(command.details.items())))
    return e.LogRecorded(at=facts.now, log=": ".join(parts)[:8_000], success=success)


# --- what an adapter's list shows -----------------------------------------------------------------


def _find(job: Job | None, number: int) -> Attempt | None:
    return next((a for a in (job.attempts if job else ()) if a.number == number), None)


def _is_over(job: Job, attempt: Attempt) -> bool:
    """The attempt has ended for us, whatever its run does."""
    return job.terminal or attempt is not job.attempt or job.state is JobState.QUEUED


def observe_run(job: Job | None, command: c.ObserveRun, facts: Facts) -> Decision:
    """A run of ours in its adapter's list."""
    attempt = _find(job, command.attempt)
    if job is None or attempt is None or attempt.run_id != command.run_id:
        return ignored("other_run")
    if command.began_at < attempt.changed_at:
        return ignored("old_list", "the attempt moved while the adapter was asked")
    again: list[e.Event] = []
    if attempt.missing_polls or attempt.missing_since is not None:
        again = [
            e.RunSeenAgain(at=facts.now, attempt=attempt.number, list_began_at=command.began_at)
        ]
    if _is_over(job, attempt):
        events = _observe_ended(attempt, command, facts)
    else:
        events = _see_current(job, attempt, command, facts)
    events = [*again, *events]
    return applied(*events) if events else ignored("nothing_new")


def _see_current(job: Job, attempt: Attempt, command: c.ObserveRun, facts: Facts) -> list[e.Event]:
    over = command.status in RUN_OVER
    freed = over and command.settled
    reservation = ReservationState.RELEASED if freed else ReservationState.QUARANTINED
    events: list[e.Event] = []
    if job.state is JobState.STOPPING and over and job.stop is not None:
        events = [stopped(job.stop, reservation, facts)]
    elif (
        job.state is JobState.COLLECTING
        and freed
        and attempt.reservation is not ReservationState.RELEASED
    ):
        events = [
            e.ReservationChanged(
                at=facts.now, attempt=attempt.number, reservation=ReservationState.RELEASED
            )
        ]
    elif job.state is JobState.RUNNING:
        events = _observe_running(job, attempt, command, reservation, facts)
    if not events and attempt.missing_since is not None:
        events = [e.ActivitySeen(at=facts.now)]
    return events


def _observe_running(
    job: Job, attempt: Attempt, command: c.ObserveRun, reservation: ReservationState, facts: Facts
) -> list[e.Event]:
    if command.status is FLJobStatus.RUNNING:
        return _running(job, attempt, facts)
    if command.status is FLJobStatus.FINISHED:
        return [e.ResultsPending(at=facts.now, attempt=attempt.number, reservation=reservation)]
    if command.status is FLJobStatus.FAILED:
        reason = Reason(
            ReasonCode.BACKEND_FAILED, command.details or "the backend shows the run as failed"
        )
        return [e.Failed(at=facts.now, reason=reason, reservation=reservation)]
    if command.status is FLJobStatus.STOPPED:
        text = "the run was stopped, but not by this service"
        return [
            e.Failed(
                at=facts.now,
                reason=Reason(ReasonCode.STOPPED_OUTSIDE, text),
                reservation=reservation,
            )
        ]
    return []


def _observe_ended(attempt: Attempt, command: c.ObserveRun, facts: Facts) -> list[e.Event]:
    over = command.status in RUN_OVER
    if over and command.settled and attempt.reservation is not ReservationState.RELEASED:
        reservation = ReservationState.RELEASED
    elif (
        not over and command.status is not None and attempt.reservation is ReservationState.RELEASED
    ):
        reservation = (
            ReservationState.QUARANTINED
        )  # an orphan: it keeps a reservation until it is aborted
    else:
        return []
    return [e.ReservationChanged(at=facts.now, attempt=attempt.number, reservation=reservation)]


def observe_run_missing(job: Job | None, command: c.ObserveRunMissing, facts: Facts) -> Decision:
    """Our run is not in a complete list. Lost only after several misses over a grace from the first."""
    attempt = _find(job, command.attempt)
    if job is None or attempt is None or attempt.run_id != command.run_id:
        return ignored("other_run")
    if command.began_at < attempt.changed_at:
        return ignored("old_list", "the attempt moved while the adapter was asked")
    if attempt.reservation is ReservationState.RELEASED:
        return ignored("free")
    missing_polls = attempt.missing_polls + 1
    since = (attempt.missing_since if attempt.missing_polls else None) or command.began_at
    grace = timedelta(seconds=facts.limits.missing_grace_seconds)
    if missing_polls < facts.limits.missing_lists or facts.now - since < grace:
        return applied(
            e.RunMissed(
                at=facts.now,
                attempt=attempt.number,
                missing_polls=missing_polls,
                missing_since=since,
                list_began_at=command.began_at,
            )
        )
    if _is_over(job, attempt) or job.state is JobState.COLLECTING:
        free = e.ReservationChanged(
            at=facts.now, attempt=attempt.number, reservation=ReservationState.RELEASED
        )
        return applied(free)
    if job.state is JobState.STOPPING and job.stop is not None:
        return applied(stopped(job.stop, ReservationState.RELEASED, facts))
    reason = Reason(
        ReasonCode.BACKEND_LOST, f"the backend no longer knows the run ({missing_polls} lists)"
    )
    return applied(fail_or_retry(job, reason, ReservationState.RELEASED, facts))
