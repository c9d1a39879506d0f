"""Applies a batch, and finds the record that spoils it.

A batch that fails is tried once more (two first requests of one job may have raced, a connection may have
gone). One that failed twice at one offset is halved, whatever the error was, until the record is alone;
alone it becomes a dead letter with the cause, and everything else takes effect. Two things are never the
record's fault: losing a race, however often, and a database that is unavailable. So behind an error that
could mean either, the database is asked to write something of its own: only while it does so is a batch
halved, and only a record that failed alone several times between such answers is buried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

import structlog

from service.domain.decision import Decision
from service.errors import ServiceError, Transient
from service.ingest.status import IngestStatus
from service.kafka import PartitionId
from service.store.records import (
    RACES,
    BatchRefused,
    DeadLetter,
    InboundItem,
    OffsetFence,
    dead_letter,
    dead_letter_of,
)

log = structlog.get_logger(__name__)

#: How often a record must fail alone, with a database that writes in between, before it is buried.
_ALONE: Final = 4
_BETWEEN_SECONDS: Final = 0.5
#: How long the database may need to answer again: an error may have cost its process.
_PROBES: Final = 10
#: Errors that no content can cause: races, rights, and what another submission holds.
_NEVER_ITS_FAULT: Final = frozenset({"database_busy", "database_refused", "net_in_doubt"})
#: SQLSTATEs that speak of the server: wrong login, its disk or memory, read only, told to shut down.
_OF_THE_SERVER: Final = ("28", "3D", "53", "58", "25006", "57P01", "57P03")


class Applies(Protocol):
    async def apply_batch(
        self, items: Sequence[InboundItem], fence: OffsetFence | None
    ) -> list[Decision]: ...


class ReadAgain(Transient):
    """The batch lost a race again and again: read its records again."""

    code = "read_again"


class PoisonRecordIsolator:
    """Applies batches of one consumer group. It outlives the sessions: that a batch failed is remembered."""

    def __init__(
        self,
        store: Applies,
        group: str,
        status: IngestStatus,
        between_seconds: float = _BETWEEN_SECONDS,
    ) -> None:
        self._store = store
        self._group = group
        self._status = status
        self._between_seconds = between_seconds
        self._failed: set[tuple[PartitionId, int]] = set()

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
        done = await self._attempt(items, old, new)
        if isinstance(done, Transient):
            before, self._failed = self._failed, set(old.items())
            if not before & self._failed:
                raise done
        elif isinstance(done, Exception):
            log.info("batch_refused", records=len(items), error=str(done))
            done = await self._attempt(items, old, new)
        if isinstance(done, Exception):
            await self._check(done, old)
            log.warning("batch_halved", records=len(items), error=str(done))
            done = await self._divide(items, dict(old), new, done)
        self._failed = set()
        return done

    async def _attempt(
        self,
        items: Sequence[InboundItem],
        old: Mapping[PartitionId, int],
        new: Mapping[PartitionId, int],
    ) -> list[Decision] | Exception:
        """The decisions, or the error that the batch may be at fault for. Raises the others (Fenced)."""
        try:
            return await self._store.apply_batch(items, self._fence(old, new))
        except (BatchRefused, Transient) as exc:
            return exc
        except ServiceError:
            raise
        except Exception as exc:
            log.exception("batch_failed", records=len(items))
            return exc

    async def _divide(
        self,
        items: Sequence[InboundItem],
        at: dict[PartitionId, int],
        new: Mapping[PartitionId, int],
        cause: Exception,
    ) -> list[Decision]:
        """Apply a batch that failed in halves; `at` follows the offsets that are stored already."""
        if len(items) <= 1:
            return await self._alone(items, at, new, cause)
        middle = len(items) // 2
        done: list[Decision] = []
        for half, rest in ((items[:middle], items[middle:]), (items[middle:], ())):
            ends = self._ends(half, rest, new)
            starts = {partition_id: at[partition_id] for partition_id in ends}
            decisions = await self._attempt(half, starts, ends)
            if isinstance(decisions, Exception):
                await self._check(decisions, starts)
                decisions = await self._divide(half, at, ends, decisions)
            at.update(ends)
            done += decisions
        return done

    async def _alone(
        self,
        items: Sequence[InboundItem],
        at: dict[PartitionId, int],
        new: Mapping[PartitionId, int],
        cause: Exception,
    ) -> list[Decision]:
        """A record that failed alone (or none: offsets that move over markers). What was refused for its
        content is buried at once; another error must come again and again."""
        starts = {partition_id: at[partition_id] for partition_id in new}
        for _ in range(0 if isinstance(cause, BatchRefused) else _ALONE - 1):
            await asyncio.sleep(self._between_seconds)
            done = await self._attempt(items, starts, new)
            if not isinstance(done, Exception):
                return done
            await self._check(done, starts)
            cause = done
        if not items:
            raise cause
        return await self._dead_letter(items, starts, new, cause)

    async def _check(self, error: Exception, starts: Mapping[PartitionId, int]) -> None:
        """Return when the batch itself can be at fault, as it is with a database that goes on writing.

        Raises ReadAgain, the error where it is not; Fenced where the failed transaction was committed.
        """
        if isinstance(error, BatchRefused):
            if error.sqlstate in RACES:
                raise ReadAgain(f"the batch lost a race twice: {error.message}") from error
            return
        cause = error.__cause__ if isinstance(error, ServiceError) else error
        state = str(getattr(cause, "sqlstate", None) or "")
        code = error.code if isinstance(error, ServiceError) else ""
        if code in _NEVER_ITS_FAULT or state.startswith(_OF_THE_SERVER):
            raise error
        if not await self._writes(starts):
            raise error

    async def _writes(self, starts: Mapping[PartitionId, int]) -> bool:
        """Does the database take a transaction without records, now or in a moment?"""
        for _ in range(_PROBES):
            if not isinstance(await self._attempt((), starts, starts), Exception):
                return True
            await asyncio.sleep(self._between_seconds)
        return False

    async def _dead_letter(
        self,
        items: Sequence[InboundItem],
        at: Mapping[PartitionId, int],
        new: Mapping[PartitionId, int],
        cause: Exception,
    ) -> list[Decision]:
        self._status.isolated += 1
        self._status.dead_letters += 1
        dead = [
            replace(item, command=None, event_key=None, content=None, dead=_cause(item, cause))
            for item in items
        ]
        return await self._store.apply_batch(dead, self._fence(at, new))

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


def _cause(item: InboundItem, cause: Exception) -> DeadLetter:
    if isinstance(cause, BatchRefused):
        letter = dead_letter_of(cause)
    else:
        inner = cause.__cause__ if isinstance(cause, ServiceError) else None
        text = f"failed alone, again and again, while the database answered: {cause}"
        letter = dead_letter(type(inner if inner is not None else cause).__name__, text)
    log.warning(
        "record_isolated",
        topic=item.source_record.topic,
        partition=item.source_record.partition,
        offset=item.source_record.offset,
        kind=letter.kind,
    )
    return letter
