"""Publishing the outbox to the status topic.

Promise: reports reach the broker at least once and, per job, in the order they were made; a broker
that is unavailable costs nothing but delay, and never holds up training. After any error the producer is
thrown away and everything not acknowledged is sent again, with the same ids. A report that the
broker refuses permanently (too large) is dropped with an error in the log, not sent for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Final

import structlog

from service.clock import Backoff
from service.contracts.wire import envelope
from service.contracts.wire.partitioner import partition_for
from service.errors import Transient
from service.fl_server.report_outbox import ReportEvent, ReportOutbox
from service.kafka.clients import Batch, Producer
from service.kafka.connection import Connection

_log = structlog.get_logger(__name__)

TOPIC: Final = "fl.job-status.v1"
_AT_ONCE: Final = 200
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_MAX_BYTES: Final = 900_000


class Reporter:
    """The sender of one net's outbox. `source` becomes the `ce_source`, for example `/fl-api/net-1`."""

    def __init__(self, outbox: ReportOutbox, connection: Connection, *, source: str) -> None:
        self._outbox = outbox
        self._connection = connection
        self._topic = connection.topic_prefix + TOPIC
        self._source = source
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._producer: Producer | None = None
        self._partitions = 0

    def enqueue(self, report: ReportEvent, required: bool) -> None:
        """Put a report on disk and wake the sender."""
        before = self._outbox.dropped
        if self._outbox.add(report, required=required):
            self._drained.clear()
            self._more.set()
        elif self._outbox.dropped > before and before % 1_000 == 0:
            _log.warning("reports_dropped", dropped=self._outbox.dropped)

    async def start(self) -> None:
        """Begin to send, what an earlier process left included."""
        self._more.set()
        self._task = asyncio.create_task(self._run())

    async def close(self, grace: float = 2.0) -> None:
        """Try for `grace` seconds to send the rest, then stop; what remains stays on disk."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), grace)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._discard()
        self._outbox.close()

    async def _run(self) -> None:
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, jitter=(0.7, 1.3))
        while True:
            await self._more.wait()
            self._more.clear()
            try:
                while await self._send_some():
                    pauses.reset()
                self._drained.set()
            except (Transient, sqlite3.Error, OSError) as exc:
                # What went out and could not be marked so goes out again, under the same ids.
                _log.warning("reports_not_published", error=str(exc), waiting=self._outbox.waiting)
                await self._discard()
                await asyncio.sleep(pauses.next())
                self._more.set()

    async def _send_some(self) -> bool:
        """Send the oldest waiting reports; whether there were any."""
        waiting = self._outbox.head(_AT_ONCE)
        if not waiting:
            return False
        sendable = [(at, report) for at, report in waiting if len(report.data) <= _MAX_BYTES]
        for _, report in waiting:
            if len(report.data) > _MAX_BYTES:
                _log.error("report_too_large", id=report.id, bytes=len(report.data))
        if sendable:
            await self._publish([report for _, report in sendable])
        self._outbox.done([at for at, _ in waiting])
        return True

    async def _publish(self, reports: Sequence[ReportEvent]) -> None:
        producer = await self._connected()
        batches: dict[int, Batch] = {}
        futures = []
        for report in reports:
            key = report.subject.encode()
            partition = partition_for(key, self._partitions)
            batch = batches.get(partition)
            headers = self._headers(report)
            if batch is None or not batch.append(key, report.data, headers):
                if batch is not None:
                    futures.append(await producer.send(batch, self._topic, partition))
                batch = batches[partition] = producer.batch()
                batch.append(key, report.data, headers)
        for partition, batch in batches.items():
            futures.append(await producer.send(batch, self._topic, partition))
        await producer.delivered(futures)

    async def _connected(self) -> Producer:
        if self._producer is None:
            producer = Producer(self._connection)
            try:
                await producer.start()
                self._partitions = await producer.partitions(self._topic)
                if not self._partitions:
                    raise Transient(f"the topic {self._topic} has no partitions yet")
            except BaseException:
                await producer.discard()
                raise
            self._producer = producer
        return self._producer

    async def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.discard()

    def _headers(self, report: ReportEvent) -> list[tuple[str, bytes | None]]:
        return [
            *envelope.headers(
                event_id=report.id,
                event_type=report.type,
                time=report.time,
                subject=report.subject,
                source=self._source,
            )
        ]
