"""A part of the process never ends without a word, whatever a client library does to its tasks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service import app as application
from service.errors import Transient
from service.ingest.consumer import Consumer
from service.kafka import clients


class _Leaking:
    """A client like aiokafka's when the broker is unavailable: its own task's cancellation comes out of
    `stop`."""

    def __init__(self) -> None:
        self.closed = False
        self.client = self

    async def stop(self) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await task

    async def close(self) -> None:
        self.closed = True


async def test_a_leaked_cancellation_does_not_end_the_task_that_throws_a_client_away() -> None:
    client: Any = _Leaking()
    await clients._discard(client, "consumer")
    assert client.closed


async def test_a_real_cancellation_still_ends_it() -> None:
    class Hanging(_Leaking):
        async def stop(self) -> None:
            await asyncio.sleep(60)

    client: Any = Hanging()
    task = asyncio.create_task(clients._discard(client, "consumer"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class _Connection:
    topic_prefix = ""
    group_id = "g"


async def test_ingest_comes_back_after_a_leaked_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none: Any = None
    connection: Any = _Connection()
    consumer = Consumer(none, none, connection, none)
    stop, turns = asyncio.Event(), []

    async def session(_: asyncio.Event) -> None:
        turns.append(1)
        if len(turns) == 1:
            raise asyncio.CancelledError
        stop.set()

    monkeypatch.setattr(consumer, "_session", session)
    await consumer.run(stop)
    assert len(turns) == 2
    assert consumer.status.errors == 1


async def test_a_part_that_just_ends_fails_the_process() -> None:
    class Owner:
        stop = asyncio.Event()
        failed: BaseException | None = None

    async def gone() -> None:
        raise asyncio.CancelledError

    owner: Any = Owner()
    tasks: dict[asyncio.Task[object], str] = {
        asyncio.create_task(gone()): "ingest",
        asyncio.create_task(asyncio.sleep(60)): "relay",
    }
    await application._watch(owner, dict(tasks))
    assert isinstance(owner.failed, Transient)
    assert "ingest" in str(owner.failed)
    for task in tasks:
        task.cancel()
