"""What the FL-API's tests have at hand: bundles served over HTTP, tiny trainers, a net to ask."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
from starlette.types import Receive, Scope, Send

from service.fl_server.serving import serving
from tests.scripted_net.net import ScriptedNet

SLOTS = ("Trust_1", "Trust_2", "Trust_3")

ADDING = """
import time
from pathlib import Path

import numpy as np


def load_data(site, data_dir):
    assert Path(data_dir).name == site
    return int(site.rsplit("_", 1)[1])


def initial_parameters(config):
    return {"w": np.zeros((2, 2)), "b": np.zeros(1, dtype=np.float32)}


def fit(parameters, data, config):
    time.sleep(config.get("FIT_SECONDS", 0))
    return {"w": parameters["w"] + data, "b": parameters["b"]}, 10 * data, {"loss": 1.0 / data}


def evaluate(parameters, data, config):
    return 10 * data, {"level": float(parameters["w"].mean()), "odd": float("nan")}
"""


def app_files(
    trainer: str = ADDING, config: Mapping[str, Any] | None = None, **more: bytes
) -> dict[str, bytes]:
    """An embedded app as staging lays it out."""
    engine = {"format": 1, "entrypoint": "app/trainer.py", "config": "app/config.json"}
    return {
        "engine.json": json.dumps(engine).encode(),
        "app/config.json": json.dumps(dict(config or {})).encode(),
        "app/trainer.py": trainer.encode(),
        **more,
    }


def changed(old: str, new: str, trainer: str = ADDING) -> str:
    """A trainer with one part replaced, which must be there."""
    assert old in trainer
    return trainer.replace(old, new)


class BundleHost:
    """An object store's read side: serves what `put` was given, counts what was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []

    def put(self, path_id: UUID, files: Mapping[str, bytes]) -> list[str]:
        """Store a bundle; its presigned URLs."""
        prefix = f"/bucket/job/1/{path_id}/"
        self.objects |= {prefix + name: raw for name, raw in files.items()}
        return [f"{self.url}{prefix}{name}?X-Signature=secret" for name in files]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        path = scope["path"]
        self.asked.append(path)
        headers: list[tuple[bytes, bytes]] = []
        status, body = (200, self.objects[path]) if path in self.objects else (404, b"")
        if path in self.redirects:
            status, headers = 302, [(b"location", self.redirects[path].encode())]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def bundle_host() -> AsyncIterator[BundleHost]:
    """A bundle host, listening."""
    host = BundleHost()
    async with serving(host) as url:
        host.url = url
        yield host


class Net:
    """A client of one FL-API server, with the calls a service makes."""

    def __init__(
        self,
        kind: str,
        http: httpx.AsyncClient,
        bundles: BundleHost,
        scripted: ScriptedNet | None = None,
    ) -> None:
        self.kind = kind
        self.http = http
        self.bundles = bundles
        self._scripted = scripted

    @property
    def scripted(self) -> ScriptedNet:
        """The script's handle, where the net has one."""
        assert self._scripted is not None
        return self._scripted

    async def upload(
        self,
        path_id: UUID,
        files: Mapping[str, bytes] | None = None,
        *,
        slots: Sequence[str] = SLOTS,
        urls: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Store the files as a bundle and let the net fetch it."""
        if urls is None:
            urls = self.bundles.put(path_id, app_files() if files is None else files)
        body = {
            "project_id": "cipher",
            "cohort_query": "select secret",
            "trusts": list(slots),
            "bundle_urls": list(urls),
        }
        return await self.http.post(f"/upload_app/{path_id}", json=body, headers=headers)

    async def submit(
        self, path_id: UUID, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Submit what was uploaded."""
        return await self.http.post(f"/submit_job/{path_id}", headers=headers)

    async def run(self, files: Mapping[str, bytes] | None = None, **ref: Any) -> str:
        """Upload and submit under a fresh path id; the run's id."""
        path_id = uuid4()
        answer = await self.upload(path_id, files, **ref)
        assert answer.status_code == 200, answer.text
        answer = await self.submit(path_id, ref.get("headers"))
        assert answer.status_code == 200, answer.text
        return str(answer.json())

    async def listed(self, run_id: str) -> dict[str, Any]:
        """A run's entry in the list."""
        runs = (await self.http.get("/list_jobs")).json()
        [entry] = [run for run in runs if run["job_id"] == run_id]
        return dict(entry)

    async def until(self, run_id: str, *statuses: str, seconds: float = 20.0) -> dict[str, Any]:
        """Wait for a status of a run; its entry in the list."""
        deadline = time.monotonic() + seconds
        while True:
            entry = await self.listed(run_id)
            if entry["status"] in statuses:
                return entry
            assert time.monotonic() < deadline, f"still {entry} after {seconds} s"
            await asyncio.sleep(0.01)

    async def until_logged(self, run_id: str, text: str, seconds: float = 20.0) -> None:
        """Wait until a run's log holds a text."""
        for _ in range(int(seconds * 100)):
            log = (await self.http.get(f"/run_logs/{run_id}")).json()["log"]
            if text in log:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{text!r} is not in the log after {seconds} s: {log}")
