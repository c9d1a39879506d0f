"""aiokafka's consumer, producer and admin client, made from a `Connection`, with a deadline on every wait.

aiokafka waits without limit for a broker that is unavailable: a send's future, a commit and even `stop` may
never return. So everything awaited here ends after its deadline with errors.Transient, and after one a client
is good for nothing but `discard`. What timed out may still have been written: a deadline is never "not sent".

aiokafka pauses a fixed 20 ms when a transaction begins before the last one's markers are written. Its name
for that pause is set to 2 ms here, which takes a transaction from 25 to about 3 ms; a test fails when the
name is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.errors import (
    ProducerFenced as FencedByBroker,
)
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder

from service.errors import Invalid, Transient
from service.kafka.connection import Connection, client_arguments

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Seconds that aiokafka waits between transactions in place of its own 0.02.
TRANSACTION_PAUSE: Final = 0.002
STOP_SECONDS: Final = 2.0

if hasattr(sender, "BACKOFF_OVERRIDE"):
    sender.BACKOFF_OVERRIDE = TRANSACTION_PAUSE


class BrokerUnavailable(Transient):
    """The broker does not answer, or not in time."""

    code = "broker_away"


class ProducerFenced(Transient):
    """Another producer has taken over this transactional id (or the transaction timed out there)."""

    code = "producer_fenced"


class BatchTooLarge(Transient):
    """The broker will never take this batch as long as its topic's `max.message.bytes` is what it is.
    `batch`: which of the batches that were waited for, 0 first; -1 when that is not known."""

    code = "record_too_large"

    def __init__(self, message: str, batch: int = -1) -> None:
        super().__init__(message)
        self.batch = batch


async def with_deadline(seconds: float, what: str, waiting: Awaitable[T]) -> T:
    """Await with a deadline; aiokafka's errors come out as ours.

    Raises ProducerFenced, BrokerUnavailable; never a bare TimeoutError.
    """
    try:
        async with asyncio.timeout(seconds):
            return await waiting
    except TimeoutError as exc:
        raise BrokerUnavailable(f"{what}: no answer from the broker within {seconds:g} s") from exc
    except FencedByBroker as exc:
        raise ProducerFenced(
            f"{what}: fenced by a newer producer, or timed out at the broker"
        ) from exc
    except TopicAuthorizationFailedError as exc:
        raise Transient(f"{what}: not authorised: {exc}", code="kafka_denied") from exc
    except KafkaConnectionError as exc:
        raise BrokerUnavailable(f"{what}: {exc}") from exc
    except (KafkaError, OSError) as exc:
        raise Transient(f"{what}: {exc!r}", code="kafka_error") from exc


@contextlib.contextmanager
def _made() -> Iterator[None]:
    """What aiokafka refuses before it asks any broker is a setting. Raises errors.Invalid."""
    try:
        yield
    except (ValueError, AssertionError) as exc:
        raise Invalid(
            f"the FL_KAFKA__ settings make no client: {exc}", code="kafka_settings"
        ) from exc


class Producer:
    """An idempotent producer, transactional when it has a `transactional_id`.

    Use: `start`, then batches by `batch` and `send`, `begin` and `commit` around them when transactional,
    and `discard` at the end and after any error. No method returns later than its deadline.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        transactional_id: str | None = None,
        transaction_timeout_ms: int = 60_000,
        max_batch_bytes: int = 1_000_000,
        deadline: float = 10.0,
    ) -> None:
        self._deadline = deadline
        with _made():
            self._inner = AIOKafkaProducer(
                **client_arguments(connection),
                client_id=transactional_id or "fl-job-service",
                transactional_id=transactional_id,
                transaction_timeout_ms=transaction_timeout_ms,
                enable_idempotence=True,
                max_batch_size=max_batch_bytes,
                max_request_size=64 * 1024 * 1024,
                retry_backoff_ms=50,
            )

    async def start(self) -> None:
        """Connect; with a transactional id also end or abort what its predecessor left, and fence it.

        After an error it has been discarded.
        """
        try:
            await with_deadline(self._deadline, "starting a producer", self._inner.start())
        except BaseException:
            await self.discard()
            raise

    def batch(self) -> Batch:
        return Batch(self._inner.create_batch())

    async def send(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[object]:
        """Queue a batch; the future's result has the batch's `offset`, the offset of its first record."""
        waiting = self._inner.send_batch(batch.inner, topic, partition=partition)
        future: asyncio.Future[object] = await with_deadline(
            self._deadline, f"sending to {topic}", waiting
        )
        future.add_done_callback(_swallow_late_error)
        return future

    async def delivered(self, futures: Sequence[asyncio.Future[object]]) -> list[int]:
        """Wait for the broker's acknowledgement of every batch: the offsets of their first records, in order.

        Raises BatchTooLarge, ProducerFenced, BrokerUnavailable, errors.Transient; every future's error has
        been read then.
        """
        if not futures:
            return []
        done, late = await asyncio.wait(futures, timeout=self._deadline)
        errors = [future.exception() for future in done if not future.cancelled()]
        for number, future in enumerate(futures):
            if future in done and not future.cancelled() and _too_large(future.exception()):
                raise BatchTooLarge(f"delivering a batch: {future.exception()!r}", number)
        if late:
            raise BrokerUnavailable(f"{len(late)} batches unanswered after {self._deadline:g} s")
        for error in errors:
            if error is not None:
                await with_deadline(self._deadline, "delivering a batch", _raise(error))
        return [int(getattr(future.result(), "offset", -1)) for future in futures]

    async def begin(self) -> None:
        await with_deadline(
            self._deadline, "beginning a transaction", self._inner.begin_transaction()
        )

    async def commit(self) -> None:
        await with_deadline(
            self._deadline, "committing a transaction", self._inner.commit_transaction()
        )

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has now."""
        found = await with_deadline(
            self._deadline, f"looking up {topic}", self._inner.partitions_for(topic)
        )
        return len(found)

    async def discard(self) -> None:
        """Close, whatever state it is in. What was queued may still be written for a moment."""
        await _discard(self._inner, "producer")


class Batch:
    """Records for one partition, as one record batch on the wire."""

    __slots__ = ("count", "inner")

    def __init__(self, inner: BatchBuilder) -> None:
        self.inner = inner
        self.count = 0

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        timestamp_ms: int | None = None,
    ) -> bool:
        """False when the batch is full. The first record always fits; the broker judges its size."""
        if self.inner.append(timestamp=timestamp_ms, key=key, value=value, headers=headers) is None:
            return False
        self.count += 1
        return True


def _swallow_late_error(future: asyncio.Future[object]) -> None:
    """An error that comes when nobody waits any more is no news: the client is thrown away by then."""
    if not future.cancelled():
        future.exception()


def _too_large(error: BaseException | None) -> bool:
    return isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError))


async def _raise(error: BaseException) -> None:
    raise error


async def _discard(client: AIOKafkaProducer | AIOKafkaConsumer, what: str) -> None:
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await client.stop()
    except (TimeoutError, KafkaError, OSError, AssertionError) as exc:
        log.info("kafka_client_thrown_away", client=what, error=repr(exc))
        await _tear_down(client)
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        log.info("kafka_client_thrown_away", client=what, error="a task of its own was cancelled")
        await _tear_down(client)


def being_cancelled() -> bool:
    """Did somebody cancel the running task? aiokafka lets the cancellation of its own tasks leak out of
    `stop` and of reads when a broker goes away, and that must not end a task of ours."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _tear_down(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """End the tasks and sockets of a client whose `stop` hangs, as far as they can be reached."""
    task = getattr(getattr(client, "_sender", None), "sender_task", None)
    if isinstance(task, asyncio.Task) and not task.done():
        task.cancel()
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(STOP_SECONDS):
            transport = client.client if hasattr(client, "client") else client._client
            await transport.close()


def consumer(
    connection: Connection,
    *,
    group_id: str | None = None,
    group_instance_id: str | None = None,
    read_committed: bool = True,
    fetch_max_bytes: int = 4 * 1024 * 1024,
    partition_max_bytes: int = 1024 * 1024,
    fetch_wait_ms: int = 100,
    session_timeout_ms: int = 10_000,
    max_poll_interval_ms: int = 60_000,
) -> AIOKafkaConsumer:
    """A consumer that commits nothing by itself and never chooses an offset by itself."""
    with _made():
        return AIOKafkaConsumer(
            **client_arguments(connection),
            client_id="fl-job-service",
            group_id=group_id,
            group_instance_id=group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed" if read_committed else "read_uncommitted",
            fetch_max_bytes=fetch_max_bytes,
            max_partition_fetch_bytes=partition_max_bytes,
            fetch_max_wait_ms=fetch_wait_ms,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=max(500, session_timeout_ms // 4),
            max_poll_interval_ms=max_poll_interval_ms,
            retry_backoff_ms=50,
        )


async def start_consumer(client: AIOKafkaConsumer, deadline: float = 10.0) -> None:
    """Connect (and join the group). After an error the client has been thrown away.

    Raises BrokerUnavailable, errors.Transient.
    """
    try:
        await with_deadline(deadline, "starting a consumer", client.start())
    except BaseException:
        await discard_consumer(client)
        raise


async def discard_consumer(client: AIOKafkaConsumer) -> None:
    await _discard(client, "consumer")


@contextlib.asynccontextmanager
async def reader(
    connection: Connection, *, read_committed: bool, deadline: float = 10.0
) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer without a group, thrown away at the end."""
    client = consumer(connection, read_committed=read_committed, fetch_wait_ms=20)
    await start_consumer(client, deadline)
    try:
        yield client
    finally:
        await discard_consumer(client)


@contextlib.asynccontextmanager
async def admin(
    connection: Connection, deadline: float = 10.0
) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client, closed at the end.

    Raises BrokerUnavailable when the broker does not answer within `deadline` seconds, errors.Invalid for
    settings that make no client.
    """
    with _made():
        client = AIOKafkaAdminClient(
            **client_arguments(connection), client_id="fl-job-service-admin"
        )
    try:
        await with_deadline(deadline, "reaching the broker", client.start())
        yield client
    finally:
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(STOP_SECONDS):
                await client.close()
