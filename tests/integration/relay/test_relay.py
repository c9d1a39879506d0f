"""The relay on the real broker: every event once and in order, whoever dies, and stops that a person ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from service.contracts.wire.partitioner import partition_for
from service.kafka.clients import admin
from service.relay.halted import RelayHalted
from service.relay.options import RelayOptions
from service.relay.records import StateRecord
from service.relay.relay import Relay
from tests.integration.relay.harness import RelayHarness, harness, kill, some_states, until


@pytest.fixture
async def w(fresh_env: dict[str, str]) -> AsyncIterator[RelayHarness]:
    async with harness(fresh_env) as made:
        yield made


@contextlib.asynccontextmanager
async def relaying(w: RelayHarness, **options: Any) -> AsyncIterator[Relay]:
    wake, stop = asyncio.Event(), asyncio.Event()
    relay = Relay(w.outbox, w.kafka, some_states, wake, RelayOptions(**options))
    task = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def stopped(w: RelayHarness) -> RelayHalted:
    """What stops a relay that runs until it is stopped."""
    relay = Relay(w.outbox, w.kafka, some_states, asyncio.Event())
    with pytest.raises(RelayHalted) as caught:
        await asyncio.wait_for(relay.run(asyncio.Event()), 15)
    assert "--accept-log" in caught.value.message
    assert not relay.status.leading
    return caught.value


async def test_events_come_out_in_order_with_their_states(w: RelayHarness) -> None:
    async with relaying(w, batch_events=7):
        jobs = await w.give(50)
        await w.give(30, jobs[:3])
        await w.all_hinted()
    await w.published_once()
    first = (await w.log(w.topics.lifecycle))[0]
    assert first.headers["ce_type"] == b"fl.job.queued.v1"
    assert first.headers["ce_subject"] == first.key
    assert first.headers["ce_correlationid"] == b"request-1"
    assert first.headers["fl_stream"] == str(w.stream.id).encode()
    states = await w.log(w.topics.job_state)
    assert {seen.key for seen in states} == {str(job).encode() for job in jobs}
    assert {seen.headers["ce_type"] for seen in states} == {b"fl.job.state.v1"}


@pytest.mark.parametrize(
    "point",
    ["relay_after_init", "relay_before_commit", "relay_after_commit", "relay_after_checkpoint"],
)
async def test_a_crash_loses_and_doubles_nothing(w: RelayHarness, point: str) -> None:
    jobs = await w.give(100)
    process = w.process(point)
    try:
        assert await asyncio.to_thread(process.wait, 20) == 137
    finally:
        kill(process)
    await w.give(30, jobs)
    async with relaying(w):
        await w.all_hinted()
    await w.published_once()


async def test_a_second_relay_takes_over_from_a_killed_one(w: RelayHarness) -> None:
    processes = [w.process(), w.process()]
    try:
        for process in processes:
            jobs = await w.give(200)
            await w.all_hinted()
            await w.give(100, jobs)
            kill(process)
        async with relaying(w):
            await w.all_hinted()
    finally:
        for process in processes:
            kill(process)
    await w.published_once()


async def test_a_stopped_relay_that_wakes_writes_nothing(w: RelayHarness) -> None:
    zombie = w.process()
    try:
        await w.give(60)
        await w.all_hinted()
        os.kill(zombie.pid, signal.SIGSTOP)
        await w.give(60)
        async with relaying(w):
            await w.all_hinted()
            os.kill(zombie.pid, signal.SIGCONT)
            for _ in range(10):
                await w.give(5)
                await asyncio.sleep(0.1)
            await w.all_hinted()
            assert zombie.poll() is None
    finally:
        kill(zombie)
    await w.published_once()


async def test_an_older_database_stops_it_until_the_log_is_accepted(w: RelayHarness) -> None:
    async with relaying(w):
        await w.give(90)
        await w.all_hinted()
    heads = await w.heads()
    await w.pool.execute("DELETE FROM event WHERE position > 10")
    await w.pool.execute("UPDATE head SET position = 10")
    await w.pool.execute("UPDATE checkpoint SET position = 10, log_offset = 10")
    assert (await stopped(w)).code in ("relay_older_database", "relay_log_gap")
    async with relaying(w, accept_log=True) as relay:
        await until(lambda: relay.status.leading)
        assert await w.heads() == heads
        await w.give(9)
        await w.all_hinted()
    await w.published_once()


async def test_another_databases_events_stop_it(w: RelayHarness) -> None:
    async with relaying(w):
        await w.give(10)
        await w.all_hinted()
    await w.pool.execute("UPDATE stream SET id = $1", uuid4())
    await w.pool.execute("DELETE FROM checkpoint")
    assert (await stopped(w)).code == "relay_foreign_stream"


async def test_another_number_of_partitions_stops_it(w: RelayHarness) -> None:
    await w.pool.execute("UPDATE stream SET partitions = 4")
    assert (await stopped(w)).code == "relay_partitions_changed"


async def test_a_quiet_partition_whose_records_expired_goes_on(w: RelayHarness) -> None:
    async with relaying(w):
        await w.give(30)
        await w.all_hinted()
    async with admin(w.kafka) as client:
        await client.delete_records(
            {
                TopicPartition(w.topics.lifecycle, p): RecordsToDelete(before_offset=-1)
                for p in range(w.stream.partitions)
            }
        )
    async with relaying(w) as relay:
        await until(lambda: relay.status.leading)
        await w.give(30)
        await w.all_hinted()
    seen = [record.position for record in await w.log(w.topics.lifecycle)]
    assert len(seen) == 30


async def test_the_lease_passes_in_turn(w: RelayHarness) -> None:
    async with relaying(w) as first, relaying(w) as second:
        await w.give(20)
        await w.all_hinted()
        assert [first.status.leading, second.status.leading].count(True) == 1


async def test_a_record_that_the_broker_never_takes_stops_it_by_name(w: RelayHarness) -> None:
    (job,) = await w.give(1)
    async with relaying(w):
        await w.all_hinted()
    await w.give(1, [job])
    await w.pool.execute("UPDATE event SET body = repeat('y', 1048600) WHERE position = 2")
    place = partition_for(str(job).encode(), w.stream.partitions)
    relay = Relay(w.outbox, w.kafka, some_states, asyncio.Event())
    with pytest.raises(RelayHalted) as caught:
        await asyncio.wait_for(relay.run(asyncio.Event()), 15)
    assert caught.value.code == "relay_too_large"
    told = f"topic {w.topics.lifecycle}, partition {place}: "
    assert caught.value.message.startswith(told)
    assert "position 2." in caught.value.message
    assert "max.message.bytes" in caught.value.message
    assert len(await w.log(w.topics.lifecycle)) == 1
    await set_largest(w, w.topics.lifecycle, 2_000_000)
    async with relaying(w):
        await w.all_hinted()
    await w.published_once()


async def test_topics_that_take_less_get_smaller_batches_and_states_cut_to_size(
    w: RelayHarness,
) -> None:
    for topic in (w.topics.lifecycle, w.topics.job_state):
        await set_largest(w, topic, 40_000)
    large = json.dumps({"state": "queued", "progress": {"metrics": ["y" * 60_000]}}).encode()

    async def states(job_ids: Sequence[UUID]) -> dict[UUID, StateRecord]:
        return {job: (str(job).encode(), large, 1) for job in job_ids}

    wake, stop = asyncio.Event(), asyncio.Event()
    relay = Relay(w.outbox, w.kafka, states, wake)
    await w.give(500)
    task = asyncio.create_task(relay.run(stop))
    await w.all_hinted()
    stop.set()
    await asyncio.wait_for(task, 20)
    await w.published_once()
    told = json.loads((await w.log(w.topics.job_state))[0].value or b"")
    assert told == {
        "state": "queued",
        "progress": {"metrics": []},
        "truncated": ["progress.metrics"],
    }


async def test_a_limit_that_is_lowered_under_a_relay_ends_with_smaller_batches(
    w: RelayHarness,
) -> None:
    async with relaying(w) as relay:
        await w.give(1)
        await w.all_hinted()
        await set_largest(w, w.topics.lifecycle, 40_000)
        await asyncio.sleep(1)
        await w.give(500)
        await w.all_hinted()
        assert relay.status.errors >= 1
    await w.published_once()


async def set_largest(w: RelayHarness, topic: str, size: int) -> None:
    async with admin(w.kafka) as client:
        kind = ConfigResourceType.TOPIC
        await client.alter_configs([ConfigResource(kind, topic, {"max.message.bytes": str(size)})])
