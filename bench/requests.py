"""Training requests as a hub would send them, and a producer that fills a topic with many of them.

Job ids are random, so that index pages fill as they do in production. Each request has the contract's
required fields and six of the optional ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaProducer

from service.contracts.inbound.training import REQUESTED
from service.contracts.wire.partitioner import partition_for
from service.kafka.clients import Batch, Producer
from service.kafka.connection import Connection

PROJECT: Final = "bench"
TRUSTS: Final = tuple(str(UUID(int=0xB000 + n, version=4)) for n in range(1, 4))
_QUERY: Final = (
    "SELECT p.person_id, i.image_occurrence_id FROM person p JOIN image_occurrence i "
    "ON i.person_id = p.person_id WHERE i.modality_concept_id = 4013636 AND p.year_of_birth < 1985"
)
_BATCH_BYTES: Final = 500_000

Record = tuple[bytes, bytes, list[tuple[str, bytes]]]


def uuids(seed: int) -> Iterator[UUID]:
    """Random ids, the same for the same seed."""
    source = random.Random(seed)
    while True:
        yield UUID(int=source.getrandbits(128), version=4)


def request(job_id: UUID, model_id: UUID, number: int, **more: object) -> Record:
    """Key, value and headers of one request; `more` are fields that replace the usual ones."""
    data = {
        "job_id": str(job_id),
        "model_id": str(model_id),
        "project_id": PROJECT,
        "cohort_query": _QUERY,
        "trust_ids": TRUSTS,
        "fl_backend": "embedded",
        "config": {"GLOBAL_ROUNDS": 5 + number % 3, "LOCAL_ROUNDS": 1},
        "app_config": {"LEARNING_RATE": 0.05, "BATCH_SIZE": 32},
        "priority": number % 10,
        "max_attempts": 2,
        "requested_by": f"researcher-{number % 40}@hub.example",
        "labels": {"study": f"lesion-{number % 25}", "stage": "pilot"},
        **more,
    }
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"bench-%d" % number),
        ("ce_source", b"/bench/hub"),
        ("ce_type", REQUESTED.encode()),
        ("ce_time", b"2026-03-01T09:00:00Z"),
        ("content-type", b"application/json"),
    ]
    return str(job_id).encode(), json.dumps(data, separators=(",", ":")).encode(), headers


async def fill(
    connection: Connection,
    topic: str,
    count: int,
    seed: int,
    progress: Callable[[int], None],
) -> None:
    """Put `count` requests on the topic, placed by their keys, and wait until the broker has them all.

    Raises errors.Transient when the broker is unavailable.
    """
    producer = Producer(connection, max_batch_bytes=_BATCH_BYTES, deadline=60.0)
    await producer.start()
    try:
        partitions = await producer.partitions(topic)
        open_batches: dict[int, Batch] = {}
        futures = []
        ids = uuids(seed)
        for number in range(count):
            key, value, headers = request(next(ids), next(ids), number)
            place = partition_for(key, partitions)
            batch = open_batches.get(place)
            if batch is not None and batch.append(key, value, headers):
                continue
            if batch is not None:
                futures.append(await producer.send(batch, topic, place))
                progress(number)
            batch = open_batches[place] = producer.batch()
            batch.append(key, value, headers)
        for place, batch in open_batches.items():
            futures.append(await producer.send(batch, topic, place))
        await producer.delivered(futures)
    finally:
        await producer.discard()


async def send_one(producer: AIOKafkaProducer, topic: str, record: Record) -> None:
    """One record at once; returns when the broker has confirmed it."""
    key, value, headers = record
    await producer.send_and_wait(topic, value, key=key, headers=headers)
