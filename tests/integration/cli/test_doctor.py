"""`fl-jobs doctor` on real parts: every fault has its finding, with a fix that names the right thing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import registry as registry_command
from service.cli.doctor.checks import examine
from service.cli.doctor.finding import Finding
from service.ingest.progress import lag
from service.kafka.clients import Producer, consumer, discard_consumer, start_consumer
from service.kafka.topics import Topics, ensure_topics
from service.local import preparation
from service.local.stack import Stack
from service.settings import Settings, load
from service.store import registry as stored
from service.store.database import close_pool, open_pool
from tests.integration import log_segments
from tests.integration.store.harness import net, opened, registry
from tests.stack import RunningStack


@pytest.fixture
def settings(
    migrated_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Settings:
    for key, value in migrated_env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("FL_REGISTRY_FILE", raising=False)
    return load()


async def found(settings: Settings, part: str) -> list[Finding]:
    return [one async for one in examine(settings) if one.part == part]


async def test_settings_that_name_nothing(settings: Settings, tmp_path: Path) -> None:
    wrong = settings.model_copy(
        update={
            "registry_file": tmp_path / "none.yaml",
            "http": settings.http.model_copy(update={"host": "no-such-host.invalid"}),
            "relay_accept_log": True,
        }
    )
    findings = await found(wrong, "settings")
    states = {
        one.message.split(":")[0].split(" ")[0]: one.state
        for one in findings
        if "TEST" not in one.message
    }
    assert states == {
        "FL_REGISTRY_FILE": "failed",
        "FL_HTTP__HOST": "failed",
        "FL_RELAY_ACCEPT_LOG": "warning",
    }
    assert [one for one in await found(settings, "settings") if "TEST" not in one.message] == []


async def test_a_database_that_is_not_there_names_its_setting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = settings.database.dsn.get_secret_value()
    monkeypatch.setenv("FL_DATABASE__DSN", dsn.rpartition("/")[0] + "/no_such_database")
    (finding,) = await found(load(), "database")
    assert finding.state == "failed"
    assert "FL_DATABASE__DSN" in finding.message


async def test_nobody_reads_and_a_line_that_stands_still(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.doctor.consumer._STALL_SECONDS", 0.5)
    await ensure_topics(settings.kafka)
    (nobody,) = await found(settings, "consumer group")
    assert nobody.state == "warning", nobody
    assert "no members" in nobody.message
    assert "/readyz" in nobody.fix

    topic = Topics(settings.kafka.topic_prefix).requests
    await send(settings, topic, 3)
    pool = await open_pool(settings.database)
    await pool.execute(
        'INSERT INTO dead_letter (topic, partition, "offset", timestamp_ms, consumer_group, headers, '
        "kind, message, at) VALUES ($1, 0, 0, 0, 'g', '', 'Undecodable', 'bad', now())",
        topic,
    )
    await close_pool(pool)
    reader = consumer(settings.kafka, group_id=settings.kafka.group_id)
    reader.subscribe([topic])
    await start_consumer(reader)
    try:
        (standing,) = await found(settings, "consumer group")
    finally:
        await discard_consumer(reader)
    assert standing.state == "warning"
    assert f"{topic}/0 stands still: 3 records" in standing.message
    assert "does not move from 0: the records there can be read" in standing.message
    assert "fl-jobs dead-letters list" in standing.fix


async def test_a_partition_that_cannot_be_read_on_is_named_with_offset_and_cause(
    settings: Settings, stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stack.dir / "kafka" / "data"
    if not data.is_dir():
        pytest.skip("the broker's log is not on this machine")
    monkeypatch.setattr("service.cli.doctor.consumer._STALL_SECONDS", 0.5)
    await ensure_topics(settings.kafka)
    topics = Topics(settings.kafka.topic_prefix)
    await send(settings, topics.requests, 3)
    await send(settings, topics.job_status, 2)
    log_segments.damage_batch(data, topics.requests, 0, 0, log_segments.codec(6))
    log_segments.damage_batch(data, topics.job_status, 0, 0, log_segments.length(100_000))
    reader = consumer(settings.kafka, group_id=settings.kafka.group_id)
    reader.subscribe(list(topics.inbound))
    await start_consumer(reader)
    try:
        findings = await found(settings, "consumer group")
    finally:
        await discard_consumer(reader)
    told = sorted(one.message for one in findings)
    assert len(told) == 2
    assert f"{topics.job_status}/0 stands still" in told[0]
    assert "from 0: the broker hands over nothing at this offset" in told[0]
    assert f"{topics.requests}/0 stands still" in told[1]
    assert "from 0: its batch can't be read: UnsupportedCodecError" in told[1]


async def test_a_transaction_that_nobody_ends_on_an_inbound_topic_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.doctor.checks._OPEN_SECONDS", 0.2)
    await ensure_topics(settings.kafka)
    topic = Topics(settings.kafka.topic_prefix).requests
    producer = Producer(settings.kafka, transactional_id=f"{topic}.foreign")
    await producer.start()
    try:
        batch = producer.batch()
        batch.append(None, b"x", [])
        await producer.begin()
        await producer.delivered([await producer.send(batch, topic, 1)])
        findings = await found(settings, "topics")
    finally:
        await producer.discard()
    assert [one.message for one in findings if one.state == "warning"] == [
        f"{topic}/1: readers wait at offset 0 for a transaction to end"
    ]


async def send(settings: Settings, topic: str, count: int) -> None:
    producer = Producer(settings.kafka)
    await producer.start()
    batch = producer.batch()
    for _ in range(count):
        batch.append(None, b"x", [])
    await producer.delivered([await producer.send(batch, topic, 0)])
    await producer.discard()


def test_lag_counts_from_the_offset_or_the_start_of_the_log() -> None:
    ends = {("a", 0): (5, 9), ("a", 1): (0, 4), ("a", 2): (0, 0)}
    assert lag({("a", 1): 4}, ends) == {("a", 0): 4}


async def test_places_that_nothing_frees(
    migrated_env: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    two = registry(nets=[net("net-1", 1), net("net-2", 1)])
    async with opened(migrated_env, two) as w:
        job_ids = [await w.ask(), await w.ask()]
        for job_id, where in zip(job_ids, ("net-1", "net-2"), strict=True):
            await w.pool.execute(
                "INSERT INTO reservation (job_id, attempt, net, state, run_id, in_doubt) "
                "VALUES ($1, 1, $2, 'quarantined', 'run-9', false)",
                job_id,
                where,
            )
        await w.pool.execute("UPDATE job SET changed_at = now() - interval '2 hours'")
        left = tmp_path / "left.yaml"
        left.write_text(yaml.safe_dump(registry(nets=[net("net-1", 1)])))
        applied = await registry_command.apply_file(settings, left)
        held = applied["held_on_removed_nets"]
        assert (applied["version"], applied["changed"]) == (2, True)
        assert [(slot["net"], slot["job_id"]) for slot in held] == [("net-2", str(job_ids[1]))]
        json.dumps(held)
        findings = [one async for one in examine(settings)]
    (gone,) = [one for one in findings if one.part == "net net-2"]
    assert gone.state == "warning"  # its run is followed to its end all the same
    assert str(job_ids[1]) in gone.message
    assert "it drains until that run is over" in gone.message
    assert f"fl-jobs nets release {job_ids[1]}" in gone.fix
    (long,) = [one for one in findings if one.part == "net net-1" and "120 minutes" in one.message]
    assert f"fl-jobs nets release {job_ids[0]}" in long.fix


async def test_a_net_that_cannot_list_its_jobs_is_named(
    migrated_env: dict[str, str], settings: Settings
) -> None:
    server = await asyncio.start_server(half_an_adapter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    broken = net("net-1", 1) | {"endpoint": f"http://127.0.0.1:{port}"}
    async with opened(migrated_env, registry(nets=[broken])):
        findings = [one async for one in examine(settings)]
    server.close()
    told = [one for one in findings if one.part == "net net-1" and one.state == "failed"]
    assert any("list its jobs" in one.message for one in told), told


async def test_a_net_that_cannot_reach_the_store_by_its_urls_is_warned_of(
    migrated_env: dict[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def warned(settings: Settings) -> list[Finding]:
        findings = [one async for one in examine(settings)]
        return [one for one in findings if one.part == "net net-1" and "URLs" in one.message]

    server = await asyncio.start_server(half_an_adapter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    there = net("net-1", 1) | {"endpoint": f"http://127.0.0.1:{port}"}
    seen = {"s3": settings.s3.model_copy(update={"presign_endpoint_url": "http://192.0.2.1:8333"})}
    async with opened(migrated_env, registry(nets=[there])):
        assert await warned(settings) == []
        monkeypatch.setattr("service.cli.doctor.reach._is_here", lambda address: False)
        (finding,) = await warned(settings)
        assert finding.state == "warning"
        assert "FL_S3__PRESIGN_ENDPOINT_URL" in finding.fix
        assert await warned(settings.model_copy(update=seen)) == []
    server.close()


async def half_an_adapter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Well in all but `list_jobs`."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    path = head.split(" ")[1].split("?")[0]
    body: Any = {
        "/health": {"status": "ok", "extensions": ["flip.reports.v1"]},
        "/check_server_status": {"status": "running"},
        "/check_client_status": [],
    }.get(path, {"detail": "boom"})
    status = "500 Internal Server Error" if path.startswith("/list_jobs") else "200 OK"
    text = json.dumps(body).encode()
    writer.write(
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n"
        "connection: close\r\n\r\n".encode()
        + text
    )
    await writer.drain()
    writer.close()


async def test_a_repair_does_not_take_back_what_the_operator_applied(
    settings: Settings, tmp_path: Path
) -> None:
    stack = Stack(tmp_path / "stack", environ={})
    (tmp_path / "stack").mkdir()
    ours = tmp_path / "stack" / "registry.yaml"
    ours.write_text(yaml.safe_dump(registry()))
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(yaml.safe_dump(registry(nets=[net("net-1", 7)])))

    async def capacity() -> int:
        pool = await open_pool(settings.database)
        try:
            return int((await stored.show(pool))[1]["nets"][0]["capacity"])
        finally:
            await close_pool(pool)

    await preparation._apply_registry(settings.database, ours, stack)
    assert await capacity() == 2
    await stored.apply_registry_file(settings.database, theirs)
    await preparation._apply_registry(settings.database, ours, stack)
    assert await capacity() == 7
    ours.write_text(yaml.safe_dump(registry(nets=[net("net-1", 3)])))
    await preparation._apply_registry(settings.database, ours, stack)
    assert await capacity() == 3
