"""The demo's way: stack up, service up, patients out, request in, training watched, results fetched.

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

import typer
from rich.console import Console

from service.app import make_bundles
from service.bundles.s3 import ObjectStore
from service.cli.demo import hospitals, picture, rivals
from service.cli.demo.child import Child
from service.cli.demo.hospitals import Patients
from service.cli.demo.story import TOGETHER, Story, follow
from service.cli.demo.watching import Watching
from service.cli.session import pool_of
from service.contracts.inbound import training
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
from service.store.queries import Queries

#: Longest silence on the topic: a killed service's jobs are taken over within a fraction of it.
_SILENT_SECONDS: Final = 60.0
_BY: Final = "fl-jobs demo"
_RESULT_BYTES: Final = 64 * 2**20
_QUERY: Final = "select * from masses where imaging = 'fine needle aspirate'"
NAMES: Final = dict(zip(SLOTS, (name for name, _ in TRUSTS.values()), strict=True))


@dataclass(slots=True)
class Outcome:
    """All that the demo shows at its end. `memory` is PSS in bytes by process while it trained,
    `seconds` how long each part of the way took."""

    dir: Path
    job_id: UUID
    patients: dict[str, Patients]
    story: Story
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    results: Path | None = None
    picture: Path | None = None
    restarts: int = 0
    left_running: bool = False
    memory: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def completed(self) -> bool:
        return self.story.last.word is Lifecycle.COMPLETED


class _Clock:
    """Seconds of each part of the way, by name."""

    def __init__(self, began: float) -> None:
        self.laps: dict[str, float] = {}
        self._last = began

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def travel(
    dir: Path, rounds: int | None, console: Console, *, quiet: bool, keep: bool, began: float
) -> Outcome:
    """Go the whole way. `began` is the monotonic time when the command started.

    Raises the rooms' errors; an ended job is an outcome, however it ended.
    """
    clock = _Clock(began)
    with ThreadPoolExecutor(1) as aside, _owned(Stack(dir), quiet=quiet, keep=keep) as stack:
        # Loading scikit-learn takes a second or two, which the broker's start takes anyway.
        patients = aside.submit(hospitals.write, stack.data_root, stack.dir / hospitals.TEST)
        with display(quiet=quiet) as report:
            os.environ.update(stack.up(report).env)
            clock.lap("stack")
            settings = load()
            finish(prepare(settings, stack, report))
        clock.lap("topics, buckets, schema")
        child = Child(stack.dir, stack.env_path, console.print)
        try:
            child.start()
            way = _Way(settings, stack, child, console, clock)
            outcome = finish(way.go(patients.result(), rounds))
            drawn = aside.submit(_draw, outcome)
        finally:
            with shielded():
                child.stop()
        outcome.restarts = child.restarts
    outcome.left_running = any(part.state == "running" for part in stack.status())
    outcome.picture = drawn.result()
    clock.lap("stop")
    outcome.seconds = clock.laps
    return outcome


def _draw(outcome: Outcome) -> Path | None:
    if not outcome.story.rounds:
        return None
    said = {"Federated": rivals.FEDERATED, "All data in one place": rivals.POOLED}
    levels = {n: outcome.scores[k]["accuracy"] for n, k in said.items() if k in outcome.scores}
    path = outcome.dir / "learning-curve.png"
    picture.draw(path, outcome.story.rounds, {TOGETHER: "Together", **NAMES}, levels)
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
    typer.echo(line, err=True)


def left_by_earlier(
    jobs: Iterable[Mapping[str, Any] | None], parts: Iterable[ComponentStatus]
) -> list[UUID]:
    """Which of the unfinished jobs to stop: a demo's, and none where others may run demos too."""
    if any(part.state == "external" for part in parts):
        return []
    return [UUID(job["job_id"]) for job in jobs if job is not None and job["requested_by"] == _BY]


