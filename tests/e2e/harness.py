"""A whole service on real parts: an FL net and the service as processes, requests by Kafka, the lifecycle
topic read back. `ServiceHarness` starts and kills them by their pids; everything it started is gone at its
end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from service import settings as service_settings
from service.app import make_bundles
from service.bundles import ensure_buckets
from service.kafka.topics import ensure_topics
from service.store.registry import apply_registry_file

TRUSTS = [str(UUID(int=n)) for n in (1, 2, 3)]
SLOTS = [f"Trust_{n}" for n in (1, 2, 3)]
TERMINAL = {"completed", "failed", "stopped", "rejected"}

TRAINER = """
import time
import numpy as np

def load_data(site, data_dir):
    return np.arange(10.0)

def initial_parameters(config):
    return [np.zeros(3)]

def fit(parameters, data, config):
    time.sleep(config.get("nap", 0))
    return [parameters[0] + 1], len(data), {"loss": 1.0 / config["ROUND"]}

def evaluate(parameters, data, config):
    return len(data), {"accuracy": float(parameters[0][0]) / 10}
"""


class ServiceHarness:
    """`env` is the service's environment; `folder` is thrown away by pytest."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self.env = {**os.environ, **env, "FL_HTTP__PORT": "0", "FL_LOG__FORMAT": "json"}
        self.folder = folder
        self.prefix = env["FL_KAFKA__TOPIC_PREFIX"]
        self.bootstrap = env["FL_KAFKA__BOOTSTRAP_SERVERS"]
        self.model_id = uuid4()
        self._processes: list[subprocess.Popen[str]] = []
        self.net_url = ""

    # --- processes --------------------------------------------------------------------------------

    def start_net(self) -> subprocess.Popen[str]:
        """The embedded net; its address is kept in `net_url`."""
        port = self.net_url.rsplit(":", 1)[-1] if self.net_url else "0"
        process = self._start(
            "fl-server", "embedded", "--port", port, "--dir", str(self.folder / "net"),
            "--name", "net-1", "--slots", ",".join(SLOTS), "--capacity", "4",
            "--data-root", str(self.folder / "data"), "--kafka", self.bootstrap,
            "--topic-prefix", self.prefix, out=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        self.net_process = process
        self.net_url = json.loads(process.stdout.readline())["url"]
        return process

    def start_service(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return self._start("run", *arguments, more=more)

    def _start(
        self, *arguments: str, out: int | None = None, more: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        log = (self.folder / "processes.log").open("a")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service", *arguments],
                env={**self.env, **(more or {})},
                stdout=out or log,
                stderr=log,
                text=True,
            )
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    # --- what is asked, and what came of it -------------------------------------------------------

    async def ask(self, nap: float = 0.0, rounds: int = 2, **more: Any) -> UUID:
        """Publish a training request; returns its job id."""
        job_id = uuid4()
        data = {
            "job_id": str(job_id),
            "model_id": str(self.model_id),
            "project_id": "demo",
            "cohort_query": "select 1",
            "trust_ids": TRUSTS,
            "config": {"GLOBAL_ROUNDS": rounds},
            "app_config": {"nap": nap},
            **more,
        }
        await self.send("fl.training.requested.v1", data)
        return job_id

    async def send(self, kind: str, data: Mapping[str, Any], event_id: str | None = None) -> None:
        topic = "fl.job-status.v1" if kind.startswith("fl.job.") else "fl.training-requests.v1"
        await self.send_raw(
            topic,
            json.dumps(data).encode(),
            _headers(kind, event_id or str(uuid4())),
        )

    async def send_raw(
        self, topic: str, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        try:
            await producer.send_and_wait(f"{self.prefix}{topic}", value, headers=headers)
        finally:
            await producer.stop()

    async def ask_all(self, requests: Iterable[Mapping[str, Any]]) -> None:
        """Publish many training requests as one burst."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=20)
        await producer.start()
        try:
            waiting = []
            for data in requests:
                headers = _headers("fl.training.requested.v1", str(uuid4()))
                body = json.dumps({"job_id": str(uuid4()), "model_id": str(uuid4()), **data})
                topic = f"{self.prefix}fl.training-requests.v1"
                waiting.append(await producer.send(topic, body.encode(), headers=headers))
            await asyncio.gather(*waiting)
        finally:
            await producer.stop()

    async def published(
        self, wanted: Callable[[Counter[str]], bool], seconds: float = 60.0
    ) -> Counter[str]:
        """Read the lifecycle topic, read committed, until its events by type are as wanted; these."""
        consumer = AIOKafkaConsumer(
            f"{self.prefix}fl.job-lifecycle.v1",
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        found: Counter[str] = Counter()
        try:
            async with asyncio.timeout(seconds):
                async for record in consumer:
                    found[dict(record.headers)["ce_type"].decode()] += 1
                    if wanted(found):
                        break
        except TimeoutError:
            raise AssertionError(f"after {seconds:g} s only {found}") from None
        finally:
            await consumer.stop()
        return found

    async def state(self, job_id: UUID) -> str | None:
        connection = await asyncpg.connect(self.env["FL_DATABASE__DSN"])
        try:
            found: str | None = await connection.fetchval(
                "SELECT state FROM job WHERE job_id = $1", job_id
            )
            return found
        finally:
            await connection.close()

    async def until(
        self, job_id: UUID, wanted: Callable[[str | None], bool], seconds: float = 40.0
    ) -> str:
        """Wait until the job's state is as wanted; the state."""
        deadline = time.monotonic() + seconds
        while True:
            state = await self.state(job_id)
            if wanted(state):
                return str(state)
            if time.monotonic() > deadline:
                log = (self.folder / "processes.log").read_text()[-6_000:]
                raise AssertionError(f"the job is still {state} after {seconds} s\n{log}")
            await asyncio.sleep(0.05)

    async def ended(self, job_id: UUID, seconds: float = 40.0) -> str:
        return await self.until(job_id, lambda state: state in TERMINAL, seconds)

    async def lifecycle(
        self, job_id: UUID, last: Callable[[str], bool], seconds: float = 15.0
    ) -> list[tuple[str, int, dict[str, Any]]]:
        """(type, sequence, data) of the job's events on the topic, read committed, up to the last."""
        consumer = AIOKafkaConsumer(
            f"{self.prefix}fl.job-lifecycle.v1",
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        found: list[tuple[str, int, dict[str, Any]]] = []
        try:
            async with asyncio.timeout(seconds):
                async for record in consumer:
                    headers = dict(record.headers)
                    if record.key.decode() != str(job_id):
                        continue
                    kind = headers["ce_type"].decode()
                    number = int(headers.get("ce_sequence") or b"0")
                    found.append((kind, number, json.loads(record.value)))
                    if last(kind):
                        break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    async for record in consumer:
                        if record.key.decode() == str(job_id):
                            kind = dict(record.headers)["ce_type"].decode()
                            found.append((kind, -1, json.loads(record.value)))
        finally:
            await consumer.stop()
        return found


@contextlib.asynccontextmanager
async def opened(
    env: Mapping[str, str], folder: Path, document: Callable[[str], dict[str, Any]] | None = None
) -> AsyncIterator[ServiceHarness]:
    """A harness with topics, buckets, registry, model files and a net; the service is the test's to start.
    `document`: the registry for the net's address, else `registry_of`."""
    harness = ServiceHarness(env, folder)
    registry = folder / "registry.yaml"
    try:
        harness.start_net()
        registry.write_text(yaml.safe_dump((document or registry_of)(harness.net_url)))
        for key, value in env.items():
            if key.startswith("AWS_"):
                os.environ[key] = value
        settings = service_settings.Settings(**_sections(env))
        await ensure_topics(settings.kafka)
        s3 = settings.s3
        await ensure_buckets(
            [
                s3.model_files_bucket,
                s3.app_base_bucket,
                s3.app_destination_bucket,
                s3.results_bucket,
            ],
            endpoint_url=s3.endpoint_url,
            region=s3.region,
        )
        await apply_registry_file(settings.database, registry)
        await _model_files(settings, harness.model_id, folder)
        yield harness
    finally:
        harness.end()


def _headers(kind: str, event_id: str) -> list[tuple[str, bytes]]:
    return [
        ("ce_id", event_id.encode()),
        ("ce_source", b"/tests"),
        ("ce_type", kind.encode()),
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/json"),
    ]


def _sections(env: Mapping[str, str]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for key, value in env.items():
        if key.startswith("FL_") and "__" in key:
            section, _, name = key[3:].lower().partition("__")
            sections.setdefault(section, {})[name] = value
    return sections


def registry_of(url: str) -> dict[str, Any]:
    return {
        "trusts": [{"id": t, "name": f"Hospital {n}"} for n, t in enumerate(TRUSTS, 1)],
        "nets": [
            {
                "name": "net-1",
                "fl_backend": "embedded",
                "endpoint": url,
                "capacity": 4,
                "members": dict(zip(TRUSTS, SLOTS, strict=True)),
            }
        ],
        "projects": [{"id": "demo", "approved_trusts": TRUSTS}],
    }


async def _model_files(settings: service_settings.Settings, model_id: UUID, folder: Path) -> None:
    files = folder / "model"
    files.mkdir()
    (files / "trainer.py").write_text(TRAINER)
    (files / "config.json").write_text(json.dumps({"LOCAL_ROUNDS": 1}))
    bundles = make_bundles(settings)
    await bundles.open()
    try:
        await bundles.upload_model_files(model_id, files)
    finally:
        await bundles.close()
