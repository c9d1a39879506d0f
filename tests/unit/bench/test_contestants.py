"""What the measurements feed in is what the service takes, and the baselines do the service's work."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime

import pytest

from bench import rows
from bench.requests import request, uuids
from bench.tcp_proxy import tcp_proxy
from service.contracts.inbound import translation
from service.contracts.inbound.training import TrainingRequested
from service.contracts.outbound.state import StateData
from service.contracts.wire.partitioner import partition_for
from service.domain.commands import RequestTraining
from service.store import jobs


def test_every_request_is_valid_and_has_ten_fields_or_more() -> None:
    ids = uuids(3)
    for number in range(30):
        key, value, headers = request(next(ids), next(ids), number)
        envelope, command = translation.read(key, value, headers)
        assert isinstance(command, RequestTraining)
        assert key == str(command.job_id).encode()
        assert len(envelope.data) >= 10


def test_ids_are_the_same_for_the_same_seed_only() -> None:
    first, again, other = uuids(1), uuids(1), uuids(2)
    found = [next(first) for _ in range(5)]
    assert found == [next(again) for _ in range(5)]
    assert found != [next(other) for _ in range(5)]
    assert len(set(found)) == 5


def test_a_rival_writes_the_services_columns_and_records() -> None:
    ids = uuids(4)
    key, value, _ = request(next(ids), next(ids), 1)
    asked = TrainingRequested.model_validate_json(value)
    place = partition_for(key, 12)
    taken = rows.take(asked, value, "id-1", "/hub", datetime.now(UTC), place, 9)
    assert set(rows.JOB_COLUMNS) <= set(jobs.NAMES)
    assert len(taken.job) == len(rows.JOB_COLUMNS)
    assert len(taken.event) == len(rows.EVENT_COLUMNS)
    assert len(taken.ready) == len(rows.READY_COLUMNS)
    StateData.model_validate(json.loads(taken.state))
    for record in (taken.lifecycle, taken.state):
        assert json.loads(record)["job_id"] == key.decode()
        assert b"cohort_query" not in record


async def test_the_gate_tells_when_a_submit_came_and_changes_nothing() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(65_536))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    received: list[bytes] = []
    job = "5b1c0f3e-0d6a-4c5f-9a37-2f6a1f0e7a01"
    sent = f"POST /submit_job/x HTTP/1.1\r\nhost: h\r\nFL-Job-Id: {job}\r\n\r\n".encode()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, tcp_proxy() as before:
        before.target = ("127.0.0.1", server.sockets[0].getsockname()[1])
        host, _, port = before.url.rpartition("/")[2].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        began = time.monotonic()
        writer.write(sent)
        assert (await reader.read()).endswith(b"ok")
        assert began <= await before.submitted(job, 1.0) <= time.monotonic()
        with pytest.raises(TimeoutError):
            await before.submitted("another", 0.01)
        writer.close()
    assert received == [sent]
