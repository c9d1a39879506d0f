"""What a client can't decode costs its own batch: everything before, behind and beside it takes effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from service.kafka.clients import Producer, admin
from service.kafka.read import tail
from tests.integration import log_segments as damage
from tests.integration.ingest.harness import (
    HEADERS,
    LEDGER,
    DeliveryLog,
    consuming,
    produce,
    request,
)
from tests.integration.relay.harness import RelayHarness, harness, until
from tests.stack import RunningStack

PER_BATCH = 4
STRANGE = [("AAAA", b"1"), *HEADERS]


@pytest.fixture
async def w(fresh_env: dict[str, str]) -> AsyncIterator[RelayHarness]:
    async with harness(fresh_env) as made:
        await made.pool.execute(LEDGER)
        yield made


@pytest.fixture
def ledger(w: RelayHarness) -> DeliveryLog:
    return DeliveryLog(w.pool)


@pytest.fixture
def data(stack: RunningStack) -> Path:
    """The broker's own folder."""
    found = stack.dir / "kafka" / "data"
    if not found.is_dir():
        pytest.skip("the broker's log is not on this machine")
    return found


async def batches(w: RelayHarness, count: int, headers: list[tuple[str, bytes]] = HEADERS) -> None:
    """Batches of four requests on partition 0."""
    producer = Producer(w.kafka)
    await producer.start()
    try:
        for _ in range(count):
            batch = producer.batch()
            for n in range(PER_BATCH):
                batch.append(b"%d" % n, request(), headers if n == 1 else HEADERS)
            await producer.delivered([await producer.send(batch, w.topics.requests, 0)])
    finally:
        await producer.discard()


async def dead(w: RelayHarness) -> list[tuple[int, str]]:
    rows = await w.pool.fetch('SELECT "offset", kind FROM ledger WHERE kind IS NOT NULL ORDER BY 1')
    return [(row["offset"], row["kind"]) for row in rows]


async def stored(w: RelayHarness) -> int:
    return int(
        await w.pool.fetchval(
            "SELECT next_offset FROM consumer_offset WHERE topic = $1 AND partition = 0",
            w.topics.requests,
        )
    )


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_that_a_client_offers_is_read(
    w: RelayHarness, ledger: DeliveryLog, compression: str
) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=w.kafka.bootstrap_servers, compression_type=compression, linger_ms=20
    )
    await producer.start()
    sent = [
        await producer.send(w.topics.requests, request(), b"k", 0, headers=HEADERS)
        for _ in range(300)
    ]
    for each in sent:
        await each
    await producer.stop()
    async with consuming(w, ledger) as consumer:
        await ledger.wait_for(300)
        assert consumer.status.unreadable == 0
    assert await ledger.kinds() == {None: 300}


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_the_broker_compresses_anew_is_read(
    w: RelayHarness, ledger: DeliveryLog, compression: str
) -> None:
    async with admin(w.kafka) as client:
        await client.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC,
                    w.topics.requests,
                    configs={"compression.type": compression},
                )
            ]
        )
    await produce(w, [(b"k", request()) for _ in range(300)])
    async with consuming(w, ledger) as consumer:
        await ledger.wait_for(300)
        assert consumer.status.unreadable == 0
    assert await ledger.kinds() == {None: 300}


WHOLE_BATCH = {
    "a checksum that does not fit": damage.checksum,
    **{f"compression {n} that it is not": damage.codec(n) for n in range(1, 8)},
    "a record longer than its batch": damage.sealed(damage.record_length),
    "a record longer than its batch, and a bad checksum": damage.record_length,
    "a negative number of records": damage.count(-1),
}


@pytest.mark.parametrize("what", WHOLE_BATCH)
async def test_a_batch_that_cannot_be_decoded_costs_itself_alone(
    w: RelayHarness, ledger: DeliveryLog, data: Path, what: str
) -> None:
    await batches(w, 3)
    await produce(w, [(b"beside", request()) for _ in range(30)])
    damage.damage_batch(data, w.topics.requests, 0, 1, WHOLE_BATCH[what])
    async with consuming(w, ledger) as consumer:
        await ledger.wait_for(2 * PER_BATCH + 1 + 30)
        await batches(w, 1)
        await ledger.wait_for(3 * PER_BATCH + 1 + 30)
        assert consumer.status.unreadable == 1
        assert consumer.status.stuck == {}
        assert consumer.status.errors == 0
    assert await dead(w) == [(PER_BATCH, "Unreadable")]


