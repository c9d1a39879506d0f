"""A large registry, most of whose nets are away: every request is answered, and what can run runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.e2e.harness import TRUSTS, opened, registry_of

NETS, SITES, MANY = 200, 10, 2_000
#: The trusts of the nets that are away; with those of the net that answers there are 400.
AWAY = [str(UUID(int=(7 << 100) + n)) for n in range(400 - len(TRUSTS))]


def members(number: int) -> list[str]:
    """The sites of a net that is away: neighbours overlap, distant ones have none in common."""
    return [AWAY[(2 * number + k) % len(AWAY)] for k in range(SITES)]


def large(url: str) -> dict[str, Any]:
    """The registry with one net that answers among 200."""
    document = registry_of(url)
    document["trusts"] += [{"id": t, "name": f"Hospital away {n}"} for n, t in enumerate(AWAY)]
    document["nets"] += [
        {
            "name": f"away-{n:03}",
            "fl_backend": "embedded",
            "endpoint": f"http://127.0.0.1:1/away-{n:03}",
            "capacity": 4,
            "members": {trust: f"Trust_{k}" for k, trust in enumerate(members(n), 1)},
        }
        for n in range(1, NETS)
    ]
    document["projects"] = [{"id": "demo", "approved_trusts": [*TRUSTS, *AWAY]}]
    return document


def request(trusts: list[str], **more: Any) -> dict[str, Any]:
    return {"project_id": "demo", "cohort_query": "select 1", "trust_ids": trusts, **more}


def that_no_net_can_serve() -> Iterator[dict[str, Any]]:
    for n in range(MANY):
        here, there = members(1 + n % (NETS - 1)), members(1 + (n + NETS // 2) % (NETS - 1))
        yield request([*here[:5], *there[:5]])


def with_weights() -> Iterator[dict[str, Any]]:
    """Valid ones before all others, each for a net that is away."""
    for n in range(MANY):
        trusts = members(1 + n % (NETS - 1))
        weights = {trust: (k + 1) / SITES for k, trust in enumerate(trusts)}
        config = {"GLOBAL_ROUNDS": 2, "AGGREGATION_WEIGHTS": weights}
        yield request(trusts, config=config, priority=1)


async def test_among_many_that_cannot_run_one_that_can_runs(
    migrated_env: dict[str, str], tmp_path: Path
) -> None:
    def answered(kinds: Counter[str]) -> bool:
        return kinds["fl.job.rejected.v1"] >= MANY and kinds["fl.job.queued.v1"] >= MANY + 1

    async with opened(migrated_env, tmp_path, large) as harness:
        began = time.monotonic()
        await harness.ask_all(that_no_net_can_serve())
        first = await harness.ask()
        await harness.ask_all(with_weights())
        harness.start_service()
        kinds = await harness.published(answered)
        second = await harness.ask()
        assert await harness.ended(first) == await harness.ended(second) == "completed"
        taken = time.monotonic() - began
        log = (tmp_path / "processes.log").read_text()
    assert kinds["fl.job.rejected.v1"] == MANY
    assert "database_away" not in log
    assert "deadlock" not in log
    assert taken < 60
