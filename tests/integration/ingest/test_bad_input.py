"""Whatever a topic holds ends as promised: every shipped example of bad input, and noise among requests."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from service.contracts.inbound import translation
from service.contracts.package_data import data_path
from service.contracts.schemas import catalogue
from service.kafka.topics import Topics
from tests.e2e.harness import TRUSTS, ServiceHarness, opened
from tests.examples.record import Example, ExampleOutcome, from_record

Place = tuple[str, int, int]
Record = tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]]]
HEADERS = [
    ("ce_source", b"/tests"),
    ("ce_type", b"fl.training.requested.v1"),
    ("ce_specversion", b"1.0"),
    ("content-type", b"application/json"),
]


def bad_examples() -> list[Example]:
    """The shipped invalid examples of everything that we read."""
    found = []
    for kind in sorted(translation.REQUEST_TYPES | translation.REPORT_TYPES):
        for path in sorted((data_path("schemas") / "examples" / kind / "invalid").glob("*.json")):
            found.append(from_record(kind, path.stem, json.loads(path.read_text("utf-8"))))
    return found


def topic_of(kind: str) -> str:
    topic = catalogue.REQUESTS if kind in translation.REQUEST_TYPES else catalogue.JOB_STATUS
    return topic.name


async def produce(harness: ServiceHarness, records: Sequence[Record]) -> list[Place]:
    """Publish records, (topic, key, value, headers); where they are."""
    producer = AIOKafkaProducer(bootstrap_servers=harness.bootstrap, linger_ms=5)
    await producer.start()
    try:
        sent = [
            await producer.send(f"{harness.prefix}{topic}", value, key, headers=headers)
            for topic, key, value, headers in records
        ]
        done = await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return [(d.topic, d.partition, d.offset) for d in done]


async def read_through(
    harness: ServiceHarness, db: asyncpg.Connection, places: Sequence[Place]
) -> None:
    """Wait until the service has taken every record and its second lane has nothing left."""
    ends: dict[tuple[str, int], int] = {}
    for topic, partition, offset in places:
        ends[topic, partition] = max(offset + 1, ends.get((topic, partition), 0))
    for _ in range(1_200):
        rows = await db.fetch("SELECT topic, partition, next_offset FROM consumer_offset")
        at = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        unpublished = await db.fetchval(
            "SELECT count(*) FROM dead_letter WHERE published_at IS NULL"
        )
        if not unpublished and all(at.get(place, 0) >= end for place, end in ends.items()):
            return
        await asyncio.sleep(0.05)
    log = (harness.folder / "processes.log").read_text()[-4_000:]
    raise AssertionError(f"read up to {at} of {ends}, {unpublished} dead letters left\n{log}")


def with_own_job(example: Example) -> tuple[UUID, Record]:
    """The example's record under a job id of its own, so that one example can't hide another."""
    job_id = uuid4()
    key, value, headers = example.raw()
    own = str(job_id).encode()
    return job_id, (topic_of(example.type), own, value.replace(key, own), headers)


def missing(example: Example, body: str) -> list[str]:
    """Errors that the example promises and the answer does not tell."""
    assert example.expect is not None
    told = {(tuple(e["loc"]), e["type"]) for e in json.loads(body)["reason"]["errors"]}
    return [f"{loc} {kind}" for loc, kind in example.expect.errors if (loc, kind) not in told]


async def test_every_bad_example_ends_as_its_file_says(
    migrated_env: dict[str, str], tmp_path: Path
) -> None:
    env = migrated_env | {"FL_INGEST__MAX_UNDECODABLE_RATIO": "0"}
    examples = bad_examples()
    assert len(examples) > 40
    async with opened(env, tmp_path) as harness:
        made = [with_own_job(example) for example in examples]
        places = await produce(harness, [record for _, record in made])
        harness.start_service()
        db = await asyncpg.connect(env["FL_DATABASE__DSN"])
        try:
            await read_through(harness, db, places)
            wrong = []
            for example, (job_id, _), place in zip(examples, made, places, strict=True):
                wrong += [
                    f"{example.type} {example.name}: {text}"
                    for text in await _judge(db, example, job_id, place)
                ]
            assert wrong == []
            alive = await db.fetchval("SELECT count(*) FROM job WHERE state <> 'rejected'")
            assert alive == 0
        finally:
            await db.close()


async def _judge(db: asyncpg.Connection, example: Example, job_id: UUID, place: Place) -> list[str]:
    """What is not as the example's file says."""
    assert example.expect is not None
    kind = await db.fetchval(
        'SELECT kind FROM dead_letter WHERE topic = $1 AND partition = $2 AND "offset" = $3', *place
    )
    state = await db.fetchval("SELECT state FROM job WHERE job_id = $1", job_id)
    refused = await db.fetchval(
        "SELECT body FROM event WHERE correlation_id = $1 AND type = $2",
        example.headers.get("ce_id"), "fl.training.request_refused.v1",
    )  # fmt: skip
    rejected = await db.fetchval(
        "SELECT body FROM event WHERE job_id = $1 AND type = $2", job_id, "fl.job.rejected.v1"
    )
    became = [
        outcome
        for outcome, is_so in (
            (ExampleOutcome.DEAD_LETTER, kind is not None),
            (ExampleOutcome.REJECTED, state == "rejected"),
            (ExampleOutcome.REFUSED, refused is not None),
        )
        if is_so
    ]
    if became != [example.expect.outcome]:
        return [f"became {became}, not {example.expect.outcome}; state {state}, dead letter {kind}"]
    body = rejected or refused
    return missing(example, body) if body is not None else []


