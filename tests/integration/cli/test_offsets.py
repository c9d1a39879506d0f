"""`fl-jobs offsets` on the real broker and database: a gap is shown, accepted once, and read over."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from service.cli.doctor.consumer import consumer_findings
from service.cli.doctor.finding import Finding
from service.kafka.clients import admin
from service.settings import load
from service.store.queries import Queries
from tests.integration.ingest.harness import LEDGER, DeliveryLog, consuming, produce, request
from tests.integration.relay.harness import RelayHarness, harness


@pytest.fixture
async def w(fresh_env: dict[str, str]) -> AsyncIterator[RelayHarness]:
    async with harness(fresh_env) as made:
        await made.pool.execute(LEDGER)
        yield made


@pytest.fixture
def ledger(w: RelayHarness) -> DeliveryLog:
    return DeliveryLog(w.pool)


async def offsets(env: dict[str, str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command, with nobody to ask."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "offsets", *words),
        env={**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def rows(env: dict[str, str]) -> dict[tuple[str, int], dict[str, Any]]:
    code, out, err = await offsets(env, "list", "--json")
    assert code == 0, err
    return {(row["topic"], row["partition"]): row for row in json.loads(out)}


async def lose_a_range(w: RelayHarness, ledger: DeliveryLog) -> tuple[int, int]:
    """Partition 0 of the requests: read, written on, and emptied unread. The stored offset, the start."""
    await produce(w, [(b"a", request()) for _ in range(30)])
    async with consuming(w, ledger):
        await ledger.wait_for(30)
    await produce(w, [(b"a", request()) for _ in range(30)])
    here = TopicPartition(w.topics.requests, 0)
    async with admin(w.kafka) as client:
        await client.delete_records({here: RecordsToDelete(before_offset=-1)})
    count = 30 // w.kafka.partitions
    return count, 2 * count


async def _doctor(w: RelayHarness, env: dict[str, str]) -> AsyncIterator[Finding]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in env.items():
            patch.setenv(key, value)
        settings = load()
    counts = dict.fromkeys(w.topics.inbound, w.kafka.partitions)
    async for finding in consumer_findings(settings, Queries(w.pool), counts):
        yield finding


async def test_a_lost_range_is_listed_accepted_and_read_over(
    w: RelayHarness, ledger: DeliveryLog, fresh_env: dict[str, str]
) -> None:
    stored, start = await lose_a_range(w, ledger)
    here = (w.topics.requests, 0)
    gaps = {at: row for at, row in (await rows(fresh_env)).items() if row["gap"]}
    assert list(gaps) == [here]
    assert (gaps[here]["next_offset"], gaps[here]["log_start"]) == (stored, start)
    failed = [one async for one in _doctor(w, fresh_env) if one.state == "failed"]
    assert [f"offsets accept {here[0]}/0" in str(one.fix) for one in failed] == [True]
    code, out, err = await offsets(fresh_env, "accept", f"{here[0]}/0", "--yes", "--json")
    assert code == 0, err
    entry = {"topic": here[0], "partition": 0, "from": stored, "to": start, "lost": start - stored}
    assert json.loads(out) == {"accepted": [entry]}
    assert [row for row in (await rows(fresh_env)).values() if row["gap"]] == []
    before = await ledger.total()
    others = 30 - (start - stored)
    await produce(w, [(b"b", request()) for _ in range(30)])
    async with consuming(w, ledger):
        await ledger.wait_for(before + others + 30)


async def test_nothing_moves_without_a_yes_or_without_a_gap(
    w: RelayHarness, ledger: DeliveryLog, fresh_env: dict[str, str]
) -> None:
    await lose_a_range(w, ledger)
    before = await rows(fresh_env)
    code, _, err = await offsets(fresh_env, "accept", "--all")
    assert code == 1
    assert "expired before they were read" in err
    assert "--yes" in err
    code, _, err = await offsets(fresh_env, "accept", f"{w.topics.requests}/1", "--yes")
    assert code == 1
    assert "has no gap" in err
    code, _, err = await offsets(fresh_env, "accept", "no-topic/7", "--yes")
    assert code == 1
    assert "not a partition of the inbound topics" in err
    assert await rows(fresh_env) == before


async def test_a_topic_made_anew_is_read_from_its_start(
    w: RelayHarness, ledger: DeliveryLog, fresh_env: dict[str, str]
) -> None:
    await produce(w, [(b"a", request()) for _ in range(30)])
    async with consuming(w, ledger):
        await ledger.wait_for(30)
    await w.pool.execute("UPDATE consumer_offset SET next_offset = 5000 WHERE partition = 0")
    await w.pool.execute("DELETE FROM ledger WHERE partition = 0")
    code, out, err = await offsets(fresh_env, "accept", "--all", "--yes")
    assert code == 0, err
    assert "start the service again" in out
    async with consuming(w, ledger):
        await ledger.wait_for(30)
