"""The poll loop: reads, decodes and hands over, with one transaction under way while the next batch fills.

A batch closes when it is full or when nothing else keeps the store busy: small when idle, large under load.
A transaction that lasts makes the consumer pause its partitions and poll on, so that memory stays bounded
and membership is kept. Whatever goes wrong ends in the same way: forget what was read, ask the database
where to continue, seek. The group's offsets in Kafka are kept only for tools that show lag.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from service.clock import Backoff, sleep_or_stop
from service.domain.decision import Decision
from service.errors import Permanent, Transient, faultpoint
from service.ingest.assignment import (
    DeadLetterCounts,
    Offsets,
    Rebalances,
    resume_assigned,
)
from service.ingest.batch_builder import BatchBuilder
from service.ingest.decode import Decoder
from service.ingest.dlq_limit import DlqLimit
from service.ingest.offset_commit import OffsetCommit
from service.ingest.poison import Applies, PoisonRecordIsolator
from service.ingest.stall_check import StallCheck
from service.ingest.status import IngestStatus
from service.ingest.unreadable import UnreadablePartitions
from service.kafka import PartitionId
from service.kafka.clients import being_cancelled, consumer, discard_consumer, start_consumer
from service.kafka.connection import Connection
from service.kafka.record_batches import UnreadableRange, is_about_bytes
from service.kafka.topics import Topics
from service.store.records import INVALID_REPORT, InboundItem, OffsetMoved

log = structlog.get_logger(__name__)

_POLL_MS = 500
_SLICE = 40
#: With an idle store a batch of this size starts although more is waiting to be decoded: small first batches
#: cost more in transactions than their head start is worth.
_MIN_EARLY_BATCH = 2_000
#: What a record is counted as beside its key and value.
_RECORD_BYTES = 200
_PATIENCE = 1.0
_IDLE_SECONDS = 5.0
#: A session that lasted so long worked: the pauses between tries begin anew.
_GOOD_SESSION_SECONDS = 30.0
_LOOK_SECONDS = 5.0
_CUT_OFF = Transient("the Kafka client cancelled a task of its own", code="kafka_error")


class IngestOptions(Protocol):
    """The settings' ingest section."""

    @property
    def max_batch_records(self) -> int: ...
    @property
    def max_batch_bytes(self) -> int: ...
    @property
    def max_undecodable_ratio(self) -> float: ...


class IngestConnection(Connection, Protocol):
    @property
    def session_timeout_ms(self) -> int: ...


class BatchStore(Applies, Offsets, Protocol):
    """What the consumer needs of the store."""


