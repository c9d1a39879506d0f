"""The HTTP interface: codes, JSON for every error, nothing that changes anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

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
