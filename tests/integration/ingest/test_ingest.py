"""The consumer on the real broker: each record once, whoever else reads, whatever a record holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from pydantic import SecretStr

from service.ingest.assignment import OffsetsLost
from service.ingest.consumer import Consumer
from service.ingest.dlq_limit import DlqLimitExceeded
from service.ingest.progress import ReadProgress
from service.kafka.clients import Producer, admin
from service.settings import DatabaseSettings, IngestSettings
from service.store.database import close_pool, open_pool
from service.store.queries import Queries
from tests.integration.ingest.harness import (
    HEADERS,
    LEDGER,
    DeliveryLog,
    consuming,
    produce,
    produce_with_a_broken_header,
    request,
)
from tests.integration.relay.harness import RelayHarness, harness, until


@pytest.fixture
async def w(fresh_env: dict[str, str]) -> AsyncIterator[RelayHarness]:
    async with harness(fresh_env) as made:
        await made.pool.execute(LEDGER)
        yield made


@pytest.fixture
def ledger(w: RelayHarness) -> DeliveryLog:
    return DeliveryLog(w.pool)


async def test_random_bytes_among_requests_cost_themselves_alone(
    w: RelayHarness, ledger: DeliveryLog
) -> None:
    noise = os.urandom(100_000)
    values: list[tuple[bytes, bytes | None]] = [
        (b"n", noise[i : i + 500]) for i in range(0, len(noise), 500)
    ]
    values += [(b"r", request()) for _ in range(300)]
    values += [(b"n", value) for value in (None, b"", b"[]", b'{"job_id": 7}')]
    await produce(w, values)
    async with consuming(w, ledger) as consumer:
        await ledger.wait_for(len(values))
        assert consumer.status.joined
    assert await ledger.kinds() == {None: 300, "Undecodable": 204}


async def test_a_poisonous_record_is_buried_alone(w: RelayHarness, ledger: DeliveryLog) -> None:
    values = [(b"%d" % n, request()) for n in range(600)]
    ledger.poison = {b"77", b"400"}
    await produce(w, values)
    async with consuming(w, ledger) as consumer:
        await ledger.wait_for(600)
        assert consumer.status.isolated == 2
    assert await ledger.kinds() == {None: 598, "ValueError": 2}


async def test_the_line_stops_and_the_offset_stays(w: RelayHarness, ledger: DeliveryLog) -> None:
    await produce(w, [(b"n", b"garbage")] * (1_200 * w.kafka.partitions))
    consumer = Consumer(ledger, w.outbox, w.kafka, IngestSettings())
    with pytest.raises(DlqLimitExceeded):
        await asyncio.wait_for(consumer.run(asyncio.Event()), 20)
    assert consumer.status.stopped
    assert not consumer.status.joined
    assert await ledger.total() < 1_000 * w.kafka.partitions
    stored = await w.pool.fetch("SELECT next_offset FROM consumer_offset")
    assert sum(row["next_offset"] for row in stored) == await ledger.total()
    before = await ledger.total()
    async with consuming(w, ledger, max_undecodable_ratio=0):
        await ledger.wait_for(1_200 * w.kafka.partitions)
    assert await ledger.total() > before


async def test_reports_that_break_their_contract_do_not_stop_the_line(
    w: RelayHarness, ledger: DeliveryLog
) -> None:
    """A net with a faulty release: its reports can be read, and are nobody else's trouble."""
    count = 1_200 * w.kafka.partitions
    await produce(w, [(b"n", b'{"job_id": 7}')] * count, reported=True)
    async with consuming(w, ledger) as consumer:
        await ledger.wait_for(count)
        assert consumer.status.dead_letters == count
    assert await ledger.kinds() == {"InvalidReport": count}
    await w.pool.execute(
        "INSERT INTO dead_letter SELECT topic, partition, \"offset\", 0, 'g', NULL, NULL, '', kind, '',"
        " now() FROM ledger"
    )
    assert await w.outbox.undecodable_since(w.topics.job_status, 0, 0) == 0


async def test_a_slow_store_pauses_the_consumer_and_keeps_its_membership(
    w: RelayHarness, ledger: DeliveryLog
) -> None:
    ledger.seconds = 3.0
    await produce(w, [(b"%d" % n, request()) for n in range(90)])
    async with consuming(w, ledger, max_batch_records=20) as consumer:
        await until(lambda: consumer.status.paused)
        beat = consumer.status.heartbeat
        await until(lambda: consumer.status.heartbeat > beat + 0.3)
        ledger.seconds = 0.0
        await ledger.wait_for(90)
        assert consumer.status.rebalances == 1
    assert max(ledger.sizes) <= 20


async def test_moved_offsets_are_read_again(w: RelayHarness, ledger: DeliveryLog) -> None:
    async with consuming(w, ledger) as consumer:
        await produce(w, [(b"a", request()) for _ in range(30)])
        await ledger.wait_for(30)
        await w.pool.execute(
            "UPDATE consumer_offset SET next_offset = 5 WHERE topic = $1", w.topics.requests
        )
        await w.pool.execute('DELETE FROM ledger WHERE "offset" >= 5')
        await produce(w, [(b"b", request()) for _ in range(30)])
        await ledger.wait_for(60)
        assert consumer.status.fenced >= 1
    assert await ledger.total() == 60


async def test_a_database_that_was_away_costs_nothing(w: RelayHarness, ledger: DeliveryLog) -> None:
    ledger.away = 2
    await produce(w, [(b"a", request()) for _ in range(50)])
    async with consuming(w, ledger) as consumer:
        await ledger.wait_for(50)
        assert consumer.status.errors >= 1
        assert consumer.status.isolated == 0
    assert await ledger.kinds() == {None: 50}


