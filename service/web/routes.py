"""The routes. An error is `{"error": ...}` with a fitting code; every response is JSON but the metrics."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import Invalid, Transient
from service.store.queries import Queries
from service.telemetry.metrics import CONTENT_TYPE
from service.web.probes import Probes


def respond(value: object, code: int = 200) -> Response:
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    return Response(text, code, media_type="application/json")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def _http_error(request: Request, exc: Exception) -> Response:
    """What starlette itself refuses: an unknown path, a method that no route has."""
    assert isinstance(exc, HTTPException)
    response = respond({"error": f"{request.url.path}: {exc.detail}"}, exc.status_code)
    response.headers.update(exc.headers or {})
    return response


async def _internal_error(request: Request, exc: Exception) -> Response:
    """A bug of ours; the server logs it with its trace."""
    return respond({"error": "internal error; the service's log has the cause"}, 500)


Handler = Callable[[Request], Awaitable[Response]]


def with_error_responses(handler: Handler) -> Handler:
    """The handler with the rooms' errors as responses: 400 for input, 503 when the database is
    unavailable."""

    async def guard(request: Request) -> Response:
        try:
            return await handler(request)
        except Invalid as exc:
            return respond({"error": exc.message}, 400)
        except Transient as exc:
            return respond({"error": exc.message}, 503)

    return guard


def _uuid(text: str, name: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as exc:
        raise Invalid(f"{name} must be a UUID") from exc


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    # Of what Python calls digits, not all make a number, nor do any thousands of them.
    plain = text.isascii() and text.isdigit() and len(text) < 20
    if not plain or int(text) > most:
        raise Invalid(f"{name} must be a whole number from 0 to {most}")
    return int(text)


class Routes:
    """The handlers over one database and one process."""

    def __init__(self, queries: Queries, probes: Probes) -> None:
        self._queries = queries
        self._probes = probes

    def app(self) -> Starlette:
        routes: dict[str, Handler] = {
            "/livez": self.livez,
            "/readyz": self.readyz,
            "/startupz": self.startupz,
            "/metrics": self.metrics,
            "/api/v1/jobs": self.jobs,
            "/api/v1/jobs/{job_id}": self.job,
            "/api/v1/jobs/{job_id}/events": self.events,
            "/api/v1/nets": self.nets,
        }
        return Starlette(
            routes=[Route(path, with_error_responses(handler)) for path, handler in routes.items()],
            exception_handlers={HTTPException: _http_error, 500: _internal_error},
        )

    async def livez(self, _: Request) -> Response:
        alive = self._probes.alive()
        return respond({"alive": alive}, 200 if alive else 503)

    async def readyz(self, _: Request) -> Response:
        missing = await self._probes.ready()
        return respond(
            {"ready": missing is None, "missing": missing}, 200 if missing is None else 503
        )

    async def startupz(self, _: Request) -> Response:
        started = await self._probes.started()
        return respond({"schema_current": started}, 200 if started else 503)

    async def metrics(self, _: Request) -> Response:
        self._probes.metrics.take_counts(await self._queries.counts())
        return Response(self._probes.metrics.text(), media_type=CONTENT_TYPE)

    async def jobs(self, request: Request) -> Response:
        params = request.query_params
        model = params.get("model_id")
        try:
            before = datetime.fromisoformat(params["before"]) if "before" in params else None
        except ValueError as exc:
            raise Invalid("before must be a time in RFC 3339") from exc
        found = await self._queries.jobs(
            state=params.get("state"),
            model_id=None if model is None else _uuid(model, "model_id"),
            project_id=params.get("project_id"),
            before=before,
            limit=_number(request, "limit", 50, 1_000),
        )
        return respond({"jobs": found})

    async def job(self, request: Request) -> Response:
        found: dict[str, Any] | None = await self._queries.job(
            _uuid(request.path_params["job_id"], "job_id")
        )
        return respond({"error": "no such job"}, 404) if found is None else respond(found)

    async def events(self, request: Request) -> Response:
        found = await self._queries.events(
            _uuid(request.path_params["job_id"], "job_id"),
            _number(request, "after", 0, 2**31 - 1),
            _number(request, "limit", 1_000, 10_000),
        )
        return respond({"events": found})

    async def nets(self, _: Request) -> Response:
        return respond({"nets": await self._queries.nets()})
