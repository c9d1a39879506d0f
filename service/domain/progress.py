"""What is heard and seen of a run: reports from inside it, entries in its adapter's list, results."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from service.domain import commands as c
from service.domain import events as e
from service.domain.decision import FENCED, PARKED, Decision, happened, ignored
from service.domain.facts import Facts
from service.domain.job import Job, evolve
from service.domain.limits import next_running_due
from service.domain.retry import backoff, fail_or_retry
from service.domain.sizes import portions
from service.domain.stop import stopped
from service.domain.submit import submitted
from service.domain.values import Attempt, Results, Why
from service.domain.vocabulary import (
    RUN_OVER,
    FLJobStatus,
    JobState,
    Lifecycle,
    ModelStatus,
    Reason,
    RoundEvent,
    SlotState,
)

_ROUND_WORDS = {
    RoundEvent.ROUND_STARTED: Lifecycle.ROUND_STARTED,
    RoundEvent.CLIENT_RESULT_RECEIVED: Lifecycle.CLIENT_RESULT_RECEIVED,
    RoundEvent.CLIENT_FAILED: Lifecycle.CLIENT_FAILED,
    RoundEvent.ROUND_AGGREGATED: Lifecycle.ROUND_AGGREGATED,
}
_SITE_STATES = {Lifecycle.CLIENT_RESULT_RECEIVED: "returned", Lifecycle.CLIENT_FAILED: "failed"}
_RANK = {"training": 0, "returned": 1, "failed": 2}
_HEARD = frozenset({JobState.RUNNING, JobState.COLLECTING, JobState.STOPPING})
#: Those in which the attempt has a submission, so that a report can be told to be another run's.
_KNOWN = _HEARD | {JobState.SUBMITTING}


def report(job: Job | None, command: c.Report, facts: Facts) -> Decision:
    """Any of the four reports. One for another attempt, or after the end, changes nothing; one for a job
    (or a submission) not known yet waits; one in `submitting` proves that the submit arrived."""
    if job is None:
        return PARKED
    attempt = job.attempt
    if attempt is None or command.attempt != attempt.number:
        return ignored("other_attempt", f"the job is at attempt {job.attempt_number}")
    if job.state in _KNOWN and (told := _of_another(job, attempt, command)):
        return ignored("other_run", told)
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
        before = [e.RunKnown(at=facts.now, attempt=attempt.number, run_id=command.run_id)]
    events = _judge(job, attempt, command, facts)
    return happened(*before, *(events or [e.SignSeen(at=facts.now)]))


def _of_another(job: Job, attempt: Attempt, command: c.Report) -> str | None:
    """Why a report speaks of another run than the attempt's own, in words; None: it may be its own. A run id
    that is known for certain tells; before that the path id does, where the report has one. An adapter that
    answers by the model's id tells that instead: it can't be told from a former submission's."""
    if command.run_id is not None and attempt.run_id is not None and not attempt.provisional:
        if command.run_id == attempt.run_id:
            return None
        return f"the attempt's run is {attempt.run_id}, not {command.run_id}"
    if command.path_id is None or command.path_id == job.asked.model_id:
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
    """`running` is told once, at the first sign that the run trains."""
    if job.state is not JobState.RUNNING or job.model_status is ModelStatus.RUNNING:
        return []
    started = replace(attempt, running_at=facts.now)
    sign = replace(job, progress=replace(job.progress, last_sign_at=facts.now))
    due = next_running_due(sign, started, facts)
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
        ModelStatus.ERROR: (Reason.BACKEND_FAILED, "the run reported an error"),
        ModelStatus.RESULTS_UPLOAD_FAILED: (
            Reason.RESULTS_UPLOAD_FAILED,
            "the run could not upload its results",
        ),
        ModelStatus.STOPPED: (
            Reason.STOPPED_OUTSIDE,
            "the run was stopped, but not by this service",
        ),
    }
    if status not in endings:
        return []
    # A report is the app's word, not the backend's: the place stays taken until the list agrees.
    if job.state is JobState.STOPPING and job.stop is not None:
        return [stopped(job.stop, SlotState.QUARANTINED, facts)]
    code, text = endings[status]
    return [
        e.Failed(at=facts.now, reason=Why(code, command.detail or text), slot=SlotState.QUARANTINED)
    ]


def _uploaded(job: Job, attempt: Attempt, results: Results | None, facts: Facts) -> list[e.Event]:
    if job.state is JobState.STOPPING and job.stop is not None:
        return [stopped(job.stop, SlotState.QUARANTINED, facts)]
    if results is not None:
        return [completed(job, attempt, results, SlotState.QUARANTINED, facts)]
    if job.state is JobState.RUNNING:
        return [e.ResultsPending(at=facts.now, attempt=attempt.number, slot=attempt.slot)]
    return []


