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

from tests.e2e.harness import ServiceHarness, opened

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


def _runs(harness: ServiceHarness) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{harness.net_url}/list_jobs", timeout=10) as answer:
        return list(json.load(answer))


async def _told_once(harness: ServiceHarness, job_id: UUID) -> None:
    events = await harness.lifecycle(job_id, lambda kind: kind == "fl.job.completed.v1", 30)
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
    async with opened(migrated_env | QUICK, tmp_path) as harness:
        dying = harness.start_service(FL_FAULTPOINT=point)
        job_id = await harness.ask()
        try:
            assert dying.wait(20) == 137
        except subprocess.TimeoutExpired:
            pytest.fail(f"the service never came to {point}")
        harness.start_service()
        assert await harness.ended(job_id) == "completed"
        await _told_once(harness, job_id)
        assert len(_runs(harness)) == 1


@pytest.mark.parametrize("after", [0.0, 0.3, 0.9, 1.8])
async def test_sigkill_while_it_trains(
    migrated_env: dict[str, str], tmp_path: Path, after: float
) -> None:
    async with opened(migrated_env | QUICK, tmp_path) as harness:
        first = harness.start_service()
        job_id = await harness.ask(nap=0.4, rounds=3)
        await harness.until(job_id, lambda state: state is not None)
        await asyncio.sleep(after)
        harness.kill(first)
        harness.start_service()
        assert await harness.ended(job_id) == "completed"
        await _told_once(harness, job_id)
        assert len(_runs(harness)) == 1


async def test_rounds_of_a_run_that_ended_while_nobody_listened(
    migrated_env: dict[str, str], tmp_path: Path
) -> None:
    plain = {k: v for k, v in QUICK.items() if k != "FL_KAFKA__GROUP_INSTANCE_ID"}
    async with opened(migrated_env | plain, tmp_path) as harness:
        first = harness.start_service()
        job_id = await harness.ask(nap=0.2, rounds=8)
        await harness.until(job_id, lambda state: state == "running")
        await asyncio.sleep(0.5)
        harness.kill(first)
        await asyncio.sleep(4)
        harness.start_service()
        assert await harness.ended(job_id) == "completed"
        await _told_once(harness, job_id)


async def test_the_net_dies_and_comes_back(migrated_env: dict[str, str], tmp_path: Path) -> None:
    async with opened(migrated_env | QUICK, tmp_path) as harness:
        harness.start_service()
        job_id = await harness.ask(nap=0.5, rounds=4)
        await harness.until(job_id, lambda state: state == "running")
        net = harness.net_process
        harness.kill(net)
        harness.start_net()
        assert await harness.ended(job_id, 60) == "completed"
        await _told_once(harness, job_id)


async def test_two_services_share_the_work(migrated_env: dict[str, str], tmp_path: Path) -> None:
    async with opened(migrated_env | QUICK, tmp_path) as harness:
        one = harness.start_service(FL_KAFKA__GROUP_INSTANCE_ID="a")
        harness.start_service(FL_KAFKA__GROUP_INSTANCE_ID="b")
        ids = [await harness.ask(nap=0.1) for _ in range(6)]
        await harness.until(ids[2], lambda state: state not in (None, "queued"))
        harness.kill(one)
        for job_id in ids:
            assert await harness.ended(job_id, 60) == "completed"
            await _told_once(harness, job_id)
        assert len(_runs(harness)) == len(ids)
