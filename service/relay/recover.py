"""A new leader's first question: how far does the log hold the events?

Asked only after the new producer's start, which ended whatever the predecessor left open and fenced it. The
end is the high watermark, read uncommitted: the last stable offset would stop early at anybody's open
transaction, and what lies behind it would be sent twice. Reading up to it is read-committed, so it waits for
such a transaction, within a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from service.errors import Transient
from service.kafka.clients import reader, with_deadline
from service.kafka.connection import Connection
from service.relay.positions import PartitionLog
from service.store.outbox import LifecycleStream, RelayPosition, Session

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """`published`: last position in the log, by partition. `subjects`: keys of records that no checkpoint
    knew, whose state is to be sent again. `unknown_records`: records that are not events of ours."""

    published: dict[int, int]
    subjects: set[str]
    unknown_records: int


async def recover(
    session: Session,
    connection: Connection,
    stream: LifecycleStream,
    partitions: Sequence[int],
    *,
    accept: bool,
    deadline: float,
    progress: Callable[[], None],
) -> Recovered:
    """Read the truth from the log. `deadline`: seconds without any progress of the reading.

    Raises RelayHalted for a contradiction (unless `accept`), errors.Transient when the broker or the
    database is unavailable or an open transaction holds back the reader.
    """
    known = await session.positions(partitions)
    async with reader(connection, read_committed=False) as raw:
        lows, highs = await _bounds(raw, stream.topic, partitions)
    progress()
    logs = {
        p: PartitionLog(
            p, known.get(p, RelayPosition(0, 0, -1)), stream.id, lows[p], highs[p], accept=accept
        )
        for p in partitions
    }
    doubtful = {p: view for p, view in logs.items() if view.in_doubt}
    if doubtful:
        async with reader(connection, read_committed=True) as consumer:
            await _scan(consumer, stream.topic, doubtful, deadline, progress)
    for view in logs.values():
        view.finish()
        if accept:
            await session.accept_log(view.partition, view.published, view.last_offset)
    return Recovered(
        published={p: view.published for p, view in logs.items()},
        subjects=set().union(*(view.subjects for view in logs.values())),
        unknown_records=sum(view.unknown_records for view in logs.values()),
    )


async def _bounds(
    raw: AIOKafkaConsumer, topic: str, partitions: Sequence[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """First offsets and high watermarks, by partition."""
    wanted = [TopicPartition(topic, p) for p in partitions]
    lows = await with_deadline(10, "reading the log's start", raw.beginning_offsets(wanted))
    highs = await with_deadline(10, "reading the log's end", raw.end_offsets(wanted))
    return {tp.partition: o for tp, o in lows.items()}, {tp.partition: o for tp, o in highs.items()}


async def _scan(
    consumer: AIOKafkaConsumer,
    topic: str,
    logs: dict[int, PartitionLog],
    deadline: float,
    progress: Callable[[], None],
) -> None:
    open_ends = {TopicPartition(topic, p): view for p, view in logs.items()}
    consumer.assign(list(open_ends))
    for tp, view in open_ends.items():
        consumer.seek(tp, view.start)
    reached = {tp: view.start for tp, view in open_ends.items()}
    moved = time.monotonic()
    while open_ends:
        for tp, records in (await _poll(consumer)).items():
            for record in records:
                if record.offset < logs[tp.partition].high:
                    logs[tp.partition].see(record.offset, record.key, record.headers)
        for tp in list(open_ends):
            position = await with_deadline(5, "reading the log", consumer.position(tp))
            if position > reached[tp]:
                reached[tp], moved = position, time.monotonic()
                progress()
            if position >= open_ends[tp].high:
                consumer.pause(tp)
                del open_ends[tp]
        if open_ends and time.monotonic() - moved > deadline:
            raise Transient(_stuck(consumer, reached, open_ends), code="log_held_back")


async def _poll(consumer: AIOKafkaConsumer) -> dict[TopicPartition, list[Any]]:
    try:
        found: dict[TopicPartition, list[Any]] = await with_deadline(
            10, "reading the log", consumer.getmany(timeout_ms=100, max_records=2_000)
        )
    except KafkaError as exc:
        raise Transient(f"reading the log: {exc!r}", code="kafka_error") from exc
    return found


def _stuck(
    consumer: AIOKafkaConsumer,
    reached: dict[TopicPartition, int],
    open_ends: dict[TopicPartition, PartitionLog],
) -> str:
    parts = [
        f"partition {tp.partition} at offset {reached[tp]} of {view.high} "
        f"(last stable offset {consumer.last_stable_offset(tp)})"
        for tp, view in open_ends.items()
    ]
    return (
        "an open transaction holds back the reading of the log: "
        + ", ".join(parts)
        + "; `kafka-transactions.sh find-hanging` names its producer"
    )
