"""The FL-API, call by call: paths, headers, bodies, and what comes back as our values.

Promise: everything raised is one of `service.errors`; uploads and submits go one at a time per net, all
else never waits for them; every call for a job names it and its attempt. A failing read or abort
is `Transient`, whatever the adapter says: only an upload or a submit can end a job.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote
from uuid import UUID

import structlog

from service.contracts.fl import IClientStatus, IServerStatus, IStartTrainingBody
from service.contracts.fl_lists import ListedRun, read_client_list, read_job_list
from service.contracts.problems import storable
from service.domain.observed import About, Handle, Health
from service.domain.registry import Net
from service.domain.vocabulary import Reason
from service.errors import Ambiguous, Invalid, Permanent, Transient
from service.nets.answers import Answer, change_error, read_error
from service.nets.link import Ask, Link
from service.nets.options import Timeouts

_log = structlog.get_logger(__name__)

_KIB: Final = 1024
_MAX_RUN_ID: Final = 256
_MAX_LOG: Final = 8000  #: characters of a log's end
_EXTENSIONS: Final = 16  #: at most so many are read


class Calls:
    """One adapter's FL-API. `changing` is the net's lock for uploads and submits."""

    def __init__(self, net: Net, link: Link, timeouts: Timeouts, changing: asyncio.Lock) -> None:
        self.net, self._link, self._timeouts, self._changing = net, link, timeouts, changing

    @property
    def submit_seconds(self) -> float:
        """How long a submit may be under way at most."""
        return self._timeouts.submit

    def segment(self, handle: Handle) -> UUID:
        """What stands as {model_id} in the paths of this submission."""
        return handle.model_id if self.net.path_id == "model" else handle.path_id

    # --- reads -----------------------------------------------------------------------------------

    async def health(self) -> tuple[Health, bool]:
        """The adapter's word, and whether it is one that names its extensions."""
        answer = await self._read(
            Ask("health", "/health", self._timeouts.health, max_bytes=64 * _KIB, always=True)
        )
        content = answer.json()
        if not isinstance(content, dict):
            raise self._strange("health")
        version, named = content.get("version"), content.get("extensions")
        extensions = named[:_EXTENSIONS] if isinstance(named, list) else []
        return (
            Health(
                storable(version)[:64] if isinstance(version, str) else None,
                frozenset(word[:64] for word in extensions if isinstance(word, str)),
            ),
            isinstance(named, list),
        )

    async def server_status(self) -> str | None:
        """The runtime's state in its own word, None when the adapter can't reach it (500)."""
        answer = await self._link.ask(
            Ask("server_status", "/check_server_status", self._timeouts.list, judged=False)
        )
        if answer.status == 500:
            return None
        if not answer.ok:
            raise read_error("server_status", answer)
        try:
            return IServerStatus.model_validate(answer.json()).status
        except ValueError as exc:
            raise self._strange("server_status") from exc

    async def clients(self) -> list[IClientStatus]:
        answer = await self._read(Ask("clients", "/check_client_status", self._timeouts.clients))
        try:
            return read_client_list(answer.json())
        except Invalid as exc:
            raise self._strange("clients") from exc

    async def runs(self, about: About | None = None, **params: str) -> list[ListedRun]:
        """The runs that the adapter lists, in its order; `params` narrow the list where it knows them."""
        answer = await self._read(
            Ask(
                "list",
                "/list_jobs",
                self._timeouts.list,
                headers=_headers(about),
                params=params or None,
            )
        )
        try:
            return read_job_list(answer.json())
        except Invalid as exc:
            raise self._strange("list") from exc

    async def running_in_server(self) -> frozenset[str] | None:
        """Ids of the jobs that an NVFLARE server really has; None where the adapter does not tell."""
        answer = await self._link.ask(
            Ask("system_info", "/get_system_info", self._timeouts.list, judged=False)
        )
        if not answer.ok:
            return None
        content = answer.json()
        jobs = content.get("job_info") if isinstance(content, dict) else None
        if not isinstance(jobs, list):
            return None
        return frozenset(
            str(job["job_id"]) for job in jobs if isinstance(job, dict) and "job_id" in job
        )

    async def logs(self, run_id: str) -> str | None:
        """The end of a run's log, None where the adapter has none (404, 502, an unknown run)."""
        answer = await self._link.ask(
            Ask("logs", f"/run_logs/{_quoted(run_id)}", self._timeouts.logs, judged=False)
        )
        if answer.status in (404, 502) or (answer.status == 500 and b"code: 16" in answer.body):
            return None
        if not answer.ok:
            raise read_error("logs", answer)
        content = answer.json()
        log = content.get("log") if isinstance(content, dict) else content
        return storable(log)[-_MAX_LOG:] if isinstance(log, str) else None

    @asynccontextmanager
    async def results(
        self, run_id: str, about: About | None = None
    ) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """The results in chunks, None where there are none (404)."""
        ask = Ask(
            "results",
            f"/results/{_quoted(run_id)}",
            self._timeouts.results,
            headers={"accept": "application/zip"} | _headers(about),
            max_bytes=64 * _KIB,  # of an error's text
        )
        async with self._link.stream(ask) as (answer, chunks):
            if answer.status == 404:
                yield None
                return
            if not answer.ok:
                raise read_error("results", answer)
            yield chunks

    async def _read(self, ask: Ask) -> Answer:
        answer = await self._link.ask(ask)
        if not answer.ok:
            raise read_error(ask.call, answer)
        return answer

    # --- changes ---------------------------------------------------------------------------------

    async def upload(self, handle: Handle, body: IStartTrainingBody) -> None:
        """Hand over an app. Repeating it under the same path writes the same again."""
        headers = _headers(handle.about) | {"Idempotency-Key": handle.key}
        hidden = (body.cohort_query, body.project_id)
        async with self._changing:
            answer = await self._post_app(self.segment(handle), body, headers, hidden)
        if not answer.ok:
            raise change_error("upload", answer)

    async def submit(self, handle: Handle) -> str:
        """Run the app; the backend's id of the run. An answer that names none is `Ambiguous`."""
        headers = _headers(handle.about) | {"Idempotency-Key": handle.key}
        async with self._changing:
            answer = await self._link.ask(self._submission(self.segment(handle), headers))
        if not answer.ok:
            raise change_error("submit", answer)
        run_id = _run_id(answer)
        if run_id is None:
            raise Ambiguous(
                f"net {self.net.name} took the submit, but its answer names no run",
                code=Reason.ADAPTER_UNAVAILABLE,
            )
        return run_id

    async def upload_empty(self, handle: Handle, segment: UUID) -> None:
        """Put an app without files in the place of whatever lies there: nothing can be run from it."""
        slots = sorted(self.net.members.values())[:1]
        body = IStartTrainingBody(project_id="none", cohort_query="", trusts=slots, bundle_urls=[])
        async with self._changing:
            answer = await self._post_app(segment, body, _headers(handle.about), ())
        if not answer.ok:
            raise read_error("upload", answer)

    async def probe_submit(self, handle: Handle, segment: UUID) -> Answer:
        """Submit what can't be run: the answer tells whether a submit is in flight."""
        async with self._changing:
            return await self._link.ask(
                self._submission(segment, _headers(handle.about), judged=False)
            )

    async def abort(self, run_id: str, about: About | None = None) -> None:
        """Ask for a run's end. That it was asked proves nothing: the list tells. A run that the adapter
        does not know (404) is none to abort."""
        answer = await self._link.ask(
            Ask(
                "abort",
                f"/abort_job/{_quoted(run_id)}",
                self._timeouts.abort,
                method="DELETE",
                headers=_headers(about),
                max_bytes=64 * _KIB,
                judged=False,
            )
        )
        if answer.status == 404:
            _log.info("aborted_run_unknown", net=self.net.name, run_id=run_id)
        elif not answer.ok:
            raise read_error("abort", answer)

    async def _post_app(
        self,
        segment: UUID,
        body: IStartTrainingBody,
        headers: Mapping[str, str],
        hidden: Sequence[str],
    ) -> Answer:
        return await self._link.ask(
            Ask(
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

    def _submission(self, segment: UUID, headers: Mapping[str, str], *, judged: bool = True) -> Ask:
        return Ask(
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
            f"net {self.net.name} answered {call} with something else than the FL-API's answer",
            code=Reason.ADAPTER_UNAVAILABLE,
        )


def check_upload(slots: Sequence[str], urls: Sequence[str]) -> None:
    """Refuse what adapters say 200 to and fail on later.

    Raises:
        Permanent: no participants, or no files.
    """
    if not slots or not urls:
        what = "participants" if not slots else "files"
        raise Permanent(f"an app without {what} is never uploaded", code=Reason.INTERNAL_ERROR)


def _headers(about: About | None) -> dict[str, str]:
    return {} if about is None else {"FL-Job-Id": str(about[0]), "FL-Attempt": str(about[1])}


def _run_id(answer: Answer) -> str | None:
    """The id in a submit's answer: JSON text, or a number from old adapters."""
    try:
        content = json.loads(answer.body)
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
