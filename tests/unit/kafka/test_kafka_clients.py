"""What the relay relies on in the Kafka client: its pause's name, and the placement of keys."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2 as reference
from aiokafka.producer import sender
from hypothesis import given
from hypothesis import strategies as st

from service.contracts.wire.partitioner import murmur2, partition_for
from service.kafka import clients


def test_the_pause_between_transactions_has_its_name_and_is_short() -> None:
    assert sender.BACKOFF_OVERRIDE == clients.TRANSACTION_PAUSE == 0.002


@given(st.binary(max_size=80))
def test_keys_are_placed_as_every_client_places_them(key: bytes) -> None:
    assert murmur2(key) == reference(key)
    assert partition_for(key, 12) == (reference(key) & 0x7FFFFFFF) % 12


def test_known_placements_of_the_java_client() -> None:
    assert murmur2(b"21") == -973932308 & 0xFFFFFFFF
    assert murmur2(b"foobar") == -790332482 & 0xFFFFFFFF
    assert murmur2(b"a-little-bit-long-string") == -985981536 & 0xFFFFFFFF


async def test_an_error_that_comes_when_nobody_waits_is_no_noise() -> None:
    loop = asyncio.get_running_loop()
    said: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: said.append(context))
    answers = [loop.create_future()]

    async def queued(*_: object, **__: object) -> asyncio.Future[object]:
        return answers[0]

    producer = clients.Producer.__new__(clients.Producer)
    producer._deadline = 1.0
    producer._inner = SimpleNamespace(send_batch=queued)
    await producer.send(clients.Batch(SimpleNamespace()), "topic", 0)
    answers.pop().set_exception(KafkaError("late"))
    await asyncio.sleep(0)
    gc.collect()
    assert said == []
