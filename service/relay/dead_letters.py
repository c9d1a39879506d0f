"""A dead letter as the record that goes to its dead-letter topic.

Key, value and headers go out untouched, with the headers by which tools know where a dead letter came from.
One that the topic can't hold keeps its headers, the SHA-256 and length of its value and the value's first
64 KiB, and says so; the whole of it stays in the database, from where it is redriven.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from service.kafka.dead_letter_headers import BYTES, PREFIX, SHA256, TRUNCATED, Headers, own_headers
from service.store.outbox import DeadLetterRow, decode_headers

#: What a record may need in its batch beside its own bytes.
RESERVE: Final = 16 * 1024
KEPT_BYTES: Final = 64 * 1024


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """An upper bound of a record's size inside its batch, in bytes."""
    size = 64 + len(key or b"") + len(value or b"")
    return size + sum(len(name.encode()) + len(held or b"") + 10 for name, held in headers)


def dead_record(row: DeadLetterRow, max_bytes: int) -> tuple[bytes | None, bytes | None, Headers]:
    """(key, value, headers) of the record; `max_bytes` is the topic's `max.message.bytes`."""
    original = own_headers(decode_headers(row.headers))
    added: Headers = [
        (f"{PREFIX}original-topic", row.topic.encode()),
        (f"{PREFIX}original-partition", b"%d" % row.partition),
        (f"{PREFIX}original-offset", b"%d" % row.offset),
        (f"{PREFIX}original-timestamp", b"%d" % row.timestamp_ms),
        (f"{PREFIX}original-consumer-group", row.consumer_group.encode()),
        (f"{PREFIX}exception-fqcn", row.kind.encode()),
        (f"{PREFIX}exception-message", row.message.encode()[: 8 * 1024]),
    ]
    limit = max_bytes - RESERVE
    if record_bytes(row.key, row.value, original + added) <= limit:
        return row.key, row.value, original + added
    return _truncated(row, original, added, limit)


def _truncated(
    row: DeadLetterRow, original: Headers, added: Headers, limit: int
) -> tuple[bytes | None, bytes | None, Headers]:
    value = row.value or b""
    added = [
        *added,
        (TRUNCATED, b"true"),
        (SHA256, sha256(value).hexdigest().encode()),
        (BYTES, b"%d" % len(value)),
    ]
    key = row.key if row.key is None else row.key[:KEPT_BYTES]
    room = limit - record_bytes(key, None, added)
    kept_headers: Headers = []
    for name, held in original:
        size = record_bytes(None, None, [(name, held)]) - 64
        if size > room:
            break
        kept_headers.append((name, held))
        room -= size
    kept_value = None if row.value is None else value[: max(0, min(KEPT_BYTES, room))]
    return key, kept_value, kept_headers + added
