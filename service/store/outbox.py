"""Everything the relay asks of the database: events above a position, positions, leases, the second lane.

The event table is the outbox. Positions are given in the transaction that wrote the event (by
`service.store.apply`, under the lock of the partition's `head` row), so what is read here in position order
is complete: position n+1 is never visible before n. Nothing here numbers, updates or deletes an event.

The checkpoint says how far the log is known to hold the events. It may lag (the log is the truth) and only
goes up.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID, uuid4

import asyncpg

from service.errors import Invalid, Transient
from service.store.statements import QUERIES

_ACQUIRE_SECONDS: Final = 5.0

if TYPE_CHECKING:
    Connection = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )
    Pool = asyncpg.Pool[asyncpg.Record]
Headers = Sequence[tuple[str, bytes | None]]


class EventRow(NamedTuple):
    """One event as it was frozen. `subject` is the Kafka key; `sequence` is None on refusals."""

    partition: int
    position: int
    job_id: UUID | None
    sequence: int | None
    type: str
    event_id: str
    subject: str
    at: datetime
    body: str
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class LifecycleStream:
    """The identity of this database's events on the lifecycle topic, and the partitions fixed for it."""

    topic: str
    id: UUID
    partitions: int


@dataclass(frozen=True, slots=True)
class RelayPosition:
    """`head`: the last position given. `checkpoint`: the last known published, with its offset in the log;
    both 0 and -1 when nothing is known."""

    head: int
    checkpoint: int
    log_offset: int


class NetRow(NamedTuple):
    name: str
    body: str
    version: int


