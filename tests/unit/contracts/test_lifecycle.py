"""What we publish keeps its shapes, whatever the job went through, and never holds the query."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contracts.fl import INetStatus
from service.contracts.outbound import job_columns, lifecycle, net_status, state
from service.contracts.outbound.ids import event_id, refusal_id, state_id
from service.domain import events as e
from service.domain.enums import FLBackend, JobState, Lifecycle, ReasonCode
from service.domain.evolve import event_name_of, evolve, is_published
from service.domain.job import Job, job_status
from service.domain.observed import Client
from service.domain.registry import Net, Trust
from service.domain.values import Reason
from tests.examples import fixtures, published

LIVES = {
    "happy": published._happy(),
    "stopped": published._stopped(),
    "rejected": published._rejected(),
    "failed": published._failed(),
}


def _jobs(builder: list[e.Event]) -> list[tuple[Job, e.Event]]:
    job: Job | None = None
    told = []
    for event in builder:
        job = evolve(job, event)
        told.append((job, event))
    return told


@pytest.mark.parametrize("builder", LIVES.values(), ids=LIVES)
def test_bodies_keep_their_shapes(builder: list[e.Event]) -> None:
    for job, event in _jobs(builder):
        shown = json.loads(state.body(job))
        assert state.StateData.model_validate(shown).state is job.state
        assert fixtures.QUERY not in state.body(job)
        if is_published(event):
            body = lifecycle.body(job, event)
            shape = lifecycle.BODIES[event_name_of(event)].model
            assert set(json.loads(body)) <= set(shape.model_fields)
            made = shape.model_validate_json(body)
            assert made.state is job.state
            assert made.attempt == job.attempt_number
            assert fixtures.QUERY not in body


def test_lives_tell_every_word() -> None:
    told = {
        event_name_of(event)
        for builder in LIVES.values()
        for event in builder
        if is_published(event)
    }
    assert told == set(Lifecycle)
    assert set(lifecycle.BODIES) == set(Lifecycle)


def test_a_quiet_event_has_no_body() -> None:
    job = evolve(None, LIVES["happy"][0])
    with pytest.raises(KeyError):
        lifecycle.body(job, e.BecameEligible(cast_time()))


def cast_time() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def test_state_from_columns_is_state_from_the_job() -> None:
    for builder in LIVES.values():
        for job, _ in _jobs(builder):
            row: dict[str, Any] = {
                "job_id": job.job_id,
                "model_id": job.request.model_id,
                "project_id": job.request.project_id,
                "state": job.state.value,
                "sequence": job.sequence,
                "model_status": job.model_status.value,
                "waiting": job.waiting,
                "request": job_columns.write_request(job.request),
                "attempts": job_columns.write_attempts(job.attempts),
                "progress": job_columns.write_progress(job.progress),
                "stop": job_columns.write_stop(job.stop),
                "reason": job_columns.write_reason(job.reason),
                "results": job_columns.write_results(job.results),
                "created_at": job.created_at,
                "changed_at": job.changed_at,
                "finished_at": job.finished_at,
                "next_try_at": job.next_try_at,
            }
            assert tuple(row) == state.COLUMNS
            assert state.assemble(**row) == state.body(job)


def test_state_tells_labels_and_requester_also_when_there_are_none() -> None:
    queued = LIVES["happy"][0]
    assert isinstance(queued, e.Queued)
    bare = replace(queued.request, labels={}, requested_by=None)
    for request in (queued.request, bare, replace(bare, labels={"a": '"}'})):
        shown = json.loads(state.body(evolve(None, replace(queued, request=request))))
        assert shown["labels"] == request.labels
        assert shown["requested_by"] == request.requested_by
        assert "net" not in shown
        assert shown["attempt"] == 0


def test_state_tells_the_newest_attempt() -> None:
    job = _jobs(LIVES["happy"])[-1][0]
    shown = json.loads(state.body(job))
    assert (shown["attempt"], shown["net"], shown["fl_backend_job_id"]) == (
        2,
        "net-1",
        fixtures.RUN,
    )
    assert len(shown["attempts"]) == 2
    assert shown["attempts"][0]["reason"]["code"] == "adapter_unavailable"
    assert shown["job_status"] == job_status(JobState.COMPLETED)


def test_own_fields_of_the_ends() -> None:
    job, event = _jobs(LIVES["happy"])[-1]
    done = json.loads(lifecycle.body(job, event))
    assert done["results"]["bytes"] == 48_211
    assert done["metrics"][1]["result"] is None
    assert done["config"] == {"LOCAL_ROUNDS": 1, "GLOBAL_ROUNDS": 1}
    job, event = _jobs(LIVES["stopped"])[-1]
    stopped = json.loads(lifecycle.body(job, event))
    assert stopped["reason"] == {
        "code": "stopped_by_request",
        "message": "wrong cohort",
        "errors": [],
    }
    assert (stopped["job_status"], stopped["model_status"]) == ("DELETED", "STOPPED")
    job, event = _jobs(LIVES["rejected"])[-1]
    rejected = json.loads(lifecycle.body(job, event))
    assert rejected["model_id"] is None
    assert rejected["reason"]["errors"][0]["loc"] == ["model_id"]


def test_refusals() -> None:
    why = Reason(ReasonCode.UNKNOWN_JOB, "no such job")
    body = json.loads(lifecycle.refusal(None, fixtures.MODEL, "e-1", why))
    assert body["job_id"] is None
    assert body["model_id"] == str(fixtures.MODEL)
    assert body["request_id"] == "e-1"
    lifecycle.RefusedData.model_validate(body)


def test_ids_are_deterministic_and_differ() -> None:
    job = uuid4()
    assert event_id(job, 1) == event_id(job, 1) != event_id(job, 2)
    assert refusal_id(job, "a", "b") != refusal_id(job, "b", "a")


def test_net_status_shows_trusts() -> None:
    members = dict(zip(fixtures.TRUSTS, fixtures.SLOTS, strict=True))
    net = Net("n", uuid4(), FLBackend.FLOWER, "http://h", members)
    trusts = {fixtures.NORTH: Trust(fixtures.NORTH, "North", "N")}
    clients = [Client("Trust_1", "CONNECTED", True), Client("stranger", "CONNECTED", True)]
    shown = net_status.status(net, trusts, clients, answering=True, occupied=1)
    assert (shown.online, shown.registered_clients, shown.net_in_use) == (True, 3, True)
    assert [(c.name, c.code, c.fl_kit_slot, c.online) for c in shown.clients] == [
        ("North", "N", "Trust_1", True),
        ("Trust_2", None, "Trust_2", False),
        ("Trust_3", None, "Trust_3", False),
    ]
    read = INetStatus.model_validate_json(net_status.body(shown))
    assert read == shown


@pytest.mark.parametrize(("answering", "clients"), [(False, 1), (True, 0)])
def test_a_net_without_answer_or_clients_is_offline(answering: bool, clients: int) -> None:
    net = Net("n", uuid4(), FLBackend.FLOWER, "http://h", {fixtures.NORTH: "Trust_1"})
    listed = [Client("Trust_1", "CONNECTED", True)][:clients]
    shown = net_status.status(net, {}, listed, answering=answering, occupied=1)
    assert (shown.online, shown.registered_clients, shown.net_in_use) == (False, 0, False)
    assert not shown.clients[0].online


def test_metrics_and_texts_with_any_characters_survive() -> None:
    job = _jobs(LIVES["happy"][:9])[-1][0]
    log = e.LogRecorded(job.changed_at + timedelta(seconds=1), 'é"\\\n\u2028 \U0001f600', False)
    body = lifecycle.body(evolve(job, log), log)
    assert json.loads(body.encode())["log"] == log.log


@given(st.uuids(), st.integers(0, 2**31 - 1))
def test_an_events_id_is_its_jobs_uuid5(job_id: UUID, sequence: int) -> None:
    assert event_id(job_id, sequence) == str(uuid5(job_id, f"event:{sequence}"))
    assert state_id(job_id, sequence) == str(uuid5(job_id, f"state:{sequence}"))
