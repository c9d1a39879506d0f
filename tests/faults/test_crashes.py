"""The service dies at a named point, as by SIGKILL, and starts again: the job completes all the same, with
one backend run, every event once, and one terminal event."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from pathlib import Path
from uuid import UUID

import pytest

from tests.e2e.world import World, opened

POINTS = [
    "ingest_after_apply",
    "apply.before_commit",
    "apply.committed",
    "claim.claimed",
    "prepare.staged",
    "prepare.uploaded",
    "submit.opened",
    "submit.answered",
    "submit.known",
    "collect.stored",
    "relay_before_commit",
    "relay_after_commit",
]
QUICK = {
    "FL_STEPS__LEASE_SECONDS": "2",
    "FL_STEPS__RENEW_SECONDS": "0.5",
    "FL_KAFKA__GROUP_INSTANCE_ID": "one",
    "FL_STEPS__POLL_SECONDS": "0.5",
}


def _runs(world: World) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{world.net_url}/list_jobs", timeout=10) as answer:
        return list(json.load(answer))


async def _told_once(world: World, job_id: UUID) -> None:
    events = await world.lifecycle(job_id, lambda kind: kind == "fl.job.completed.v1", 30)
    assert [n for _, n, _ in events] == list(range(1, len(events) + 1))
    ends = [k for k, _, _ in events if k.split(".")[2] in ("completed", "failed", "stopped")]
    assert ends == ["fl.job.completed.v1"]
    starts = [data["attempt"] for kind, _, data in events if kind == "fl.job.submitted.v1"]
    assert starts == [1]
    rounds = [d["global_round"] for k, _, d in events if k == "fl.job.round_aggregated.v1"]
    assert rounds == list(range(1, events[-1][2]["rounds"] + 1))


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_a_point_loses_and_doubles_nothing(
    migrated_env: dict[str, str], tmp_path: Path, point: str
) -> None:
    async with opened(migrated_env | QUICK, tmp_path) as world:
        dying = world.start_service(FL_FAULTPOINT=point)
        job_id = await world.ask()
        try:
            assert dying.wait(20) == 137
        except subprocess.TimeoutExpired:
            pytest.fail(f"the service never came to {point}")
        world.start_service()
        assert await world.ended(job_id) == "completed"
        await _told_once(world, job_id)
        assert len(_runs(world)) == 1


@pytest.mark.parametrize("after", [0.0, 0.3, 0.9, 1.8])
async def test_sigkill_while_it_trains(
    migrated_env: dict[str, str], tmp_path: Path, after: float
) -> None:
    async with opened(migrated_env | QUICK, tmp_path) as world:
        first = world.start_service()
        job_id = await world.ask(nap=0.4, rounds=3)
        await world.until(job_id, lambda state: state is not None)
        await asyncio.sleep(after)
        world.kill(first)
        world.start_service()
        assert await world.ended(job_id) == "completed"
        await _told_once(world, job_id)
        assert len(_runs(world)) == 1


async def test_rounds_of_a_run_that_ended_while_nobody_listened(
    migrated_env: dict[str, str], tmp_path: Path
) -> None:
    plain = {k: v for k, v in QUICK.items() if k != "FL_KAFKA__GROUP_INSTANCE_ID"}
    async with opened(migrated_env | plain, tmp_path) as world:
        first = world.start_service()
        job_id = await world.ask(nap=0.2, rounds=8)
        await world.until(job_id, lambda state: state == "running")
        await asyncio.sleep(0.5)
        world.kill(first)
        await asyncio.sleep(4)
        world.start_service()
        assert await world.ended(job_id) == "completed"
        await _told_once(world, job_id)


async def test_the_net_dies_and_comes_back(migrated_env: dict[str, str], tmp_path: Path) -> None:
    async with opened(migrated_env | QUICK, tmp_path) as world:
        world.start_service()
        job_id = await world.ask(nap=0.5, rounds=4)
        await world.until(job_id, lambda state: state == "running")
        net = world.net_process
        world.kill(net)
        world.start_net()
        assert await world.ended(job_id, 60) == "completed"
        await _told_once(world, job_id)


async def test_two_services_share_the_work(migrated_env: dict[str, str], tmp_path: Path) -> None:
    async with opened(migrated_env | QUICK, tmp_path) as world:
        one = world.start_service(FL_KAFKA__GROUP_INSTANCE_ID="a")
        world.start_service(FL_KAFKA__GROUP_INSTANCE_ID="b")
        ids = [await world.ask(nap=0.1) for _ in range(6)]
        await world.until(ids[2], lambda state: state not in (None, "queued"))
        world.kill(one)
        for job_id in ids:
            assert await world.ended(job_id, 60) == "completed"
            await _told_once(world, job_id)
        assert len(_runs(world)) == len(ids)