async def test_the_first_and_many_batches_that_cannot_be_decoded(
    w: RelayHarness, ledger: DeliveryLog, data: Path
) -> None:
    await batches(w, 20)
    for nth in range(0, 20, 2):
        damage.damage_batch(data, w.topics.requests, 0, nth, damage.codec(5))
    async with consuming(w, ledger):
        await ledger.wait_for(10 + 10 * PER_BATCH)
    assert await stored(w) == 20 * PER_BATCH


async def test_the_last_batch_of_a_log_that_cannot_be_decoded(
    w: RelayHarness, ledger: DeliveryLog, data: Path
) -> None:
    await batches(w, 2)
    damage.damage_batch(data, w.topics.requests, 0, 1, damage.codec(7))
    async with consuming(w, ledger):
        await ledger.wait_for(PER_BATCH + 1)
    assert await stored(w) == 2 * PER_BATCH


async def test_only_the_record_with_a_strange_header_name_is_buried(
    w: RelayHarness, ledger: DeliveryLog, data: Path
) -> None:
    """Its neighbours in the same batch are read: the name is the record's own trouble."""
    await batches(w, 1)
    await batches(w, 1, STRANGE)
    await batches(w, 1)
    damage.damage_batch(data, w.topics.requests, 0, 1, damage.text(b"AAAA", b"\xff\xfe\xfd\xfc"))
    async with consuming(w, ledger):
        await ledger.wait_for(3 * PER_BATCH)
    assert await dead(w) == [(PER_BATCH + 1, "Undecodable")]


async def test_a_partition_that_cannot_be_read_on_is_named_and_holds_up_no_other(
    w: RelayHarness, ledger: DeliveryLog, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ingest.consumer._LOOK_SECONDS", 0.2)
    monkeypatch.setattr("service.ingest.unreadable._AGAIN_SECONDS", 0.5)
    await batches(w, 3)
    damage.damage_batch(data, w.topics.requests, 0, 1, damage.length(1_000_000))
    async with consuming(w, ledger) as consumer:
        await until(lambda: (w.topics.requests, 0) in consumer.status.stuck)
        assert f"{w.topics.requests}/0 at offset {PER_BATCH}" in str(consumer.status.trouble)
        await produce(w, [(b"beside", request()) for _ in range(30)])
        await ledger.wait_for(PER_BATCH + 20)
        assert consumer.status.errors == 0
        damage.damage_batch(data, w.topics.requests, 0, 1, damage.length(-1_000_000))
        await ledger.wait_for(3 * PER_BATCH + 30)
        assert consumer.status.stuck == {}
        assert consumer.status.trouble is None


async def test_people_who_follow_a_topic_see_all_that_can_be_read(
    w: RelayHarness, data: Path
) -> None:
    await batches(w, 3)
    await batches(w, 1, STRANGE)
    damage.damage_batch(data, w.topics.requests, 0, 1, damage.codec(5))
    damage.damage_batch(data, w.topics.requests, 0, 3, damage.text(b"AAAA", b"\xff\xfe\xfd\xfc"))
    seen = [
        record.offset
        async for record in tail(w.kafka, w.topics.requests, from_start=True, follow=False)
    ]
    assert seen == [*range(PER_BATCH), *range(2 * PER_BATCH, 4 * PER_BATCH)]


async def test_an_open_transaction_is_no_damage(
    w: RelayHarness, ledger: DeliveryLog, data: Path
) -> None:
    """What lies behind it waits for it, and is not called unreadable."""
    await batches(w, 2)
    damage.damage_batch(data, w.topics.requests, 0, 1, damage.codec(5))
    producer = Producer(w.kafka, transactional_id=f"{w.kafka.topic_prefix}foreign")
    await producer.start()
    try:
        await producer.begin()
        for number in (0, 1):
            batch = producer.batch()
            batch.append(b"k", request(), HEADERS)
            await producer.delivered([await producer.send(batch, w.topics.requests, number)])
        async with consuming(w, ledger) as consumer:
            await ledger.wait_for(PER_BATCH + 1)
            assert consumer.status.stuck == {}
            await producer.commit()
            await ledger.wait_for(PER_BATCH + 3)
    finally:
        await producer.discard()
