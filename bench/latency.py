"""Latency of an idle service: one request at a time, beside the shortest pipeline, taking turns.

The service runs all roles in one process; the net is the embedded one, and every request is really staged:
model files from S3, bundle to S3, upload through presigned URLs. One long run holds the net's only
reservation, so that each measured run is taken on and waits there: nothing trains beside the measurement.
After its submit each job is stopped through the service, and the next request waits for its `stopped`. Two
jobs never overlap.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer

from service.app import make_bundles
from service.contracts.inbound.stop import STOP_REQUESTED
from service.errors import Transient
from service.kafka.topics import Topics

from .environment import SLOTS, BenchRun, BenchStack, Say, bench_stack
from .event_waiter import EventWaiter, event_waiter, read_by
from .processes import Process
from .requests import TRUSTS, Record, request, send_one, uuids
from .statistics import Spread
from .tcp_proxy import TcpProxy, tcp_proxy

SUBMIT: Final = "submit received by the net (service)"
QUEUED: Final = "queued read (service)"
MINIMAL: Final = "queued read (minimal pipeline)"
#: Shortest time between two requests to the same program, in seconds.
PACE: Final = 0.05
_WAIT_SECONDS: Final = 30.0
_QUEUED_EVENT: Final = "fl.job.queued.v1"
_STOPPED_EVENT: Final = "fl.job.stopped.v1"
_SUBMITTED_EVENT: Final = "fl.job.submitted.v1"
_TRAINER: Final = '''
"""Sleeps for the configured time."""
import time

import numpy as np


def load_data(site, data_dir):
    return 1


def initial_parameters(config):
    return [np.zeros(1)]


def fit(parameters, data, config):
    time.sleep(config.get("NAP", 0))
    return parameters, 1, {}


def evaluate(parameters, data, config):
    return 1, {}
'''


@dataclass(slots=True)
class Found:
    """What was measured, in seconds, after the warm-up."""

    submit: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    minimal: list[float] = field(default_factory=list)
    rss: int | None = None

    @property
    def spreads(self) -> dict[str, Spread]:
        """By what the time ran to."""
        return {
            SUBMIT: Spread.of(self.submit),
            QUEUED: Spread.of(self.queued),
            MINIMAL: Spread.of(self.minimal),
        }

    @property
    def ratio(self) -> float:
        """p99 to `queued` over the minimal pipeline's."""
        return Spread.of(self.queued).p99 / Spread.of(self.minimal).p99


async def measure(requests: int, warmup: int, say: Say) -> Found:
    """Raises errors.MissingDependency without the extra `local`, errors.Transient when something does not
    come."""
    async with (
        bench_stack(say) as here,
        tcp_proxy() as before_net,
        here.run("bench-idle", before_net.url) as ours,
        here.run("bench-minimal") as theirs,
    ):
        model = uuid4()
        await _model_files(here, ours, model)
        processes: list[Process] = []
        try:
            processes.append(await _net(here, ours, before_net))
            processes.append(ours.start("service", "run"))
            processes.append(theirs.start(".minimal_pipeline"))
            async with _wired(ours, theirs) as wires:
                await _occupy(wires, before_net, model, processes)
                say("everything is up and warm; one request at a time")
                found = await _loop(wires, before_net, model, requests, warmup, processes, say)
            memory = processes[1].memory()
            found.rss = memory.rss if memory else None
            return found
        finally:
            for process in reversed(processes):
                process.stop()


async def _model_files(here: BenchStack, bench_run: BenchRun, model: UUID) -> None:
    """The model's files in S3, as a researcher would have put them there."""
    folder = here.folder / "model"
    await asyncio.to_thread(folder.mkdir)
    await asyncio.to_thread((folder / "trainer.py").write_text, _TRAINER)
    await asyncio.to_thread((folder / "config.json").write_text, json.dumps({"LOCAL_ROUNDS": 1}))
    bundles = make_bundles(bench_run.settings)
    await bundles.open()
    try:
        await bundles.upload_model_files(model, folder)
    finally:
        await bundles.close()


async def _net(here: BenchStack, bench_run: BenchRun, before_net: TcpProxy) -> Process:
    """The embedded net with room for one run, behind the proxy."""
    out = here.folder / "net.out"
    process = bench_run.start(
        "service", "fl-server", "embedded", "--dir", str(here.folder / "net"),
        "--slots", ",".join(SLOTS), "--data-root", str(here.folder / "sites"),
        "--kafka", bench_run.settings.kafka.bootstrap_servers, "--capacity", "1",
        "--topic-prefix", bench_run.settings.kafka.topic_prefix, out=out,
    )  # fmt: skip
    for _ in range(300):
        process.check()
        line = await asyncio.to_thread(out.read_text)
        if line.endswith("\n"):
            host, _, port = json.loads(line)["url"].rpartition("/")[2].rpartition(":")
            before_net.target = (host, int(port))
            return process
        await asyncio.sleep(0.1)
    raise Transient("the net did not begin within 30 s")