def noise(source: random.Random) -> Record:
    """A record of random bytes; half of them under headers that make them look like a request."""
    key = source.randbytes(8) if source.random() < 0.5 else None
    empty = key is not None and source.random() < 0.1  # a tombstone has a key
    value = None if empty else source.randbytes(source.randrange(200))
    honest = [("ce_id", source.randbytes(4).hex().encode()), *HEADERS]
    strange = [("ce_" + source.choice("abc"), source.randbytes(5)) for _ in range(3)]
    return catalogue.REQUESTS.name, key, value, honest if source.random() < 0.5 else strange


def request(job_id: UUID) -> Record:
    """A valid request that may start tomorrow: it queues, and stays there."""
    data = {
        "job_id": str(job_id),
        "model_id": str(uuid4()),
        "project_id": "demo",
        "cohort_query": "select 1",
        "trust_ids": TRUSTS,
        "not_before": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    }
    headers = [("ce_id", str(job_id).encode()), *HEADERS]
    return catalogue.REQUESTS.name, None, json.dumps(data).encode(), headers


async def dead_letters(
    harness: ServiceHarness, count: int
) -> Counter[tuple[bytes | None, bytes | None]]:
    """(key, value) of what is on the requests' dead-letter topic, once `count` are there, and a bit more."""
    topic = Topics(harness.prefix).dead_letters(f"{harness.prefix}{catalogue.REQUESTS.name}")
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=harness.bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    found: Counter[tuple[bytes | None, bytes | None]] = Counter()
    try:
        async with asyncio.timeout(20):
            while True:
                got = await consumer.getmany(timeout_ms=500)
                found.update((r.key, r.value) for records in got.values() for r in records)
                if not got and found.total() >= count:
                    return found
    finally:
        await consumer.stop()


async def test_noise_loses_no_request(migrated_env: dict[str, str], tmp_path: Path) -> None:
    env = migrated_env | {"FL_INGEST__MAX_UNDECODABLE_RATIO": "0"}
    source = random.Random(8)
    jobs = [uuid4() for _ in range(50)]
    junk = [noise(source) for _ in range(11_000)]
    assert sum(len(value or b"") for _, _, value, _ in junk) > 1_000_000
    records = [*junk, *(request(job_id) for job_id in jobs)]
    source.shuffle(records)
    async with opened(env, tmp_path) as harness:
        places = await produce(harness, records)
        service = harness.start_service()
        db = await asyncpg.connect(env["FL_DATABASE__DSN"])
        try:
            await read_through(harness, db, places)
            rows = await db.fetch("SELECT job_id, state FROM job")
            assert {row["job_id"]: row["state"] for row in rows} == dict.fromkeys(jobs, "queued")
            assert await db.fetchval("SELECT count(*) FROM dead_letter") == len(junk)
        finally:
            await db.close()
        assert service.poll() is None
        sent = Counter((key, value) for _, key, value, _ in junk)
        assert await dead_letters(harness, len(junk)) == sent
