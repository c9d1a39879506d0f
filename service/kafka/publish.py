"""One record to one topic, acknowledged by every replica: for people's commands, not for streams."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from service.contracts.wire import envelope
from service.contracts.wire.partitioner import partition_for
from service.kafka.clients import Producer
from service.kafka.connection import Connection

#: `ce_source` of what a person asks for at the command line.
SOURCE = "/fl-job-service/cli"


def event_headers(kind: str, subject: str) -> list[tuple[str, bytes]]:
    """CloudEvents headers in binary mode for a request of ours."""
    return envelope.headers(
        event_id=str(uuid4()),
        event_type=kind,
        time=datetime.now(UTC),
        subject=subject,
        source=SOURCE,
    )


async def publish(
    connection: Connection,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
) -> int:
    """Send a record and wait for the broker's acknowledgement; its offset. `topic` is the real name.

    Raises errors.Transient when the broker is unavailable or the topic is missing.
    """
    producer = Producer(connection)
    await producer.start()
    try:
        partitions = await producer.partitions(topic)
        batch = producer.batch()
        batch.append(key, value, headers)
        partition = partition_for(key, partitions) if key else 0
        return (await producer.delivered([await producer.send(batch, topic, partition)]))[0]
    finally:
        await producer.discard()
