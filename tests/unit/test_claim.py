"""Who takes part, under which number, and who may go on with the work."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from service.domain import commands as c
from service.domain.decision import Outcome
from service.domain.eligibility import describe_waiting_for, eligible_nets, why_waiting
from service.domain.enums import FLBackend, JobState, ReasonCode, ReservationState, WaitingCode
from service.domain.registry import NetNow
from tests.unit.domain_life import (
    COMMANDS,
    JOB,
    NET,
    NOW_OF_NET,
    PATH,
    REGISTRY,
    TRUSTS,
    Life,
    answer,
    life_in,
    request,
    without,
)


def _claimed(life: Life) -> str:
    decision = life.do(COMMANDS["claim"](life))
    return decision.reason.code if decision.reason else str(life.there.state)


@pytest.mark.parametrize(
    ("net", "answer"),
    [
        (replace(NOW_OF_NET, answering=False), "net_gone"),
        (replace(NOW_OF_NET, paused=True), "net_gone"),
        (replace(NOW_OF_NET, in_doubt=True), "net_gone"),
        (replace(NOW_OF_NET, occupied=1), "net_unfit"),
        (replace(NOW_OF_NET, online=frozenset(TRUSTS[:2])), "trusts_gone"),
        (NOW_OF_NET, "preparing"),
    ],
)
def test_the_net_is_looked_at_once_more(net: NetNow, answer: str) -> None:
    life = life_in("queued")
    life.net = net
    assert _claimed(life) == answer


def test_nothing_is_claimed_while_the_service_is_paused() -> None:
    """It may have been paused between the pick and this look."""
    life = life_in("queued")
    life.hub_paused = True
    assert _claimed(life) == "hub_paused"
    assert life.there.state is JobState.QUEUED
    life.hub_paused = False
    assert _claimed(life) == "preparing"


@pytest.mark.parametrize(
    ("path_id", "taken", "answer"),
    [
        ("model", True, "model_taken"),
        ("model", False, "preparing"),
        ("attempt", True, "preparing"),
    ],
)
def test_a_net_that_goes_by_the_model_takes_one_attempt_of_it(
    path_id: str, taken: bool, answer: str
) -> None:
    life = life_in("queued")
    life.registry = replace(REGISTRY, nets={NET.name: replace(NET, path_id=path_id)})
    model = life.there.accepted_request.model_id if taken else TRUSTS[0]
    life.models_taken = {NET.name: frozenset({model})}
    facts = life.facts()
    code = why_waiting(
        life.there.accepted_request, eligible_nets(life.there.accepted_request, facts), facts
    )
    assert code == (WaitingCode.CAPACITY if answer == "model_taken" else None)
    assert _claimed(life) == answer


@pytest.mark.parametrize(
    ("others", "end"),
    [
        ((), "until its results are collected"),
        (("full",), "until its results are collected; no other net that could serve it is free"),
    ],
)
def test_who_waits_for_an_earlier_run_of_its_model_hears_which_net_holds_it(
    others: tuple[str, ...], end: str
) -> None:
    life = life_in("queued")
    asked = life.there.accepted_request
    nets = {name: replace(NET, name=name, path_id="attempt") for name in others}
    life.registry = replace(REGISTRY, nets={NET.name: replace(NET, path_id="model")} | nets)
    life.models_taken = {NET.name: frozenset({asked.model_id})}
    full = {name: replace(NOW_OF_NET, name=name, occupied=NET.capacity) for name in others}
    facts = replace(life.facts(), nets={NET.name: NOW_OF_NET} | full)
    told = f"net {NET.name} still holds model {asked.model_id}'s earlier run {end}"
    assert describe_waiting_for(WaitingCode.CAPACITY, asked, facts) == told
    assert describe_waiting_for(WaitingCode.GPUS, asked, facts) == "the GPUs it asks for are taken"
    life.models_taken = {}
    assert describe_waiting_for(WaitingCode.CAPACITY, asked, life.facts()).startswith("every net")


def test_participants_are_the_requested_trusts_online_now() -> None:
    life = life_in("queued", asked=request(min_trusts=2))
    life.net = replace(NOW_OF_NET, online=frozenset(TRUSTS[1:]))
    life.run("claim")
    attempt = life.there.attempts[0]
    assert [(p.trust_id, p.slot) for p in attempt.participants] == [
        (TRUSTS[1], "Trust_2"),
        (TRUSTS[2], "Trust_3"),
    ]


def test_a_revoked_approval_ends_a_queued_job_at_the_claim() -> None:
    life = life_in("queued")
    life.registry = without(TRUSTS[0])
    assert _claimed(life) == "failed"
    assert life.there.reason is not None
    assert life.there.reason.code == ReasonCode.TRUST_NOT_APPROVED


def test_a_revoked_approval_ends_it_before_the_submit() -> None:
    life = life_in("preparing")
    life.registry = without(TRUSTS[0])
    life.run("open")
    assert life.there.state is JobState.FAILED
    assert life.there.attempts[0].reservation is ReservationState.RELEASED


@pytest.mark.parametrize(
    "members",
    [
        {t: s for t, s in NET.members.items() if t != TRUSTS[2]},
        NET.members | {TRUSTS[2]: "Trust_9"},
        None,
    ],
)
@pytest.mark.parametrize("state", ["preparing", "submitting"])
def test_a_member_that_left_the_net_is_sent_nothing(
    state: str, members: dict[UUID, str] | None
) -> None:
    life = life_in(state)
    nets = {} if members is None else {NET.name: replace(NET, members=members)}
    life.registry = replace(REGISTRY, version=2, nets=nets)
    before = life.there
    assert answer(life.do(COMMANDS["open"](life))) == "ignored:net_unfit"
    assert life.there == before
    assert life.run("give back").there.state is JobState.QUEUED


def test_a_submission_is_not_repeated_after_a_revocation() -> None:
    life = life_in("submitting")
    life.registry = without(TRUSTS[0])
    life.run("open")
    assert life.there.state is JobState.STOPPING
    assert life.there.stop is not None
    assert life.there.stop.code == ReasonCode.APPROVAL_REVOKED


def test_the_net_may_have_lost_a_member() -> None:
    life = life_in("queued")
    net = replace(NET, members={t: s for t, s in NET.members.items() if t != TRUSTS[2]})
    life.registry = replace(REGISTRY, nets={NET.name: net})
    assert _claimed(life) == "net_unfit"


def test_flower_without_selection_takes_all_members_or_none() -> None:
    flower = replace(NET, backend=FLBackend.FLOWER)
    part = request(trust_ids=TRUSTS[:2], min_trusts=2)
    registry = replace(REGISTRY, nets={NET.name: flower})
    life = Life(asked=part, registry=registry).run("request")
    assert life.there.state is JobState.REJECTED
    assert life.there.reason is not None
    assert life.there.reason.code == ReasonCode.NO_SUCH_NET
    selects = replace(NOW_OF_NET, extensions=frozenset({"selection"}))
    assert Life(asked=part, registry=registry, net=selects).run("request").there.eligible
    assert Life(registry=registry).run("request", "claim").there.state is JobState.PREPARING


def test_a_stale_worker_writes_nothing() -> None:
    life = life_in("preparing")
    old = {name: COMMANDS[name](life) for name in ("open", "give back", "fail", "delay")}
    lease = life.there.lease
    assert lease is not None
    life.job = replace(life.there, lease=replace(lease, until=life.now))
    life.run("take lease")
    assert life.there.lease is not None
    assert life.there.lease.token == lease.token + 1
    before = life.there
    for name, command in old.items():
        assert life.do(command).outcome is Outcome.LEASE_LOST, name
    assert life.there == before
    life.run("open")


def test_a_lease_that_holds_is_not_taken() -> None:
    life = life_in("preparing")
    assert life.do(c.TakeLease(JOB, "b")).outcome is Outcome.LEASE_LOST


def test_repeating_a_submission_opens_the_next_one() -> None:
    life = life_in("submitting")
    first = life.there.attempts[0].submission
    life.run("open")
    assert first is not None
    assert life.there.state is JobState.SUBMITTING


def test_a_run_of_another_submission_is_not_taken() -> None:
    life = life_in("submitting")
    stranger = c.RecordRun(JOB, 1, TRUSTS[0], "run-9")
    assert life.do(stranger).outcome is Outcome.IGNORED


def test_a_provisional_run_id_gives_way_to_a_report() -> None:
    life = life_in("submitting")
    life.do(c.RecordRun(JOB, 1, PATH, "guess", provisional=True))
    assert life.there.attempts[0].provisional
    life.run("running")
    attempt = life.there.attempts[0]
    assert (attempt.run_id, attempt.provisional) == ("run-1", False)
