"""Reads around what the client library can't decode, so that it costs its own batch and nothing else.

When a poll raises for a partition's bytes, nobody knows for which: every partition is read once more beside
the client, up to its first unreadable batch, and the client goes on behind that. A partition whose log can't
be read on at all is paused and looked at again from time to time; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from service.ingest.status import IngestStatus
from service.kafka import PartitionId
from service.kafka.record_batches import UnreadableRange, read_stretch

log = structlog.get_logger(__name__)

#: Between two looks at a partition that can't be read on.
_AGAIN_SECONDS = 10.0
#: Of one partition in one detour; then the others have their turn.
_MOST_RECORDS = 2_000


class UnreadablePartitions:
    """The detours of one session. `status.stuck` tells which partitions stand still, and why."""

    def __init__(self, client: AIOKafkaConsumer, status: IngestStatus, max_bytes: int) -> None:
        self._client = client
        self._status = status
        self._max_bytes = max_bytes
        self._looked = 0.0
        self._vain: Mapping[PartitionId, int] = {}
        status.stuck = {}

    @property
    def partitions(self) -> set[PartitionId]:
        """The partitions that are paused because they can't be read on."""
        return set(self._status.stuck)

    async def read_around(self, at: Mapping[PartitionId, int]) -> list[Any] | None:
        """Records and unreadable ranges from the offsets `at` on, of partitions where the client would
        fail; it is sought behind them. None: nothing was found, twice at the same offsets, so that
        reading on is in vain. Raises errors.Transient."""
        found: list[Any] = []
        changed = False
        for partition, offset in sorted(at.items()):
            parts, moved = await self._one(partition, offset)
            found += parts
            changed = changed or moved
        if changed:
            return found
        if self._vain == at:
            return None
        self._vain = dict(at)
        return found

    async def _one(self, partition: PartitionId, offset: int) -> tuple[list[Any], bool]:
        """(what was read, whether the client will now do something else) at one partition."""
        partition = TopicPartition(*partition)
        found: list[Any] = []
        at = offset
        while len(found) < _MOST_RECORDS:
            stretch = await read_stretch(self._client, partition, at, self._max_bytes)
            if partition not in self._client.assignment():
                return [], True
            if stretch.stuck is not None and stretch.next == offset:
                return [], self._stuck(partition, offset, stretch.stuck)
            if stretch.clean or stretch.stuck is not None or stretch.next == at:
                break
            found += stretch.parts
            at = stretch.next
        self._free(partition)
        if at == offset:
            return [], False
        for part in found:
            if isinstance(part, UnreadableRange):
                self._tell(part)
        self._client.seek(partition, at)
        return found, True

    def _tell(self, found: UnreadableRange) -> None:
        self._status.unreadable += 1
        log.error(
            "unreadable_records",
            topic=found.topic,
            partition=found.partition,
            first=found.first,
            next=found.next,
            cause=found.cause,
        )

    async def look_at(
        self, partitions: Iterable[PartitionId], at: Mapping[PartitionId, int]
    ) -> bool:
        """Are all of these partitions, which don't move, unreadable? Those that are get paused.

        Raises errors.Transient.
        """
        everyone = True
        for partition in partitions:
            stretch = await read_stretch(
                self._client, TopicPartition(*partition), at[partition], self._max_bytes
            )
            stuck = stretch.stuck is not None and stretch.next == at[partition]
            if stuck and stretch.stuck is not None:
                self._stuck(partition, at[partition], stretch.stuck)
            everyone = everyone and stuck
        return everyone

    async def look_again(self, at: Mapping[PartitionId, int]) -> list[Any]:
        """From time to time: can those that stood still be read on? Raises errors.Transient."""
        if not self._status.stuck or time.monotonic() - self._looked < _AGAIN_SECONDS:
            return []
        self._looked = time.monotonic()
        found: list[Any] = []
        for partition in sorted(self.partitions & set(at)):
            found += (await self._one(partition, at[partition]))[0]
        return found

    def begin_again(self, at: Mapping[PartitionId, int]) -> None:
        """After a rebalance: what is no longer ours is no longer our trouble."""
        for partition in self.partitions - set(at):
            del self._status.stuck[partition]
        self._client.pause(*(TopicPartition(*partition) for partition in self.partitions))

    def _stuck(self, partition: PartitionId, offset: int, cause: str) -> bool:
        """Pause it and say so. Was it not so already?"""
        told = f"offset {offset}: {cause}"
        known = self._status.stuck.get(partition) == told
        if not known:
            log.error(
                "partition_stands_still",
                topic=partition[0],
                partition=partition[1],
                offset=offset,
                cause=cause,
            )
        self._status.stuck[partition] = told
        self._looked = time.monotonic()
        self._client.pause(TopicPartition(*partition))
        return not known

    def _free(self, partition: PartitionId) -> None:
        if self._status.stuck.pop(partition, None) is not None:
            log.info("partition_moves_again", topic=partition[0], partition=partition[1])
            self._client.resume(TopicPartition(*partition))
