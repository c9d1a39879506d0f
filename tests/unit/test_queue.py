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
from service.domain.facts import Facts
from service.domain.registry import Project
from service.domain.values import Resources
from service.domain.vocabulary import FLBackend, JobState, Reason, Waiting
from tests.unit.domain_life import (
    BEGIN,
    COMMANDS,
    JOB,
    NET,
    NOW_OF_NET,
    REGISTRY,
    TRUSTS,
    Life,
    life_in,
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
        ({"project_id": "p9"}, [Reason.UNKNOWN_PROJECT]),
        ({"trust_ids": (*TRUSTS, STRANGER)}, [Reason.UNKNOWN_TRUST]),
        ({"fl_backend": FLBackend.NVFLARE}, [Reason.NO_SUCH_NET]),
        ({"resources": Resources(2)}, [Reason.NO_SUCH_NET]),
        ({"job_type": "odd"}, [Reason.UNKNOWN_JOB_TYPE]),
        ({"deadline": BEGIN}, [Reason.DEADLINE_EXCEEDED]),
        ({"config": {"AGGREGATION_WEIGHTS": {"Trust_9": 1}}}, [Reason.INVALID_REQUEST]),
        (
            {"config": {"AGGREGATION_WEIGHTS": {f"Trust_{n}": 0 for n in (1, 2, 3)}}},
            [Reason.INVALID_REQUEST],
        ),
        (
            {"project_id": "p9", "trust_ids": (STRANGER,), "deadline": BEGIN},
            [Reason.UNKNOWN_PROJECT, Reason.UNKNOWN_TRUST, Reason.DEADLINE_EXCEEDED],
        ),
    ],
)
def test_what_can_never_run_is_rejected_with_every_reason(
    wrong: dict[str, Any], codes: list[Reason]
) -> None:
    assert _refusals(**wrong) == codes


def test_the_registry_says_which_trusts_and_priorities_a_project_has() -> None:
    small = Project("p1", frozenset(TRUSTS[:2]), max_priority=3)
    facts = replace(FACTS, registry=replace(REGISTRY, projects={"p1": small}))
    assert _refusals(facts) == [Reason.TRUST_NOT_APPROVED, Reason.PRIORITY_NOT_ALLOWED]


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
    assert _queued(facts, job_type="odd").waiting_for == Waiting.MANIFEST_UNAVAILABLE


_NET = {NET.name: NOW_OF_NET}
WAITS: list[tuple[Waiting | None, Callable[[], e.Queued]]] = [
    (None, _queued),
    (Waiting.NOT_BEFORE, lambda: _queued(not_before=BEGIN + timedelta(hours=1))),
    (Waiting.HUB_PAUSED, lambda: _queued(replace(FACTS, hub_paused=True))),
    (Waiting.TRUSTS, lambda: _queued(replace(FACTS, nets={}))),
    (
        Waiting.CAPACITY,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, occupied=1)})),
    ),
    (
        Waiting.TRUSTS,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, online=frozenset())})),
    ),
    (
        Waiting.NET_PAUSED,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, paused=True)})),
    ),
    (
        Waiting.NET_QUARANTINED,
        lambda: _queued(replace(FACTS, nets={NET.name: replace(NOW_OF_NET, in_doubt=True)})),
    ),
]


@pytest.mark.parametrize(("code", "asked"), WAITS)
def test_it_says_what_it_waits_for(code: Waiting | None, asked: Callable[[], e.Queued]) -> None:
    assert asked().waiting_for == code


def test_a_project_at_its_limit_waits() -> None:
    limited = Project("p1", frozenset(TRUSTS), max_running_jobs=1)
    facts = replace(
        FACTS, registry=replace(REGISTRY, projects={"p1": limited}), project_running={"p1": 1}
    )
    assert _queued(facts).waiting_for == Waiting.PROJECT_AT_LIMIT


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
    life = Life(asked=request(not_before=BEGIN + timedelta(seconds=60)))
    life.run("request")
    assert not life.there.eligible
    assert life.there.due_at == life.asked.not_before
    life.run("review")
    assert not life.there.eligible
    life.pass_seconds(60)
    life.run("review", "claim")


def test_the_same_content_again_is_nothing_other_content_a_conflict() -> None:
    for name in ("queued", "running", "completed", "stopped"):
        life = life_in(name)
        before = life.there
        assert life.do(COMMANDS["request"](life)).outcome is Outcome.IGNORED
        refused = life.do(COMMANDS["other request"](life))
        assert refused.outcome is Outcome.REFUSED
        assert refused.why is not None
        assert refused.why.code == Reason.DUPLICATE_CONFLICT
        assert life.there == before


def test_a_rejected_job_keeps_its_id_and_the_answer_says_so() -> None:
    life = life_in("rejected")
    refused = life.do(COMMANDS["request"](life))
    assert refused.why is not None
    assert "new one" in refused.why.message
    assert life.there.state is JobState.REJECTED


def test_a_cleaned_job_never_trains_again() -> None:
    facts = replace(FACTS, retired={JOB: request().content_hash})
    assert _ask(facts).outcome is Outcome.IGNORED
    assert _ask(facts, content_hash=b"z" * 32).outcome is Outcome.REFUSED


def test_waiting_is_told_once_per_reason() -> None:
    life = life_in("queued").run("tell waiting")
    assert life.do(COMMANDS["tell waiting"](life)).events == ()
    life.do(c.TellWaiting(JOB, Waiting.CAPACITY, 1))
    assert life.told() == ["queued", "waiting", "waiting"]
