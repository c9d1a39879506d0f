"""A campaign of crashes against two whole services: at the end every request has one effect, published once.

Processes are killed and frozen, the broker and the database are killed, all at random; the seed is printed
and FL_CAMPAIGN_SEED plays one again. FL_CAMPAIGN_SECONDS makes it longer than the few seconds it takes here.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from aiokafka import TopicPartition

from service.contracts import registry_file
from service.errors import Transient
from service.kafka.clients import reader
from service.local.stack import Stack
from service.settings import DatabaseSettings
from service.store.migrate import migrate
from service.store.registry import apply_registry
from tests.integration.ingest.test_pipeline import (
    REGISTRY,
    REQUESTED,
    data,
    process,
    publish,
    words,
)
from tests.integration.relay.harness import RelayHarness, harness, kill

SECONDS = float(os.environ.get("FL_CAMPAIGN_SECONDS", "15"))
SEED = int(os.environ.get("FL_CAMPAIGN_SEED", str(random.randrange(10**6))))


class RandomRun:
    """Two service processes, a feeder, and somebody who breaks things."""

    def __init__(self, w: RelayHarness, stack: Stack, rng: random.Random) -> None:
        self.w = w
        self.stack = stack
        self.rng = rng
        self.sent: set[UUID] = set()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.done: list[str] = []

    def start(self, name: str) -> None:
        self.running[name] = process(self.w, instance={"FL_KAFKA__GROUP_INSTANCE_ID": name})

    async def feed(self, until: float) -> None:
        """Publish requests; what is not known to have arrived is published again, as producers do."""
        while time.monotonic() < until:
            jobs = [uuid4() for _ in range(self.rng.randrange(1, 60))]
            values = [(data(job), REQUESTED, job.bytes.hex().encode()) for job in jobs]
            self.sent |= set(jobs)
            for _ in range(100):
                try:
                    await publish(self.w, values)
                    break
                except Transient:
                    await asyncio.sleep(0.3)
            await asyncio.sleep(0.1)

    async def crash(self) -> None:
        name = self.rng.choice(list(self.running))
        kill(self.running[name])
        await asyncio.sleep(self.rng.random())
        self.start(name)

    async def freeze(self) -> None:
        victim = self.running[self.rng.choice(list(self.running))]
        if victim.poll() is None:
            os.kill(victim.pid, signal.SIGSTOP)
            await asyncio.sleep(1 + 3 * self.rng.random())
            os.kill(victim.pid, signal.SIGCONT)

    async def kill_part(self, part: str) -> None:
        (status,) = [s for s in self.stack.status() if s.name == part]
        if status.pid is not None:
            os.kill(status.pid, signal.SIGKILL)
            await asyncio.sleep(self.rng.random())
            await asyncio.to_thread(self.stack.up)

    async def break_things(self, until: float) -> None:
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "crash": self.crash,
            "freeze": self.freeze,
            "postgres": lambda: self.kill_part("postgres"),
            "kafka": lambda: self.kill_part("kafka"),
        }
        while time.monotonic() < until:
            (name,) = self.rng.choices(list(acts), weights=[5, 3, 1, 1])
            self.done.append(name)
            await acts[name]()
            await asyncio.sleep(0.5 + self.rng.random())

    async def settled(self, seconds: float = 90) -> None:
        """Everything read and stored, everything stored published."""
        for _ in range(int(seconds * 5)):
            for name, child in self.running.items():
                if child.poll() is not None:
                    self.start(name)
            if await self._lag() == 0:
                await self.w.all_hinted(60)
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"not settled: lag {await self._lag()}")

    async def _lag(self) -> int:
        topic = self.w.topics.requests
        places = [TopicPartition(topic, p) for p in range(self.w.kafka.partitions)]
        async with reader(self.w.kafka, read_committed=True) as client:
            ends = await client.end_offsets(places)
        rows = await self.w.pool.fetch(
            "SELECT partition, next_offset FROM consumer_offset WHERE topic = $1", topic
        )
        stored = {row["partition"]: row["next_offset"] for row in rows}
        return sum(end - stored.get(tp.partition, 0) for tp, end in ends.items())


@pytest.mark.timeout(300 + SECONDS * 2)
async def test_crashes_lose_and_double_nothing(private_stack: Callable[..., Stack]) -> None:
    print(f"FL_CAMPAIGN_SEED={SEED}")
    stack = private_stack(components={"kafka", "postgres"})
    info = await asyncio.to_thread(stack.up)
    env = info.env | {"FL_KAFKA__TOPIC_PREFIX": "c.", "FL_KAFKA__GROUP_ID": "campaign"}
    await migrate(DatabaseSettings(dsn=env["FL_DATABASE__DSN"]))
    async with harness(env) as w:
        await apply_registry(w.pool, registry_file.parse(REGISTRY))
        campaign = RandomRun(w, stack, random.Random(SEED))
        campaign.start("a")
        campaign.start("b")
        try:
            until = time.monotonic() + SECONDS
            await asyncio.gather(campaign.feed(until), campaign.break_things(until))
            await campaign.settled()
        finally:
            for child in campaign.running.values():
                kill(child)
        print(len(campaign.sent), "requests;", campaign.done)
        await w.published_once()
        expected = {str(job): ["fl.job.queued.v1"] for job in campaign.sent}
        assert await words(w) == expected
        states = {seen.key for seen in await w.log(w.topics.job_state)}
        assert states == {str(job).encode() for job in campaign.sent}
