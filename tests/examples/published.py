"""Examples of what the service publishes, written by the code that publishes: jobs' lives retold.

Each life is a list of events; every published one gives the record that would be on its topic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from service.contracts.outbound import lifecycle, net_status, state
from service.contracts.outbound.ids import event_id, refusal_id, state_id
from service.contracts.registry_file import net_id
from service.contracts.schemas.catalogue import BY_TYPE
from service.contracts.wire.envelope import headers
from service.domain import events as e
from service.domain.enums import (
    FLBackend,
    JobState,
    Lifecycle,
    ReasonCode,
    ReservationState,
    WaitingCode,
)
from service.domain.evolve import evolve, is_published
from service.domain.job import Job
from service.domain.observed import Client
from service.domain.registry import Net, Trust
from service.domain.values import (
    Attempt,
    Metric,
    Origin,
    Participant,
    Problem,
    Reason,
    Rejection,
    Request,
    Results,
    Stop,
    Submission,
)
from tests.examples import fixtures
from tests.examples.record import Example, ExampleOutcome, Expected

_START: Final = datetime.fromisoformat(fixtures.TIME)
_REQUEST_ID: Final = "request-story"
_BUNDLE: Final = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
_DIGEST: Final = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_CONFIG: Final = {"LOCAL_ROUNDS": 1, "GLOBAL_ROUNDS": 1}
_PARTICIPANTS: Final = tuple(
    Participant(trust, slot) for trust, slot in zip(fixtures.TRUSTS, fixtures.SLOTS, strict=True)
)
_REQUEST: Final = Request(
    job_id=fixtures.JOB,
    model_id=fixtures.MODEL,
    project_id="demo",
    cohort_query=fixtures.QUERY,
    trust_ids=fixtures.TRUSTS,
    min_trusts=3,
    content_hash=bytes(32),
    origin=Origin(_REQUEST_ID, "/hub", fixtures.TRACE),
    fl_backend=FLBackend.EMBEDDED,
    config=_CONFIG,
    requested_by="dr.lee@north.example",
    labels={"study": "lesion-7"},
)


def _at(seconds: int) -> datetime:
    return _START + timedelta(seconds=seconds)


def _attempt(number: int, seconds: int) -> Attempt:
    at = _at(seconds)
    return Attempt(number, "net-1", FLBackend.EMBEDDED, _PARTICIPANTS, at, at)


def _submission(seconds: int) -> e.SubmissionOpened:
    submission = Submission(
        number=1,
        path_id=UUID(event_id(fixtures.JOB, 0)),
        key=f"{fixtures.JOB}:2",
        known_runs=(),
        opened_at=_at(seconds),
        bundle_prefix=f"s3://app-destination/{fixtures.JOB}/2/",
        bundle_sha256=_BUNDLE,
        config=_CONFIG,
    )
    return e.SubmissionOpened(_at(seconds), 2, submission)


def _round(seconds: int, word: Lifecycle, index: int | None = None, detail: str = "") -> e.Event:
    who = None if index is None else _PARTICIPANTS[index]
    return e.RoundReported(
        _at(seconds),
        word,
        1,
        {"cause": detail} if detail else {},
        1,
        None if who is None else who.trust_id,
        None if who is None else who.slot,
        "failed" if detail else "returned",
        detail or None,
    )


def _happy() -> list[e.Event]:
    """A job that waits, loses its first net, and completes in its second attempt."""
    away = Reason(ReasonCode.ADAPTER_UNAVAILABLE, "net-1 does not answer")
    metrics = (Metric("ACCURACY", 0.94, 1, "Trust_1"), Metric("LOSS", None, 1, "Trust_2"))
    results = Results(f"s3://results/{fixtures.JOB}/2/results.zip", _DIGEST, 48_211)
    return [
        e.Queued(
            _at(1),
            _REQUEST,
            WaitingCode.CAPACITY,
            ("config.AGGREGATION_WEIGHTS: Trust_9 takes no part in this job",),
        ),
        e.WaitingChanged(_at(2), WaitingCode.TRUSTS, "too few of its trusts are online", 3),
        e.Started(_at(3), _attempt(1, 3), "worker-1"),
        e.RetryScheduled(_at(4), 1, away, _at(9), 2, ReservationState.RELEASED),
        e.Started(_at(9), _attempt(2, 9), "worker-1"),
        _submission(10),
        e.Submitted(_at(11), 2, fixtures.RUN, total_rounds=1),
        e.Prepared(_at(12)),
        e.Running(_at(13), 2),
        _round(14, Lifecycle.ROUND_STARTED),
        _round(15, Lifecycle.CLIENT_RESULT_RECEIVED, 0),
        _round(16, Lifecycle.CLIENT_FAILED, 2, "out of memory"),
        _round(17, Lifecycle.ROUND_AGGREGATED),
        e.MetricsRecorded(_at(18), metrics),
        e.LogRecorded(_at(19), "round 1 of 1 aggregated over 2 of 3 sites", True),
        e.ResultsPending(_at(20), 2, ReservationState.RELEASED),
        e.Completed(
            _at(21),
            results,
            ReservationState.RELEASED,
            _PARTICIPANTS[:2],
            1,
            metrics,
            _BUNDLE,
            _CONFIG,
        ),
    ]


def _stopped() -> list[e.Event]:
    """A job that is stopped while it waits."""
    other = replace(_REQUEST, job_id=fixtures.OTHER_JOB)
    code = ReasonCode.STOPPED_BY_REQUEST
    stop = Stop("wrong cohort", "dr.lee@north.example", _at(31), code)
    return [
        e.Queued(_at(30), other),
        e.StopRequested(_at(31), stop),
        e.Stopped(_at(31), Reason(code, "wrong cohort")),
    ]


def _rejected() -> list[e.Event]:
    """A request that broke its contract; its model could not be read."""
    rejection = Rejection(fixtures.OTHER_JOB, None, "demo", bytes(32), "dr.lee@north.example")
    errors = (
        Problem(("model_id",), "Input should be a valid UUID", "uuid_parsing"),
        Problem(("min_trusts",), "Should be at most the number of 'trust_ids'", "value_error"),
    )
    why = Reason(
        ReasonCode.INVALID_REQUEST, "the request breaks its contract in 2 place(s)", errors
    )
    return [e.Rejected(_at(40), rejection, why)]


def _failed() -> list[e.Event]:
    """A job whose deadline passed in the queue."""
    other = replace(_REQUEST, job_id=fixtures.OTHER_JOB, deadline=_at(60))
    why = Reason(ReasonCode.DEADLINE_EXCEEDED, "the deadline has passed")
    return [e.Queued(_at(50), other), e.Failed(_at(61), why, ReservationState.RELEASED)]


def _records(life: Iterable[e.Event], cause: str) -> Iterator[tuple[Job, Example | None]]:
    """The job after each event, and the event's record where it is published."""
    job: Job | None = None
    for event in life:
        job = evolve(job, event)
        if not is_published(event):
            yield job, None
            continue
        kind = lifecycle.event_type(event)
        head = headers(
            event_id=event_id(job.job_id, job.sequence),
            event_type=kind,
            time=event.at,
            subject=str(job.job_id),
            sequence=job.sequence,
            correlationid=_REQUEST_ID,
            causationid=cause if job.sequence == 1 else None,
            traceparent=fixtures.TRACE,
        )
        yield job, _example(kind, "usual", head, str(job.job_id), lifecycle.body(job, event))


