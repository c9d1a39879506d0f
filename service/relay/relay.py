"""The relay: leads the lifecycle topic's partitions and publishes their events.

The order of a leader's life is the promise: lease, new producer (which ends and fences the old one), then
the log's end and what it holds, then transactions in position order, each followed by its checkpoint. Any
error or deadline throws the producer away, gives the lease back and begins again; nothing is repaired
halfway.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final
from uuid import UUID

import structlog

from service.clock import sleep_or_stop
from service.contracts.outbound.truncate import BODY_BYTES, MAX_MESSAGE_BYTES, RESERVE
from service.errors import Invalid, Transient, faultpoint
from service.kafka.clients import BatchTooLarge, BrokerUnavailable, Producer, with_deadline
from service.kafka.connection import Connection
from service.kafka.topics import Topics, max_message_bytes
from service.relay.halted import RelayHalted
from service.relay.hanging import HangingWatch
from service.relay.lease import HeldLease, LeaderLease
from service.relay.options import RelayOptions
from service.relay.publish import PreparedTransaction, Publisher
from service.relay.records import States
from service.relay.recover import recover
from service.relay.status import RelayStatus
from service.store.outbox import EventOutbox, EventRow, LifecycleStream, Session

log = structlog.get_logger(__name__)

#: The largest batch of several records, where the topics take one.
_BATCH_BYTES: Final = 1_000_000


class Relay:
    """The process's relay. `wake` is set by whoever commits events in this process.

    `states` gives the current state records of jobs; see `service.relay.records.States`.
    """

    def __init__(
        self,
        outbox: EventOutbox,
        connection: Connection,
        states: States,
        wake: asyncio.Event,
        options: RelayOptions | None = None,
        status: RelayStatus | None = None,
    ) -> None:
        self._outbox = outbox
        self._connection = connection
        self._states = states
        self._wake = wake
        self._options = options or RelayOptions()
        self._topics = Topics(connection.topic_prefix)
        self._accept = self._options.accept_log
        #: The last batch was too large for its topic: the next leader sends each record by itself, so that
        #: either all go through or the one that never will is known.
        self._one_per_batch = False
        self.status = status or RelayStatus()
        # The number is part of the name by which a new producer fences one of an earlier version.
        name = f"{connection.topic_prefix}{connection.group_id}-relay-0"
        self._transactional_id = name
        self._lease = LeaderLease(
            outbox,
            f"relay:{name}",
            seconds=self._options.lease_seconds,
            max_seconds=self._options.lease_max_seconds,
            stalled_after=self._options.stalled_after,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Lead whenever the lease can be had, until `stop` is set; then finish the current transaction.

        Raises RelayHalted when the log and the database contradict each other: nothing is published
        until an operator has decided.
        """
        while not stop.is_set():
            self.status.record_heartbeat()
            pause = self._options.lease_seconds / 3
            try:
                async with self._lease.held() as held:
                    if held is not None:
                        await self._lead(held, stop)
                        pause = 0.0
            except RelayHalted as exc:
                self.status.last_error = self.status.stopped = exc.message
                log.error("relay_stopped", code=exc.code, error=exc.message)
                raise
            except Transient as exc:
                self._one_per_batch = isinstance(exc, BatchTooLarge)
                self.status.errors += 1
                self.status.last_error = exc.message
                log.warning("relay_interrupted", code=exc.code, error=exc.message)
                pause = self._options.pause_after_error
            finally:
                self.status.leading = False
            await sleep_or_stop(stop, pause)

    async def _lead(self, held: HeldLease, stop: asyncio.Event) -> None:
        one_per_batch, self._one_per_batch = self._one_per_batch, False
        sizes = await self._sizes()
        held.progress()
        producer = Producer(
            self._connection,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=self._options.transaction_timeout_ms,
            max_batch_bytes=1 if one_per_batch else min(_BATCH_BYTES, *sizes.values()),
            deadline=self._options.broker_deadline,
        )
        try:
            async with self._outbox.session(relaxed=True) as session:
                await producer.start()
                held.progress()
                self.status.record_heartbeat()
                faultpoint("relay_after_init")
                stream = await self._stream(producer)
                partitions = range(stream.partitions)
                accept = self._accept
                found = await recover(
                    session,
                    self._connection,
                    stream,
                    partitions,
                    accept=accept,
                    deadline=self._options.scan_deadline,
                    progress=held.progress,
                )
                self._accept = False
                self.status.record_heartbeat()
                self.status.unknown_records += found.unknown_records
                self.status.takeovers += 1
                self.status.leading = True
                log.info("relay_leads", partitions=len(partitions))
                publisher = Publisher(
                    producer,
                    stream,
                    self._topics.job_state,
                    self._states,
                    min(BODY_BYTES, sizes[self._topics.job_state] - RESERVE),
                )
                cursor = PublishCursor(
                    session, publisher, found.published, self._options, self.status, accept
                )
                async with self._watching(stream, partitions):
                    await self._publish(cursor, _job_ids(found.subjects), held, stop)
        finally:
            await producer.discard()

    async def _sizes(self) -> dict[str, int]:
        """The `max.message.bytes` of both topics; the planned one where the broker does not say."""
        names = [self._topics.lifecycle, self._topics.job_state]
        sizes = dict.fromkeys(names, MAX_MESSAGE_BYTES)
        try:
            reading = max_message_bytes(self._connection, names)
            sizes |= await with_deadline(
                self._options.broker_deadline, "reading topic sizes", reading
            )
        except BrokerUnavailable:
            raise
        except Transient as exc:
            log.info("topic_sizes_unknown", error=exc.message)
        return sizes

    async def _stream(self, producer: Producer) -> LifecycleStream:
        """The stream, after checking that both topics have the partitions fixed for it."""
        actual = await producer.partitions(self._topics.lifecycle)
        state = await producer.partitions(self._topics.job_state)
        try:
            stream = await self._outbox.open_stream(self._topics.lifecycle, actual)
        except Invalid as exc:
            raise RelayHalted(exc.message, code="relay_partitions_changed") from exc
        if state != stream.partitions:
            raise RelayHalted(
                f"topic {self._topics.job_state} has {state} partitions, {stream.topic} has "
                f"{stream.partitions}; they must be equal",
                code="relay_partitions_changed",
            )
        return stream

    async def _publish(
        self, cursor: PublishCursor, again: Sequence[UUID], held: HeldLease, stop: asyncio.Event
    ) -> None:
        """Transaction after transaction while this relay leads. What the last one left waiting is read
        and prepared while it is under way."""
        if again:
            await cursor.publish(await cursor.prepare([], again))
        busy_until = 0.0
        ready: PreparedTransaction | None = None
        while not (stop.is_set() or held.lost.is_set()):
            held.progress()
            self.status.record_heartbeat()
            self._wake.clear()
            if ready is None:
                ready = await cursor.next()
            if ready is None:
                busy = time.monotonic() < busy_until
                wait = self._options.busy_poll if busy else self._options.idle_poll
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                continue
            busy_until = time.monotonic() + self._options.busy_for
            ready = await cursor.publish(ready)

    @contextlib.asynccontextmanager
    async def _watching(
        self, stream: LifecycleStream, partitions: Sequence[int]
    ) -> AsyncIterator[None]:
        watch = HangingWatch(
            self._connection,
            stream.topic,
            partitions,
            self.status.hanging,
            every=self._options.hanging_check,
            limit=self._options.transaction_timeout_ms / 1000,
        )
        task = asyncio.create_task(watch.run(), name="relay hanging watch")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class PublishCursor:
    """A leader's way through the outbox: what is published so far, and the next transaction."""

    def __init__(
        self,
        session: Session,
        publisher: Publisher,
        published: dict[int, int],
        options: RelayOptions,
        status: RelayStatus,
        accept: bool,
    ) -> None:
        self._session = session
        self._publisher = publisher
        self._taken = dict(published)
        self._options = options
        self._status = status
        self._more = False
        #: Partitions whose first events may lie above a hole, with the operator's approval.
        self._gaps_accepted = set(published) if accept else set()

    async def prepare(
        self, rows: Sequence[EventRow], again: Iterable[UUID] = ()
    ) -> PreparedTransaction:
        return await self._publisher.prepare(rows, again)

    async def next(self) -> PreparedTransaction | None:
        """The next events, as one transaction's batches; None when nothing waits."""
        rows = await self._session.events(self._taken, self._options.batch_events)
        self._more = len(rows) >= self._options.batch_events
        rows = self._within_bytes(rows)
        if not rows:
            return None
        for row in rows:
            self._take(row)
        self._rotate_partitions(rows[-1].partition)
        return await self.prepare(rows)

    def _within_bytes(self, rows: list[EventRow]) -> list[EventRow]:
        size = 0
        for count, row in enumerate(rows):
            size += len(row.body)
            if size > self._options.batch_bytes and count:
                self._more = True
                return rows[:count]
        return rows

    def _take(self, row: EventRow) -> None:
        last = self._taken[row.partition]
        if row.position != last + 1:
            if row.partition not in self._gaps_accepted:
                raise RelayHalted(
                    f"partition {row.partition}: after position {last} the event table continues with "
                    f"{row.position}; events are missing in the database",
                    code="relay_table_gap",
                )
            log.warning("table_gap", partition=row.partition, after=last, found=row.position)
        self._gaps_accepted.discard(row.partition)
        self._taken[row.partition] = row.position

    def _rotate_partitions(self, served: int) -> None:
        """Read the partition that filled a transaction last next time, so that every one gets its turn."""
        if self._more:
            self._taken[served] = self._taken.pop(served)

    async def publish(self, prepared: PreparedTransaction) -> PreparedTransaction | None:
        """Send and commit, then save the checkpoint. Returns the next transaction when one is known to
        wait."""
        ahead = asyncio.create_task(self.next()) if self._more else None
        try:
            checkpoints = await self._publisher.publish(prepared)
        except BaseException:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])
                if not ahead.cancelled():
                    ahead.exception()
            raise
        self._status.published += prepared.events
        self._status.transactions += 1
        following = await ahead if ahead is not None else None
        if checkpoints:
            await self._session.save_checkpoints(checkpoints)
        faultpoint("relay_after_checkpoint")
        return following


def _job_ids(subjects: Iterable[str]) -> list[UUID]:
    """Keys that are job ids; the other keys (a refusal's model) have no state."""
    found: list[UUID] = []
    for subject in subjects:
        with contextlib.suppress(ValueError):
            found.append(UUID(subject))
    return found
