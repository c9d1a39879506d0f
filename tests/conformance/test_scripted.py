"""What a scripted net can do to its callers, as the callers see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from service.domain.enums import FLJobStatus
from tests.scripted_net.net import ScriptedNet, scripted_net


@pytest.fixture
async def net() -> AsyncIterator[ScriptedNet]:
    async with scripted_net() as made:
        yield made


async def submitted(
    http: httpx.AsyncClient, headers: dict[str, str] | None = None
) -> httpx.Response:
    path_id = uuid4()
    body = {
        "project_id": "p",
        "cohort_query": "q",
        "trusts": ["Trust_1"],
        "bundle_urls": [f"http://nowhere/{path_id}/a"],
    }
    assert (await http.post(f"/upload_app/{path_id}", json=body)).status_code == 200
    return await http.post(f"/submit_job/{path_id}", headers=headers)


@pytest.mark.parametrize(
    ("lose", "runs"), [("before", 0), ("close", 1), ("reset", 1), ("cut", 1), ("hang", 1)]
)
async def test_a_lost_answer_is_lost_on_the_wire(net: ScriptedNet, lose: str, runs: int) -> None:
    net.fail("submit_job", lose=lose)
    async with httpx.AsyncClient(base_url=net.url, timeout=0.3) as http:
        with pytest.raises(httpx.TransportError):
            await submitted(http)
    assert len(net.runs()) == runs
    async with httpx.AsyncClient(base_url=net.url) as http:
        assert (await submitted(http)).status_code == 200
    assert len(net.runs()) == runs + 1
    if lose == "hang":
        [hanging] = [task for task in asyncio.all_tasks() if "run_asgi" in repr(task.get_coro())]
        hanging.cancel()


async def test_errors_with_and_without_effect(net: ScriptedNet) -> None:
    async with httpx.AsyncClient(base_url=net.url) as http:
        net.fail("submit_job", status=502, body="bad gateway", applied=True)
        net.fail("submit_job", status=409, body={"detail": "busy"}, headers={"Retry-After": "3"})
        first = await submitted(http)
        assert (first.status_code, first.text, len(net.runs())) == (502, "bad gateway", 1)
        second = await submitted(http)
        assert second.json() == {"detail": "busy"}
        assert second.headers["retry-after"] == "3"
        assert len(net.runs()) == 1
        assert (await submitted(http)).status_code == 200


async def test_delay_skip_and_times(net: ScriptedNet) -> None:
    net.fail("health", skip=1, times=2, delay=0.1)
    took = []
    async with httpx.AsyncClient(base_url=net.url) as http:
        for _ in range(4):
            began = time.monotonic()
            assert (await http.get("/health")).status_code == 200
            took.append(time.monotonic() - began >= 0.1)
    assert took == [False, True, True, False]


async def test_without_extensions_it_is_an_older_adapter(net: ScriptedNet) -> None:
    net.runtime.extensions = frozenset()
    async with httpx.AsyncClient(base_url=net.url) as http:
        assert (await http.get("/health")).json()["extensions"] == []
        key = {"Idempotency-Key": "k:1"}
        first, second = await submitted(http, key), await submitted(http, key)
        assert first.json() != second.json()
        listed = await http.get("/list_jobs", params={"idempotency_key": "k:1"})
        assert len(listed.json()) == 2
        net.run(first.json()).status = FLJobStatus.FINISHED
        assert (await http.get(f"/results/{first.json()}")).status_code == 404


async def test_calls_are_recorded_with_their_headers(net: ScriptedNet) -> None:
    job = str(uuid4())
    async with httpx.AsyncClient(base_url=net.url) as http:
        await submitted(http, {"FL-Job-Id": job, "FL-Attempt": "2"})
    [call] = net.calls("submit_job")
    assert call.headers["fl-job-id"] == job
    assert str(net.runs()[0].ref.job_id) == job
    assert net.runs()[0].ref.attempt == 2


async def test_orders_over_http(net: ScriptedNet) -> None:
    async with httpx.AsyncClient(base_url=net.url) as http:
        run_id = (await submitted(http)).json()
        order = {
            "run": {"run_id": run_id, "status": "FAILED", "details": "told so"},
            "clients": {"Trust_2": "DISCONNECTED"},
            "server": "STOPPED",
            "fault": {"call": "list_jobs", "status": 503, "body": {"detail": "away"}},
        }
        assert (await http.post("/_script", json=order)).json() == {"done": True}
        assert (await http.get("/list_jobs")).status_code == 503
        [run] = (await http.get("/list_jobs")).json()
        assert (run["status"], run["status_details"]) == ("FAILED", "told so")
        assert (await http.get("/check_server_status")).json() == {"status": "STOPPED"}
        words = {c["name"]: c["status"] for c in (await http.get("/check_client_status")).json()}
        assert words["Trust_2"] == "DISCONNECTED"
        shown = (await http.get("/_script")).json()
        assert shown["runs"][0]["run_id"] == run_id
        assert [call["call"] for call in shown["calls"]].count("list_jobs") == 2


async def test_runs_move_by_the_clock() -> None:
    async with (
        scripted_net(run_after=None, finish_after=0.1) as net,
        httpx.AsyncClient(base_url=net.url) as http,
    ):
        run_id = (await submitted(http)).json()
        assert net.run(run_id).status is FLJobStatus.PENDING
        await asyncio.sleep(0.2)
        assert net.run(run_id).status is FLJobStatus.FINISHED
        net.runtime.abortable = False
        other = (await submitted(http)).json()
        assert (await http.delete(f"/abort_job/{other}")).json()["status"] == "PENDING"
