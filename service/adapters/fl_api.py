"""The FL-API, call by call: paths, headers, bodies, and what comes back as our values.

Promise: everything raised is one of `service.errors`; uploads and submits go one at a time per net, all
else never waits for them; every call for a job names it and its attempt. A failing read or abort
is `Transient`, whatever the adapter states: only an upload or a submit can end a job.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final
from urllib.parse import quote
from uuid import UUID

import structlog

from service.adapters.download import as_announced, is_page
from service.adapters.lane import Lane
from service.adapters.options import CallTimeouts
from service.adapters.responses import AdapterResponse, change_error, read_error
from service.adapters.transport import AdapterRequest, AdapterTransport
from service.contracts.fl import IClientStatus, IServerStatus, IStartTrainingBody
from service.contracts.fl_lists import JobList, read_client_list, read_jobs
from service.contracts.wire.problems import storable
from service.domain.enums import ReasonCode
from service.domain.observed import About, Handle, Health
from service.domain.registry import Net
from service.errors import Ambiguous, Invalid, Permanent, Transient

_log = structlog.get_logger(__name__)

_KIB: Final = 1024
_MAX_RUN_ID: Final = 256
_MAX_LOG: Final = 8000  #: characters of a log's end
#: Colours and cursor movements of a terminal, also cut off at the beginning of a log's end.
_ANSI: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|\x1b"
)
_EXTENSIONS: Final = 16  #: at most so many are read


class FlApi:
    """One adapter's FL-API. `lane` is the net's turn for uploads and submits."""

    def __init__(
        self,
        net: Net,
        transport: AdapterTransport,
        timeouts: CallTimeouts,
        lane: Lane,
        *,
        lease_seconds: float,
    ) -> None:
        self.net, self._transport, self._timeouts = net, transport, timeouts
        self._lane, self._lease_seconds = lane, lease_seconds

    def turn(self) -> AbstractAsyncContextManager[None]:
        """The net's turn for several changing calls; each of them takes it by itself otherwise."""
        return self._lane.turn()

    @property
    def late_submit_seconds(self) -> float:
        """How long from now on a submit of ours may still reach the adapter: a worker that was stopped may
        believe in its lease for so long before it sends one, and one takes its time limit at most."""
        return self._timeouts.submit + self._lease_seconds

    def segment(self, handle: Handle) -> UUID:
        """What stands as {model_id} in the paths of this submission."""
        return handle.model_id if self.net.path_id == "model" else handle.path_id

    # --- reads -----------------------------------------------------------------------------------

    async def health(self) -> tuple[Health, bool]:
        """The adapter's report, and whether it names its extensions."""
        response = await self._read(
            AdapterRequest(
                "health", "/health", self._timeouts.health, max_bytes=64 * _KIB, always=True
            )
        )
        content = response.json()
        if not isinstance(content, dict):
            raise self._strange("health")
        version, named = content.get("version"), content.get("extensions")
        extensions = named[:_EXTENSIONS] if isinstance(named, list) else []
        return (
            Health(
                storable(version)[:64] if isinstance(version, str) else None,
                frozenset(storable(name)[:64] for name in extensions if isinstance(name, str)),
            ),
            isinstance(named, list),
        )

    async def server_status(self) -> str | None:
        """The runtime's state in its own spelling, None when the adapter can't reach it (500)."""
        response = await self._transport.send(
            AdapterRequest(
                "server_status", "/check_server_status", self._timeouts.list, judged=False
            )
        )
        if response.status == 500:
            return None
        if not response.ok:
            raise read_error("server_status", response)
        try:
            return IServerStatus.model_validate(response.json()).status
        except ValueError as exc:
            raise self._strange("server_status") from exc

    async def clients(self) -> list[IClientStatus]:
        response = await self._read(
            AdapterRequest("clients", "/check_client_status", self._timeouts.clients)
        )
        try:
            return read_client_list(response.json())
        except Invalid as exc:
            raise self._strange("clients") from exc

    async def runs(self, about: About | None = None, **params: str) -> JobList:
        """The runs that the adapter lists, in its order; `params` narrow the list where it knows them."""
        response = await self._read(
            AdapterRequest(
                "list",
                "/list_jobs",
                self._timeouts.list,
                headers=_headers(about),
                params=params or None,
            )
        )
        try:
            return read_jobs(response.json())
        except Invalid as exc:
            raise self._strange("list") from exc

    async def running_in_server(self) -> frozenset[str] | None:
        """Ids of the jobs that an NVFLARE server really has; None where the adapter does not report it."""
        response = await self._transport.send(
            AdapterRequest("system_info", "/get_system_info", self._timeouts.list, judged=False)
        )
        if not response.ok:
            return None
        content = response.json()
        jobs = content.get("job_info") if isinstance(content, dict) else None
        if not isinstance(jobs, list):
            return None
        ids = [job.get("job_id") if isinstance(job, dict) else None for job in jobs]
        if any(each is None for each in ids):  # any of them may be the one that is looked for
            return None
        return frozenset(map(str, ids))

    async def logs(self, run_id: str) -> str | None:
        """The end of a run's log, None where the adapter has none (404, 502, an unknown run)."""
        response = await self._transport.send(
            AdapterRequest(
                "logs", f"/run_logs/{_quoted(run_id)}", self._timeouts.logs, judged=False
            )
        )
        if response.status in (404, 502) or (
            response.status == 500 and b"code: 16" in response.body
        ):
            return None
        if not response.ok:
            raise read_error("logs", response)
        content = response.json()
        log = content.get("log") if isinstance(content, dict) else content
        if not isinstance(log, str):
            return None
        return _ANSI.sub("", storable(log[-2 * _MAX_LOG :]))[-_MAX_LOG:]

    @asynccontextmanager
    async def results(
        self, run_id: str, about: About | None = None
    ) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """The results in chunks, None where there are none (404). Only a 200 that is no page is results; its
        length and digest are held against what comes."""
        request = AdapterRequest(
            "results",
            f"/results/{_quoted(run_id)}",
            self._timeouts.results,
            headers={"accept": "application/zip", "accept-encoding": "identity"} | _headers(about),
            max_bytes=64 * _KIB,  # of an error's text
        )
        async with self._transport.stream(request) as (response, chunks):
            if response.status == 404:
                yield None
                return
            if response.status != 200:
                raise read_error("results", response)
            if is_page(response.headers):
                kind = storable(response.headers.get("content-type", ""))[:64]
                raise Transient(
                    f"{response.describe('results')}, which is {kind} and no archive",
                    code=ReasonCode.RESULTS_UPLOAD_FAILED,
                )
            yield as_announced(chunks, response.headers)

    async def _read(self, request: AdapterRequest) -> AdapterResponse:
        response = await self._transport.send(request)
        if not response.ok:
            raise read_error(request.call, response)
        return response

    # --- changes ---------------------------------------------------------------------------------

    async def upload(self, handle: Handle, body: IStartTrainingBody) -> None:
        """Hand over an app. Repeating it under the same path writes the same again."""
        headers = _headers(handle.about) | {"Idempotency-Key": handle.key}
        hidden = (body.cohort_query, body.project_id)
        async with self._lane.turn():
            response = await self._post_app(self.segment(handle), body, headers, hidden)
        if not response.ok:
            raise change_error("upload", response)

    async def submit(self, handle: Handle) -> str:
        """Run the app; the backend's id of the run. A response that names none is `Ambiguous`."""
        headers = _headers(handle.about) | {"Idempotency-Key": handle.key}
        async with self._lane.turn():
            response = await self._transport.send(self._submission(self.segment(handle), headers))
        if not response.ok:
            raise change_error("submit", response)
        run_id = _run_id(response)
        if run_id is None:
            raise Ambiguous(
                f"net {self.net.name} took the submit, but its response names no run",
                code=ReasonCode.ADAPTER_UNAVAILABLE,
            )
        return run_id

    async def upload_empty(self, handle: Handle, segment: UUID) -> None:
        """Put an app without files over whatever lies there: nothing can be run from it."""
        slots = sorted(self.net.members.values())[:1]
        body = IStartTrainingBody(project_id="none", cohort_query="", trusts=slots, bundle_urls=[])
        async with self._lane.turn():
            response = await self._post_app(segment, body, _headers(handle.about), ())
        if not response.ok:
            raise read_error("upload", response)

    async def probe_submit(self, handle: Handle, segment: UUID) -> AdapterResponse:
        """Submit what can't be run: the response shows whether a submit is in flight."""
        async with self._lane.turn():
            return await self._transport.send(
                self._submission(segment, _headers(handle.about), judged=False)
            )

    async def abort(self, run_id: str, about: About | None = None) -> None:
        """Ask for a run's end. The request proves nothing: only the list does. A run that the adapter
        does not know (404) needs no abort."""
        response = await self._transport.send(
            AdapterRequest(
                "abort",
                f"/abort_job/{_quoted(run_id)}",
                self._timeouts.abort,
                method="DELETE",
                headers=_headers(about),
                max_bytes=64 * _KIB,
                judged=False,
            )
        )
        if response.status == 404:
            _log.info("aborted_run_unknown", net=self.net.name, run_id=run_id)
        elif not response.ok:
            raise read_error("abort", response)

    async def _post_app(
        self,
        segment: UUID,
        body: IStartTrainingBody,
        headers: Mapping[str, str],
        hidden: Sequence[str],
    ) -> AdapterResponse:
        return await self._transport.send(
            AdapterRequest(
                "upload",
                f"/upload_app/{segment}",
                self._timeouts.upload,
                method="POST",
                headers=headers,
                body=body.model_dump_json().encode(),
                max_bytes=64 * _KIB,
                hidden=tuple(hidden),
            )
        )

    def _submission(
        self, segment: UUID, headers: Mapping[str, str], *, judged: bool = True
    ) -> AdapterRequest:
        return AdapterRequest(
            "submit",
            f"/submit_job/{segment}",
            self._timeouts.submit,
            method="POST",
            headers=headers,
            max_bytes=64 * _KIB,
            judged=judged,
        )

    def _strange(self, call: str) -> Transient:
        return Transient(
            f"net {self.net.name} answered {call} with something else than the FL-API's response",
            code=ReasonCode.ADAPTER_UNAVAILABLE,
        )


def check_upload(slots: Sequence[str], urls: Sequence[str]) -> None:
    """Refuse what adapters say 200 to and fail on later.

    Raises:
        Permanent: no participants, or no files.
    """
    if not slots or not urls:
        what = "participants" if not slots else "files"
        raise Permanent(f"an app without {what} is never uploaded", code=ReasonCode.INTERNAL_ERROR)


def _headers(about: About | None) -> dict[str, str]:
    return {} if about is None else {"FL-Job-Id": str(about[0]), "FL-Attempt": str(about[1])}


def _run_id(response: AdapterResponse) -> str | None:
    """The id in a submit's response: JSON text, or a number from old adapters."""
    try:
        content = json.loads(response.body)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, int) and not isinstance(content, bool):
        content = str(content)
    if not isinstance(content, str):
        return None
    run_id = content.strip()
    usable = 0 < len(run_id) <= _MAX_RUN_ID and run_id.isprintable()
    return run_id if usable else None


def _quoted(run_id: str) -> str:
    return quote(run_id, safe="")