class Consumer:
    """Reads both inbound topics in the service's group. `dead_letters` (the outbox) says what was
    undecodable before this process began."""

    def __init__(
        self,
        store: BatchStore,
        dead_letters: DeadLetterCounts,
        connection: IngestConnection,
        options: IngestOptions,
        status: IngestStatus | None = None,
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._connection = connection
        self._options = options
        self.status = status or IngestStatus()
        self._topics = Topics(connection.topic_prefix)
        self._decoder = Decoder(connection.topic_prefix)
        self._isolator = PoisonRecordIsolator(store, connection.group_id, self.status)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then the batch under way is finished. Reconnects after every error that
        passes. Raises DlqLimitExceeded, OffsetsLost: an operator must decide."""
        pauses = Backoff(0.2, 5.0)
        while not stop.is_set():
            self.status.record_heartbeat()
            began = time.monotonic()
            try:
                await self._session(stop)
            except Permanent as exc:
                self.status.stopped = exc.message
                log.error("ingest_stopped", code=exc.code, error=exc.message)
                raise
            except (Transient, asyncio.CancelledError) as caught:
                if isinstance(caught, asyncio.CancelledError) and being_cancelled():
                    raise
                trouble = caught if isinstance(caught, Transient) else _CUT_OFF
                self.status.failed(trouble.message)
                log.warning("ingest_interrupted", code=trouble.code, error=trouble.message)
                if time.monotonic() - began > _GOOD_SESSION_SECONDS:
                    pauses.reset()
                await sleep_or_stop(stop, pauses.next())
            finally:
                self.status.joined = False

    async def _session(self, stop: asyncio.Event) -> None:
        size = self._options.max_batch_bytes
        partition_bytes = min(size, 1024 * 1024)
        client = consumer(
            self._connection,
            group_id=self._connection.group_id,
            group_instance_id=self._connection.group_instance_id,
            fetch_max_bytes=size,
            partition_max_bytes=partition_bytes,
            session_timeout_ms=self._connection.session_timeout_ms,
            max_poll_interval_ms=120_000,
        )
        rebalances = Rebalances()
        client.subscribe(list(self._topics.inbound), listener=rebalances)
        await start_consumer(client, 20.0)
        self.status.record_heartbeat()
        unreadable = UnreadablePartitions(client, self.status, partition_bytes)
        session = _Session(self, client, rebalances, unreadable)
        try:
            await session.loop(stop)
        finally:
            await session.close()
            await discard_consumer(client)


def _size_of(record: Any) -> int:
    """Bytes that a record counts for in its batch."""
    if isinstance(record, UnreadableRange):
        return _RECORD_BYTES + len(record.raw)
    return _RECORD_BYTES + len(record.value or b"") + len(record.key or b"")


class _Session:
    """One membership of the group, from joining to leaving."""

    def __init__(
        self,
        owner: Consumer,
        client: AIOKafkaConsumer,
        rebalances: Rebalances,
        unreadable: UnreadablePartitions,
    ) -> None:
        self._client = client
        self._rebalances = rebalances
        self._store = owner._store
        self._dead_letters = owner._dead_letters
        self._group = owner._connection.group_id
        self._options = owner._options
        self._decoder = owner._decoder
        self._status = owner.status
        self._isolator = owner._isolator
        self._unreadable = unreadable
        self._dlq_limit = DlqLimit(owner._options.max_undecodable_ratio)
        self._generation = -1
        self._next: dict[PartitionId, int] = {}  # after everything handed over
        self._stored: dict[PartitionId, int] = {}  # after everything known to be stored
        self._ends: dict[PartitionId, int] = {}  # after the transaction under way
        self._waiting: deque[Any] = deque()
        self._builder = self._empty()
        self._poll: asyncio.Task[Mapping[TopicPartition, list[Any]]] | None = None
        self._under_way: asyncio.Task[list[Decision]] | None = None
        self._offset_commit = OffsetCommit(client)
        self._last_record = time.monotonic()
        self._last_look = time.monotonic()
        self._stall_check = StallCheck()

    def _empty(self) -> BatchBuilder:
        return BatchBuilder(self._options.max_batch_records, self._options.max_batch_bytes)

    # --- the loop ------------------------------------------------------------------------------

    async def loop(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._status.record_heartbeat()
            if self._generation != self._rebalances.generation:
                await self._begin_again()
            try:
                await self._run_once()
            except OffsetMoved as exc:
                self._status.fenced += 1
                log.info("offset_fenced", error=exc.message)
                await self._begin_again()

    async def _run_once(self) -> None:
        await self._decode_some()
        if self._builder.items and self._under_way is None:
            self._start()
        if self._builder.room <= 0 or self._waiting:
            await self._wait_for_store()
            return
        if self._poll is None:
            room = max(1, self._builder.room)
            self._poll = asyncio.create_task(
                self._client.getmany(timeout_ms=_POLL_MS, max_records=room), name="ingest poll"
            )
        watched = {self._poll} if self._under_way is None else {self._poll, self._under_way}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if self._under_way is not None and self._under_way.done():
            self._finish()
        if self._poll.done():
            await self._accept_poll(self._poll)

    async def _accept_poll(self, poll: asyncio.Task[Mapping[TopicPartition, list[Any]]]) -> None:
        self._poll = None
        try:
            found = poll.result()
        except NoOffsetForPartitionError:
            self._generation = -1
            return
        except OffsetOutOfRangeError as exc:
            log.warning("offset_out_of_range", error=repr(exc))
            self._generation = -1  # taking over again says exactly what is missing
            return
        except Exception as exc:
            if not is_about_bytes(exc):
                raise Transient(f"polling: {exc!r}", code="kafka_error") from exc
            await self._read_around(exc)
            return
        if self._generation != self._rebalances.generation:
            return
        for tp, records in found.items():
            partition_id = (tp.topic, tp.partition)
            if partition_id not in self._next:
                self._generation = -1
                return
            self._waiting.extend(r for r in records if r.offset >= self._next[partition_id])
        if found:
            self._last_record = time.monotonic()
        if time.monotonic() - self._last_look > _LOOK_SECONDS:
            await self._look()

    async def _read_around(self, error: Exception) -> None:
        """A partition holds what the client can't read: bury just that, and go on behind it."""
        log.warning("poll_failed", error=repr(error))
        await self._begin_again()
        found = await self._unreadable.read_around(self._next)
        if found is None:
            raise Transient(f"polling: {error!r}", code="kafka_error") from error
        if self._generation == self._rebalances.generation:
            self._waiting.extend(found)

    async def _decode_some(self) -> None:
        """Decode what was read, in slices, so that the transaction under way is served in between."""
        while self._waiting and self._builder.room > 0:
            taken: dict[PartitionId, list[bool]] = {}
            for _ in range(min(_SLICE, len(self._waiting))):
                record = self._waiting[0]
                size = _size_of(record)
                if not self._builder.fits(size):
                    self._builder.bytes = max(self._builder.bytes, self._builder.max_bytes)
                    break
                self._waiting.popleft()
                if isinstance(record, ConsumerRecord):
                    item, following = self._decoder.item(record), None
                else:
                    item = self._decoder.unusual(record)
                    following = record.next if isinstance(record, UnreadableRange) else None
                self._builder.add(item, size, self._next, following)
                partition_id = (item.source_record.topic, item.source_record.partition)
                dead = item.dead
                undecodable = False
                if dead is not None:
                    self._status.dead_letters += 1
                    # A report that breaks its contract could be read: the fault is its sender's alone.
                    undecodable = dead.kind != INVALID_REPORT
                taken.setdefault(partition_id, []).append(undecodable)
            for (topic, partition), bad in taken.items():
                self._dlq_limit.see(topic, partition, bad)
            await asyncio.sleep(0)
            if self._under_way is None and len(self._builder.items) >= _MIN_EARLY_BATCH:
                return

    # --- transactions --------------------------------------------------------------------------

    def _start(self) -> None:
        batch, self._builder = self._builder, self._empty()
        faultpoint("ingest_before_apply")
        self._launch(batch.ordered(), batch.old, batch.new)

    def _launch(
        self, items: list[InboundItem], old: dict[PartitionId, int], new: dict[PartitionId, int]
    ) -> None:
        self._next.update(new)
        self._ends = new
        self._under_way = asyncio.create_task(
            self._isolator.apply(items, old, new), name="ingest apply"
        )

    def _finish(self) -> None:
        """Take the result of the finished transaction. Raises what it raised."""
        task, self._under_way = self._under_way, None
        if task is None:
            return
        decisions = task.result()
        self._stored.update(self._ends)
        faultpoint("ingest_after_apply")
        self._status.stored(len(decisions))
        self._offset_commit.soon(self._stored)

    async def _wait_for_store(self) -> None:
        """The next batch is full: wait for the last one; when that lasts, pause and poll on."""
        task = self._under_way
        if task is None:
            return
        await asyncio.wait({task}, timeout=_PATIENCE)
        while not task.done():
            self._status.record_heartbeat()
            self._status.paused = True
            with contextlib.suppress(KafkaError):
                self._client.pause(*self._client.assignment())
                await self._client.getmany(timeout_ms=100, max_records=1)
            await asyncio.wait({task}, timeout=0.1)
        if self._status.paused:
            self._status.paused = False
            unreadable = {
                TopicPartition(*partition_id) for partition_id in self._unreadable.partitions
            }
            self._client.resume(*(self._client.paused() - unreadable))
        self._finish()

    async def _begin_again(self) -> None:
        """Forget what was read and not stored, and ask the database where to continue."""
        await self._settle()
        self._waiting.clear()
        self._builder = self._empty()
        generation = self._rebalances.generation
        self._next = await resume_assigned(
            self._client, self._store, self._dead_letters, self._group, self._dlq_limit
        )
        self._unreadable.begin_again(self._next)
        self._stored = dict(self._next)
        self._generation = generation
        self._status.rebalances += 1
        self._status.joined = True
        log.info("partitions_taken", partitions=len(self._next))

    async def _settle(self) -> None:
        """End the poll, and wait for the transaction under way, whatever becomes of it."""
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.wait({self._poll})
            if not self._poll.cancelled():
                self._poll.exception()
            self._poll = None
        if self._under_way is not None:
            await asyncio.wait({self._under_way})
            with contextlib.suppress(Transient, OffsetMoved):
                self._finish()

    async def _look(self) -> None:
        """Does every partition move? And move the offsets over what is no record, markers and aborted
        transactions: else a quiet partition whose records expire would seem to have lost some."""
        self._last_look = time.monotonic()
        partitions = set(self._next) - self._unreadable.partitions
        at, still = await self._stall_check.run(self._client, partitions)
        idle = time.monotonic() - self._last_record > _IDLE_SECONDS
        if still and not await self._unreadable.look_at(still, at) and idle:
            raise Transient("the client stands still below the end of the log", code="poll_stalled")
        if self._waiting or self._builder.items or self._under_way is not None:
            return
        if self._generation != self._rebalances.generation:
            return
        self._waiting.extend(await self._unreadable.look_again(self._next))
        new = {
            partition_id: position
            for partition_id, position in at.items()
            if position > self._next[partition_id]
        }
        if idle and new and not self._waiting:
            self._launch([], {partition_id: self._next[partition_id] for partition_id in new}, new)

    async def close(self) -> None:
        """Finish the batch under way and commit where it ended to Kafka. Never raises what passes."""
        await self._settle()
        await self._offset_commit.settle()
        if self._generation == self._rebalances.generation:
            await self._offset_commit.now(self._stored)
