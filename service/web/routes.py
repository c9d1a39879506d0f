"""The routes. An error is `{"error": ...}` with a fitting code; every response is JSON but the metrics."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.contracts.wire.problems import storable
from service.domain.enums import JobState
from service.errors import Invalid, Transient
from service.store.queries import Queries
from service.telemetry.metrics import CONTENT_TYPE
from service.web.parameters import QueryParameters, job_id
from service.web.probes import Probes


def respond(value: object, code: int = 200) -> Response:
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    return Response(text, code, media_type="application/json")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def _http_error(request: Request, exc: Exception) -> Response:
    """What starlette itself refuses: an unknown path, a method that no route has."""
    assert isinstance(exc, HTTPException)
    path = storable(request.scope["path"])
    response = respond({"error": f"{path}: {exc.detail}"}, exc.status_code)
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


_NOT_PLAIN = "the query has bytes that must be percent-encoded"


class PlainQuery:
    """Refuses a query with bytes that a URL can't have, which starlette fails at."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] != "http" or scope["query_string"].isascii()
        app = self._app if plain else respond({"error": _NOT_PLAIN}, 400)
        await app(scope, receive, send)


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
            middleware=[Middleware(PlainQuery)],
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
        asked = QueryParameters(request, "state", "model_id", "project_id", "before", "limit")
        found = await self._queries.jobs(
            state=asked.one_of("state", JobState),
            model_id=asked.uuid("model_id"),
            project_id=asked.text("project_id", 128),
            before=asked.time("before"),
            limit=asked.number("limit", 50, 1_000),
        )
        return respond({"jobs": found})

    async def job(self, request: Request) -> Response:
        QueryParameters(request)
        found: dict[str, Any] | None = await self._queries.job(job_id(request))
        return respond({"error": "no such job"}, 404) if found is None else respond(found)

    async def events(self, request: Request) -> Response:
        asked = QueryParameters(request, "after", "limit")
        found = await self._queries.events(
            job_id(request),
            asked.number("after", 0, 2**31 - 1),
            asked.number("limit", 1_000, 10_000),
        )
        return respond({"events": found})

    async def nets(self, request: Request) -> Response:
        QueryParameters(request)
        return respond({"nets": await self._queries.nets()})
