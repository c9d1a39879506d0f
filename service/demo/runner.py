"""The demo from start to end: stack up, service up, data out, request in, training shown, results fetched.

Promises that whatever it started is stopped at its end, however it ends short of SIGKILL; what a killed
demo left is taken over by the next one in the same folder. A stack that somebody else had running is
used, and left running. One demo at a time in a folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from rich.console import Console

from service.app import make_bundles
from service.bundles.s3 import ObjectStore
from service.contracts.inbound import training
from service.demo import baselines, dataset, plot
from service.demo.dataset import Patients
from service.demo.lifecycle import TOGETHER, LifecycleLog, follow
from service.demo.progress import DemoProgress
from service.demo.service_process import ServiceProcess
from service.domain.enums import Lifecycle
from service.errors import Permanent, Transient
from service.kafka.publish import event_headers, publish
from service.kafka.stop_request import publish_stop
from service.kafka.topics import Topics
from service.local.demo_registry import PROJECT, TRUSTS
from service.local.dependents import demo_record
from service.local.display import display
from service.local.folder_lock import folder_lock
from service.local.nets import SLOTS
from service.local.preparation import prepare
from service.local.process import ProcessRecord, start_time_of
from service.local.signals import finish, shielded
from service.local.stack import ComponentStatus, Stack
from service.settings import Settings, load
from service.store.database import close_pool, open_pool
from service.store.queries import Queries
from service.telemetry.terminal import say

#: Longest silence on the topic: a killed service's jobs are taken over within a fraction of it.
_SILENCE_SECONDS: Final = 60.0
_BY: Final = "fl-jobs demo"
_RESULT_BYTES: Final = 64 * 2**20
_QUERY: Final = "select * from masses where imaging = 'fine needle aspirate'"
NAMES: Final = dict(zip(SLOTS, (name for name, _ in TRUSTS.values()), strict=True))


@dataclass(slots=True)
class DemoResult:
    """All that the demo shows at its end. `memory` is PSS in bytes by process while it trained,
    `seconds` how long each phase took."""

    dir: Path
    job_id: UUID
    patients: dict[str, Patients]
    lifecycle: LifecycleLog
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    results: Path | None = None
    picture: Path | None = None
    restarts: int = 0
    left_running: bool = False
    memory: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def completed(self) -> bool:
        return self.lifecycle.last.event_name is Lifecycle.COMPLETED


class _PhaseClock:
    """Seconds of each phase, by name."""

    def __init__(self, began: float) -> None:
        self.phases: dict[str, float] = {}
        self._last = began

    def end(self, name: str) -> None:
        now = time.monotonic()
        self.phases[name] = round(now - self._last, 2)
        self._last = now


def run_demo(
    dir: Path, rounds: int | None, console: Console, *, quiet: bool, keep: bool, began: float
) -> DemoResult:
    """Run the whole demo. `began` is the monotonic time when the command started.

    Raises the rooms' errors; a job that ended is a result, however it ended.
    """
    clock = _PhaseClock(began)
    with ThreadPoolExecutor(1) as aside, _owned(Stack(dir), quiet=quiet, keep=keep) as stack:
        # Loading scikit-learn takes a second or two, which the broker's start takes anyway.
        patients = aside.submit(dataset.write, stack.data_root, stack.dir / dataset.TEST)
        with display(quiet=quiet) as report:
            os.environ.update(stack.up(report).env)
            clock.end("stack")
            settings = load()
            finish(prepare(settings, stack, report))
        clock.end("topics, buckets, schema")
        service_process = ServiceProcess(stack.dir, stack.env_path, console.print)
        try:
            service_process.start()
            run = DemoRun(settings, stack, service_process, console, clock)
            result = finish(run.run(patients.result(), rounds))
            drawn = aside.submit(_draw, result)
        finally:
            with shielded():
                service_process.stop()
        result.restarts = service_process.restarts
    result.left_running = any(part.state == "running" for part in stack.status())
    result.picture = drawn.result()
    clock.end("stop")
    result.seconds = clock.phases
    return result


def _draw(result: DemoResult) -> Path | None:
    if not result.lifecycle.rounds:
        return None
    said = {"Federated": baselines.FEDERATED, "All data in one place": baselines.POOLED}
    levels = {n: result.scores[k]["accuracy"] for n, k in said.items() if k in result.scores}
    path = result.dir / "learning-curve.png"
    plot.draw(path, result.lifecycle.rounds, {TOGETHER: "Together", **NAMES}, levels)
    return path


@contextmanager
def _owned(stack: Stack, *, quiet: bool, keep: bool) -> Iterator[Stack]:
    """Stop the stack at the end if it is the demo's own, one that a killed demo left included."""
    ours = demo_record(stack.dir)
    with folder_lock(stack.dir / "demo.lock", lambda: _say("waiting for another demo to end")):
        left = ProcessRecord.read(ours) is not None
        mine = left or all(part.state != "running" for part in stack.status())
        if mine:
            ProcessRecord(os.getpid(), start_time_of(os.getpid()) or "").write(ours)
        try:
            yield stack
        finally:
            with shielded():
                if mine and not keep:
                    with display(quiet=quiet) as report:
                        stack.down(report)
                if mine:
                    ours.unlink(missing_ok=True)


def _say(line: str) -> None:
    say(line, error=True)


