"""The FL-API's contract, the same for every runtime behind it."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest

from service.contracts.fl import IClientStatus, IJobMetaData, IServerStatus
from service.contracts.fl_lists import read_client_list, read_job_list
from service.contracts.inbound.training import SiteResources
from service.domain.enums import FLJobStatus
from tests.conformance.fl_server_fixtures import ADDING, SLOTS, Net, app_files, bundle_host, changed
from tests.scripted_net.net import scripted_net

SLOW = app_files(config={"FIT_SECONDS": 60})


def detail(answer: httpx.Response) -> str:
    text = answer.json()["detail"]
    assert isinstance(text, str)
    return text


def key(job: UUID, attempt: int = 1) -> dict[str, str]:
    return {
        "Idempotency-Key": f"{job}:{attempt}",
        "FL-Job-Id": str(job),
        "FL-Attempt": str(attempt),
    }


async def test_health_names_what_is_served(net: Net) -> None:
    health = (await net.http.get("/health")).json()
    assert health["status"] == "ok"
    assert health["backend"] == "embedded"
    assert {"idempotency", "results", "selection"} <= set(health["extensions"])
    assert health["capacity"] >= 1
    assert health["slots"] == list(SLOTS)
    assert isinstance(health["version"], str)


async def test_status_calls_fit_the_contract(net: Net) -> None:
    status = (await net.http.get("/check_server_status")).json()
    assert IServerStatus.model_validate(status).status == "RUNNING"
    clients = (await net.http.get("/check_client_status")).json()
    assert [IClientStatus.model_validate(c).online for c in clients] == [True] * 3
    assert [client.name for client in read_client_list(clients)] == list(SLOTS)
    one = await net.http.get("/check_client_status", params={"targets": "Trust_2"})
    assert [client["name"] for client in one.json()] == ["Trust_2"]


async def test_upload_submit_list_abort(net: Net) -> None:
    path_id = uuid4()
    uploaded = await net.upload(path_id, SLOW)
    assert uploaded.status_code == 200
    assert str(path_id) in uploaded.json()["message"]
    run_id = (await net.submit(path_id)).json()
    assert isinstance(run_id, str)
    entry = await net.until(run_id, "RUNNING")
    assert IJobMetaData.model_validate(entry).job_id == run_id
    assert entry["status_details"] is None
    aborted = await net.http.delete(f"/abort_job/{run_id}")
    assert aborted.status_code == 200
    assert aborted.json()["job_id"] == run_id
    assert aborted.json()["status"] == "STOPPED"
    assert (await net.listed(run_id))["status"] == "STOPPED"
    again = await net.http.delete(f"/abort_job/{run_id}")
    assert (again.status_code, again.json()["status"]) == (200, "STOPPED")


async def test_a_net_takes_only_what_it_can_run(net: Net) -> None:
    unknown = await net.upload(uuid4(), slots=["Trust_1", "Trust_9"])
    assert unknown.status_code == 400
    assert "Trust_9" in detail(unknown)
    nobody = await net.upload(uuid4(), slots=[])
    assert nobody.status_code == 400
    assert "No participating trusts" in detail(nobody)
    twice = await net.upload(uuid4(), slots=["Trust_1", "Trust_1"])
    assert twice.status_code == 400
    broken = await net.upload(uuid4(), {**app_files(), "app/config.json": b"{"})
    assert broken.status_code == 400
    assert "config.json" in detail(broken)


async def test_submit_needs_an_app(net: Net) -> None:
    answer = await net.submit(uuid4())
    assert answer.status_code == 400
    assert "upload" in detail(answer)


async def test_an_empty_bundle_fences_a_late_submit(net: Net) -> None:
    path_id = uuid4()
    assert (await net.upload(path_id)).status_code == 200
    assert (await net.upload(path_id, urls=[])).status_code == 200
    answer = await net.submit(path_id)
    assert answer.status_code == 400
    assert (await net.http.get("/list_jobs")).json() == []


async def test_a_failed_upload_leaves_the_app_that_was_there(net: Net) -> None:
    path_id = uuid4()
    assert (await net.upload(path_id)).status_code == 200
    assert (await net.upload(path_id, slots=["nobody"])).status_code == 400
    assert (await net.submit(path_id)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/upload_app/model-1"), ("POST", "/submit_job/not-a-uuid")],
)
async def test_a_path_id_is_a_uuid(net: Net, method: str, path: str) -> None:
    body = {"project_id": "p", "cohort_query": "q", "trusts": ["Trust_1"], "bundle_urls": []}
    answer = await net.http.request(method, path, json=body)
    assert answer.status_code == 422
    assert "UUID" in detail(answer)


async def test_a_bad_body_is_told_without_its_values(net: Net) -> None:
    body = {"project_id": 7, "cohort_query": "secret words", "trusts": "secret words"}
    answer = await net.http.post(f"/upload_app/{uuid4()}", json=body)
    assert answer.status_code == 422
    told = detail(answer)
    assert all(name in told for name in ("project_id", "trusts", "bundle_urls"))
    assert "secret" not in told
    answer = await net.http.post(f"/upload_app/{uuid4()}", content=b"\xff{")
    assert answer.status_code == 422


async def test_unknown_runs_are_404(net: Net) -> None:
    for method, path in (("DELETE", "abort_job"), ("GET", "run_logs"), ("GET", "results")):
        answer = await net.http.request(method, f"/{path}/nothing")
        assert answer.status_code == 404, path
        assert "no such job: nothing" in detail(answer)
    assert (await net.http.get("/no_such_path")).status_code == 404
    assert (await net.http.get("/abort_job/x")).status_code == 405


async def test_bundle_urls_are_refused_by_rule(net: Net) -> None:
    path_id = uuid4()
    base = f"{net.bundles.url}/bucket/{path_id}"
    for url, told in (
        (f"http://192.0.2.1/bucket/{path_id}/a", "not allowed"),
        (f"https://s3.example.org/{path_id}/a?X-Signature=hidden", "not allowed"),
        (f"file:///etc/{path_id}/passwd", "http"),
        (f"http://user:pw@127.0.0.1/{path_id}/a", "user name"),
        (f"{net.bundles.url}/bucket/other/a", str(path_id)),
        (f"{base}/../secret", "unsafe"),
        (f"{base}/%2e%2e/secret", "unsafe"),
        (f"{base}//secret", "unsafe"),
        (f"{base}/a%5Cb", "unsafe"),
        (f"{base}/a%00b", "unsafe"),
        (f"{base}/a%0Ab", "unsafe"),
        (f"{base}/", "unsafe"),
        (f"{base}/{'n' * 300}", "too long"),
    ):
        answer = await net.upload(path_id, urls=[url])
        assert answer.status_code == 400, url
        assert told in detail(answer), url
        assert "hidden" not in detail(answer)
    for urls in ([f"{base}/a", f"{base}/a?x=1"], [f"{base}/a", f"{base}/a/b"]):
        assert (await net.upload(path_id, urls=urls)).status_code == 400
    assert net.bundles.asked == []


async def test_downloads_that_fail_name_the_file_and_not_the_url(net: Net) -> None:
    path_id = uuid4()
    urls = net.bundles.put(path_id, app_files())
    path = f"/bucket/job/1/{path_id}/app/trainer.py"
    trainer = net.bundles.objects.pop(path)
    answer = await net.upload(path_id, urls=urls)
    assert answer.status_code == 500
    assert detail(answer) == "could not download app/trainer.py: HTTP 404"
    net.bundles.redirects[path] = f"{net.bundles.url}{path}.moved"
    net.bundles.objects[f"{path}.moved"] = trainer
    answer = await net.upload(path_id, urls=urls)
    assert answer.status_code == 400
    assert "redirect" in detail(answer)
    assert f"{path}.moved" not in net.bundles.asked
    assert (await net.submit(path_id)).status_code == 400


async def test_the_same_key_is_the_same_run(net: Net) -> None:
    job = uuid4()
    run_id = await net.run(SLOW, headers=key(job))
    before = len(net.bundles.asked)
    second = uuid4()
    assert (await net.upload(second, SLOW, headers=key(job))).status_code == 200
    assert len(net.bundles.asked) == before
    assert (await net.submit(second, key(job))).json() == run_id
    assert len((await net.http.get("/list_jobs")).json()) == 1
    by_key = await net.http.get("/list_jobs", params={"idempotency_key": f"{job}:1"})
    assert [run["job_id"] for run in by_key.json()] == [run_id]
    none = await net.http.get("/list_jobs", params={"idempotency_key": f"{job}:2"})
    assert none.json() == []
    retry = await net.run(SLOW, headers=key(job, 2))
    assert retry != run_id


async def test_the_same_key_at_the_same_time_is_one_run(net: Net) -> None:
    job, path_id = uuid4(), uuid4()
    assert (await net.upload(path_id, SLOW)).status_code == 200
    answers = await asyncio.gather(*(net.submit(path_id, key(job)) for _ in range(8)))
    assert len({answer.json() for answer in answers}) == 1
    assert len((await net.http.get("/list_jobs")).json()) == 1


async def test_submits_without_a_key_are_runs_of_their_own(net: Net) -> None:
    path_id = uuid4()
    assert (await net.upload(path_id, SLOW)).status_code == 200
    first, second = (await net.submit(path_id)).json(), (await net.submit(path_id)).json()
    assert first != second


async def test_the_list_can_be_narrowed(net: Net) -> None:
    path_ids = [uuid4() for _ in range(3)]
    run_ids = []
    for path_id in path_ids:
        await net.upload(path_id, SLOW)
        run_ids.append((await net.submit(path_id)).json())

    async def ids(**query: str) -> list[str]:
        listed = (await net.http.get("/list_jobs", params=query)).json()
        return [run.job_id for run in read_job_list(listed)]

    assert await ids() == run_ids
    assert await ids(name_prefix=str(path_ids[1])) == [run_ids[1]]
    assert await ids(name_prefix=str(uuid4())) == []
    assert await ids(id_prefix=run_ids[2]) == [run_ids[2]]
    assert await ids(limit="2") == run_ids[1:]
    assert await ids(limit="0") == []
    assert await ids(limit="2", reverse="true") == run_ids[:0:-1]
    assert (await net.http.get("/list_jobs", params={"limit": "-1"})).status_code == 422


async def test_bad_headers_are_422(net: Net) -> None:
    path_id = uuid4()
    for headers in ({"FL-Job-Id": "7"}, {"FL-Attempt": "one"}, {"Idempotency-Key": "k" * 201}):
        assert (await net.submit(path_id, headers)).status_code == 422, headers


async def test_results_are_a_zip_once_finished(net: Net) -> None:
    run_id = await net.run()
    if net.kind == "scripted":
        net.scripted.run(run_id).status = FLJobStatus.FINISHED
    await net.until(run_id, "FINISHED")
    answer = await net.http.get(f"/results/{run_id}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert "result.json" in archive.namelist()


async def test_results_of_a_run_without_any(net: Net) -> None:
    run_id = await net.run(SLOW)
    busy = await net.http.get(f"/results/{run_id}")
    assert busy.status_code == 409
    await net.http.delete(f"/abort_job/{run_id}")
    gone = await net.http.get(f"/results/{run_id}")
    assert gone.status_code == 404
    assert "STOPPED" in detail(gone)


async def test_run_logs_have_flips_shape(net: Net) -> None:
    run_id = await net.run(app_files(changed("import time", 'import time\nprint("hello " * 3000)')))
    if net.kind == "scripted":
        net.scripted.run(run_id).log = "hello " * 3000
    else:
        await net.until(run_id, "FINISHED")
    answer = (await net.http.get(f"/run_logs/{run_id}")).json()
    assert answer["run_id"] == run_id
    assert "hello" in answer["log"]
    assert len(answer["log"]) <= 8_000
    assert answer["truncated"] is True


async def test_the_runtime_gets_what_was_asked_for(tmp_path: Path) -> None:
    model_id, path_id = uuid4(), uuid4()
    resources = {"num_gpus": 1, "mem_per_gpu_gib": 16}
    headers = {"FL-Model-Id": str(model_id), "FL-Resources": json.dumps(resources)}
    async with (
        bundle_host() as bundles,
        scripted_net(SLOTS, folder=tmp_path) as scripted,
        httpx.AsyncClient(base_url=scripted.url) as http,
    ):
        net = Net("scripted", http, bundles, scripted)
        assert (await net.upload(path_id, headers=headers)).status_code == 200
        app = scripted.run((await net.submit(path_id)).json()).app
        assert (app.project_id, app.cohort_query) == ("cipher", "select secret")
        assert (app.model_id, app.resources) == (model_id, SiteResources(**resources))
        assert "secret" not in repr(app)
        for wrong in ({"FL-Model-Id": "7"}, {"FL-Resources": "1 GPU"}):
            assert (await net.upload(uuid4(), headers=wrong)).status_code == 422
    async with (
        bundle_host() as bundles,
        scripted_net(SLOTS, folder=tmp_path) as scripted,
        httpx.AsyncClient(base_url=scripted.url) as http,
    ):
        net = Net("scripted", http, bundles, scripted)
        app = scripted.run((await net.submit(path_id)).json()).app
        assert (app.project_id, app.model_id) == ("cipher", model_id)
        assert app.resources == SiteResources(**resources)
        assert app.cohort_query is None, "it is never written down"


@pytest.mark.parametrize(
    "run_id", ["17", "18446744073709551615", "run 1/2", "../x", "ä", "a?b#c%2F"]
)
async def test_a_runs_id_is_any_text(run_id: str) -> None:
    async with (
        bundle_host() as bundles,
        scripted_net(SLOTS) as scripted,
        httpx.AsyncClient(base_url=scripted.url) as http,
    ):
        scripted.runtime.new_run_id = lambda: run_id
        net = Net("scripted", http, bundles, scripted)
        assert await net.run() == run_id
        quoted = quote(run_id, safe="")
        scripted.run(run_id).log = "hello"
        assert (await http.get(f"/run_logs/{quoted}")).json()["log"] == "hello"
        assert (await http.get("/list_jobs", params={"id_prefix": run_id})).json()
        scripted.run(run_id).status = FLJobStatus.FINISHED
        answer = await http.get(f"/results/{quoted}")
        assert answer.status_code == 200
        assert "/" not in answer.headers["content-disposition"]
        assert (await http.delete(f"/abort_job/{quoted}")).json()["job_id"] == run_id


async def test_nothing_of_the_request_is_kept_in_clear(net: Net, tmp_path: Path) -> None:
    await net.run(SLOW)
    for raw in await asyncio.to_thread(_contents, tmp_path):
        assert b"select secret" not in raw
        assert b"X-Signature" not in raw


def _contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]


def test_the_tiny_trainer_is_python() -> None:
    compile(ADDING, "trainer.py", "exec")