def completed(
    job: Job, attempt: Attempt, results: Results | None, slot: SlotState, facts: Facts
) -> e.Completed:
    """The happy end, with all that a reader of the lifecycle topic needs to find the model."""
    submission = attempt.submission
    return e.Completed(
        at=facts.now,
        results=results,
        slot=slot,
        participants=attempt.participants,
        rounds=job.progress.aggregated or job.progress.round,
        metrics=job.progress.metrics,
        bundle_sha256=submission.bundle_sha256 if submission else None,
        config=submission.config if submission else None,
    )


def _round(job: Job, attempt: Attempt, command: c.ReportRound, facts: Facts) -> list[e.Event]:
    try:
        word = _ROUND_WORDS[RoundEvent(command.event_type)]
    except (ValueError, KeyError):
        return [_as_log(command, facts)]
    number = command.global_round
    if number is None:
        if word is not Lifecycle.CLIENT_FAILED:
            return [_as_log(command, facts)]
        number = 0  # it failed before the first round, and may never reach one
    slot = command.fl_client_name
    state = _SITE_STATES.get(word, "training")
    if not _is_news(job, word, number, slot, state):
        # Its site was heard of in a round since: the cause must not be lost for that.
        late = command.global_round is None and not _failed_before(job, slot)
        return [_as_log(command, facts, success=False)] if late else []
    details = dict(command.details or {})
    trust = next((p.trust_id for p in attempt.participants if p.slot == slot), None)
    text = details.get("error") or details.get("cause") or details.get("detail")
    reported = e.RoundReported(
        at=facts.now,
        word=word,
        global_round=number,
        details=details,
        total_rounds=job.progress.total,
        trust_id=trust,
        slot=slot if word in _SITE_STATES else None,
        site_state=state,
        site_detail=str(text)[:500] if text and state == "failed" else None,
    )
    return [*_running(job, attempt, facts), reported] if number else [reported]


def _is_news(job: Job, word: Lifecycle, number: int, slot: str | None, state: str) -> bool:
    progress = job.progress
    if word is Lifecycle.ROUND_STARTED:
        return number > progress.round
    if word is Lifecycle.ROUND_AGGREGATED:
        return number > progress.aggregated
    seen = next((s for s in progress.sites if s.slot == slot), None)
    return seen is None or (number, _RANK[state]) > (seen.global_round, _RANK[seen.state])


def _failed_before(job: Job, slot: str | None) -> bool:
    """Was it told that the site failed before the first round?"""
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


def see_run(job: Job | None, command: c.SeeRun, facts: Facts) -> Decision:
    """A run of ours in its adapter's list."""
    attempt = _find(job, command.attempt)
    if job is None or attempt is None or attempt.run_id != command.run_id:
        return ignored("other_run")
    if command.began_at < attempt.changed_at:
        return ignored("old_list", "the attempt moved while the adapter was asked")
    over = command.status in RUN_OVER
    freed = over and command.settled
    if _is_over(job, attempt):
        return _see_ended(attempt, over, freed, command, facts)
    slot = SlotState.FREE if freed else SlotState.QUARANTINED
    events: list[e.Event] = []
    if job.state is JobState.STOPPING and over and job.stop is not None:
        events = [stopped(job.stop, slot, facts)]
    elif job.state is JobState.COLLECTING and freed and attempt.slot is not SlotState.FREE:
        events = [e.SlotChanged(at=facts.now, attempt=attempt.number, slot=SlotState.FREE)]
    elif job.state is JobState.RUNNING:
        events = _see_running(job, attempt, command, slot, facts)
    if not events and attempt.missing_since is not None:
        events = [e.SignSeen(at=facts.now)]
    return happened(*events) if events else ignored("nothing_new")


def _see_running(
    job: Job, attempt: Attempt, command: c.SeeRun, slot: SlotState, facts: Facts
) -> list[e.Event]:
    if command.status is FLJobStatus.RUNNING:
        return _running(job, attempt, facts)
    if command.status is FLJobStatus.FINISHED:
        return [e.ResultsPending(at=facts.now, attempt=attempt.number, slot=slot)]
    if command.status is FLJobStatus.FAILED:
        why = Why(Reason.BACKEND_FAILED, command.details or "the backend shows the run as failed")
        return [e.Failed(at=facts.now, reason=why, slot=slot)]
    if command.status is FLJobStatus.STOPPED:
        text = "the run was stopped, but not by this service"
        return [e.Failed(at=facts.now, reason=Why(Reason.STOPPED_OUTSIDE, text), slot=slot)]
    return []


