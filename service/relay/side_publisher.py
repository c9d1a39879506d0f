"""The side publisher: net status, tombstones, states that changed late, and dead letters, at least once, from
rows that say they wait.

Each source is on its own: one topic that is missing, closed to us or full of trouble makes its rows wait and
no others, and none of them can hold back the lifecycle. A row counts as sent only after the broker's answer,
and a net only for the version that was read. One holder of the lease sends; two would only repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid5

import structlog

from service.clock import sleep_or_stop
from service.contracts.outbound import net_status
from service.contracts.outbound.truncate import MAX_MESSAGE_BYTES, truncate_to
from service.contracts.wire import envelope
from service.contracts.wire.partitioner import partition_for
from service.errors import Transient
from service.kafka.clients import Batch, Producer
from service.kafka.connection import Connection
from service.kafka.topics import Topics, max_message_bytes
from service.relay.dead_letters import RESERVE, dead_record, record_bytes
from service.relay.lease import HeldLease, LeaderLease
from service.relay.options import RelayOptions
from service.relay.records import States, state_headers
from service.relay.status import RelayStatus
from service.store.outbox import DeadLetterRow, EventOutbox, Session

log = structlog.get_logger(__name__)

_ROWS: Final = 500
_BYTES: Final = 4 * 1024 * 1024
_RETRY_SECONDS: Final = 5.0
_SIZES_FOR: Final = 300.0

Record = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


class SidePublisher:
    """Sends what waits, until `stop` is set. Shares nothing with the relay but the database."""

    def __init__(
        self,
        outbox: EventOutbox,
        connection: Connection,
        options: RelayOptions | None = None,
        status: RelayStatus | None = None,
        states: States | None = None,
    ) -> None:
        """`states` reads the states of jobs; without it none that changed after its end is sent."""
        self._states_of = states
        self._outbox = outbox
        self._connection = connection
        self._options = options or RelayOptions()
        self._topics = Topics(connection.topic_prefix)
        self.status = status or RelayStatus()
        self._producer: Producer | None = None
        self._resting: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._sizes_at = 0.0
        self._lease = LeaderLease(
            outbox,
            f"second-lane:{connection.topic_prefix}{connection.group_id}",
            seconds=self._options.lease_seconds * 2,
            max_seconds=self._options.lease_max_seconds,
            stalled_after=self._options.lease_max_seconds,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Send while its lease can be had, until `stop` is set. Raises nothing that passes."""
        while not stop.is_set():
            pause = 1.0
            try:
                async with self._lease.held() as held:
                    if held is not None:
                        await self._send_all(held, stop)
                        pause = 0.0
            except Transient as exc:
                self._failed("lease", exc)
            finally:
                await self._discard_producer()
            await sleep_or_stop(stop, pause)

    async def _send_all(self, held: HeldLease, stop: asyncio.Event) -> None:
        async with self._outbox.session() as session:
            while not (stop.is_set() or held.lost.is_set()):
                held.progress()
                sent = await self._source("net_status", session, self._net_status)
                sent += await self._source("states", session, self._states)
                sent += await self._source("tombstones", session, self._tombstones)
                sent += await self._source("dead_letters", session, self._dead_letters)
                if not sent:
                    await sleep_or_stop(stop, self._options.side_publisher_poll)

    async def _source(
        self, name: str, session: Session, send: Callable[[Session], Awaitable[int]]
    ) -> int:
        """One source's turn. The broker's trouble makes this source rest; the database's ends the round."""
        if self._rests(name):
            return 0
        try:
            return await send(session)
        except Transient as exc:
            if exc.code == "database_away":
                raise
            self._failed(name, exc)
            await self._discard_producer()
            return 0

    def _rests(self, name: str) -> bool:
        return time.monotonic() < self._resting.get(name, 0.0)

    def _failed(self, name: str, exc: Transient) -> None:
        self._resting[name] = time.monotonic() + _RETRY_SECONDS
        self.status.side_publisher_errors += 1
        log.warning("side_publisher_interrupted", source=name, code=exc.code, error=exc.message)

    # --- the sources ---------------------------------------------------------------------------

    async def _net_status(self, session: Session) -> int:
        rows = await session.nets(_ROWS)
        if not rows:
            return 0
        topic = self._topics.net_status
        stream = await session.stream(self._topics.lifecycle)
        space = stream.id if stream is not None else UUID(int=0)
        count = await (await self._ready()).partitions(topic)
        records: list[Record] = []
        for row in rows:
            key = row.name.encode()
            headers = envelope.headers(
                event_id=str(uuid5(space, f"net:{row.name}:{row.version}")),
                event_type=net_status.STATUS,
                time=datetime.now(UTC),
                subject=row.name,
            )
            records.append((partition_for(key, count), key, row.body.encode(), [*headers]))
        await self._send(topic, records)
        await session.nets_done(rows)
        self.status.net_status_sent += len(rows)
        return len(rows)

    async def _states(self, session: Session) -> int:
        """States of jobs that changed after their last event, which no event brings to the topic."""
        due = await session.states_due(_ROWS) if self._states_of is not None else []
        if not due or self._states_of is None:
            return 0
        topic = self._topics.job_state
        count = await (await self._ready()).partitions(topic)
        found = await self._states_of([job_id for job_id, _ in due])
        records: list[Record] = []
        for job_id, at in due:
            if job_id in found:
                key, body, sequence = found[job_id]
                headers = state_headers(job_id, key, sequence, at, late=True)
                whole = truncate_to(body.decode()).encode()
                records.append((partition_for(key, count), key, whole, [*headers]))
        await self._send(topic, records)
        await session.states_due_done(due)
        return len(due)

    async def _tombstones(self, session: Session) -> int:
        job_ids = await session.tombstones(_ROWS)
        if not job_ids:
            return 0
        topic = self._topics.job_state
        count = await (await self._ready()).partitions(topic)
        records: list[Record] = []
        for job_id in job_ids:
            key = str(job_id).encode()
            records.append((partition_for(key, count), key, None, []))
        await self._send(topic, records)
        await session.tombstones_done(job_ids)
        self.status.tombstones_sent += len(job_ids)
        return len(job_ids)

    async def _dead_letters(self, session: Session) -> int:
        resting = [name for name in self._resting if self._rests(name)]
        rows = await session.dead_letters(_ROWS, _BYTES, resting)
        sent = 0
        for topic in sorted({row.topic for row in rows}):
            owned = [row for row in rows if row.topic == topic]
            try:
                await self._send_dead(self._topics.dead_letters(topic), owned)
            except Transient as exc:
                self._failed(topic, exc)
                await self._discard_producer()
                continue
            await session.dead_letters_done(owned)
            sent += len(owned)
        self.status.dead_letters_sent += sent
        return sent

    async def _send_dead(self, topic: str, rows: Iterable[DeadLetterRow]) -> None:
        limit = await self._max_bytes(topic)
        count = await (await self._ready()).partitions(topic)
        records: list[Record] = []
        for row in rows:
            key, value, headers = dead_record(row, limit)
            records.append((row.partition % count, key, value, headers))
        await self._send(topic, records)

    # --- sending -------------------------------------------------------------------------------

    async def _ready(self) -> Producer:
        if self._producer is None:
            producer = Producer(
                self._connection,
                max_batch_bytes=64 * 1024 * 1024,
                deadline=self._options.broker_deadline,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.discard()
                raise
            self._producer = producer
        return self._producer

    async def _discard_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.discard()

    async def _max_bytes(self, topic: str) -> int:
        """The topic's real `max.message.bytes`, read now and then; Kafka's default when it can't be."""
        if time.monotonic() - self._sizes_at > _SIZES_FOR or topic not in self._sizes:
            names = [self._topics.dead_letters(name) for name in self._topics.inbound]
            with contextlib.suppress(Transient):
                self._sizes = await max_message_bytes(self._connection, sorted({*names, topic}))
                self._sizes_at = time.monotonic()
        return self._sizes.get(topic, MAX_MESSAGE_BYTES)

    async def _send(self, topic: str, records: Iterable[Record]) -> None:
        """Batches per partition, none larger than the topic takes. Raises errors.Transient."""
        producer = await self._ready()
        limit = self._sizes.get(topic, MAX_MESSAGE_BYTES) - RESERVE
        filling: dict[int, tuple[Batch, int]] = {}
        full: list[tuple[int, Batch]] = []
        for partition, key, value, headers in records:
            size = record_bytes(key, value, headers)
            batch, used = filling.get(partition, (producer.batch(), 0))
            if used and used + size > limit:
                full.append((partition, batch))
                batch, used = producer.batch(), 0
            batch.append(key, value, headers)
            filling[partition] = (batch, used + size)
        full += [(partition, batch) for partition, (batch, _) in filling.items()]
        futures = [await producer.send(batch, topic, partition) for partition, batch in full]
        await producer.delivered(futures)