def left_by_earlier(
    jobs: Iterable[Mapping[str, Any] | None], parts: Iterable[ComponentStatus]
) -> list[UUID]:
    """Which of the unfinished jobs to stop: a demo's, and none where others may run demos too."""
    if any(part.state == "external" for part in parts):
        return []
    return [UUID(job["job_id"]) for job in jobs if job is not None and job["requested_by"] == _BY]


class DemoRun:
    """From the request to the comparison, on a stack and a service that run."""

    def __init__(
        self,
        settings: Settings,
        stack: Stack,
        service_process: ServiceProcess,
        console: Console,
        clock: _PhaseClock,
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._service = service_process
        self._console = console
        self._clock = clock
        self._job_id = uuid4()
        self._memory: dict[str, int] = {}

    async def run(self, patients: dict[str, Patients], rounds: int | None) -> DemoResult:
        """Raises Transient when the job does not end in time or the service can't live."""
        await self._stop_earlier()
        await self._upload_and_ask(rounds)
        self._clock.end("request")
        lifecycle = await self._watched(rounds)
        self._clock.end("job")
        result = DemoResult(self._stack.dir, self._job_id, patients, lifecycle, memory=self._memory)
        if result.completed:
            result.results, raw = await self._fetch(lifecycle.last.data["results"])
            result.scores = await asyncio.to_thread(
                baselines.compare,
                baselines.parameters_of(raw),
                lifecycle.last.data["config"],
                self._stack.data_root,
                SLOTS,
                self._stack.dir / dataset.TEST,
            )
        self._clock.end("results, comparison")
        return result

    async def _stop_earlier(self) -> None:
        """Stop what an interrupted demo left unfinished here: it would go first."""
        pool = await open_pool(self._settings.database)
        try:
            queries = Queries(pool)
            rows = await queries.jobs_live(datetime.now(UTC), 100)
            found = [await queries.job(UUID(row["job_id"])) for row in rows]
        finally:
            await close_pool(pool)
        for job_id in left_by_earlier(found, self._stack.status()):
            self._console.print(f"stopping job {job_id} of an earlier demo", soft_wrap=True)
            await publish_stop(self._settings, "job_id", job_id, by=_BY, reason="another demo")

    async def _upload_and_ask(self, rounds: int | None) -> None:
        model_id = uuid4()
        bundles = make_bundles(self._settings)
        try:
            await bundles.upload_model_files(model_id, baselines.model_files())
        finally:
            await bundles.close()
        data = {
            "job_id": str(self._job_id),
            "model_id": str(model_id),
            "project_id": PROJECT,
            "cohort_query": _QUERY,
            "trust_ids": list(TRUSTS),
            "config": {} if rounds is None else {"GLOBAL_ROUNDS": rounds},
            "requested_by": _BY,
        }
        kafka = self._settings.kafka
        topic, key = Topics(kafka.topic_prefix).requests, str(self._job_id)
        headers = event_headers(training.REQUESTED, key)
        await publish(kafka, topic, key.encode(), json.dumps(data).encode(), headers)

    async def _watched(self, rounds: int | None) -> LifecycleLog:
        total = (
            rounds
            or json.loads((baselines.model_files() / "config.json").read_text())["GLOBAL_ROUNDS"]
        )
        progress = DemoProgress(self._console, NAMES, total)
        self._service.announce = progress.print
        with progress.shown():
            progress.print(f"request for job {self._job_id} published")
            reading = asyncio.create_task(
                follow(self._settings.kafka, self._job_id, progress.on_event)
            )
            others: list[asyncio.Task[None]] = [asyncio.create_task(self._service.watch())]
            others.append(asyncio.create_task(self._sample_memory()))
            try:
                while not reading.done():
                    await asyncio.wait(
                        [reading, *others], timeout=1, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in others:
                        if task.done():
                            task.result()
                    if not reading.done() and progress.seconds_since_last_event > _SILENCE_SECONDS:
                        raise Transient(
                            f"no event of the job came for {_SILENCE_SECONDS:g} s:"
                            f" see {self._service.log}"
                        )
                return reading.result()
            finally:
                reading.cancel()
                for task in others:
                    task.cancel()
                await asyncio.gather(reading, *others, return_exceptions=True)

    async def _sample_memory(self) -> None:
        """Note the memory of every process while it trains; the greatest sum is kept."""
        while True:
            await asyncio.sleep(0.5)
            now = await asyncio.to_thread(self._memory_now)
            if sum(now.values()) > sum(self._memory.values()):
                self._memory.clear()
                self._memory.update(now)

    def _memory_now(self) -> dict[str, int]:
        found = {part.name: part.pss or 0 for part in self._stack.status()}
        memory = self._service.memory()
        return found | {"service": (memory.pss or 0) if memory else 0}

    async def _fetch(self, results: Mapping[str, Any]) -> tuple[Path, bytes]:
        """The results, checked against the digest in the completed event, and kept as a file."""
        location = urlsplit(results["uri"])
        s3 = self._settings.s3
        store = ObjectStore(endpoint_url=s3.endpoint_url, region=s3.region)
        try:
            raw = await store.get(location.netloc, location.path.lstrip("/"), limit=_RESULT_BYTES)
        finally:
            await store.close()
        if hashlib.sha256(raw).hexdigest() != results["sha256"]:
            raise Permanent(f"{results['uri']} is not what the completed event says (SHA-256)")
        path = self._stack.dir / "results.zip"
        path.write_bytes(raw)
        return path, raw
