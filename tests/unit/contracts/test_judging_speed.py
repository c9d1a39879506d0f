"""A full batch of the requests that are worst to judge costs a fraction of a second, whatever the nets."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from service.contracts import registry_file
from service.domain.commands import Command
from service.domain.decide import decide
from service.domain.enums import FLBackend, ReasonCode
from service.domain.events import Queued, Rejected
from service.domain.facts import Facts
from tests.integration.store.harness import asked, item

NETS = 200
TRUSTS = [UUID(int=(7 << 100) + n) for n in range(400)]
BATCH = 2_000
Changes = Callable[[int], dict[str, object]]


def facts(members: int) -> Facts:
    """Two hundred nets, each with so many of the trusts."""
    document = {
        "trusts": [{"id": str(t), "name": f"Hospital {n}"} for n, t in enumerate(TRUSTS)],
        "nets": [
            {
                "name": f"net-{n:03}",
                "fl_backend": "embedded",
                "endpoint": f"http://127.0.0.1:1/{n}",
                "members": {ring(n + k): f"Trust_{k}" for k in range(members)},
            }
            for n in range(NETS)
        ],
        "projects": [{"id": "demo", "approved_trusts": [str(t) for t in TRUSTS]}],
    }
    registry = registry_file.to_registry(registry_file.parse(document), 1)
    types = {backend: {"standard": ()} for backend in FLBackend}
    return Facts(datetime.now(UTC), registry, job_types=types)


def ring(n: int) -> str:
    return str(TRUSTS[n % len(TRUSTS)])


def judged(changes: dict[str, Any]) -> Command:
    command = item(asked(**changes), 0).command
    assert isinstance(command, Command)
    return command


def some(n: int) -> list[str]:
    return [ring(n + k) for k in range(5)]


def weighted(n: int, *weights: float) -> dict[str, object]:
    named = {ring(n + k): weight for k, weight in enumerate(weights)}
    return {"trust_ids": some(n), "config": {"AGGREGATION_WEIGHTS": named}}


@pytest.mark.parametrize(
    ("members", "changes", "code"),
    [
        (10, lambda n: {"trust_ids": [*some(n)[:4], ring(n + 200)]}, ReasonCode.NO_SUCH_NET),
        (10, lambda n: {"trust_ids": some(n)}, None),
        (10, lambda n: weighted(n, 0.5), None),
        (400, lambda n: weighted(n, 0.5), None),
        (400, lambda n: weighted(n, 0, 0, 0, 0, 0), ReasonCode.INVALID_REQUEST),
        (
            10,
            lambda n: {"trust_ids": [str(UUID(int=n * 9 + k)) for k in range(9)]},
            "unknown_trust",
        ),
    ],
    ids=["no net", "a net", "a weight", "all nets, a weight", "no weight", "unknown trusts"],
)
def test_a_batch_of_the_worst_requests_is_judged_in_under_a_second(
    members: int, changes: Changes, code: str | None
) -> None:
    known = facts(members)
    # Trusts of the last nets run off the ring of nets, so that some are nobody's.
    commands = [judged(changes(n % 190)) for n in range(BATCH)]
    began = time.process_time()
    decisions = [decide(None, command, known) for command in commands]
    seconds = time.process_time() - began
    codes = {
        event.reason.code if isinstance(event, Rejected) else None
        for decision in decisions
        for event in decision.events
        if isinstance(event, Rejected | Queued)
    }
    assert codes == {code}
    assert seconds < 1.0


def test_a_rejection_gives_the_reasons_of_ten_nets_at_most() -> None:
    known = facts(1)
    command = judged({"trust_ids": [ring(0), ring(1)]})
    event = decide(None, command, known).events[0]
    assert isinstance(event, Rejected)
    text = event.reason.errors[0].msg
    assert text.startswith("no net can ever serve this request: net-000 has no member ")
    assert "net-009" in text
    assert "net-010" not in text