@pytest.fixture
async def limited(w: RelayHarness) -> AsyncIterator[DeliveryLog]:
    """Over the service's own pool: the server ends a session whose transaction idles for a second."""
    pool = await open_pool(DatabaseSettings(dsn=SecretStr(w.env["FL_DATABASE__DSN"])))
    yield DeliveryLog(pool)
    await close_pool(pool)


async def test_a_batch_that_the_database_will_not_wait_for_is_stored_in_pieces(
    w: RelayHarness, limited: DeliveryLog
) -> None:
    limited.judging = {b"slow": 0.02}
    await produce(w, [(b"slow", request()) for _ in range(200)])
    async with consuming(w, limited) as consumer:
        await limited.wait_for(200, 60)
        assert consumer.status.isolated == 0
    assert await limited.kinds() == {None: 200}


async def test_a_record_that_the_database_will_not_wait_for_is_buried_alone(
    w: RelayHarness, limited: DeliveryLog
) -> None:
    limited.judging = {b"endless": 1.3}
    values = [(b"a", request()) for _ in range(60)]
    values[17] = (b"endless", request())
    await produce(w, values)
    async with consuming(w, limited) as consumer:
        await limited.wait_for(60, 60)
        assert consumer.status.isolated == 1
    kinds = await limited.kinds()
    assert kinds.pop(None) == 59
    assert list(kinds.values()) == [1]


async def test_two_consumers_share_and_hand_over(w: RelayHarness, ledger: DeliveryLog) -> None:
    async with consuming(w, ledger) as first:
        await produce(w, [(b"a", request()) for _ in range(60)])
        await ledger.wait_for(60)
        async with consuming(w, ledger) as second:
            await until(lambda: second.status.joined)
            await produce(w, [(b"b", request()) for _ in range(60)])
            await ledger.wait_for(120)
        await produce(w, [(b"c", request()) for _ in range(60)])
        await ledger.wait_for(180)
        assert first.status.rebalances >= 2
    assert await ledger.total() == 180


async def test_offsets_come_from_the_database_after_a_restart(
    w: RelayHarness, ledger: DeliveryLog
) -> None:
    await produce(w, [(b"a", request()) for _ in range(30)])
    async with consuming(w, ledger):
        await ledger.wait_for(30)
    await produce(w, [(b"a", request()) for _ in range(30)])
    async with consuming(w, ledger):
        await ledger.wait_for(60)
    assert await ledger.total() == 60


async def test_a_lost_range_is_reported_not_skipped(w: RelayHarness, ledger: DeliveryLog) -> None:
    await produce(w, [(b"a", request()) for _ in range(30)])
    async with consuming(w, ledger):
        await ledger.wait_for(30)
    await produce(w, [(b"a", request()) for _ in range(30)])
    async with admin(w.kafka) as client:
        await client.delete_records(
            {TopicPartition(w.topics.requests, 0): RecordsToDelete(before_offset=-1)}
        )
    consumer = Consumer(ledger, w.outbox, w.kafka, IngestSettings())
    with pytest.raises(OffsetsLost, match="expired before they were read"):
        await asyncio.wait_for(consumer.run(asyncio.Event()), 20)


async def test_a_batch_closes_at_its_bytes(w: RelayHarness, ledger: DeliveryLog) -> None:
    big = b"x" * 100_000
    for _ in range(3):
        await produce(w, [(b"a", big) for _ in range(15)])
    async with consuming(w, ledger, max_batch_bytes=300_000):
        await ledger.wait_for(45)
    assert max(ledger.sizes) <= 3


async def test_a_header_name_that_is_no_text_costs_its_record_alone(
    w: RelayHarness, ledger: DeliveryLog
) -> None:
    await produce(w, [(b"a", request()) for _ in range(9)])
    await produce_with_a_broken_header(w, b"k", b"v")
    await produce(w, [(b"a", request()) for _ in range(9)])
    async with consuming(w, ledger):
        await ledger.wait_for(19)
    assert await ledger.kinds() == {None: 18, "Undecodable": 1}


async def test_offsets_pass_over_what_is_no_record(w: RelayHarness, ledger: DeliveryLog) -> None:
    """An aborted request must not train, and its place in the log is not a lost record."""
    producer = Producer(w.kafka, transactional_id=f"{w.kafka.topic_prefix}foreign")
    await producer.start()
    batch = producer.batch()
    batch.append(b"k", request(), HEADERS)
    await producer.begin()
    await producer.delivered([await producer.send(batch, w.topics.requests, 0)])
    await producer.discard()
    again = Producer(w.kafka, transactional_id=f"{w.kafka.topic_prefix}foreign")
    await again.start()
    await again.discard()
    async with consuming(w, ledger):
        for _ in range(100):
            at = await w.pool.fetchval("SELECT sum(next_offset) FROM consumer_offset")
            if at == 2:
                break
            await asyncio.sleep(0.1)
    assert at == 2
    assert await ledger.total() == 0


async def test_what_was_reported_counts_as_read_when_it_is_stored(
    w: RelayHarness, ledger: DeliveryLog
) -> None:
    reading = ReadProgress(Queries(w.pool), w.kafka)
    assert await reading.report_ends() is None
    async with consuming(w, ledger):
        await produce(w, [(b"m", b"a first report")], reported=True)
        await ledger.wait_for(1)
    ends = await reading.report_ends()
    assert ends is not None
    assert await reading.read_to(ends)
    await produce(w, [(b"m", b"another report")], reported=True)
    assert await reading.read_to(ends)
    later = await reading.report_ends()
    assert later is not None
    assert not await reading.read_to(later)
    async with consuming(w, ledger):
        await ledger.wait_for(2)
    assert await reading.read_to(later)
