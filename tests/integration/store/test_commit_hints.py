"""Hints between processes: what one commits, another learns at once; polling stays for what gets lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from service.contracts.inbound.stop import STOP_REQUESTED as STOP
from service.settings import DatabaseSettings
from service.store.commit_hints import CommitHints, Hint, hints_of
from tests.integration.store.harness import net, opened, registry


class Process:
    """One process's hints, and what it received from others."""

    def __init__(self, dsn: str) -> None:
        self.received: list[frozenset[Hint]] = []
        self.woken = asyncio.Event()
        settings = DatabaseSettings(dsn=SecretStr(dsn), command_timeout_seconds=5)
        self.hints = CommitHints(settings, self._receive)

    def _receive(self, hints: frozenset[Hint]) -> None:
        self.received.append(hints)
        self.woken.set()

    async def next(self, wanted: Hint, seconds: float = 10) -> float:
        """Wait for this hint; how long it took."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while not any(wanted in hints for hints in self.received):
                self.woken.clear()
                await self.woken.wait()
        self.received.clear()
        return time.monotonic() - began


@asynccontextmanager
async def two(dsn: str) -> AsyncIterator[tuple[Process, Process]]:
    stop = asyncio.Event()
    both = Process(dsn), Process(dsn)
    tasks = [asyncio.create_task(one.hints.run(stop)) for one in both]
    try:
        for one in both:  # connecting is a hint of everything: something may have been missed
            await one.next(Hint.EVENTS)
        yield both
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)


async def test_another_process_learns_of_a_stop_at_once(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w, two(migrated_env["FL_DATABASE__DSN"]) as (one, other):
        w.store.listeners.append(lambda committed: one.hints.publish(hints_of(committed)))
        took = []
        for _ in range(10):
            job_id = await w.ask()
            await other.next(Hint.READY)
            model = await w.pool.fetchval("SELECT model_id FROM job WHERE job_id = $1", job_id)
            await w.tell(STOP, {"model_id": str(model)})
            took.append(await other.next(Hint.MODEL_STOPS))
        assert sorted(took)[5] < 0.05
        assert one.received == []  # its own commits woke it already


async def test_a_new_registry_is_a_hint(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w, two(migrated_env["FL_DATABASE__DSN"]) as (one, other):
        await w.register(registry(nets=[net("net-1", 3)]))
        await asyncio.gather(one.next(Hint.REGISTRY), other.next(Hint.REGISTRY))


async def test_many_commits_are_one_hint(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env), two(migrated_env["FL_DATABASE__DSN"]) as (one, other):
        for _ in range(200):
            one.hints.publish({Hint.READY})
            await asyncio.sleep(0)
        await other.next(Hint.READY)
        await asyncio.sleep(0.2)
        assert len(other.received) <= 5


async def test_a_lost_connection_is_a_hint_of_everything(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w, two(migrated_env["FL_DATABASE__DSN"]) as (one, other):
        ended = await w.pool.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'fl-job-service hints' AND datname = current_database()"
        )
        assert ended == 2
        await asyncio.gather(one.next(Hint.STOPPING), other.next(Hint.STOPPING))
        one.hints.publish({Hint.COLLECTING})
        await other.next(Hint.COLLECTING)