class _Way:
    """From the request to the comparison, on a stack and a service that run."""

    def __init__(
        self, settings: Settings, stack: Stack, child: Child, console: Console, clock: _Clock
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._child = child
        self._console = console
        self._clock = clock
        self._job_id = uuid4()
        self._memory: dict[str, int] = {}

    async def go(self, patients: dict[str, Patients], rounds: int | None) -> Outcome:
        """Raises Transient when the job does not end in time or the service can't live."""
        await self._stop_earlier()
        await self._upload_and_ask(rounds)
        self._clock.lap("request")
        story = await self._watched(rounds)
        self._clock.lap("job")
        outcome = Outcome(self._stack.dir, self._job_id, patients, story, memory=self._memory)
        if outcome.completed:
            outcome.results, raw = await self._fetch(story.last.data["results"])
            outcome.scores = await asyncio.to_thread(
                rivals.compare,
                rivals.parameters_of(raw),
                story.last.data["config"],
                self._stack.data_root,
                SLOTS,
                self._stack.dir / hospitals.TEST,
            )
        self._clock.lap("results, comparison")
        return outcome

    async def _stop_earlier(self) -> None:
        """Stop what an interrupted demo left unfinished here: it would go first."""
        async with pool_of(self._settings) as pool:
            queries = Queries(pool)
            rows = await queries.jobs_live(datetime.now(UTC), 100)
            found = [await queries.job(UUID(row["job_id"])) for row in rows]
        for job_id in left_by_earlier(found, self._stack.status()):
            self._console.print(f"stopping job {job_id} of an earlier demo", soft_wrap=True)
            await publish_stop(self._settings, "job_id", job_id, by=_BY, reason="another demo")

    async def _upload_and_ask(self, rounds: int | None) -> None:
        model_id = uuid4()
        bundles = make_bundles(self._settings)
        try:
            await bundles.upload_model_files(model_id, rivals.model_files())
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

    async def _watched(self, rounds: int | None) -> Story:
        total = (
            rounds
            or json.loads((rivals.model_files() / "config.json").read_text())["GLOBAL_ROUNDS"]
        )
        watching = Watching(self._console, NAMES, total)
        self._child.say = watching.say
        with watching.shown():
            watching.say(f"request for job {self._job_id} published")
            reading = asyncio.create_task(follow(self._settings.kafka, self._job_id, watching.hear))
            others: list[asyncio.Task[None]] = [asyncio.create_task(self._child.watch())]
            others.append(asyncio.create_task(self._weigh()))
            try:
                while not reading.done():
                    await asyncio.wait(
                        [reading, *others], timeout=1, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in others:
                        if task.done():
                            task.result()
                    if not reading.done() and watching.silent_seconds > _SILENT_SECONDS:
                        raise Transient(
                            f"nothing was told of the job for {_SILENT_SECONDS:g} s:"
                            f" see {self._child.log}"
                        )
                return reading.result()
            finally:
                reading.cancel()
                for task in others:
                    task.cancel()
                await asyncio.gather(reading, *others, return_exceptions=True)

    async def _weigh(self) -> None:
        """Note the memory of every process while it trains; the greatest sum is kept."""
        while True:
            await asyncio.sleep(0.5)
            now = await asyncio.to_thread(self._memory_now)
            if sum(now.values()) > sum(self._memory.values()):
                self._memory.clear()
                self._memory.update(now)

    def _memory_now(self) -> dict[str, int]:
        found = {part.name: part.pss or 0 for part in self._stack.status()}
        memory = self._child.memory()
        return found | {"service": (memory.pss or 0) if memory else 0}

    async def _fetch(self, results: Mapping[str, Any]) -> tuple[Path, bytes]:
        """The results, checked against the digest that the event told, and kept as a file."""
        place = urlsplit(results["uri"])
        s3 = self._settings.s3
        store = ObjectStore(endpoint_url=s3.endpoint_url, region=s3.region)
        try:
            raw = await store.get(place.netloc, place.path.lstrip("/"), limit=_RESULT_BYTES)
        finally:
            await store.close()
        if hashlib.sha256(raw).hexdigest() != results["sha256"]:
            raise Permanent(f"{results['uri']} is not what the completed event says (SHA-256)")
        path = self._stack.dir / "results.zip"
        path.write_bytes(raw)
        return path, raw