def _see_ended(
    attempt: Attempt, over: bool, freed: bool, command: c.SeeRun, facts: Facts
) -> Decision:
    if freed and attempt.slot is not SlotState.FREE:
        slot = SlotState.FREE
    elif not over and command.status is not None and attempt.slot is SlotState.FREE:
        slot = SlotState.QUARANTINED  # an orphan: it takes a place until it is aborted
    else:
        return ignored("nothing_new")
    return happened(e.SlotChanged(at=facts.now, attempt=attempt.number, slot=slot))


def miss_run(job: Job | None, command: c.MissRun, facts: Facts) -> Decision:
    """Our run is not in a complete list. Lost only after several misses over a grace from the first."""
    attempt = _find(job, command.attempt)
    if job is None or attempt is None or attempt.run_id != command.run_id:
        return ignored("other_run")
    if command.began_at < attempt.changed_at:
        return ignored("old_list", "the attempt moved while the adapter was asked")
    if attempt.slot is SlotState.FREE:
        return ignored("free")
    missed = attempt.missed + 1
    since = (attempt.missing_since if attempt.missed else None) or command.began_at
    grace = timedelta(seconds=facts.limits.missing_grace_seconds)
    if missed < facts.limits.missing_lists or facts.now - since < grace:
        return happened(
            e.RunMissed(at=facts.now, attempt=attempt.number, missed=missed, missing_since=since)
        )
    if _is_over(job, attempt) or job.state is JobState.COLLECTING:
        free = e.SlotChanged(at=facts.now, attempt=attempt.number, slot=SlotState.FREE)
        return happened(free)
    if job.state is JobState.STOPPING and job.stop is not None:
        return happened(stopped(job.stop, SlotState.FREE, facts))
    why = Why(Reason.BACKEND_LOST, f"the backend no longer knows the run ({missed} lists)")
    return happened(fail_or_retry(job, why, SlotState.FREE, facts))


# --- results and delays ---------------------------------------------------------------------------


def store_results(job: Job | None, command: c.StoreResults, facts: Facts) -> Decision:
    """The results are in our store: the job is complete."""
    if job is None or job.lease is None or job.lease.token != command.token:
        return FENCED
    attempt = job.attempt
    if job.state is not JobState.COLLECTING or attempt is None:
        return ignored("not_collecting")
    return happened(completed(job, attempt, command.results, SlotState.QUARANTINED, facts))


def delay_try(job: Job | None, command: c.DelayTry, facts: Facts) -> Decision:
    """Results or an abort's proof could not be had: later again; results not for ever."""
    if job is None or job.lease is None or job.lease.token != command.token:
        return FENCED
    if job.state is JobState.COLLECTING and job.tries + 1 >= facts.limits.collect_tries:
        why = Why(Reason.RESULTS_UPLOAD_FAILED, command.why.message)
        return happened(e.Failed(at=facts.now, reason=why, slot=SlotState.QUARANTINED))
    if job.state is JobState.STOPPING and job.attempt is not None:
        return _delay_stop(job, job.attempt, facts)
    at = backoff(job, min(job.tries, 4), facts, command.retry_after)
    return happened(e.TryDelayed(at=facts.now, next_try_at=at))


def _delay_stop(job: Job, attempt: Attempt, facts: Facts) -> Decision:
    """An abort is tried for as long as there is somebody to ask. A net that left the registry may come back
    within a grace; after it the job ends, and the place waits for the net or an operator."""
    at = facts.now + timedelta(seconds=min(30.0, 1.0 * 2 ** min(job.tries, 5)))
    delayed = e.TryDelayed(at=facts.now, next_try_at=at)
    since = attempt.missing_since
    if attempt.net in facts.registry.nets:
        back = since is not None and not attempt.missed
        return happened(e.SignSeen(at=facts.now), delayed) if back else happened(delayed)
    if since is None:
        missing = e.RunMissed(
            at=facts.now, attempt=attempt.number, missed=attempt.missed, missing_since=facts.now
        )
        return happened(missing, delayed)
    if facts.now - since < timedelta(seconds=facts.limits.net_gone_seconds):
        return happened(delayed)
    code = Reason.SUBMIT_UNKNOWN if attempt.run_id is None else Reason.ADAPTER_UNAVAILABLE
    text = f"net {attempt.net} left the registry before it showed that the run ended"
    return happened(e.Failed(at=facts.now, reason=Why(code, text), slot=SlotState.QUARANTINED))
