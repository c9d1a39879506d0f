"""Is a request a job, may it queue, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from service.domain import commands as c
from service.domain import events as e
from service.domain.decide import decide
from service.domain.decision import Decision, Outcome
from service.domain.eligibility import eligible_nets
from service.domain.enums import FLBackend, JobState, ReasonCode, WaitingCode
from service.domain.facts import Facts, JobTypes
from service.domain.registry import Project
from service.domain.values import PartialRequest, Problem, Resources
from tests.unit.domain.job_builder import (
    BEGIN,
    COMMANDS,
    JOB,
    NET,
    NOW_OF_NET,
    ORIGIN,
    REGISTRY,
    TRUSTS,
    JobBuilder,
    job_in,
    request,
)

FACTS = Facts(BEGIN, REGISTRY, {NET.name: NOW_OF_NET}, {FLBackend.EMBEDDED: {"standard": ()}})


def _ask(facts: Facts = FACTS, **more: Any) -> Decision:
    asked = request(**more)
    return decide(None, c.RequestTraining(JOB, asked), facts)


def _queued(facts: Facts = FACTS, **more: Any) -> e.Queued:
    event = _ask(facts, **more).events[0]
    assert isinstance(event, e.Queued), event
    return event


def _refusals(facts: Facts = FACTS, **more: Any) -> list[str]:
    event = _ask(facts, **more).events[0]
    assert isinstance(event, e.Rejected), event
    assert event.reason.errors
    assert event.reason.code == event.reason.errors[0].type
    return [problem.type for problem in event.reason.errors]


STRANGER = uuid4()


@pytest.mark.parametrize(
    ("wrong", "codes"),
    [
        ({"project_id": "p9"}, [ReasonCode.UNKNOWN_PROJECT]),
        ({"trust_ids": (*TRUSTS, STRANGER)}, [ReasonCode.UNKNOWN_TRUST]),
        ({"fl_backend": FLBackend.NVFLARE}, [ReasonCode.NO_SUCH_NET]),
        ({"resources": Resources(2)}, [ReasonCode.NO_SUCH_NET]),
        ({"job_type": "odd"}, [ReasonCode.UNKNOWN_JOB_TYPE]),
        ({"deadline": BEGIN}, [ReasonCode.DEADLINE_EXCEEDED]),
        ({"config": {"AGGREGATION_WEIGHTS": {"Trust_9": 1}}}, [ReasonCode.INVALID_REQUEST]),
        (
            {"config": {"AGGREGATION_WEIGHTS": {f"Trust_{n}": 0 for n in (1, 2, 3)}}},
            [ReasonCode.INVALID_REQUEST],
        ),
        (
            {"project_id": "p9", "trust_ids": (STRANGER,), "deadline": BEGIN},
            [ReasonCode.UNKNOWN_PROJECT, ReasonCode.UNKNOWN_TRUST, ReasonCode.DEADLINE_EXCEEDED],
        ),
    ],
)
def test_what_can_never_run_is_rejected_with_every_reason(
    wrong: dict[str, Any], codes: list[ReasonCode]
) -> None:
    assert _refusals(**wrong) == codes


def test_the_registry_says_which_trusts_and_priorities_a_project_has() -> None:
    small = Project("p1", frozenset(TRUSTS[:2]), max_priority=3)
    facts = replace(FACTS, registry=replace(REGISTRY, projects={"p1": small}))
    assert _refusals(facts) == [ReasonCode.TRUST_NOT_APPROVED, ReasonCode.PRIORITY_NOT_ALLOWED]


def test_unlisted_projects_may_be_allowed() -> None:
    facts = replace(FACTS, registry=replace(REGISTRY, unlisted_projects="allow"))
    assert _queued(facts, project_id="p9").eligible


def test_weights_of_those_who_take_no_part_are_a_warning() -> None:
    weights = {"AGGREGATION_WEIGHTS": {"Trust_3": 0.5, str(TRUSTS[0]).upper(): 1}}
    event = _queued(trust_ids=TRUSTS[:2], min_trusts=2, config=weights)
    assert len(event.warnings) == 1
    assert "Trust_3" in event.warnings[0]


def test_a_manifest_that_cannot_be_read_is_a_reason_to_wait() -> None:
    facts = replace(FACTS, job_types={FLBackend.EMBEDDED: None})
    assert _queued(facts, job_type="odd").waiting_for == WaitingCode.MANIFEST_UNAVAILABLE


_NET = {NET.name: NOW_OF_NET}
_FLOWER = replace(NET, name="a-flower", backend=FLBackend.FLOWER)
_MIXED = replace(
    FACTS,
    registry=replace(REGISTRY, nets={_FLOWER.name: _FLOWER, NET.name: NET}),
    nets=_NET | {_FLOWER.name: replace(NOW_OF_NET, name=_FLOWER.name)},
    job_types={
        FLBackend.EMBEDDED: {"standard": ()},
        FLBackend.FLOWER: {"standard": (), "evaluation": ()},
    },
)
_ONE_GPU = replace(
    FACTS,
    registry=replace(REGISTRY, nets={NET.name: replace(NET, gpus=1)}),
    nets={NET.name: replace(NOW_OF_NET, gpus_taken={TRUSTS[0]: 1})},
)


@pytest.mark.parametrize(
    ("job_type", "layouts", "nets"),
    [
        ("standard", None, ["a-flower", "net-1"]),
        ("evaluation", None, ["a-flower"]),
        ("standard", [FLBackend.EMBEDDED], ["net-1"]),
        (None, [FLBackend.EMBEDDED], ["net-1"]),
        (None, None, ["a-flower", "net-1"]),
    ],
)
def test_a_candidate_has_the_job_type_and_a_layout(
    job_type: str | None, layouts: list[FLBackend] | None, nets: list[str]
) -> None:
    facts = replace(_MIXED, layouts=None if layouts is None else frozenset(layouts))
    asked = request(job_type=job_type)
    assert [net.name for net in eligible_nets(asked, facts)] == nets
    assert _queued(facts, job_type=job_type).waiting_for is None


def test_a_backend_without_a_layout_is_no_net_to_run_on() -> None:
    facts = replace(_MIXED, layouts=frozenset({FLBackend.EMBEDDED}))
    event = _ask(facts, fl_backend=FLBackend.FLOWER).events[0]
    assert isinstance(event, e.Rejected)
    assert event.reason.code == ReasonCode.NO_SUCH_NET
    assert "a-flower runs flower, for which this service has no bundle layout" in (
        event.reason.message
    )
    partial = PartialRequest("p1", TRUSTS, FLBackend.FLOWER)
    assert (("trust_ids",), ReasonCode.NO_SUCH_NET) in _kinds(_broken(partial, facts=facts))
    assert _refusals(facts, job_type="evaluation") == [ReasonCode.UNKNOWN_JOB_TYPE]


def test_one_manifest_that_cannot_be_read_leaves_the_other_nets() -> None:
    types: dict[FLBackend, JobTypes] = {FLBackend.EMBEDDED: {"standard": ()}}
    facts = replace(_MIXED, job_types=types | {FLBackend.FLOWER: None})
    assert _queued(facts, job_type="standard").waiting_for is None
    assert _queued(facts, job_type="evaluation").waiting_for == WaitingCode.MANIFEST_UNAVAILABLE


WAITS: list[tuple[WaitingCode | None, Callable[[], e.Queued]]] = [
    (None, _queued),
    (WaitingCode.NOT_BEFORE, lambda: _queued(not_before=BEGIN + timedelta(hours=1))),
    (WaitingCode.HUB_PAUSED, lambda: _queued(replace(FACTS, hub_paused=True))),
    (WaitingCode.TRUSTS, lambda: _queued(replace(FACTS, nets={}))),
    (
        WaitingCode.CAPACITY,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, occupied=1)})),
    ),
    (
        WaitingCode.CAPACITY,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, strays=1)})),
    ),
    (WaitingCode.GPUS, lambda: _queued(_ONE_GPU, resources=Resources(1))),
    (None, lambda: _queued(_ONE_GPU)),
    (
        WaitingCode.TRUSTS,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, online=frozenset())})),
    ),
    (
        WaitingCode.NET_PAUSED,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, paused=True)})),
    ),
    (
        WaitingCode.NET_QUARANTINED,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, in_doubt=True)})),
    ),
]


@pytest.mark.parametrize(("code", "asked"), WAITS)
def test_it_says_what_it_waits_for(code: WaitingCode | None, asked: Callable[[], e.Queued]) -> None:
    assert asked().waiting_for == code


def test_a_project_at_its_limit_waits() -> None:
    limited = Project("p1", frozenset(TRUSTS), max_running_jobs=1)
    facts = replace(
        FACTS, registry=replace(REGISTRY, projects={"p1": limited}), project_running={"p1": 1}
    )
    assert _queued(facts).waiting_for == WaitingCode.PROJECT_AT_LIMIT


def test_one_net_that_is_free_is_enough() -> None:
    second = replace(NET, name="net-2", id=uuid4())
    facts = replace(
        FACTS,
        registry=replace(REGISTRY, nets={"net-1": NET, "net-2": second}),
        nets={
            "net-1": replace(NOW_OF_NET, paused=True),
            "net-2": replace(NOW_OF_NET, name="net-2"),
        },
    )
    assert _queued(facts).waiting_for is None


def test_a_start_time_is_kept() -> None:
    builder = JobBuilder(asked=request(not_before=BEGIN + timedelta(seconds=60)))
    builder.run("request")
    assert not builder.there.eligible
    assert builder.there.due_at == builder.asked.not_before
    builder.run("review")
    assert not builder.there.eligible
    builder.pass_seconds(60)
    builder.run("review", "claim")


def test_the_same_content_again_is_nothing_other_content_a_conflict() -> None:
    for name in ("queued", "running", "completed", "stopped"):
        builder = job_in(name)
        before = builder.there
        assert builder.do(COMMANDS["request"](builder)).outcome is Outcome.IGNORED
        refused = builder.do(COMMANDS["other request"](builder))
        assert refused.outcome is Outcome.REFUSED
        assert refused.reason is not None
        assert refused.reason.code == ReasonCode.DUPLICATE_CONFLICT
        assert builder.there == before


def test_a_rejected_job_keeps_its_id_and_the_answer_says_so() -> None:
    builder = job_in("rejected")
    refused = builder.do(COMMANDS["request"](builder))
    assert refused.reason is not None
    assert "new one" in refused.reason.message
    assert builder.there.state is JobState.REJECTED


def test_a_cleaned_job_never_trains_again() -> None:
    facts = replace(FACTS, retired={JOB: request().content_hash})
    assert _ask(facts).outcome is Outcome.IGNORED
    assert _ask(facts, content_hash=b"z" * 32).outcome is Outcome.REFUSED


def test_waiting_is_told_once_per_reason() -> None:
    builder = job_in("queued").run("tell waiting")
    assert builder.do(COMMANDS["tell waiting"](builder)).events == ()
    builder.do(c.ReportWaiting(JOB, WaitingCode.CAPACITY, 1))
    assert builder.published() == ["queued", "waiting", "waiting"]


def test_a_reason_that_went_away_is_told_too() -> None:
    builder = job_in("queued").run("tell waiting")
    free = c.ReportWaiting(JOB, None, 1)
    assert builder.do(free).events
    assert builder.there.waiting is None
    assert builder.do(free).events == (), "once"
    assert builder.published() == ["queued", "waiting", "waiting"]


def test_a_job_that_waits_for_a_time_is_told_which() -> None:
    later = c.ReportWaiting(JOB, WaitingCode.NOT_BEFORE, 7)
    builder = job_in("queued after a give-back")
    [event] = builder.do(later).events
    assert isinstance(event, e.WaitingChanged)
    assert builder.there.next_try_at is not None
    assert event.message.startswith("its next try may start at 2026-")
    assert builder.do(later).events == ()
    builder = JobBuilder(asked=request(not_before=BEGIN + timedelta(seconds=60))).run("request")
    assert builder.do(later).events == (), "it was told when it was queued"
    builder.pass_seconds(60)
    builder.run("review")
    assert builder.do(later).events == ()
    assert builder.do(c.ReportWaiting(JOB, None, 1)).events
    assert builder.do(later).events == (), "its time has come"


# --- nothing that is wrong hides anything else ----------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "codes"),
    [
        (
            {
                "trust_ids": (*TRUSTS, STRANGER),
                "fl_backend": FLBackend.NVFLARE,
                "config": {"AGGREGATION_WEIGHTS": {"Trust_9": 1, str(STRANGER): 1}},
            },
            [ReasonCode.UNKNOWN_TRUST, ReasonCode.NO_SUCH_NET, ReasonCode.INVALID_REQUEST],
        ),
        (
            {"trust_ids": (STRANGER,), "job_type": "odd"},
            [ReasonCode.UNKNOWN_TRUST, ReasonCode.UNKNOWN_JOB_TYPE],
        ),
        (
            {"resources": Resources(2), "job_type": "odd"},
            [ReasonCode.NO_SUCH_NET, ReasonCode.UNKNOWN_JOB_TYPE],
        ),
        (
            {"trust_ids": (*TRUSTS[:2], STRANGER), "min_trusts": 1},
            [ReasonCode.UNKNOWN_TRUST],
        ),
    ],
)
def test_trusts_and_nets_that_are_missing_hide_nothing(
    wrong: dict[str, Any], codes: list[ReasonCode]
) -> None:
    facts = replace(FACTS, job_types={FLBackend.EMBEDDED: {"standard": ()}})
    assert _refusals(facts, **wrong) == codes


def test_a_weight_of_an_odd_key_does_not_hide_an_odd_job_type() -> None:
    config = {"AGGREGATION_WEIGHTS": {f"Trust_{n}": 0 for n in (1, 2, 3)}}
    assert _refusals(job_type="odd", config=config) == [
        ReasonCode.UNKNOWN_JOB_TYPE,
        ReasonCode.INVALID_REQUEST,
    ]


_TYPO = Problem(("typo",), "Unknown field", "extra_forbidden")


def _broken(partial: PartialRequest, *errors: Problem, facts: Facts = FACTS) -> Decision:
    asked = c.RejectRequest(
        JOB, None, partial.project_id, b"y" * 32, errors or (_TYPO,), ORIGIN, None, partial
    )
    return decide(None, asked, facts)


def _kinds(decision: Decision) -> list[tuple[tuple[str | int, ...], str]]:
    event = decision.events[0]
    assert isinstance(event, e.Rejected)
    assert event.reason.code == ReasonCode.INVALID_REQUEST
    return [(p.loc, p.type) for p in event.reason.errors]


def test_a_broken_contract_does_not_hide_what_the_registry_says() -> None:
    partial = PartialRequest(
        "p9",
        (TRUSTS[0], None, STRANGER, STRANGER),
        FLBackend.NVFLARE,
        config={"AGGREGATION_WEIGHTS": {"Trust_9": 1.0, "Trust_1": 0.0}},
        deadline=BEGIN,
    )
    assert _kinds(_broken(partial)) == [
        (("typo",), "extra_forbidden"),
        (("project_id",), ReasonCode.UNKNOWN_PROJECT),
        (("trust_ids", 2), ReasonCode.UNKNOWN_TRUST),
        (("deadline",), ReasonCode.DEADLINE_EXCEEDED),
        (("trust_ids",), ReasonCode.NO_SUCH_NET),
        (("config", "AGGREGATION_WEIGHTS", "Trust_9"), ReasonCode.INVALID_REQUEST),
    ]


def test_what_is_readable_is_judged_as_in_a_whole_request() -> None:
    small = Project("p1", frozenset(TRUSTS[:2]), max_priority=3)
    facts = replace(FACTS, registry=replace(REGISTRY, projects={"p1": small}))
    partial = PartialRequest("p1", TRUSTS, priority=4, job_type="odd")
    assert _kinds(_broken(partial, facts=facts)) == [
        (("typo",), "extra_forbidden"),
        (("trust_ids", 2), ReasonCode.TRUST_NOT_APPROVED),
        (("priority",), ReasonCode.PRIORITY_NOT_ALLOWED),
        (("job_type",), ReasonCode.UNKNOWN_JOB_TYPE),
    ]


def test_nothing_is_held_against_what_could_not_be_read() -> None:
    """A part of the trusts may have weight 0, and is not held against a net that runs all or none."""
    picky = replace(NET, backend=FLBackend.FLOWER, selects_clients=False)
    facts = replace(FACTS, registry=replace(REGISTRY, nets={picky.name: picky}), nets={})
    weights = {"AGGREGATION_WEIGHTS": {"Trust_1": 0.0}}
    for partial in (PartialRequest(), PartialRequest("p1", (TRUSTS[0], None), config=weights)):
        assert _kinds(_broken(partial, facts=facts)) == [(("typo",), "extra_forbidden")]


def test_one_mistake_is_told_once() -> None:
    zero = {"AGGREGATION_WEIGHTS": {str(t): 0.0 for t in TRUSTS}}
    told = Problem(("config", "AGGREGATION_WEIGHTS"), "nobody has a weight", "value_error")
    assert _kinds(_broken(PartialRequest("p1", TRUSTS, config=zero), told)) == [
        (told.loc, told.type)
    ]


def test_a_rejection_tells_a_hundred_errors_at_most() -> None:
    many = tuple(Problem((f"x{n}",), "Unknown field", "extra_forbidden") for n in range(100))
    assert len(_kinds(_broken(PartialRequest("p9"), *many))) == 100


def test_a_broken_request_about_a_known_job_tells_that_too() -> None:
    builder = job_in("queued")
    bad = COMMANDS["bad request"](builder)
    assert isinstance(bad, c.RejectRequest)
    refused = builder.do(replace(bad, partial=PartialRequest("p9")))
    assert refused.outcome is Outcome.REFUSED
    assert refused.reason is not None
    assert [p.type for p in refused.reason.errors] == [
        "t",
        ReasonCode.DUPLICATE_CONFLICT,
        ReasonCode.UNKNOWN_PROJECT,
    ]


def test_the_same_broken_content_again_is_nothing_though_the_registry_moved() -> None:
    builder = JobBuilder()
    bad = COMMANDS["bad request"](builder)
    assert isinstance(bad, c.RejectRequest)
    assert builder.do(replace(bad, partial=PartialRequest("p9"))).events
    builder.registry = replace(REGISTRY, unlisted_projects="allow")
    assert builder.do(bad).outcome is Outcome.IGNORED
