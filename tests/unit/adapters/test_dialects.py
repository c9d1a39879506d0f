"""How each kind of adapter is read, on pretended adapters that answer as the public ones were seen to."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import httpx
import pytest

from service.adapters import AdapterClient, AdapterClients
from service.domain.enums import FLBackend, FLJobStatus
from service.domain.observed import Found, Handle
from service.domain.registry import Net, Registry
from service.errors import Transient

TRUST = UUID(int=7)
Entry = tuple[str, str, str]  # id, status, name


@dataclass
class Adapter:
    """A pretended adapter: `runs` oldest first; `in_flight` counts how many submits still say 409."""

    extensions: list[str] | None = None
    runs: list[Entry] = field(default_factory=list)
    alive: list[str] | None = None
    server: str | None = "RUNNING"
    in_flight: int = 0
    page: int | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    bundles: dict[str, list[str]] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append((request.method, path))
        if path == "/health":
            body: dict[str, object] = {"status": "ok", "version": "1.2"}
            if self.extensions is not None:
                body["extensions"] = self.extensions
            return httpx.Response(200, json=body)
        if path == "/check_server_status":
            if self.server is None:
                return httpx.Response(500, json={"detail": "no server"})
            return httpx.Response(200, json={"status": self.server})
        if path == "/get_system_info":
            if self.alive is None:
                return httpx.Response(404)
            return httpx.Response(200, json={"job_info": [{"job_id": j} for j in self.alive]})
        if path == "/list_jobs":
            return httpx.Response(200, json=self._listed(request.url.params))
        name = path.rsplit("/", 1)[1]
        if path.startswith("/upload_app/"):
            self.bundles[name] = json.loads(request.content)["bundle_urls"]
            return httpx.Response(200, json={"message": "ok"})
        assert path.startswith("/submit_job/")
        return self._submit(name)

    def _listed(self, params: httpx.QueryParams) -> list[dict[str, str]]:
        runs = self.runs
        if "name_prefix" in params:
            runs = [run for run in runs if run[2].startswith(params["name_prefix"])]
        if "idempotency_key" in params:
            runs = [run for run in runs if self.keys.get(run[0]) == params["idempotency_key"]]
        if self.page:
            runs = runs[::-1][: self.page]
        return [{"job_id": run[0], "status": run[1]} for run in runs]

    def _submit(self, name: str) -> httpx.Response:
        if self.in_flight:
            self.in_flight -= 1
            return httpx.Response(409, json={"detail": "Another Flower submission is in progress."})
        if not self.bundles.get(name):
            return httpx.Response(500, json={"detail": "Flower run failed: no pyproject.toml"})
        self.runs.append((f"r{len(self.runs)}", "PENDING", name))
        return httpx.Response(200, json=self.runs[-1][0])


def client(
    adapter: Adapter, backend: FLBackend, path_id: str = "attempt", lease_seconds: float = 10.0
) -> AdapterClient:
    net = Net("n", uuid4(), backend, "http://adapter", {TRUST: "Trust_1"}, path_id=path_id)
    nets = AdapterClients(
        http=httpx.MockTransport(adapter), sleep=adapter.sleep, lease_seconds=lease_seconds
    )
    nets.follow(Registry(nets={"n": net}))
    return nets.client("n")


def handle(*known: str, earlier: tuple[UUID, ...] = ()) -> Handle:
    job = uuid4()
    return Handle(job, uuid4(), 1, uuid4(), f"{job}:1", known, earlier)


NONE: frozenset[str] = frozenset()


# --- ours ----------------------------------------------------------------------------------------


async def test_ours_finds_a_run_by_its_key_and_needs_no_fence() -> None:
    adapter = Adapter(extensions=["idempotency"], runs=[("a", "RUNNING", ""), ("b", "RUNNING", "")])
    one, mine = client(adapter, FLBackend.FLOWER), handle()
    await one.health()
    assert await one.find_run(mine, NONE) == Found(None)
    adapter.keys["b"] = mine.key
    assert await one.find_run(mine, NONE) == Found("b")
    await one.fence(mine, NONE)
    assert adapter.bundles == {}
    assert adapter.slept == []


async def test_known_extensions_spare_the_question() -> None:
    adapter = Adapter(extensions=["idempotency"])
    assert await client(adapter, FLBackend.NVFLARE).find_run(
        handle(), frozenset({"idempotency"})
    ) == Found(None)
    assert ("GET", "/health") not in adapter.calls


async def test_ours_without_keys_tells_runs_apart_by_difference() -> None:
    adapter = Adapter(extensions=[], runs=[("a", "RUNNING", ""), ("b", "RUNNING", "")])
    one = client(adapter, FLBackend.EMBEDDED)
    assert await one.find_run(handle("a"), NONE) == Found("b", provisional=True)
    assert (await one.find_run(handle(), NONE)).doubt


# --- nvflare -------------------------------------------------------------------------------------


async def test_nvflare_finds_a_run_by_its_name_and_aborts_a_second() -> None:
    mine = handle("old")
    adapter = Adapter(
        runs=[
            ("old", "RUNNING", str(mine.path_id)),
            ("x", "RUNNING", "other"),
            ("first", "PENDING", str(mine.path_id)),
            ("second", "PENDING", str(mine.path_id)),
        ]
    )
    found = await client(adapter, FLBackend.NVFLARE).find_run(mine, NONE)
    assert found == Found("first", extra_runs=("second",))


async def test_nvflare_looks_for_former_submissions_too() -> None:
    former = uuid4()
    adapter = Adapter(runs=[("late", "PENDING", str(former))])
    one = client(adapter, FLBackend.NVFLARE)
    assert await one.find_run(handle(), NONE) == Found(None)
    assert (await one.find_run(handle(earlier=(former,)), NONE)).run_id == "late"


async def test_nvflare_by_model_id_is_provisional_and_may_be_in_doubt() -> None:
    mine = handle("old")
    adapter = Adapter(
        runs=[("old", "RUNNING", str(mine.model_id)), ("new", "PENDING", str(mine.model_id))]
    )
    one = client(adapter, FLBackend.NVFLARE, path_id="model")
    assert await one.find_run(mine, NONE) == Found("new", provisional=True)
    adapter.runs.append(("newer", "PENDING", str(mine.model_id)))
    assert (await one.find_run(mine, NONE)).doubt


async def test_nvflare_fences_with_an_empty_app_and_waits() -> None:
    adapter, mine = Adapter(), handle()
    await client(adapter, FLBackend.NVFLARE).fence(mine, NONE)
    assert adapter.bundles == {str(mine.path_id): []}
    assert adapter.slept == [130.0]


async def test_a_fence_waits_as_long_as_a_lease_of_the_settings_may_be_believed_in() -> None:
    adapter, mine = Adapter(), handle()
    await client(adapter, FLBackend.NVFLARE, lease_seconds=45.0).fence(mine, NONE)
    assert adapter.slept == [165.0]


async def test_nvflare_running_only_in_its_list_counts_as_missing() -> None:
    adapter = Adapter(
        runs=[("a", "RUNNING", ""), ("b", "RUNNING", ""), ("c", "FINISHED", "")], alive=["a"]
    )
    one = client(adapter, FLBackend.NVFLARE)
    listed = await one.runs()
    assert [run.run_id for run in listed.runs] == ["a", "c"]
    assert one.is_lost(listed, "b")
    adapter.alive = None
    assert len((await one.runs()).runs) == 3


async def test_nvflare_aborted_is_not_final() -> None:
    one = client(Adapter(), FLBackend.NVFLARE)
    assert not one.terminal_is_final(FLJobStatus.STOPPED)
    assert one.terminal_is_final(FLJobStatus.FINISHED)


# --- flower --------------------------------------------------------------------------------------


async def test_flower_adopts_exactly_one_new_run_once_nothing_is_in_flight() -> None:
    adapter = Adapter(runs=[("1", "RUNNING", "")], in_flight=1)
    one, mine = client(adapter, FLBackend.FLOWER), handle("1")
    assert (await one.find_run(mine, NONE)).doubt
    assert await one.find_run(mine, NONE) == Found(None)
    adapter.runs.append(("2", "PENDING", ""))
    assert await one.find_run(mine, NONE) == Found("2", provisional=True)
    adapter.runs.append(("3", "PENDING", ""))
    assert (await one.find_run(mine, NONE)).doubt
    assert str(mine.path_id) not in adapter.bundles


async def test_flower_fence_waits_for_what_is_in_flight() -> None:
    adapter, mine = Adapter(in_flight=2), handle()
    await client(adapter, FLBackend.FLOWER).fence(mine, NONE)
    assert adapter.bundles[str(mine.path_id)] == []
    assert adapter.slept == [2.0, 2.0]


async def test_flower_fence_gives_up_on_an_endless_submit() -> None:
    with pytest.raises(Transient, match="in flight"):
        await client(Adapter(in_flight=10_000), FLBackend.FLOWER).fence(handle(), NONE)


async def test_flower_full_page_proves_no_loss() -> None:
    adapter = Adapter(runs=[(str(n), "FINISHED", "") for n in range(25)], page=20)
    one = client(adapter, FLBackend.FLOWER)
    listed = await one.runs()
    assert not listed.complete
    assert not one.is_lost(listed, "0")
    adapter.runs = adapter.runs[:19]
    listed = await one.runs()
    assert one.is_lost(listed, "gone")
    assert not one.is_lost(listed, "3")


@pytest.mark.parametrize(
    ("backend", "word", "up"),
    [
        (FLBackend.FLOWER, "RUNNING", True),
        (FLBackend.FLOWER, "STOPPED", False),
        (FLBackend.NVFLARE, "stopped", True),
        (FLBackend.NVFLARE, "started", True),
        (FLBackend.NVFLARE, None, False),
        (FLBackend.EMBEDDED, "stopped", True),
        (FLBackend.EMBEDDED, None, False),
    ],
)
async def test_serving_is_read_in_the_runtime_s_own_words(
    backend: FLBackend, word: str | None, up: bool
) -> None:
    assert await client(Adapter(server=word), backend).serving() is up


@pytest.mark.parametrize(
    ("backend", "extensions", "seconds"),
    [
        (FLBackend.FLOWER, None, 10.0),
        (FLBackend.FLOWER, [], None),
        (FLBackend.FLOWER, ["results"], None),
        (FLBackend.NVFLARE, None, None),
        (FLBackend.EMBEDDED, None, None),
    ],
)
async def test_only_the_adapter_whose_answers_cost_much_is_asked_seldom(
    backend: FLBackend, extensions: list[str] | None, seconds: float | None
) -> None:
    one = client(Adapter(extensions=extensions), backend)
    await one.health()
    assert one.poll_seconds == seconds


async def test_the_registry_s_pace_goes_before_the_adapter_s() -> None:
    net = Net("n", uuid4(), FLBackend.FLOWER, "http://a", {TRUST: "Trust_1"}, poll_seconds=3.0)
    nets = AdapterClients(http=httpx.MockTransport(Adapter()))
    nets.follow(Registry(nets={"n": net}))
    assert nets.client("n").poll_seconds == 3.0


class _Answering(Adapter):
    """Answers one path with something odd."""

    path, odd = "/list_jobs", b"null"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == self.path:
            return httpx.Response(200, content=self.odd)
        return super().__call__(request)


def _odd(path: str, body: object) -> _Answering:
    adapter = _Answering()
    adapter.path, adapter.odd = path, json.dumps(body).encode()
    return adapter


KINDS = [
    (FLBackend.FLOWER, None),
    (FLBackend.NVFLARE, None),
    (FLBackend.EMBEDDED, ["idempotency"]),
    (FLBackend.EMBEDDED, []),
]


@pytest.mark.parametrize(("backend", "extensions"), KINDS)
async def test_a_list_with_entries_that_name_no_run_proves_no_absence(
    backend: FLBackend, extensions: list[str] | None
) -> None:
    adapter = _odd("/list_jobs", [{"job_id": {"a": 1}}, {"job_id": "b", "status": "RUNNING"}])
    adapter.extensions = extensions
    one = client(adapter, backend)
    await one.health()
    listed = await one.runs()
    assert [run.run_id for run in listed.runs] == ["b"]
    assert not listed.complete
    assert not one.is_lost(listed, "a")
    adapter.odd = b'[{"job_id": null}]'
    assert (await one.find_run(handle(), NONE)).doubt


@pytest.mark.parametrize("body", [None, {}, {"jobs": []}, "x", 7, True])
@pytest.mark.parametrize("path", ["/list_jobs", "/check_client_status", "/health"])
@pytest.mark.parametrize(("backend", "extensions"), KINDS)
async def test_an_answer_of_another_kind_is_no_answer(
    backend: FLBackend, extensions: list[str] | None, path: str, body: object
) -> None:
    adapter = _odd(path, body)
    adapter.extensions = extensions
    one = client(adapter, backend)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "/list_jobs": one.runs,
        "/check_client_status": one.clients,
        "/health": one.health,
    }
    if path == "/health" and isinstance(body, dict):
        assert (await one.health()).extensions == frozenset()
        return
    with pytest.raises(Transient):
        await calls[path]()


async def test_a_run_listed_twice_is_one_run_and_a_full_page_stays_full() -> None:
    runs = [(f"r{n}", "RUNNING", "") for n in range(19)] + [("r18", "FINISHED", "")]
    one = client(Adapter(runs=runs, page=20), FLBackend.FLOWER)
    listed = await one.runs()
    assert len(listed.runs) == 19
    assert not listed.complete
    known = tuple(f"r{n}" for n in range(18))
    assert await one.find_run(handle(*known), NONE) == Found("r18", provisional=True)


async def test_a_server_list_that_can_not_be_read_leaves_out_no_job() -> None:
    adapter = Adapter(runs=[("a", "RUNNING", "")], alive=[])
    one = client(adapter, FLBackend.NVFLARE)
    assert (await one.runs()).runs == ()
    vars(adapter)["alive"] = [None]
    assert [run.run_id for run in (await one.runs()).runs] == ["a"]
