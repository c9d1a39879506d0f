"""What surrounds the jobs on the way in: offsets, event ids, dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.domain import jobless
from service.domain.decision import Decision
from service.store.database import Connection, Pool, transaction
from service.store.outbox import encode_headers
from service.store.records import (
    DeadLetter,
    InboundItem,
    OffsetFence,
    OffsetMoved,
    RecordRef,
)
from service.store.statements import QUERIES

TopicPartition = tuple[str, int]


async def move_offsets(connection: Connection, fence: OffsetFence) -> None:
    """Raises Fenced when an offset is not where the reader thinks it is."""
    entries = sorted(fence.entries)
    topics, partitions = [e[0] for e in entries], [e[1] for e in entries]
    records = await connection.fetch(
        QUERIES["offsets_lock"], fence.consumer_group, topics, partitions
    )
    stored = {(r["topic"], r["partition"]): r["next_offset"] for r in records}
    for topic, partition, old, _ in entries:
        if stored.get((topic, partition)) != old:
            raise OffsetMoved(
                f"{topic}/{partition}: the stored offset is {stored.get((topic, partition))}, "
                f"not {old}"
            )
    await connection.execute(
        QUERIES["offsets_move"], fence.consumer_group, topics, partitions, [e[3] for e in entries]
    )


async def reset_offsets(pool: Pool, fence: OffsetFence) -> None:
    """Move offsets without a batch, by an operator's decision. Raises OffsetMoved, errors.Transient."""
    async with transaction(pool) as connection:
        await move_offsets(connection, fence)


async def offsets(
    connection: Connection, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """Stored next offsets, waiting for a commit under way."""
    records = await connection.fetch(
        QUERIES["offsets_lock"], group, [p[0] for p in partitions], [p[1] for p in partitions]
    )
    return {(r["topic"], r["partition"]): r["next_offset"] for r in records}


async def start_offsets(
    connection: Connection, group: str, starts: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Store where reading starts where nothing is stored; the offsets that hold now."""
    for (topic, partition), offset in sorted(starts.items()):
        await connection.execute(QUERIES["offset_insert"], group, topic, partition, offset)
    return await offsets(connection, group, sorted(starts))


async def dedupe_event_ids(
    connection: Connection, items: Sequence[InboundItem]
) -> dict[int, Decision]:
    """Keep the event ids of items that have one. By index what `repeated` decides of those seen before,
    in the database or earlier in this batch."""
    first: dict[bytes, bytes] = {}
    repeated: dict[int, Decision] = {}
    owner: dict[bytes, int] = {}
    for index, item in enumerate(items):
        key, content = item.event_key, item.content
        if key is None or content is None or item.dead is not None:
            continue
        if key in first:
            same = first[key] == content
            repeated[index] = jobless.repeated(same)
        else:
            first[key] = content
            owner[key] = index
    if not first:
        return repeated
    keys = sorted(first)
    records = await connection.fetch(QUERIES["ids_insert"], keys, [first[k] for k in keys])
    known = set(keys) - {r["id"] for r in records}
    if known:
        for r in await connection.fetch(QUERIES["ids_select"], sorted(known)):
            same = r["content"] == first[r["id"]]
            repeated[owner[r["id"]]] = jobless.repeated(same)
    return repeated


async def keep_outcomes(connection: Connection, outcomes: Mapping[bytes, str]) -> None:
    """Write beside their event ids what became of events that changed nothing."""
    if outcomes:
        keys = sorted(outcomes)
        await connection.execute(QUERIES["ids_update"], keys, [outcomes[k] for k in keys])


async def insert_dead_letters(
    connection: Connection, group: str, dead: Sequence[tuple[RecordRef, DeadLetter]]
) -> None:
    """Dead letters as rows; the relay's second lane publishes them."""
    if not dead:
        return
    # Each record once: one statement can't write a row twice.
    records = {
        (ref.topic, ref.partition, ref.offset, ref.timestamp_ms): (ref, d) for ref, d in dead
    }
    rows = [
        (
            ref.topic,
            ref.partition,
            ref.offset,
            ref.timestamp_ms,
            group,
            ref.key,
            ref.value,
            encode_headers(ref.headers),
            letter.kind,
            letter.message,
        )
        for ref, letter in records.values()
    ]
    await connection.execute(QUERIES["dead_letters_insert"], *zip(*rows, strict=True))


async def forget(connection: Connection, ids: Sequence[bytes]) -> None:
    """Forget event ids: what became a dead letter may be sent again."""
    if ids:
        await connection.execute(QUERIES["ids_forget"], ids)