class DeadLetterRow(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: bytes
    timestamp_ms: int
    consumer_group: str
    kind: str
    message: str


def encode_headers(headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    """A record's headers as they are kept in the dead-letter table: JSON pairs, values in base64."""
    return json.dumps(
        [
            [name, None if value is None else base64.b64encode(value).decode()]
            for name, value in headers
        ]
    ).encode()


def decode_headers(kept: bytes) -> list[tuple[str, bytes | None]]:
    """The headers that `encode_headers` kept, in their order."""
    return [
        (name, None if value is None else base64.b64decode(value))
        for name, value in json.loads(kept)
    ]


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """asyncpg's ways of saying that the database is unavailable, as one error.

    Raises errors.Transient (`database_away`).
    """
    try:
        yield
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    ) as exc:
        raise Transient(f"{what}: {exc!r}", code="database_away") from exc


class EventOutbox:
    """The relay's questions, asked on connections of a pool that belongs to somebody else.

    Every method raises errors.Transient (`database_away`) when the database can't be asked.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @contextlib.asynccontextmanager
    async def session(self, *, relaxed: bool = False) -> AsyncIterator[Session]:
        """A connection of its own for as long as the block runs. `relaxed`: commits needn't reach the
        disk before they are answered (for what a crash may lose without harm)."""
        with _translated("taking a database connection"):
            connection = await self._pool.acquire(timeout=_ACQUIRE_SECONDS)
        try:
            if relaxed:
                with _translated("preparing a database connection"):
                    await connection.execute("SET synchronous_commit = off")
            yield Session(connection)
        finally:
            with contextlib.suppress(
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                OSError,
                TimeoutError,
            ):
                await self._pool.release(connection, timeout=_ACQUIRE_SECONDS)

    async def open_stream(self, topic: str, partitions: int) -> LifecycleStream:
        """The topic's stream, made at its first use with this many partitions.

        Raises errors.Invalid (`partitions_changed`) when it was made with another number.
        """
        with _translated("opening the event stream"):
            async with (
                self._pool.acquire(timeout=_ACQUIRE_SECONDS) as connection,
                connection.transaction(),
            ):
                await connection.execute(
                    QUERIES["outbox_stream_insert"], topic, uuid4(), partitions
                )
                row = await connection.fetchrow(QUERIES["outbox_stream"], topic)
                if row is not None and row["partitions"] == partitions:
                    await connection.execute(QUERIES["outbox_heads_insert"], partitions)
        if row is None or row["partitions"] != partitions:
            fixed = "another number" if row is None else row["partitions"]
            raise Invalid(
                f"topic {topic} has {partitions} partitions, but positions were given for {fixed}: the "
                f"number is fixed when the topic is first used, since a job's partition depends on it. "
                f"Restore the topic's partitions, or use a new FL_KAFKA__TOPIC_PREFIX with a new database",
                code="partitions_changed",
            )
        return LifecycleStream(row["topic"], row["id"], row["partitions"])

    async def undecodable_since(self, topic: str, partition: int, since_offset: int) -> int:
        """How many records of a partition, from this offset on, could not be decoded."""
        with _translated("counting dead letters"):
            async with self._pool.acquire(timeout=_ACQUIRE_SECONDS) as connection:
                count = await connection.fetchval(
                    QUERIES["outbox_undecodable"], topic, partition, since_offset
                )
        return int(count)


class Session:
    """One connection's questions; not for two tasks at once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def stream(self, topic: str) -> LifecycleStream | None:
        """The topic's stream, None when none was opened."""
        with _translated("reading the event stream"):
            row = await self._connection.fetchrow(QUERIES["outbox_stream"], topic)
        return None if row is None else LifecycleStream(row["topic"], row["id"], row["partitions"])

    async def positions(self, partitions: Sequence[int]) -> dict[int, RelayPosition]:
        with _translated("reading positions"):
            rows = await self._connection.fetch(QUERIES["outbox_positions"], list(partitions))
        return {
            row["partition"]: RelayPosition(
                row["head"],
                row["checkpoint"] or 0,
                -1 if row["log_offset"] is None else row["log_offset"],
            )
            for row in rows
        }

    async def events(self, after: Mapping[int, int], limit: int) -> list[EventRow]:
        """Events above `after` (partition: last published position), at most `limit`.

        Per partition in position order and without a hole at the start; partitions come in the order of
        the mapping, so a caller that turns it around serves them all.
        """
        with _translated("reading events"):
            rows = await self._connection.fetch(
                QUERIES["outbox_events"], list(after), list(after.values()), limit
            )
        return [EventRow._make(row) for row in rows]

    async def save_checkpoints(self, checkpoints: Mapping[int, tuple[int, int]]) -> None:
        """Keep (position, log offset) by partition; a smaller position changes nothing."""
        with _translated("saving checkpoints"):
            await self._connection.execute(
                QUERIES["outbox_checkpoint_upsert"],
                list(checkpoints),
                [position for position, _ in checkpoints.values()],
                [offset for _, offset in checkpoints.values()],
            )

    async def accept_log(self, partition: int, position: int, log_offset: int) -> None:
        """The operator's word: the log holds positions up to this one, and new ones start above."""
        with _translated("accepting the log"):
            async with self._connection.transaction():
                await self._connection.execute(QUERIES["outbox_accept_head"], partition, position)
                await self._connection.execute(
                    QUERIES["outbox_accept_checkpoint"], partition, position, log_offset
                )

    # --- leases --------------------------------------------------------------------------------

    async def take_lease(self, name: str, holder: str, seconds: float) -> int | None:
        """The lease's new token, None while somebody else holds it."""
        with _translated("taking a lease"):
            token = await self._connection.fetchval(
                QUERIES["outbox_lease_acquire"], name, holder, seconds
            )
        return None if token is None else int(token)

    async def renew_lease(self, name: str, holder: str, token: int, seconds: float) -> bool:
        """False when somebody else took it."""
        with _translated("renewing a lease"):
            row = await self._connection.fetchval(
                QUERIES["outbox_lease_renew"], name, holder, token, seconds
            )
        return row is not None

    async def give_back_lease(self, name: str, holder: str, token: int) -> None:
        with _translated("giving a lease back"):
            await self._connection.execute(QUERIES["outbox_lease_release"], name, holder, token)

    # --- the second lane -----------------------------------------------------------------------

    async def nets(self, limit: int) -> list[NetRow]:
        """Nets whose status is newer than what was published."""
        with _translated("reading net status"):
            rows = await self._connection.fetch(QUERIES["outbox_nets"], limit)
        return [NetRow._make(row) for row in rows]

    async def nets_done(self, rows: Sequence[NetRow]) -> None:
        with _translated("marking net status"):
            await self._connection.execute(
                QUERIES["outbox_nets_done"],
                [row.name for row in rows],
                [row.version for row in rows],
            )

    async def tombstones(self, limit: int) -> list[UUID]:
        with _translated("reading tombstones"):
            rows = await self._connection.fetch(QUERIES["outbox_tombstones"], limit)
        return [row["job_id"] for row in rows]

    async def tombstones_done(self, job_ids: Sequence[UUID]) -> None:
        with _translated("marking tombstones"):
            await self._connection.execute(QUERIES["outbox_tombstones_done"], list(job_ids))

    async def states_due(self, limit: int) -> list[tuple[UUID, datetime]]:
        """Jobs whose state changed after their last event, with the time of the change."""
        with _translated("reading states due"):
            rows = await self._connection.fetch(QUERIES["outbox_states_due"], limit)
        return [(row["job_id"], row["at"]) for row in rows]

    async def states_due_done(self, due: Sequence[tuple[UUID, datetime]]) -> None:
        with _translated("marking states due"):
            await self._connection.execute(
                QUERIES["outbox_states_due_done"],
                [job_id for job_id, _ in due],
                [at for _, at in due],
            )

    async def dead_letters(
        self, limit: int, max_bytes: int, without: Sequence[str] = ()
    ) -> list[DeadLetterRow]:
        """Unpublished dead letters, at most `limit`, together at most `max_bytes` (one may be larger),
        none of the inbound topics in `without`."""
        with _translated("reading dead letters"):
            rows = await self._connection.fetch(
                QUERIES["outbox_dead_letters"], limit, max_bytes, list(without)
            )
        return [DeadLetterRow._make(row) for row in rows]

    async def dead_letters_done(self, rows: Sequence[DeadLetterRow]) -> None:
        with _translated("marking dead letters"):
            await self._connection.execute(
                QUERIES["outbox_dead_letters_done"],
                [row.topic for row in rows],
                [row.partition for row in rows],
                [row.offset for row in rows],
                [row.timestamp_ms for row in rows],
            )