def _example(kind: str, name: str, head: list[tuple[str, bytes]], key: str, body: str) -> Example:
    texts = {header: value.decode() for header, value in head}
    return Example(kind, name, BY_TYPE[kind].about, texts, key, data=json.loads(body))


def _refusal() -> Example:
    why = Reason(ReasonCode.DUPLICATE_CONFLICT, "this job_id was used for another request")
    head = headers(
        event_id=str(refusal_id(fixtures.JOB, "/hub", "request-again")),
        event_type=lifecycle.REFUSED,
        time=_at(70),
        subject=str(fixtures.JOB),
        correlationid="request-again",
        causationid="request-again",
    )
    body = lifecycle.refusal(fixtures.JOB, None, "request-again", why)
    return _example(lifecycle.REFUSED, "usual", head, str(fixtures.JOB), body)


def _state(job: Job, name: str) -> Example:
    head = headers(
        event_id=state_id(job.job_id, job.sequence),
        event_type=state.STATE,
        time=job.changed_at,
        subject=str(job.job_id),
        sequence=job.sequence,
    )
    return _example(state.STATE, name, head, str(job.job_id), state.body(job))


def _net() -> Example:
    members = dict(zip(fixtures.TRUSTS, fixtures.SLOTS, strict=True))
    names = ("North Hospital", "East Hospital", "South Hospital")
    trusts = {
        trust: Trust(trust, name, name[0] + "H")
        for trust, name in zip(fixtures.TRUSTS, names, strict=True)
    }
    endpoint = "http://127.0.0.1:8101"
    net = Net("net-1", net_id("net-1"), FLBackend.EMBEDDED, endpoint, members)
    clients = [Client(slot, "CONNECTED", True) for slot in fixtures.SLOTS[:2]]
    shown = net_status.status(net, trusts, clients, answering=True, occupied=1)
    head = headers(
        event_id=event_id(net.id, 1),
        event_type=net_status.STATUS,
        time=_at(80),
        subject=net.name,
    )
    return _example(net_status.STATUS, "usual", head, net.name, net_status.body(shown))


def examples() -> Iterator[Example]:
    """One valid example of every outbound type, two of the state; and a broken one of each."""
    valid: dict[str, Example] = {}
    for life in (_happy(), _stopped(), _rejected(), _failed()):
        records = list(_records(life, _REQUEST_ID))
        for _job, example in records:
            if example is not None:
                valid.setdefault(example.type, example)
        last = records[-1][0]
        if last.state in (JobState.COMPLETED, JobState.REJECTED):
            shown = _state(last, last.state.value)
            valid[f"{shown.type}/{shown.name}"] = shown
    for example in (_refusal(), _net()):
        valid[example.type] = example
    yield from valid.values()
    for example in valid.values():
        yield from _without(example)


def _without(example: Example) -> Iterator[Example]:
    """The same record without the last field that its type requires: nobody may publish that."""
    if example.name not in ("usual", "completed"):
        return
    fields = BY_TYPE[example.type].model.model_fields
    name = [field for field, info in fields.items() if info.is_required()][-1]
    data = {key: value for key, value in example.data.items() if key != name}
    yield replace(
        example,
        name=f"without_{name}",
        about=f"'{name}' is missing: the service never publishes such a record.",
        data=data,
        expect=Expected(ExampleOutcome.NOT_PUBLISHED, (((name,), "missing"),)),
    )
