"""The client against real FL-API servers: the scripted one, spoiled on the wire, and the embedded net."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.adapters import AdapterClient, AdapterClients
from service.domain.enums import FLBackend, FLJobStatus
from service.domain.observed import Found, Handle
from service.domain.registry import Net, Registry
from service.errors import Ambiguous, Permanent, Transient
from service.fl_server.embedded.net import embedded_net
from service.fl_server.serving import serving
from tests.conformance.fl_server_fixtures import app_files, bundle_host
from tests.scripted_net.net import ScriptedNet, scripted_net

SLOTS = ("Trust_1", "Trust_2", "Trust_3")
MEMBERS = {UUID(int=n): slot for n, slot in enumerate(SLOTS, 1)}
KEYS = frozenset({"idempotency"})


@asynccontextmanager
async def client(url: str, **more: Any) -> AsyncIterator[AdapterClient]:
    backend = more.pop("fl_backend", FLBackend.EMBEDDED)
    net = Net("net-1", uuid4(), backend, url, MEMBERS, **more)
    nets = AdapterClients()
    nets.follow(Registry(nets={"net-1": net}))
    try:
        yield nets.client("net-1")
    finally:
        await nets.close()


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedNet]:
    async with scripted_net(SLOTS) as net:
        yield net


def handle(*known: str) -> Handle:
    job = uuid4()
    return Handle(job, uuid4(), 1, uuid4(), f"{job}:1", known)


async def upload(
    one: AdapterClient, mine: Handle, urls: tuple[str, ...] = ("http://127.0.0.1/x",)
) -> None:
    await one.upload(mine, project_id="p", cohort_query="q", slots=SLOTS, urls=urls)


async def test_the_whole_contract_on_the_scripted_server(scripted: ScriptedNet) -> None:
    async with client(scripted.url) as one:
        assert "idempotency" in (await one.health()).extensions
        assert await one.serving()
        assert {c.slot for c in await one.clients() if c.online} == set(SLOTS)
        mine = handle()
        await upload(one, mine)
        run_id = await one.submit(mine)
        listed = await one.runs()
        assert [run.run_id for run in listed.runs] == [run_id]
        assert not one.is_lost(listed, run_id)
        assert one.is_lost(listed, "another")
        assert await one.find_run(mine, KEYS) == Found(run_id)
        await one.abort(run_id)
        assert (await one.runs()).runs[0].status is FLJobStatus.STOPPED
        await one.abort("no-such-run")
        assert await one.logs("no-such-run") is None


@pytest.mark.parametrize("how", ["close", "reset", "cut", "hang"])
async def test_a_lost_answer_is_found_by_its_key_and_never_doubled(
    scripted: ScriptedNet, how: str
) -> None:
    async with client(scripted.url, options={"timeouts": {"submit": 0.5}}) as one:
        mine = handle()
        await upload(one, mine)
        scripted.fail("submit_job", lose=how)
        with pytest.raises(Ambiguous):
            await one.submit(mine)
        found = await one.find_run(mine, KEYS)
        assert found.run_id is not None
        assert await one.submit(mine) == found.run_id
        assert len(scripted.runs()) == 1


async def test_a_call_that_never_came_leaves_nothing_to_find(scripted: ScriptedNet) -> None:
    async with client(scripted.url) as one:
        mine = handle()
        await upload(one, mine)
        scripted.fail("submit_job", lose="before")
        with pytest.raises(Ambiguous):
            await one.submit(mine)
        assert await one.find_run(mine, KEYS) == Found(None)


async def test_errors_on_the_wire_are_sorted(scripted: ScriptedNet) -> None:
    async with client(scripted.url) as one:
        mine = handle()
        with pytest.raises(Permanent) as no_app:
            await one.submit(mine)
        assert no_app.value.code == "adapter_rejected"
        await upload(one, mine)
        for status, detail, kind in (
            (409, "Another Flower submission is in progress.", Transient),
            (503, "later", Ambiguous),
            (500, "invalid job definition: no app", Permanent),
            (429, "slow down", Transient),
        ):
            scripted.fail(
                "submit_job", status=status, body={"detail": detail}, headers={"retry-after": "3"}
            )
            with pytest.raises((Transient, Permanent)) as sorted_error:
                await one.submit(mine)
            assert type(sorted_error.value) is kind
            assert detail in sorted_error.value.message
            assert getattr(sorted_error.value, "retry_after", 3.0) == 3.0
        assert await one.submit(mine)


async def test_a_list_survives_a_connection_that_died(scripted: ScriptedNet) -> None:
    async with client(scripted.url) as one:
        await one.runs()
        scripted.fail("list_jobs", lose="reset")
        assert (await one.runs()).runs == ()
        scripted.fail("list_jobs", lose="reset", times=2)
        with pytest.raises(Transient):
            await one.runs()


async def test_stops_and_lists_do_not_wait_for_an_upload(scripted: ScriptedNet) -> None:
    async with client(scripted.url) as one:
        mine, other = handle(), handle()
        await upload(one, mine)
        run_id = await one.submit(mine)
        scripted.fail("upload_app", delay=1.0)
        uploading = asyncio.ensure_future(upload(one, other))
        submitting = asyncio.ensure_future(one.submit(mine))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(one.abort(run_id), 0.8)
        await asyncio.wait_for(one.runs(), 0.8)
        assert not uploading.done()
        assert not submitting.done()
        await asyncio.gather(uploading, submitting)


async def test_an_adapter_without_extensions_is_told_by_difference() -> None:
    async with scripted_net(SLOTS, extensions=()) as net, client(net.url) as one:
        first, second = handle(), handle()
        await upload(one, first)
        known = await one.submit(first)
        await upload(one, second)
        net.fail("submit_job", lose="close")
        with pytest.raises(Ambiguous):
            await one.submit(second)
        asked = Handle(
            second.job_id, second.model_id, 1, second.path_id, second.key, known_runs=(known,)
        )
        found = await one.find_run(asked, frozenset())
        assert found.provisional
        assert found.run_id not in (None, known)


async def test_the_embedded_net_trains_what_the_client_hands_over(tmp_path: Path) -> None:
    server = embedded_net(tmp_path / "net", SLOTS, tmp_path / "data", capacity=1)
    mine = handle()
    async with bundle_host() as host, serving(server.app) as url, client(url) as one:
        files = app_files(config={"GLOBAL_ROUNDS": 2})
        await one.health()
        await upload(one, mine, tuple(host.put(mine.path_id, files)))
        run_id = await one.submit(mine)
        for _ in range(600):
            (run,) = (await one.runs()).runs
            if run.status not in (FLJobStatus.PENDING, FLJobStatus.RUNNING):
                break
            await asyncio.sleep(0.05)
        assert run.status is FLJobStatus.FINISHED, await one.logs(run_id)
        async with one.results(run_id) as chunks:
            assert chunks is not None
            body = b"".join([chunk async for chunk in chunks])
        assert zipfile.ZipFile(io.BytesIO(body)).testzip() is None
        async with one.results("no-such-run") as none:
            assert none is None
