"""The second lane on the real broker: untouched, at least once, and no source held back by another."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from service.kafka.clients import admin
from service.relay.options import RelayOptions
from service.relay.side_publisher import SidePublisher
from service.store.outbox import encode_headers
from tests.integration.relay.harness import RelayHarness, harness, until


@pytest.fixture
async def w(fresh_env: dict[str, str]) -> AsyncIterator[RelayHarness]:
    async with harness(fresh_env) as made:
        yield made


@contextlib.asynccontextmanager
async def sending(w: RelayHarness, **options: Any) -> AsyncIterator[SidePublisher]:
    stop = asyncio.Event()
    lane = SidePublisher(w.outbox, w.kafka, RelayOptions(**options))
    task = asyncio.create_task(lane.run(stop))
    try:
        yield lane
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def bury(
    w: RelayHarness, topic: str, offset: int, value: bytes | None, key: bytes | None = b"k"
) -> None:
    await w.pool.execute(
        'INSERT INTO dead_letter (topic, partition, "offset", timestamp_ms, consumer_group, key,'
        " value, headers, kind, message, at)"
        " VALUES ($1, 1, $2, 1700000000000, 'g', $3, $4, $5, 'Undecodable', 'not JSON', now())",
        topic, offset, key, value, encode_headers([("x-own", b"\xff\x00"), ("empty", None)]),
    )  # fmt: skip


async def test_a_dead_letter_goes_out_untouched(w: RelayHarness) -> None:
    await bury(w, w.topics.requests, 7, b"\x00\xffgarbage")
    async with sending(w) as lane:
        await until(lambda: lane.status.dead_letters_sent == 1)
    (letter,) = await w.log(w.topics.dead_letters(w.topics.requests))
    assert (letter.key, letter.value) == (b"k", b"\x00\xffgarbage")
    assert letter.headers["x-own"] == b"\xff\x00"
    assert letter.headers["empty"] is None
    assert letter.headers["kafka_dlt-original-topic"] == w.topics.requests.encode()
    assert letter.headers["kafka_dlt-original-partition"] == b"1"
    assert letter.headers["kafka_dlt-original-offset"] == b"7"
    assert letter.headers["kafka_dlt-original-timestamp"] == b"1700000000000"
    assert letter.headers["kafka_dlt-original-consumer-group"] == b"g"
    assert letter.headers["kafka_dlt-exception-fqcn"] == b"Undecodable"
    assert letter.headers["kafka_dlt-exception-message"] == b"not JSON"
    assert await w.pool.fetchval("SELECT published_at IS NOT NULL FROM dead_letter")


async def test_one_too_large_for_its_topic_is_cut_and_says_so(w: RelayHarness) -> None:
    value = bytes(range(256)) * 8_000
    await bury(w, w.topics.requests, 1, value)
    await bury(w, w.topics.requests, 2, None, None)
    async with sending(w) as lane:
        await until(lambda: lane.status.dead_letters_sent == 2)
    big, empty = await w.log(w.topics.dead_letters(w.topics.requests))
    assert big.headers["fl-truncated"] == b"true"
    assert big.headers["fl-value-sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert big.value == value[: 64 * 1024]
    assert (empty.key, empty.value) == (None, None)


async def test_a_missing_topic_holds_nothing_else_back(w: RelayHarness) -> None:
    gone = w.topics.dead_letters(w.topics.requests)
    async with admin(w.kafka) as client:
        await client.delete_topics([gone])
    await bury(w, w.topics.requests, 1, b"a")
    await bury(w, w.topics.job_status, 1, b"b")
    job = uuid4()
    await w.pool.execute("INSERT INTO tombstone (job_id, at) VALUES ($1, now())", job)
    # A topic that is not there is looked for as long as the broker may take to answer.
    async with sending(w, broker_deadline=2) as lane:
        await until(lambda: lane.status.dead_letters_sent == 1, 30)
        await until(lambda: lane.status.tombstones_sent == 1)
        assert lane.status.side_publisher_errors
    (letter,) = await w.log(w.topics.dead_letters(w.topics.job_status))
    assert letter.value == b"b"
    (tombstone,) = await w.log(w.topics.job_state)
    assert (tombstone.key, tombstone.value) == (str(job).encode(), None)
    left = await w.pool.fetch("SELECT topic FROM dead_letter WHERE published_at IS NULL")
    assert [row["topic"] for row in left] == [w.topics.requests]


async def test_a_nets_newest_status_is_published_once(w: RelayHarness) -> None:
    await w.pool.execute(
        "INSERT INTO net (name, capacity, members, status_body, version)"
        " VALUES ('net-1', 1, '{}', '{\"name\": \"net-1\"}', 3)"
    )
    async with sending(w) as lane:
        await until(lambda: lane.status.net_status_sent == 1)
        await asyncio.sleep(0.5)
        await w.pool.execute("UPDATE net SET version = 4, status_body = '{\"online\": true}'")
        await until(lambda: lane.status.net_status_sent == 2)
    before, after = await w.log(w.topics.net_status)
    assert before.key == after.key == b"net-1"
    assert after.value == b'{"online": true}'
    assert before.headers["ce_id"] != after.headers["ce_id"]
    assert after.headers["ce_type"] == b"fl.net.status.v1"
    assert await w.pool.fetchval("SELECT published_version FROM net") == 4
