"""The FL-API itself: the routes, over any `Runtime`.

Promise: paths, bodies and answers are those of FLIP's adapters, plus the extensions that `/health`
names; every error is `{"detail": text}`; a submission under a known Idempotency-Key answers the
same run and runs nothing. `submit_job` only writes down: the work begins after the answer. What
breaks the promise: two servers over one folder, or a runtime that breaks its protocol.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final
from uuid import UUID

import structlog
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from service.contracts.fl import IJobMetaData, IStartTrainingBody
from service.contracts.inbound.training import SiteResources
from service.fl_server.apps import Apps
from service.fl_server.http_errors import BadApp, BadBody, FlApiError, TooLarge
from service.fl_server.idempotency_store import IdempotencyStore
from service.fl_server.runtime import IDEMPOTENCY, RESULTS, Runtime, RunView, SubmissionRef

_log = structlog.get_logger(__name__)

MAX_BODY_BYTES: Final = 32 * 2**20
MAX_LOG_CHARS: Final = 8_000
_MAX_KEY: Final = 200
#: What a run's id, which is any text, may hold and a file's name should not.
_NO_FILE_NAME: Final = re.compile(r"[^\w.-]|^\.+", re.ASCII)
_CLEAN_SECONDS: Final = 3_600.0


class Server:
    """The routes of one net. `app` is the ASGI application; its lifespan runs the runtime."""

    def __init__(self, runtime: Runtime, apps: Apps, store: IdempotencyStore, *, name: str) -> None:
        self._runtime = runtime
        self._apps = apps
        self._idempotency = store
        self._name = name
        self._submitting = asyncio.Lock()
        self.app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/check_server_status", self._server_status),
                Route("/check_client_status", self._client_status),
                Route("/upload_app/{path_id}", self._upload, methods=["POST"]),
                Route("/submit_job/{path_id}", self._submit, methods=["POST"]),
                Route("/list_jobs", self._list),
                Route("/abort_job/{run_id:path}", self._abort, methods=["DELETE"]),
                Route("/run_logs/{run_id:path}", self._logs),
                Route("/results/{run_id:path}", self._results),
            ],
            exception_handlers={
                FlApiError: _refused,
                HTTPException: _http_error,
                Exception: _unexpected,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self._runtime.start()
        cleaning = asyncio.create_task(self._clean())
        try:
            yield
        finally:
            cleaning.cancel()
            await asyncio.gather(cleaning, return_exceptions=True)
            await self._runtime.close()
            self._idempotency.close()

    async def _clean(self) -> None:
        while True:
            in_use = self._runtime.apps_in_use()
            try:
                await asyncio.to_thread(self._apps.clean, in_use, time.time())
            except OSError as exc:
                _log.warning("apps_not_cleaned", error=str(exc))
            await asyncio.sleep(_CLEAN_SECONDS)

    def _has(self, extension: str) -> bool:
        return extension in self._runtime.extensions

    async def _health(self, _: Request) -> Response:
        runtime = self._runtime
        return JSONResponse(
            {
                "status": "ok",
                "version": _version(),
                "name": self._name,
                "backend": runtime.backend.value,
                "extensions": sorted(runtime.extensions),
                "capacity": runtime.capacity,
                "slots": list(runtime.slots),
            }
        )

    async def _server_status(self, _: Request) -> Response:
        return JSONResponse((await self._runtime.server_status()).model_dump())

    async def _client_status(self, request: Request) -> Response:
        wanted = frozenset(request.query_params.getlist("targets"))
        return JSONResponse(
            [
                {"name": client.name, "status": client.status}
                for client in await self._runtime.clients()
                if not wanted or client.name in wanted
            ]
        )

    async def _upload(self, request: Request) -> Response:
        ref = self._submission_ref(request)
        body = await _training_body(request)
        if ref.key is not None:
            entry = self._idempotency.find(ref.key)
            if entry is not None and entry.run_id is not None:
                return JSONResponse({"message": f"Already submitted as {entry.run_id}."})
        if body.bundle_urls and not body.trusts:
            raise BadApp("No participating trusts in the upload request")
        if len(set(body.trusts)) < len(body.trusts):
            raise BadApp("a trust is named twice in the upload request")
        app = await self._apps.upload(
            ref.path_id,
            body,
            self._runtime.check,
            model_id=_uuid_header(request, "FL-Model-Id"),
            resources=_resources(request),
        )
        _log.info(
            "app_uploaded", path_id=str(ref.path_id), files=len(body.bundle_urls), slots=app.slots
        )
        return JSONResponse({"message": f"Application {ref.path_id} uploaded."})

    async def _submit(self, request: Request) -> Response:
        ref = self._submission_ref(request)
        async with self._submitting:
            run_id = await self._known_run(ref)
            if run_id is None:
                run_id = await self._new_run(ref)
        return JSONResponse(run_id)

    async def _known_run(self, ref: SubmissionRef) -> str | None:
        """The run that this key led to before, found in the runtime where the store was cut short."""
        if ref.key is None:
            return None
        entry = self._idempotency.find(ref.key)
        if entry is not None and entry.run_id is not None:
            return entry.run_id
        path_id = ref.path_id if entry is None else entry.path_id
        run_id = await self._runtime.find(SubmissionRef(path_id, ref.key, ref.job_id, ref.attempt))
        if run_id is not None:
            await asyncio.to_thread(self._note, ref.key, path_id, run_id)
        return run_id

    def _note(self, key: str, path_id: UUID, run_id: str) -> None:
        self._idempotency.reserve(key, path_id)
        self._idempotency.complete(key, run_id)

    async def _new_run(self, ref: SubmissionRef) -> str:
        app = self._apps.get(ref.path_id)
        if app is None:
            raise BadApp(f"no app folder for {ref.path_id}: upload it first")
        if app.empty:
            raise BadApp(f"the app of {ref.path_id} has no files: upload its bundle first")
        if ref.key is not None:
            await asyncio.to_thread(self._idempotency.reserve, ref.key, ref.path_id)
        run_id = await self._runtime.submit(app, ref)
        if ref.key is not None:
            await asyncio.to_thread(self._idempotency.complete, ref.key, run_id)
        _log.info(
            "run_submitted", run_id=run_id, path_id=str(ref.path_id), job_id=_text(ref.job_id)
        )
        return run_id

    async def _list(self, request: Request) -> Response:
        runs = await self._runtime.runs()
        query = request.query_params
        if self._has(IDEMPOTENCY) and (key := query.get("idempotency_key")) is not None:
            entry = self._idempotency.find(key)
            wanted = entry.run_id if entry is not None else None
            runs = [run for run in runs if run.key == key or run.run_id == wanted]
        if (prefix := query.get("name_prefix")) is not None:
            runs = [run for run in runs if (run.name or "").startswith(prefix)]
        if (prefix := query.get("id_prefix")) is not None:
            runs = [run for run in runs if run.run_id.startswith(prefix)]
        if (limit := query.get("limit")) is not None:
            newest = _whole_number(limit, "limit")
            runs = runs[-newest:] if newest else []
        if query.get("reverse", "").lower() in ("1", "true"):
            runs = runs[::-1]
        return JSONResponse([_listed(run) for run in runs])

    async def _abort(self, request: Request) -> Response:
        run = await self._runtime.abort(request.path_params["run_id"])
        _log.info("run_aborted", run_id=run.run_id, status=run.status.value)
        return JSONResponse(_listed(run))

    async def _logs(self, request: Request) -> Response:
        run_id = request.path_params["run_id"]
        log = await self._runtime.logs(run_id, MAX_LOG_CHARS)
        return JSONResponse({"run_id": run_id, "log": log.text, "truncated": log.truncated})

    async def _results(self, request: Request) -> Response:
        if not self._has(RESULTS):
            raise HTTPException(404)
        run_id = request.path_params["run_id"]
        path = await self._runtime.results(run_id)
        name = _NO_FILE_NAME.sub("_", run_id)[:100]
        return FileResponse(path, media_type="application/zip", filename=f"{name}.zip")

    def _submission_ref(self, request: Request) -> SubmissionRef:
        headers = request.headers
        key = headers.get("idempotency-key") if self._has(IDEMPOTENCY) else None
        if key is not None and not (0 < len(key) <= _MAX_KEY and key.isprintable()):
            raise BadBody(f"Idempotency-Key should be 1..{_MAX_KEY} printable characters")
        attempt = headers.get("fl-attempt")
        return SubmissionRef(
            _uuid(request.path_params["path_id"], "the id in the path"),
            key,
            _uuid_header(request, "FL-Job-Id"),
            None if attempt is None else _whole_number(attempt, "FL-Attempt"),
        )


def _version() -> str:
    try:
        return version("fl-job-service")
    except PackageNotFoundError:
        return "0"  # run from a tree that was never installed


def _uuid(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as exc:
        raise BadBody(f"{what} should be a UUID") from exc


def _uuid_header(request: Request, name: str) -> UUID | None:
    value = request.headers.get(name)
    return None if value is None else _uuid(value, name)


def _resources(request: Request) -> SiteResources | None:
    value = request.headers.get("FL-Resources")
    try:
        return None if value is None else SiteResources.model_validate_json(value)
    except ValidationError as exc:
        raise BadBody(
            'FL-Resources should be a JSON object such as {"num_gpus": 1, "mem_per_gpu_gib": 16}'
        ) from exc


def _whole_number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadBody(f"{what} should be a whole number")
    return int(text)


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _listed(run: RunView) -> dict[str, str | None]:
    entry: dict[str, str | None] = IJobMetaData(job_id=run.run_id, status=run.status).model_dump(
        mode="json"
    )
    return {**entry, "status_details": run.details, "name": run.name}


async def _training_body(request: Request) -> IStartTrainingBody:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        return IStartTrainingBody.model_validate_json(bytes(raw))
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        message = "; ".join(
            f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}" for error in errors[:20]
        )
        raise BadBody(message) from exc


async def _refused(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, FlApiError)
    return JSONResponse({"detail": exc.message}, exc.status)


async def _http_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return JSONResponse({"detail": exc.detail}, exc.status_code, exc.headers)


async def _unexpected(request: Request, exc: Exception) -> Response:
    """A bug: the answer names its kind, the traceback is the server's own log."""
    _log.error("request_failed", path=request.url.path, error=type(exc).__name__)
    return JSONResponse({"detail": f"internal error: {type(exc).__name__}"}, 500)
