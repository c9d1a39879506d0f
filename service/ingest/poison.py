"""Applies a batch, and finds the record that spoils it.

A refused batch is tried once more (two first requests of one job may have raced), then halved until the
record is alone; alone it becomes a dead letter with the cause, and everything else takes effect. Losing a
race is never the record's fault, however often it happens: then the batch is to be read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from service.domain.decision import Decision
from service.errors import Transient
from service.ingest.status import IngestStatus
from service.kafka import PartitionId
from service.store.records import (
    RACES,
    BatchRefused,
    DeadLetter,
    InboundItem,
    OffsetFence,
    dead_letter_of,
)

log = structlog.get_logger(__name__)


class Applies(Protocol):
    async def apply_batch(
        self, items: Sequence[InboundItem], fence: OffsetFence | None
    ) -> list[Decision]: ...


class ReadAgain(Transient):
    """The batch lost a race again and again: read its records again."""

    code = "read_again"


class PoisonRecordIsolator:
    """Applies batches of one consumer group."""

    def __init__(self, store: Applies, group: str, status: IngestStatus) -> None:
        self._store = store
        self._group = group
        self._status = status

    async def apply(
        self,
        items: Sequence[InboundItem],
        old: Mapping[PartitionId, int],
        new: Mapping[PartitionId, int],
    ) -> list[Decision]:
        """Store the batch and move the offsets `old` to `new` (next offset by topic and partition).

        `items` are ordered by partition, then offset. Raises what the store raises but for BatchRefused:
        Fenced, errors.Transient; ReadAgain when races don't end.
        """
        try:
            return await self._store.apply_batch(items, self._fence(old, new))
        except BatchRefused as first:
            log.info("batch_refused", records=len(items), error=first.message)
        try:
            return await self._store.apply_batch(items, self._fence(old, new))
        except BatchRefused as again:
            if again.sqlstate in RACES:
                raise ReadAgain(f"the batch lost a race twice: {again.message}") from again
            return await self._divide(items, dict(old), new, again)

    async def _divide(
        self,
        items: Sequence[InboundItem],
        at: dict[PartitionId, int],
        new: Mapping[PartitionId, int],
        cause: BatchRefused,
    ) -> list[Decision]:
        """Apply a refused batch in halves; `at` follows the offsets that are stored already."""
        if len(items) <= 1:
            return await self._dead_letter(items, at, new, cause)
        middle = len(items) // 2
        done: list[Decision] = []
        for half, rest in ((items[:middle], items[middle:]), (items[middle:], ())):
            ends = self._ends(half, rest, new)
            starts = {partition_id: at[partition_id] for partition_id in ends}
            try:
                done += await self._store.apply_batch(half, self._fence(starts, ends))
                at.update(ends)
            except BatchRefused as exc:
                if exc.sqlstate in RACES:
                    raise ReadAgain(f"part of a batch lost a race: {exc.message}") from exc
                done += await self._divide(half, at, ends, exc)
        return done

    async def _dead_letter(
        self,
        items: Sequence[InboundItem],
        at: dict[PartitionId, int],
        new: Mapping[PartitionId, int],
        cause: BatchRefused,
    ) -> list[Decision]:
        self._status.isolated += 1
        self._status.dead_letters += 1
        dead = [
            replace(item, command=None, event_key=None, content=None, dead=_cause(item, cause))
            for item in items
        ]
        done = await self._store.apply_batch(dead, self._fence({p: at[p] for p in new}, new))
        at.update(new)
        return done

    def _ends(
        self,
        half: Sequence[InboundItem],
        rest: Sequence[InboundItem],
        new: Mapping[PartitionId, int],
    ) -> dict[PartitionId, int]:
        """Where the offsets stand after `half`; a partition that `rest` continues ends earlier."""
        ends: dict[PartitionId, int] = {}
        for item in half:
            ends[item.source_record.topic, item.source_record.partition] = (
                item.source_record.offset + 1
            )
        continued = {(item.source_record.topic, item.source_record.partition) for item in rest}
        return {
            partition_id: end if partition_id in continued else new[partition_id]
            for partition_id, end in ends.items()
        }

    def _fence(self, old: Mapping[PartitionId, int], new: Mapping[PartitionId, int]) -> OffsetFence:
        entries = [
            (topic, partition, old[topic, partition], new[topic, partition])
            for topic, partition in sorted(new)
        ]
        return OffsetFence(entries, self._group)


def _cause(item: InboundItem, cause: BatchRefused) -> DeadLetter:
    letter = dead_letter_of(cause)
    log.warning(
        "record_isolated",
        topic=item.source_record.topic,
        partition=item.source_record.partition,
        offset=item.source_record.offset,
        kind=letter.kind,
    )
    return letter
