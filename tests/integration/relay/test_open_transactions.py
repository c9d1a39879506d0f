"""Somebody else's open transaction on the lifecycle topic: waited for, never read past, and told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from service.kafka.clients import Producer
from service.relay.hanging import HangingWatch, stable_offsets
from service.relay.options import RelayOptions
from service.relay.relay import Relay
from service.relay.status import Hanging
from tests.integration.relay.harness import RelayHarness, harness, some_states, until


@pytest.fixture
async def w(fresh_env: dict[str, str]) -> AsyncIterator[RelayHarness]:
    async with harness(fresh_env, partitions=1) as made:
        yield made


async def foreign(w: RelayHarness) -> Producer:
    """A producer of somebody else's; starting it anew aborts what the last one left open."""
    producer = Producer(w.kafka, transactional_id=f"{w.kafka.topic_prefix}foreign")
    await producer.start()
    return producer


async def leave_open(w: RelayHarness) -> None:
    producer = await foreign(w)
    batch = producer.batch()
    batch.append(b"x", b"y", [])
    await producer.begin()
    await producer.delivered([await producer.send(batch, w.topics.lifecycle, 0)])
    await producer.discard()


async def test_it_is_noticed_and_its_end_too(w: RelayHarness) -> None:
    await leave_open(w)
    assert await stable_offsets(w.kafka, w.topics.lifecycle, [0]) == {0: (0, 1)}
    found: dict[int, Hanging] = {}
    watch = HangingWatch(w.kafka, w.topics.lifecycle, [0], found, every=0.05, limit=0.3)
    task = asyncio.create_task(watch.run())
    await until(lambda: bool(found))
    assert (found[0].stable_offset, found[0].high_watermark) == (0, 1)
    await (await foreign(w)).discard()
    await until(lambda: not found)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_new_leader_waits_for_it(w: RelayHarness) -> None:
    stop = asyncio.Event()
    first = Relay(w.outbox, w.kafka, some_states, asyncio.Event())
    task = asyncio.create_task(first.run(stop))
    await w.give(40)
    await w.all_hinted()
    stop.set()
    await task
    await w.pool.execute("DELETE FROM checkpoint")
    await leave_open(w)
    await w.give(10)
    stop = asyncio.Event()
    options = RelayOptions(scan_deadline=0.5, pause_after_error=0.1)
    second = Relay(w.outbox, w.kafka, some_states, asyncio.Event(), options)
    task = asyncio.create_task(second.run(stop))
    await until(lambda: second.status.errors >= 2)
    assert "open transaction" in str(second.status.last_error)
    assert not second.status.leading
    await (await foreign(w)).discard()
    await w.all_hinted()
    stop.set()
    await task
    await w.published_once()
