"""One record to one topic, acknowledged by every replica: for people's commands, not for streams."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from service.contracts.placement import partition_for
from service.kafka.clients import Producer
from service.kafka.connection import Connection

#: `ce_source` of what a person asks for at the command line.
SOURCE = "/fl-job-service/cli"


def event_headers(
    kind: str, subject: str | None, event_id: str | None = None
) -> list[tuple[str, bytes]]:
    """CloudEvents headers in binary mode for a request of ours."""
    headers = {
        "ce_id": event_id or str(uuid4()),
        "ce_source": SOURCE,
        "ce_type": kind,
        "ce_specversion": "1.0",
        "ce_time": datetime.now(UTC).isoformat(),
        "content-type": "application/json",
    }
    if subject is not None:
        headers["ce_subject"] = subject
    return [(name, value.encode()) for name, value in headers.items()]


async def publish(
    connection: Connection,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
) -> int:
    """Send a record and wait for the broker's word; its offset. `topic` is the real name.

    Raises errors.Transient when the broker is away or the topic is missing.
    """
    producer = Producer(connection)
    await producer.start()
    try:
        partitions = await producer.partitions(topic)
        batch = producer.batch()
        batch.append(key, value, headers)
        place = partition_for(key, partitions) if key else 0
        return (await producer.delivered([await producer.send(batch, topic, place)]))[0]
    finally:
        await producer.discard()