@dataclass(slots=True)
class _Wires:
    producer: AIOKafkaProducer
    reader: EventWaiter
    ours: Topics
    theirs: Topics


@contextlib.asynccontextmanager
async def _wired(ours: BenchRun, theirs: BenchRun) -> AsyncIterator[_Wires]:
    kafka = ours.settings.kafka
    mine, others = Topics(kafka.topic_prefix), Topics(theirs.settings.kafka.topic_prefix)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True)
    await producer.start()
    try:
        topics = [mine.lifecycle, others.lifecycle]
        async with event_waiter(kafka, topics, kafka.partitions) as reader:
            yield _Wires(producer, reader, mine, others)
    finally:
        await producer.stop()


async def _occupy(
    wires: _Wires, before_net: TcpProxy, model: UUID, processes: list[Process]
) -> None:
    """The run that holds the net's reservation for the whole measurement."""
    job = uuid4()
    last_said = wires.reader.expect(wires.ours.lifecycle, str(job), _SUBMITTED_EVENT)
    record = request(
        job, model, 0, trust_ids=TRUSTS[:1], config={"GLOBAL_ROUNDS": 1}, app_config={"NAP": 86_400}
    )
    await send_one(wires.producer, wires.ours.requests, record)
    await before_net.submitted(str(job), 60.0)
    await read_by(last_said, 60.0, "the first job's start")
    for process in processes:
        process.check()


async def _loop(
    wires: _Wires,
    before_net: TcpProxy,
    model: UUID,
    requests: int,
    warmup: int,
    processes: list[Process],
    say: Say,
) -> Found:
    found = Found()
    ids = uuids(7)
    last_said = time.monotonic()
    for number in range(1, warmup + requests + 1):
        ours, theirs = next(ids), next(ids)
        record = request(ours, model, number, trust_ids=TRUSTS[:1], config={"GLOBAL_ROUNDS": 1})
        submit, queued = await _through_service(wires, before_net, ours, record)
        minimal = await _through_pipeline(wires, theirs, request(theirs, model, number))
        if number > warmup:
            found.submit.append(submit)
            found.queued.append(queued)
            found.minimal.append(minimal)
        if time.monotonic() - last_said > 5:
            last_said = time.monotonic()
            say(f"{number:,} of {warmup + requests:,}")
            for process in processes:
                process.check()
    return found


async def _rest(began: float) -> None:
    """Until the next request may go out."""
    await asyncio.sleep(max(0.0, began + PACE - time.monotonic()))


async def _through_service(
    wires: _Wires, before_net: TcpProxy, job: UUID, record: Record
) -> tuple[float, float]:
    """Seconds to the submit and to `queued`; the job is stopped when this returns."""
    name, topic = str(job), wires.ours.lifecycle
    queued = wires.reader.expect(topic, name, _QUEUED_EVENT)
    submitted = wires.reader.expect(topic, name, _SUBMITTED_EVENT)
    stopped = wires.reader.expect(topic, name, _STOPPED_EVENT)
    began = time.monotonic()
    await send_one(wires.producer, wires.ours.requests, record)
    try:
        arrived = await before_net.submitted(name, _WAIT_SECONDS)
    except TimeoutError as exc:
        raise Transient(f"the submit of {name} did not come within {_WAIT_SECONDS:.0f} s") from exc
    read = await read_by(queued, _WAIT_SECONDS, "queued")
    await read_by(submitted, _WAIT_SECONDS, "submitted")
    await send_one(wires.producer, wires.ours.requests, _stop(name))
    await read_by(stopped, _WAIT_SECONDS, "stopped")
    await _rest(began)
    return arrived - began, read - began


async def _through_pipeline(wires: _Wires, job: UUID, record: Record) -> float:
    """Seconds to `queued` of the shortest pipeline."""
    queued = wires.reader.expect(wires.theirs.lifecycle, str(job), _QUEUED_EVENT)
    began = time.monotonic()
    await send_one(wires.producer, wires.theirs.requests, record)
    read = await read_by(queued, _WAIT_SECONDS, "queued of the minimal pipeline")
    await _rest(began)
    return read - began


def _stop(job_id: str) -> Record:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"stop-{job_id}".encode()),
        ("ce_source", b"/bench/hub"),
        ("ce_type", STOP_REQUESTED.encode()),
        ("content-type", b"application/json"),
    ]
    body = {"job_id": job_id, "reason": "measured"}
    return job_id.encode(), json.dumps(body).encode(), headers
