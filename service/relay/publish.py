"""Events and the current states of their jobs in one Kafka transaction.

`prepare` turns rows into record batches, reading the states after the events, so that a state record is
never older than an event beside it. `publish` sends and commits; it checks every batch's answer before it
commits, since a commit succeeds although one record failed permanently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from service.contracts.outbound.truncate import BODY_BYTES, truncate_to
from service.contracts.wire.partitioner import partition_for
from service.errors import faultpoint
from service.kafka.clients import Batch, BatchTooLarge, Producer
from service.relay.halted import RelayHalted
from service.relay.records import Header, StateRecord, States, event_headers, state_headers
from service.store.outbox import EventRow, LifecycleStream


@dataclass(slots=True)
class PreparedTransaction:
    """One transaction's batches. `last`: by partition, the last position; `counts`: how many events."""

    batches: list[tuple[str, int, Batch]] = field(default_factory=list)
    last: dict[int, int] = field(default_factory=dict)
    events: int = 0


class Publisher:
    """Sends on one producer, for one stream. Not for two tasks at once, but `prepare` may run ahead."""

    def __init__(
        self,
        producer: Producer,
        stream: LifecycleStream,
        state_topic: str,
        states: States,
        state_bytes: int = BODY_BYTES,
    ) -> None:
        """`state_bytes`: the largest body of a state record, in bytes; a longer one is cut here."""
        self._producer = producer
        self._stream = stream
        self._stream_id = str(stream.id).encode()
        self._state_topic = state_topic
        self._states = states
        self._state_bytes = state_bytes

    async def prepare(
        self, rows: Sequence[EventRow], again: Iterable[UUID] = ()
    ) -> PreparedTransaction:
        """Rows, in position order per partition, and their jobs' states; `again`: more jobs to send."""
        at = {row.job_id: row.at for row in rows if row.job_id is not None}
        wanted = list({**at, **dict.fromkeys(again)})
        states = await self._states(wanted) if wanted else {}
        prepared = PreparedTransaction(events=len(rows))
        by_partition: dict[int, list[EventRow]] = {}
        for row in rows:
            by_partition.setdefault(row.partition, []).append(row)
        for partition, owned in by_partition.items():
            prepared.last[partition] = owned[-1].position
            self._fill(
                prepared,
                self._stream.topic,
                partition,
                (
                    (row.subject.encode(), row.body.encode(), event_headers(row, self._stream_id))
                    for row in owned
                ),
            )
        placed = {row.job_id: row.partition for row in rows if row.job_id is not None}
        self._fill_states(prepared, states, at, placed)
        return prepared

    def _fill_states(
        self,
        prepared: PreparedTransaction,
        states: Mapping[UUID, StateRecord],
        at: Mapping[UUID, datetime],
        placed: Mapping[UUID, int],
    ) -> None:
        now = datetime.now(UTC)
        by_partition: dict[int, list[tuple[bytes, bytes, list[Header]]]] = {}
        for job_id, (key, body, sequence) in states.items():
            if len(body) > self._state_bytes:
                body = truncate_to(body.decode(), self._state_bytes).encode()
            headers = state_headers(job_id, key, sequence, at.get(job_id, now))
            partition = placed.get(job_id, -1)
            if partition < 0:
                partition = partition_for(key, self._stream.partitions)
            by_partition.setdefault(partition, []).append((key, body, headers))
        for partition, records in by_partition.items():
            self._fill(prepared, self._state_topic, partition, records)

    def _fill(
        self,
        prepared: PreparedTransaction,
        topic: str,
        partition: int,
        records: Iterable[tuple[bytes, bytes, list[Header]]],
    ) -> None:
        batch = self._producer.batch()
        prepared.batches.append((topic, partition, batch))
        for key, body, headers in records:
            if not batch.append(key, body, headers):
                batch = self._producer.batch()
                prepared.batches.append((topic, partition, batch))
                batch.append(key, body, headers)

    async def publish(self, prepared: PreparedTransaction) -> dict[int, tuple[int, int]]:
        """One transaction. Returns checkpoints: by partition, the last position and its offset in the log.

        Raises errors.Transient (ProducerFenced, BrokerUnavailable among them); then nobody knows whether it
        committed, and the producer is good for nothing but discarding. Raises RelayHalted, with nothing
        committed, when the broker answers that a record is too large for its topic: it always will. Several
        in one batch may only be too large together: BatchTooLarge.
        """
        await self._producer.begin()
        futures: list[asyncio.Future[object]] = []
        for topic, partition, batch in prepared.batches:
            futures.append(await self._producer.send(batch, topic, partition))
        try:
            offsets = await self._producer.delivered(futures)
        except BatchTooLarge as exc:
            if prepared.batches[exc.batch][2].count > 1:
                raise
            raise self._stop(prepared, exc.batch) from exc
        faultpoint("relay_before_commit")
        await self._producer.commit()
        faultpoint("relay_after_commit")
        checkpoints: dict[int, tuple[int, int]] = {}
        for (topic, partition, batch), offset in zip(prepared.batches, offsets, strict=True):
            if topic == self._stream.topic and offset >= 0:
                checkpoints[partition] = (prepared.last[partition], offset + batch.count - 1)
        return checkpoints

    def _stop(self, prepared: PreparedTransaction, number: int) -> RelayHalted:
        """Names the record that is too large: its topic, its partition and its position there."""
        topic, partition, _ = prepared.batches[number]
        last = prepared.last.get(partition)
        if topic == self._stream.topic:
            later = prepared.batches[number + 1 :]
            after = sum(b.count for t, p, b in later if (t, p) == (topic, partition))
            what = f"position {prepared.last[partition] - after}"
        elif last is not None:
            what = f"the state of one of the jobs up to position {last}"
        else:
            what = "the state of a job"
        return RelayHalted(
            f"topic {topic}, partition {partition}: the broker takes no record as large as {what}",
            code="relay_too_large",
            remedy=f"Raise max.message.bytes of {topic} (kafka-configs.sh) and start the relay again",
        )
