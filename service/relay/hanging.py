"""Watches for a transaction that nobody will ever end: it holds back every read-committed reader.

A broker can lose a transaction's markers while a partition has no leader; its records then keep the last
stable offset below the high watermark permanently. Seen here when it lasts longer than any transaction may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog
from aiokafka import TopicPartition

from service.errors import Transient
from service.kafka.clients import reader, with_deadline
from service.kafka.connection import Connection
from service.relay.status import Hanging

log = structlog.get_logger(__name__)


async def stable_offsets(
    connection: Connection, topic: str, partitions: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """(last stable offset, high watermark) by partition. Raises errors.Transient."""
    wanted = [TopicPartition(topic, p) for p in partitions]
    async with reader(connection, read_committed=True) as committed:
        stable = await with_deadline(10, "reading stable offsets", committed.end_offsets(wanted))
    async with reader(connection, read_committed=False) as raw:
        highs = await with_deadline(10, "reading high watermarks", raw.end_offsets(wanted))
    return {tp.partition: (stable[tp], highs[tp]) for tp in wanted}


class HangingWatch:
    """Keeps `found` current: partitions whose last stable offset has not moved for `limit` seconds
    although records lie above it."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        partitions: Sequence[int],
        found: dict[int, Hanging],
        *,
        every: float,
        limit: float,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._partitions = partitions
        self._found = found
        self._every = every
        self._limit = limit
        self._behind: dict[int, Hanging] = {}

    async def run(self) -> None:
        """Until cancelled. A broker that is unavailable is not its business."""
        while True:
            await asyncio.sleep(self._every)
            try:
                offsets = await stable_offsets(self._connection, self._topic, self._partitions)
            except Transient as exc:
                log.debug("stable_offsets_unknown", error=exc.message)
                continue
            for partition, (stable, high) in offsets.items():
                self._see(partition, stable, high)

    def _see(self, partition: int, stable: int, high: int) -> None:
        before = self._behind.get(partition)
        if stable >= high:
            self._behind.pop(partition, None)
            if self._found.pop(partition, None) is not None:
                log.info("hanging_transaction_over", topic=self._topic, partition=partition)
            return
        if before is None or before.stable_offset != stable:
            self._found.pop(partition, None)
            self._behind[partition] = Hanging(partition, stable, high, time.monotonic())
            return
        before.high_watermark = high
        if before.seconds() > self._limit and partition not in self._found:
            self._found[partition] = before
            log.error(
                "hanging_transaction",
                topic=self._topic,
                partition=partition,
                stable_offset=stable,
                high_watermark=high,
                seconds=round(before.seconds()),
                fix="kafka-transactions.sh find-hanging, then abort",
            )
