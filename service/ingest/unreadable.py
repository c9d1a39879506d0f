"""Finds a record that the client library can't even hand over: a header name that is no UTF-8.

The library raises while it reads the fetched records, and drops those before it in the same poll. Read one
by one, everything before it comes out, and the position where it raises again is the record's own.
"""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from service.errors import Transient
from service.kafka.clients import with_deadline

_POLL_MS = 300


async def read_singly(
    client: AIOKafkaConsumer, partition: TopicPartition, limit: int
) -> tuple[list[Any], int | None]:
    """The next records of a partition, at most `limit`, and the offset of an unreadable one after them.

    With an offset the caller seeks past it. Raises errors.Transient.
    """
    records: list[Any] = []
    while len(records) < limit:
        try:
            found = await client.getmany(partition, timeout_ms=_POLL_MS, max_records=1)
        except UnicodeDecodeError:
            return records, await with_deadline(5, "reading a position", client.position(partition))
        except (KafkaError, OSError) as exc:
            raise Transient(f"polling: {exc!r}", code="kafka_error") from exc
        if not found:
            break
        records += found.get(partition, [])
    return records, None
