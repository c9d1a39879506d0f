"""A request on the topic becomes a stored model; a stop stops; both told whole on the lifecycle topic."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from tests.e2e.harness import opened


async def test_a_request_becomes_a_model(migrated_env: dict[str, str], tmp_path: Path) -> None:
    async with opened(migrated_env, tmp_path) as harness:
        harness.start_service()
        job_id = await harness.ask(rounds=3)
        assert await harness.ended(job_id) == "completed"
        events = await harness.lifecycle(job_id, lambda kind: kind == "fl.job.completed.v1")
    kinds = [kind.removeprefix("fl.job.").removesuffix(".v1") for kind, _, _ in events]
    assert [n for _, n, _ in events] == list(range(1, len(events) + 1))
    assert kinds[:3] == ["queued", "started", "submitted"]
    assert kinds.count("round_aggregated") == 3
    assert kinds.count("client_result_received") == 9
    assert kinds[-2:] == ["results_pending", "completed"]
    done = events[-1][2]
    assert done["results"]["uri"].endswith(f"{job_id}/1/results.zip")
    assert len(done["results"]["sha256"]) == 64
    assert done["results"]["bytes"] > 0
    assert done["rounds"] == 3
    assert {p["slot"] for p in done["participants"]} == {"Trust_1", "Trust_2", "Trust_3"}
    accuracy = {
        m["fl_client_name"]: m["result"] for m in done["metrics"] if m["label"] == "accuracy"
    }
    assert accuracy[None] == 0.3  # three rounds, each adds 1 to a parameter that starts at 0
    assert not any("cohort_query" in data for _, _, data in events)


async def test_a_stop_stops_the_run(migrated_env: dict[str, str], tmp_path: Path) -> None:
    async with opened(migrated_env, tmp_path) as harness:
        harness.start_service()
        job_id = await harness.ask(rounds=50, nap=0.5)
        await harness.until(job_id, lambda state: state == "running")
        stop = {"job_id": str(job_id), "reason": "enough", "requested_by": "a tester"}
        await harness.send("fl.training.stop_requested.v1", stop)
        assert await harness.ended(job_id, 10) == "stopped"
        events = await harness.lifecycle(job_id, lambda kind: kind == "fl.job.stopped.v1")
    kinds = [kind for kind, _, _ in events]
    assert kinds.count("fl.job.stop_requested.v1") == 1
    assert kinds[-1] == "fl.job.stopped.v1"
    assert events[-1][2]["reason"]["code"] == "stopped_by_request"
    assert events[-1][2]["requested_by"] == "a tester"


async def test_a_stop_before_its_request_wins(migrated_env: dict[str, str], tmp_path: Path) -> None:
    async with opened(migrated_env, tmp_path) as harness:
        harness.start_service()
        first = await harness.ask()
        await harness.ended(first)
        job_id = "00000000-0000-4000-8000-000000000001"
        await harness.send("fl.training.stop_requested.v1", {"job_id": job_id})
        await harness.ask(job_id=job_id)
        assert await harness.ended(UUID(job_id), 10) == "stopped"
        events = await harness.lifecycle(UUID(job_id), lambda kind: kind == "fl.job.stopped.v1")
    assert [kind for kind, _, _ in events] == [
        "fl.job.queued.v1",
        "fl.job.stop_requested.v1",
        "fl.job.stopped.v1",
    ]
