"""A scripted net, served: orders come from the test's own process or over HTTP.

Promise: `scripted_net` serves on a free port of 127.0.0.1 while its block runs. Over HTTP the same
is had at `/_script` (GET: runs, calls, faults; POST an object with any of `fault`, `run`, `clients`,
`server`, `extensions`, `clear`), so that a process that only knows the URL can give orders too.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.domain.enums import FLBackend, FLJobStatus
from service.fl_server.apps import Apps
from service.fl_server.downloads import Downloads
from service.fl_server.idempotency_store import IdempotencyStore
from service.fl_server.server import Server
from service.fl_server.serving import serving
from tests.scripted_net.faults import Call, FaultInjector, InjectedFault, LostResponse
from tests.scripted_net.runtime import ALL, ScriptedRun, ScriptedRuntime


class ScriptedNet:
    """The handle a test holds: `url`, `runtime`, and the calls and faults of `wire`."""

    def __init__(self, runtime: ScriptedRuntime, *, name: str, fetch: bool) -> None:
        self.url = ""
        self.runtime = runtime
        folder = runtime.folder
        server = Server(
            runtime,
            Apps(folder / "apps", Downloads() if fetch else None),
            IdempotencyStore(folder / "book.db"),
            name=name,
        )
        server.app.router.routes += [
            Route("/_script", self._show, methods=["GET"]),
            Route("/_script", self._order, methods=["POST"]),
        ]
        self.wire = FaultInjector(server.app)

    def fail(self, call: str, **how: Any) -> InjectedFault:
        """Spoil the next calls: the fields of `InjectedFault`. Answers the fault, which may be changed."""
        if how.get("lose") is not None:
            how["lose"] = LostResponse(how["lose"])
        fault = InjectedFault(call, **how)
        self.wire.faults.append(fault)
        return fault

    def calls(self, call: str | None = None) -> list[Call]:
        """The calls that came, all or of one name."""
        return [entry for entry in self.wire.calls if call is None or entry.call == call]

    def run(self, run_id: str) -> ScriptedRun:
        """A run, to be changed; KeyError when there is none."""
        return self.runtime.by_id[run_id]

    def runs(self) -> list[ScriptedRun]:
        """All runs, oldest first."""
        return list(self.runtime.by_id.values())

    async def _show(self, _: Request) -> Response:
        runs = [
            {
                "run_id": run.run_id,
                "path_id": str(run.path_id),
                "key": run.ref.key,
                "job_id": None if run.ref.job_id is None else str(run.ref.job_id),
                "attempt": run.ref.attempt,
                "slots": list(run.slots),
                "project_id": run.app.project_id,
                "model_id": None if run.app.model_id is None else str(run.app.model_id),
                "resources": None if run.app.resources is None else run.app.resources.model_dump(),
                "status": run.status.value,
            }
            for run in self.runs()
        ]
        return JSONResponse(
            {
                "runs": runs,
                "calls": [asdict(call) for call in self.wire.calls],
                "faults": [asdict(fault) for fault in self.wire.faults],
            }
        )

    async def _order(self, request: Request) -> Response:
        order = await request.json()
        if order.get("clear"):
            self.wire.faults.clear()
            self.wire.calls.clear()
        if "fault" in order:
            self.fail(**order["fault"])
        if "run" in order:
            run = self.run(order["run"]["run_id"])
            run.status = FLJobStatus(order["run"].get("status", run.status))
            run.details = order["run"].get("details", run.details)
        self.runtime.client_statuses.update(order.get("clients", {}))
        self.runtime.server_status_text = order.get("server", self.runtime.server_status_text)
        if "extensions" in order:
            self.runtime.extensions = frozenset(order["extensions"])
        return JSONResponse({"done": True})


@asynccontextmanager
async def scripted_net(
    slots: Sequence[str] = ("Trust_1", "Trust_2", "Trust_3"),
    *,
    name: str = "net-1",
    backend: FLBackend = FLBackend.EMBEDDED,
    extensions: Iterable[str] = ALL,
    run_after: float | None = 0.0,
    finish_after: float | None = None,
    fetch: bool = False,
    folder: Path | None = None,
    port: int = 0,
) -> AsyncIterator[ScriptedNet]:
    """A scripted net, listening. `fetch` makes uploads really download their bundles; with a
    `folder` and a `port` a second net can replace one that "crashed"."""
    with tempfile.TemporaryDirectory(prefix="fl-scripted-") as made:
        home = folder or Path(made)
        runtime = ScriptedRuntime(
            home,
            slots,
            backend=backend,
            extensions=extensions,
            run_after=run_after,
            finish_after=finish_after,
        )
        net = ScriptedNet(runtime, name=name, fetch=fetch)
        async with serving(net.wire, port=port) as url:
            net.url = url
            yield net
