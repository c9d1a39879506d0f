"""The HTTP interface: codes, JSON for every error, nothing that changes anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.enums import JobState
from service.errors import Transient
from service.telemetry.metrics import Metrics
from service.web.probes import Probes
from service.web.routes import Routes

JOB = UUID(int=7)


class Database:
    """Stands where `store.queries.Queries` stands; `away` makes it unreachable."""

    def __init__(self) -> None:
        self.away = False
        self.asked: dict[str, Any] = {}

    def _look(self) -> None:
        if self.away:
            raise Transient("the database is unavailable")

    async def jobs(self, **asked: Any) -> list[dict[str, Any]]:
        self._look()
        self.asked = asked
        return [{"job_id": str(JOB), "created_at": datetime(2026, 1, 2, tzinfo=UTC)}]

    async def job(self, job_id: UUID) -> dict[str, Any] | None:
        self._look()
        return {"job_id": str(job_id), "position": 3} if job_id == JOB else None

    async def events(self, job_id: UUID, after: int, limit: int) -> list[dict[str, Any]]:
        self.asked = {"job_id": job_id, "after": after, "limit": limit}
        return [{"sequence": after + 1}]

    async def nets(self) -> list[dict[str, Any]]:
        return [{"name": "net-1"}]

    async def counts(self) -> dict[str, Any]:
        self._look()
        numbers = ("parked", "dead_letters_unsent", "outbox_lag", "quarantined")
        rest = dict.fromkeys((*numbers, "oldest_queued_seconds"), 0)
        return {**rest, "jobs": {"queued": 2}, "nets": {}}


class Process:
    """What the probes ask."""

    def __init__(self) -> None:
        self.is_alive, self.schema = True, True
        self.lacks: str | None = None

    async def ready(self) -> str | None:
        return self.lacks

    async def started(self) -> bool:
        return self.schema

    def alive(self) -> bool:
        return self.is_alive


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
async def http(database: Database, process: Process) -> AsyncIterator[httpx.AsyncClient]:
    probes = Probes(process.alive, process.ready, process.started, Metrics())
    queries: Any = database
    transport = httpx.ASGITransport(Routes(queries, probes).app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def test_health_follows_the_process(http: httpx.AsyncClient, process: Process) -> None:
    assert [(await http.get(p)).status_code for p in ("/livez", "/readyz", "/startupz")] == [
        200
    ] * 3
    process.is_alive, process.schema = False, False
    process.lacks = "more than 90 % of a partition's records are undecodable"
    answers = {path: await http.get(path) for path in ("/livez", "/readyz", "/startupz")}
    assert {answer.status_code for answer in answers.values()} == {503}
    assert answers["/readyz"].json()["missing"] == process.lacks


async def test_a_job_with_its_position(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"/api/v1/jobs/{JOB}")
    assert (answer.status_code, answer.json()["position"]) == (200, 3)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/api/v1/jobs/{UUID(int=8)}", 404),
        ("/api/v1/jobs/not-a-uuid", 400),
        ("/api/v1/jobs?limit=-1", 400),
        ("/api/v1/jobs?limit=1001", 400),
        ("/api/v1/jobs?limit=%C2%B2", 400),
        (f"/api/v1/jobs?limit={'1' * 5_000}", 400),
        ("/api/v1/jobs?model_id=x", 400),
        ("/api/v1/jobs?before=yesterday", 400),
        ("/api/v1/jobs?projectid=p", 400),
        (f"/api/v1/jobs/{JOB}?limit=5", 400),
        ("/api/v1/nets?name=x", 400),
        (f"/api/v1/jobs/{JOB}/events?after=x", 400),
        ("/api/v2/jobs", 404),
    ],
)
async def test_every_error_is_json_and_says_what(
    http: httpx.AsyncClient, path: str, code: int
) -> None:
    answer = await http.get(path)
    assert answer.status_code == code
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]


async def test_nothing_can_be_changed(http: httpx.AsyncClient) -> None:
    for path in ("/api/v1/jobs", f"/api/v1/jobs/{JOB}", "/api/v1/nets", "/metrics"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = await http.request(method, path)
            assert (answer.status_code, "error" in answer.json()) == (405, True)


async def test_a_database_that_is_away_is_503(http: httpx.AsyncClient, database: Database) -> None:
    database.away = True
    for path in ("/api/v1/jobs", f"/api/v1/jobs/{JOB}", "/metrics"):
        assert (await http.get(path)).status_code == 503
    assert (await http.get("/livez")).status_code == 200


async def test_filters_and_times(http: httpx.AsyncClient, database: Database) -> None:
    query = f"state=queued&model_id={JOB}&project_id=p&limit=5&before=2026-01-01T00:00:00%2B00:00"
    found = (await http.get(f"/api/v1/jobs?{query}")).json()["jobs"]
    assert database.asked["state"] == "queued"
    assert database.asked["model_id"] == JOB
    assert database.asked["limit"] == 5
    assert datetime.fromisoformat(found[0]["created_at"]) == datetime(2026, 1, 2, tzinfo=UTC)


async def test_events_are_read_on_from_a_sequence(
    http: httpx.AsyncClient, database: Database
) -> None:
    found = (await http.get(f"/api/v1/jobs/{JOB}/events?after=4&limit=2")).json()
    assert found == {"events": [{"sequence": 5}]}
    assert database.asked == {"job_id": JOB, "after": 4, "limit": 2}


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'fl_jobs{state="queued"} 2.0' in answer.text


@pytest.mark.parametrize(
    ("query", "fix"),
    [
        ("project_id=a%00b", "project_id must be text of 1 to 128 characters without NUL"),
        ("project_id=", "project_id must be text of 1 to 128"),
        (f"project_id={'x' * 129}", "project_id must be text of 1 to 128"),
        ("state=a%00b", "state must be one of queued, "),
        ("state=QUEUED", "state must be one of queued, "),
        ("model_id=%00", "model_id must be a UUID, such as "),
        (f"model_id={'%D9%A1' * 32}", "model_id must be a UUID, such as "),
        (
            "before=0000-01-01T00:00:00Z",
            "before must be an RFC 3339 time of the years 1970 to 9999",
        ),
        ("before=0001-01-01T00:00:00Z", "before must be an RFC 3339 time"),
        ("before=99999-01-01T00:00:00Z", "before must be an RFC 3339 time"),
        ("before=2026-01-01T00:00:00", "with an offset, such as 2026-01-02T03:04:05Z"),
        ("before=2026-01-01T00:00:00+02:00", "write the + of an offset as %2B"),
        ("before=2026-W01-1", "before must be an RFC 3339 time"),
        ("before=%00", "before must be an RFC 3339 time"),
        ("limit=-1", "limit must be a whole number from 0 to 1000"),
        ("limit=1e2", "limit must be a whole number from 0 to 1000"),
        ("limit=9999999999999999999999", "limit must be a whole number from 0 to 1000"),
        ("limit=1&limit=2", "limit is given twice; give it once"),
        ("cursor=x", "cursor: unknown parameter; the parameters here are state, model_id"),
        ("%ED%A0%80%00=x", "unknown parameter"),
    ],
)
async def test_a_bad_parameter_is_named_with_its_fix(
    http: httpx.AsyncClient, query: str, fix: str
) -> None:
    answer = await http.get(f"/api/v1/jobs?{query}")
    assert answer.status_code == 400
    assert fix in answer.json()["error"]


_ROUTES = [
    "/livez",
    "/readyz",
    "/startupz",
    "/metrics",
    "/api/v1/jobs",
    f"/api/v1/jobs/{JOB}",
    f"/api/v1/jobs/{JOB}/events",
    "/api/v1/nets",
]
_NAMES = [
    "state",
    "model_id",
    "project_id",
    "before",
    "limit",
    "after",
    "job_id",
    "cursor",
    "",
    "\0",
]
_VALUES = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.sampled_from(
        [*JobState, str(JOB), "{" + str(JOB) + "}", "\0", "\ud800", "%", "null", "1_0", "٣"]
    ),
    st.datetimes(timezones=st.sampled_from([UTC, None])).map(datetime.isoformat),
    st.sampled_from(
        ["9999-12-31T23:59:59-23:59", "1970-01-01T00:00:00+23:59", "0000-00-00T00:00:00Z"]
    ),
)


def _raw(query: list[tuple[str, str]]) -> bytes:
    """A query as a careless client writes it: lone surrogates as their three bytes."""
    return urlencode(query, errors="surrogatepass").encode()


async def _get(database: Database, path: str, query: bytes) -> tuple[int, bytes]:
    probes = Probes(Process().alive, Process().ready, Process().started, Metrics())
    queries: Any = database
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query,
        "headers": [(b"host", b"service")],
        "server": ("service", 80),
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
    }
    await Routes(queries, probes).app()(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@settings(deadline=None)
@given(
    st.sampled_from(_ROUTES),
    st.lists(st.tuples(st.sampled_from(_NAMES) | st.text(max_size=5), _VALUES), max_size=3),
)
def test_any_query_of_any_route_is_answered_or_refused_and_asks_only_what_can_be_asked(
    path: str, query: list[tuple[str, str]]
) -> None:
    database = Database()
    code, body = asyncio.run(_get(database, path, _raw(query)))
    assert code in (200, 400)
    if path != "/metrics":
        assert ("error" in json.loads(body)) == (code == 400)
    for value in database.asked.values():
        match value:
            case str():
                assert "\0" not in value
                value.encode()
            case datetime():
                assert value.utcoffset() == timedelta(0)
                assert 1970 <= value.year <= 9999
            case int():
                assert 0 <= value < 2**31
            case _:
                assert value is None or isinstance(value, UUID)


@settings(deadline=None)
@given(st.text(max_size=40), st.sampled_from(["", "/events"]), st.binary(max_size=30))
def test_any_path_and_any_bytes_of_a_query_are_answered(text: str, rest: str, query: bytes) -> None:
    code, body = asyncio.run(_get(Database(), f"/api/v1/jobs/{text}{rest}", query))
    assert code in (200, 307, 400, 404)
    assert code == 307 or json.loads(body)
