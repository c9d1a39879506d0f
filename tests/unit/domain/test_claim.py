"""Who takes part, under which number, and who may go on with the work."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from service.domain import commands as c
from service.domain.decision import Outcome
from service.domain.eligibility import describe_waiting_for, eligible_nets, why_waiting
from service.domain.enums import FLBackend, JobState, ReasonCode, ReservationState, WaitingCode
from service.domain.facts import JobTypes
from service.domain.registry import NetNow
from service.domain.values import Resources
from tests.unit.domain.job_builder import (
    COMMANDS,
    JOB,
    NET,
    NOW_OF_NET,
    PATH,
    REGISTRY,
    TRUSTS,
    JobBuilder,
    answer,
    job_in,
    request,
    without,
)


def _claimed(builder: JobBuilder) -> str:
    decision = builder.do(COMMANDS["claim"](builder))
    return decision.reason.code if decision.reason else str(builder.there.state)


@pytest.mark.parametrize(
    ("net", "answer"),
    [
        (replace(NOW_OF_NET, answering=False), "net_gone"),
        (replace(NOW_OF_NET, paused=True), "net_gone"),
        (replace(NOW_OF_NET, in_doubt=True), "net_gone"),
        (replace(NOW_OF_NET, occupied=1), "net_unfit"),
        (replace(NOW_OF_NET, strays=1), "net_unfit"),
        (replace(NOW_OF_NET, online=frozenset(TRUSTS[:2])), "trusts_gone"),
        (NOW_OF_NET, "preparing"),
    ],
)
def test_the_net_is_looked_at_once_more(net: NetNow, answer: str) -> None:
    builder = job_in("queued")
    builder.net = net
    assert _claimed(builder) == answer


@pytest.mark.parametrize(
    ("taken", "online", "answer"),
    [
        ({}, TRUSTS, "preparing"),
        ({TRUSTS[0]: 2}, TRUSTS, "preparing"),
        ({TRUSTS[0]: 3}, TRUSTS, "net_unfit"),
        ({TRUSTS[2]: 4, UUID(int=9): 4}, TRUSTS[:2], "preparing"),
        ({TRUSTS[1]: 9}, TRUSTS, "net_unfit"),
    ],
)
def test_gpus_are_counted_at_each_site_that_takes_part(
    taken: dict[UUID, int], online: tuple[UUID, ...], answer: str
) -> None:
    four = replace(REGISTRY, nets={NET.name: replace(NET, gpus=4, gpu_memory_gib=8)})
    now = replace(NOW_OF_NET, gpus_taken=taken, online=frozenset(online))
    asked = request(resources=Resources(2, 8), min_trusts=2)
    builder = JobBuilder(asked=asked, registry=four, net=now).run("request")
    facts = builder.facts()
    code = why_waiting(asked, eligible_nets(asked, facts), facts)
    assert code == (WaitingCode.GPUS if answer == "net_unfit" else None)
    assert _claimed(builder) == answer


def test_a_job_without_gpus_does_not_wait_for_them() -> None:
    builder = job_in("queued")
    builder.net = replace(NOW_OF_NET, gpus_taken=dict.fromkeys(TRUSTS, 9))
    assert _claimed(builder) == "preparing"


@pytest.mark.parametrize(
    ("manifest", "layouts", "answer"),
    [
        ({"standard": (), "evaluation": ()}, None, "preparing"),
        ({"standard": ()}, None, "net_unfit"),
        (None, None, "manifest_unavailable"),
        ({"evaluation": ()}, frozenset({FLBackend.FLOWER}), "net_unfit"),
    ],
)
def test_a_net_takes_only_what_it_can_run(
    manifest: JobTypes, layouts: frozenset[FLBackend] | None, answer: str
) -> None:
    asked = request(job_type="evaluation")
    builder = JobBuilder(asked=asked).run("request")
    builder.job_types, builder.layouts = {FLBackend.EMBEDDED: manifest}, layouts
    assert _claimed(builder) == answer


def test_nothing_is_claimed_while_the_service_is_paused() -> None:
    """It may have been paused between the pick and this look."""
    builder = job_in("queued")
    builder.hub_paused = True
    assert _claimed(builder) == "hub_paused"
    assert builder.there.state is JobState.QUEUED
    builder.hub_paused = False
    assert _claimed(builder) == "preparing"


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
    builder = job_in("queued")
    builder.registry = replace(REGISTRY, nets={NET.name: replace(NET, path_id=path_id)})
    model = builder.there.accepted_request.model_id if taken else TRUSTS[0]
    builder.models_taken = {NET.name: frozenset({model})}
    facts = builder.facts()
    code = why_waiting(
        builder.there.accepted_request, eligible_nets(builder.there.accepted_request, facts), facts
    )
    assert code == (WaitingCode.CAPACITY if answer == "model_taken" else None)
    assert _claimed(builder) == answer


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
    builder = job_in("queued")
    asked = builder.there.accepted_request
    nets = {name: replace(NET, name=name, path_id="attempt") for name in others}
    builder.registry = replace(REGISTRY, nets={NET.name: replace(NET, path_id="model")} | nets)
    builder.models_taken = {NET.name: frozenset({asked.model_id})}
    full = {name: replace(NOW_OF_NET, name=name, occupied=NET.capacity) for name in others}
    facts = replace(builder.facts(), nets={NET.name: NOW_OF_NET} | full)
    told = f"net {NET.name} still holds model {asked.model_id}'s earlier run {end}"
    assert describe_waiting_for(WaitingCode.CAPACITY, asked, facts) == told
    assert describe_waiting_for(WaitingCode.GPUS, asked, facts) == "the GPUs it asks for are taken"
    builder.models_taken = {}
    assert describe_waiting_for(WaitingCode.CAPACITY, asked, builder.facts()).startswith(
        "every net"
    )


def test_participants_are_the_requested_trusts_online_now() -> None:
    builder = job_in("queued", asked=request(min_trusts=2))
    builder.net = replace(NOW_OF_NET, online=frozenset(TRUSTS[1:]))
    builder.run("claim")
    attempt = builder.there.attempts[0]
    assert [(p.trust_id, p.slot) for p in attempt.participants] == [
        (TRUSTS[1], "Trust_2"),
        (TRUSTS[2], "Trust_3"),
    ]


def test_a_revoked_approval_ends_a_queued_job_at_the_claim() -> None:
    builder = job_in("queued")
    builder.registry = without(TRUSTS[0])
    assert _claimed(builder) == "failed"
    assert builder.there.reason is not None
    assert builder.there.reason.code == ReasonCode.TRUST_NOT_APPROVED


def test_a_revoked_approval_ends_it_before_the_submit() -> None:
    builder = job_in("preparing")
    builder.registry = without(TRUSTS[0])
    builder.run("open")
    assert builder.there.state is JobState.FAILED
    assert builder.there.attempts[0].reservation is ReservationState.RELEASED


@pytest.mark.parametrize(
    "members",
    [
        {t: s for t, s in NET.members.items() if t != TRUSTS[2]},
        {**NET.members, TRUSTS[2]: "Trust_9"},
        None,
    ],
)
@pytest.mark.parametrize("state", ["preparing", "submitting"])
def test_a_member_that_left_the_net_is_sent_nothing(
    state: str, members: dict[UUID, str] | None
) -> None:
    builder = job_in(state)
    nets = {} if members is None else {NET.name: replace(NET, members=members)}
    builder.registry = replace(REGISTRY, version=2, nets=nets)
    before = builder.there
    assert answer(builder.do(COMMANDS["open"](builder))) == "ignored:net_unfit"
    assert builder.there == before
    assert builder.run("give back").there.state is JobState.QUEUED


def test_a_submission_is_not_repeated_after_a_revocation() -> None:
    builder = job_in("submitting")
    builder.registry = without(TRUSTS[0])
    builder.run("open")
    assert builder.there.state is JobState.STOPPING
    assert builder.there.stop is not None
    assert builder.there.stop.code == ReasonCode.APPROVAL_REVOKED


def test_the_net_may_have_lost_a_member() -> None:
    builder = job_in("queued")
    net = replace(NET, members={t: s for t, s in NET.members.items() if t != TRUSTS[2]})
    builder.registry = replace(REGISTRY, nets={NET.name: net})
    assert _claimed(builder) == "net_unfit"


def test_flower_without_selection_takes_all_members_or_none() -> None:
    flower = replace(NET, backend=FLBackend.FLOWER)
    part = request(trust_ids=TRUSTS[:2], min_trusts=2)
    registry = replace(REGISTRY, nets={NET.name: flower})
    builder = JobBuilder(asked=part, registry=registry).run("request")
    assert builder.there.state is JobState.REJECTED
    assert builder.there.reason is not None
    assert builder.there.reason.code == ReasonCode.NO_SUCH_NET
    selects = replace(NOW_OF_NET, extensions=frozenset({"selection"}))
    assert JobBuilder(asked=part, registry=registry, net=selects).run("request").there.eligible
    assert JobBuilder(registry=registry).run("request", "claim").there.state is JobState.PREPARING


def test_nothing_is_turned_away_for_what_a_net_has_not_said_yet() -> None:
    """Whether a net can select its clients is known after its first answer; the claim looks again."""
    flower = replace(NET, backend=FLBackend.FLOWER)
    part = request(trust_ids=TRUSTS[:2], min_trusts=2)
    registry = replace(REGISTRY, nets={NET.name: flower})
    silent = replace(NOW_OF_NET, answering=False, online=frozenset(), has_answered=False)
    builder = JobBuilder(asked=part, registry=registry, net=silent).run("request")
    assert builder.there.state is JobState.QUEUED
    builder.net = NOW_OF_NET
    assert _claimed(builder) == "net_unfit"


def test_a_stale_worker_writes_nothing() -> None:
    builder = job_in("preparing")
    old = {name: COMMANDS[name](builder) for name in ("open", "give back", "fail", "delay")}
    lease = builder.there.lease
    assert lease is not None
    builder.job = replace(builder.there, lease=replace(lease, until=builder.now))
    builder.run("take lease")
    assert builder.there.lease is not None
    assert builder.there.lease.token == lease.token + 1
    before = builder.there
    for name, command in old.items():
        assert builder.do(command).outcome is Outcome.LEASE_LOST, name
    assert builder.there == before
    builder.run("open")


def test_a_lease_that_holds_is_not_taken() -> None:
    builder = job_in("preparing")
    assert builder.do(c.TakeLease(JOB, "b")).outcome is Outcome.LEASE_LOST


def test_repeating_a_submission_opens_the_next_one() -> None:
    builder = job_in("submitting")
    first = builder.there.attempts[0].submission
    builder.run("open")
    assert first is not None
    assert builder.there.state is JobState.SUBMITTING


def test_a_run_of_another_submission_is_not_taken() -> None:
    builder = job_in("submitting")
    stranger = c.RecordRun(JOB, 1, TRUSTS[0], "run-9")
    assert builder.do(stranger).outcome is Outcome.IGNORED


def test_a_provisional_run_id_gives_way_to_a_report() -> None:
    builder = job_in("submitting")
    builder.do(c.RecordRun(JOB, 1, PATH, "guess", provisional=True))
    assert builder.there.attempts[0].provisional
    builder.run("running")
    attempt = builder.there.attempts[0]
    assert (attempt.run_id, attempt.provisional) == ("run-1", False)
