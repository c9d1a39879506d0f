"""What goes over the wire in each call, and how clients follow the registry."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from uuid import UUID, uuid4

import httpx
import pytest

from service.adapters import AdapterClient, AdapterClients
from service.adapters.encryption import COHORT_QUERY, PROJECT_ID, Encryptor
from service.adapters.options import read_options
from service.domain.enums import FLBackend, FLJobStatus
from service.domain.observed import Handle
from service.domain.registry import Net, Registry
from service.errors import Ambiguous, Invalid, Permanent, Transient

KEY = base64.b64encode(bytes(32)).decode()
TRUST = UUID(int=7)
HANDLE = Handle(uuid4(), uuid4(), 2, uuid4(), "the-key")
NET = Net("n", uuid4(), FLBackend.EMBEDDED, "http://adapter/api/", {TRUST: "Trust_1"})


class Script:
    """Answers of one kind, and the requests that came."""

    def __init__(self, status: int = 200, body: object = None, text: str | None = None) -> None:
        self.status, self.body, self.text = status, body, text
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/health"):
            return httpx.Response(200, json={"status": "ok", "extensions": []})
        self.requests.append(request)
        if self.text is not None:
            return httpx.Response(self.status, text=self.text)
        return httpx.Response(self.status, json=self.body)


def client(script: Script, net: Net = NET, key: str | None = None) -> AdapterClient:
    nets = AdapterClients(aes_key_base64=key, http=httpx.MockTransport(script))
    nets.follow(Registry(nets={net.name: net}))
    return nets.client(net.name)


async def upload(
    one: AdapterClient,
    slots: tuple[str, ...] = ("Trust_1",),
    urls: tuple[str, ...] = ("http://s3/x",),
) -> None:
    await one.upload(
        HANDLE, project_id="project-1", cohort_query="SELECT secret", slots=slots, urls=urls
    )


async def test_an_upload_names_its_job_and_seals_the_project() -> None:
    script = Script(body={"message": "ok"})
    await upload(client(script, key=KEY))
    (request,) = script.requests
    assert (request.method, request.url.path) == ("POST", f"/api/upload_app/{HANDLE.path_id}")
    assert request.headers["fl-job-id"] == str(HANDLE.job_id)
    assert request.headers["fl-attempt"] == "2"
    assert request.headers["idempotency-key"] == "the-key"
    body = json.loads(request.content)
    assert set(body) == {"project_id", "cohort_query", "trusts", "bundle_urls"}
    assert Encryptor(KEY).decrypt(body["project_id"], PROJECT_ID) == "project-1"
    assert body["cohort_query"] == "SELECT secret"
    assert body["trusts"] == ["Trust_1"]
    assert body["bundle_urls"] == ["http://s3/x"]


async def test_a_net_may_want_its_cohort_query_sealed() -> None:
    script = Script(body={})
    await upload(client(script, replace(NET, options={"encrypt_cohort_query": True}), KEY))
    sealed = json.loads(script.requests[0].content)["cohort_query"]
    assert Encryptor(KEY).decrypt(sealed, COHORT_QUERY) == "SELECT secret"


async def test_path_id_model_sends_the_model_s_id() -> None:
    script = Script(body="run-1")
    assert await client(script, replace(NET, path_id="model")).submit(HANDLE) == "run-1"
    assert script.requests[0].url.path == f"/api/submit_job/{HANDLE.model_id}"


async def test_an_upload_without_participants_or_files_is_never_sent() -> None:
    script = Script(body={})
    with pytest.raises(Permanent):
        await upload(client(script), slots=())
    with pytest.raises(Permanent):
        await upload(client(script), urls=())
    assert script.requests == []


async def test_a_refused_upload_does_not_repeat_secrets() -> None:
    script = Script(400, {"detail": "no rows for SELECT secret of project-1"})
    with pytest.raises(Permanent) as refused:
        await upload(client(script))
    assert refused.value.code == "adapter_rejected"
    assert "SELECT" not in refused.value.message
    assert "project-1" not in refused.value.message
    assert "no rows" in refused.value.message


@pytest.mark.parametrize(("body", "run_id"), [("u-1", "u-1"), (18446744073709551615, None)])
async def test_a_run_id_may_be_text_or_number(body: object, run_id: str | None) -> None:
    assert await client(Script(body=body)).submit(HANDLE) == (run_id or str(body))


@pytest.mark.parametrize("body", [None, "", "  ", {"job_id": "x"}, True, "x" * 300, "a\nb"])
async def test_a_submit_s_answer_without_a_run_is_ambiguous(body: object) -> None:
    with pytest.raises(Ambiguous):
        await client(Script(body=body)).submit(HANDLE)


async def test_abort_of_an_unknown_run_is_none_and_a_refusal_never_ends_anything() -> None:
    script = Script(404, {"detail": "no such job: a/b"})
    await client(script).abort("a/b")
    assert script.requests[0].url.raw_path == b"/api/abort_job/a%2Fb"
    for status in (401, 422, 500):
        with pytest.raises(Transient):
            await client(Script(status)).abort("a")


async def test_logs_are_absent_or_their_end() -> None:
    assert await client(Script(404)).logs("r") is None
    assert await client(Script(500, {"detail": "[code: 16] unknown"})).logs("r") is None
    long = await client(Script(body={"run_id": "r", "log": "x" * 9000 + "end\0"})).logs("r")
    assert long is not None
    assert long.endswith("end")
    assert len(long) == 8000
    with pytest.raises(Transient):
        await client(Script(500)).logs("r")


async def test_lists_survive_a_bad_entry() -> None:
    entries = [
        {"job_id": 7, "status": "finished"},
        {"status": "RUNNING"},
        {"job_id": "b", "status": "odd"},
    ]
    first, second = (await client(Script(body=entries)).runs()).runs
    assert (first.run_id, first.status) == ("7", FLJobStatus.FINISHED)
    assert (second.run_id, second.status, second.details) == ("b", None, "odd")


async def test_clients_by_slot() -> None:
    script = Script(
        body=[{"name": "T1", "status": "CONNECTED"}, {"name": "T2", "status": "no_reply"}]
    )
    assert [(c.slot, c.online) for c in await client(script).clients()] == [
        ("T1", True),
        ("T2", False),
    ]


@pytest.mark.parametrize("extensions", [frozenset(), frozenset({"idempotency"})])
@pytest.mark.parametrize("backend", list(FLBackend))
async def test_every_call_for_a_job_names_it(
    backend: FLBackend, extensions: frozenset[str]
) -> None:
    script = Script(409, {"detail": "no"})  # nothing in flight, nothing there
    one = client(script, replace(NET, backend=backend))
    script.status, script.body = 200, []
    await one.runs(HANDLE.about)
    await one.find_run(HANDLE, extensions)
    await one.abort("run-1", HANDLE.about)
    script.status = 404
    async with one.results("run-1", HANDLE.about):
        pass
    paths = {request.url.path.removeprefix("/api/").split("/")[0] for request in script.requests}
    assert {"list_jobs", "abort_job", "results"} <= paths
    for request in script.requests:
        assert request.headers["fl-job-id"] == str(HANDLE.job_id), request.url
        assert request.headers["fl-attempt"] == "2"


@pytest.mark.parametrize("text", ["<html>", "{}", '"x"', "[" * 100_000])
async def test_garbage_is_transient(text: str) -> None:
    one = client(Script(text=text))
    for call in (one.clients, one.runs):
        with pytest.raises(Transient):
            await call()


async def test_results_are_none_where_there_are_none() -> None:
    async with client(Script(404)).results("r") as chunks:
        assert chunks is None
    with pytest.raises(Transient):
        async with client(Script(503)).results("r"):
            pass
    async with client(Script(text="zip")).results("r") as chunks:
        assert chunks is not None
        assert b"".join([chunk async for chunk in chunks]) == b"zip"


async def test_uploads_and_submits_take_turns_also_over_a_registry_change() -> None:
    running, most = 0, 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return httpx.Response(200, json="run")

    nets = AdapterClients(http=httpx.MockTransport(handler))
    nets.follow(Registry(nets={"n": NET}))
    old = nets.client("n")
    first = [asyncio.ensure_future(old.submit(HANDLE)) for _ in range(2)]
    await asyncio.sleep(0)
    nets.follow(Registry(nets={"n": replace(NET, capacity=2)}))
    assert nets.client("n") is not old
    await asyncio.gather(*first, nets.client("n").submit(HANDLE))
    assert most == 1
    await nets.close()


async def test_clients_follow_the_registry() -> None:
    nets = AdapterClients(http=httpx.MockTransport(Script(body=[])))
    with pytest.raises(Transient, match="not in the registry"):
        nets.client("n")
    nets.follow(Registry(nets={"n": NET}))
    kept = nets.client("n")
    nets.follow(Registry(version=2, nets={"n": replace(NET)}))
    assert nets.client("n") is kept
    nets.follow(Registry(version=3, nets={}))
    with pytest.raises(Transient):
        nets.client("n")
    nets.follow(Registry(nets={"n": replace(NET, options={"timeouts": {"submit": "x"}})}))
    with pytest.raises(Transient, match=r"timeouts\.submit"):
        nets.client("n")
    await nets.close()


def test_options_name_what_is_wrong() -> None:
    good = replace(NET, options={"timeouts": {"submit": 5, "list": None}, "auth": None})
    assert read_options(good).timeouts.submit == 5.0
    assert read_options(good).timeouts.list == 60.0
    for options, what in (
        ({"timeouts": {"sumbit": 5}}, "sumbit"),
        ({"timeouts": {"list": -1}}, r"timeouts\.list"),
        ({"auth": {"kind": "basic"}}, r"auth\.kind"),
        ({"auth": {"kind": "bearer"}}, r"auth\.token_file"),
        ({"auth": {"kind": "mtls", "cert_file": "c"}}, r"auth\.key_file"),
    ):
        with pytest.raises(Invalid, match=what):
            read_options(replace(NET, options=options))


async def test_what_an_adapter_calls_its_extensions_can_be_stored() -> None:
    def odd(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200,
            content=rb'{"status": "ok", "extensions": ["results", "\ud800x", "a\u0000b", null]}',
        )

    nets = AdapterClients(http=httpx.MockTransport(odd))
    nets.follow(Registry(nets={NET.name: NET}))
    assert (await nets.client(NET.name).health()).extensions == {"results", "?x", "ab"}
