"""What a run says of itself: status, rounds, metrics and log lines, from inside its backend."""

from __future__ import annotations

from dataclasses import replace

from service.domain import commands as c
from service.domain import events as e
from service.domain.decision import PARKED, Decision, applied, ignored
from service.domain.enums import (
    JobState,
    Lifecycle,
    ModelStatus,
    ReasonCode,
    ReservationState,
    RoundEvent,
)
from service.domain.evolve import evolve
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.observations import first_running
from service.domain.results import completed
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


def _status(job: Job, attempt: Attempt, command: c.ReportStatus, facts: Facts) -> list[e.Event]:
    status = command.status
    if status is ModelStatus.PREPARED:
        fresh = job.state is JobState.RUNNING and job.model_status is ModelStatus.INITIATED
        return [e.Prepared(at=facts.now)] if fresh else []
    if status is ModelStatus.RUNNING:
        return first_running(job, attempt, facts)
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
    if results is not None:
        return [completed(job, attempt, results, ReservationState.QUARANTINED, facts)]
    if job.state is JobState.RUNNING:
        return [
            e.ResultsPending(at=facts.now, attempt=attempt.number, reservation=attempt.reservation)
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
    return [*first_running(job, attempt, facts), reported] if number else [reported]


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
