"""The write path on a real database: offsets, event ids and jobs change together, or nothing does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from service.contracts.inbound import stop
from service.domain import commands as c
from service.domain.decision import Outcome
from service.domain.enums import WaitingCode
from service.ingest.poison import PoisonRecordIsolator
from service.ingest.status import IngestStatus
from service.store.outbox import EventOutbox
from service.store.records import BatchRefused, DeadLetter, InboundItem, OffsetFence, OffsetMoved
from tests.integration.store.harness import GROUP, PARTITIONS, TOPIC, asked, item, opened

STOP = stop.STOP_REQUESTED
WAITS = (WaitingCode.CAPACITY, WaitingCode.TRUSTS, WaitingCode.GPUS)
QUEUED_AND_STOPPED = ["job.queued", "job.stop_requested", "job.stopped"]


async def test_a_stale_reader_is_fenced_and_writes_nothing(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        await w.ask()
        late = item(asked(), 0)
        for old, new in ((0, 1), (2, 3)):
            with pytest.raises(OffsetMoved):
                await w.store.apply_batch([late], OffsetFence([(TOPIC, 0, old, new)], GROUP))
        with pytest.raises(OffsetMoved):  # a partition that has no stored offset
            await w.store.apply_batch([late], OffsetFence([(TOPIC, 1, 0, 1)], GROUP))
        assert (await w.count("job"), await w.count("event")) == (1, 1)
        assert await w.store.offsets(GROUP, [(TOPIC, 0)]) == {(TOPIC, 0): 1}


async def test_a_job_id_names_one_request_for_ever(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        data = asked()
        first, again, other = await w.take(
            item(data, 0), item(data, 1), item(data | {"cohort_query": "select 2"}, 2)
        )
        assert first.outcome is Outcome.APPLIED
        assert again.outcome is Outcome.IGNORED
        assert again.reason is not None
        assert again.reason.code == "same_request"
        assert other.outcome is Outcome.REFUSED
        assert other.reason is not None
        assert other.reason.code == "duplicate_conflict"
        assert (await w.take(item(data, 3)))[0].outcome is Outcome.IGNORED
        kinds = await w.kinds(UUID(data["job_id"]))
        assert kinds == ["job.queued", "training.request_refused"]


async def test_an_event_id_counts_once(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        data = {"job_id": str(await w.ask())}
        first = await w.tell(STOP, data, "stop-1")
        events = await w.count("event")
        again = await w.tell(STOP, data, "stop-1")
        other = await w.tell(STOP, data | {"reason": "another"}, "stop-1")
        twice = await w.take(*(item(data, w.next_offset + n, STOP, "stop-2") for n in range(2)))
        assert [d.outcome for d in (first, again, other)] == [
            Outcome.APPLIED,
            Outcome.DUPLICATE,
            Outcome.CONFLICT,
        ]
        assert twice[1].outcome is Outcome.DUPLICATE
        assert await w.count("event") == events
        dead = await w.pool.fetch('SELECT kind, "offset" FROM dead_letter')
        assert [tuple(row) for row in dead] == [("IdempotencyConflict", 3)]


@pytest.mark.parametrize("together", [True, False])
async def test_a_stop_before_its_request_wins(migrated_env: dict[str, str], together: bool) -> None:
    async with opened(migrated_env) as w:
        data = asked()
        job_id = UUID(data["job_id"])
        records = [item({"job_id": str(job_id)}, 0, STOP), item(data, 1)]
        if together:
            await w.take(*records)
        else:
            assert (await w.take(records[0]))[0].outcome is Outcome.PARKED
            assert await w.count("parked") == 1
            await w.take(records[1])
        assert await w.kinds(job_id) == QUEUED_AND_STOPPED
        # One transaction: the system column names the one that wrote the row.
        writers = await w.pool.fetch("SELECT DISTINCT xmin::text FROM event")
        assert len(writers) == 1
        assert (await w.count("parked"), await w.count("ready")) == (0, 0)
        assert await w.store.claim("somebody") is None


async def test_positions_and_sequences_have_no_hole(migrated_env: dict[str, str]) -> None:
    """Four writers at once over the same jobs, in contrary orders."""
    async with opened(migrated_env) as w:
        jobs = [await w.ask() for _ in range(24)]
        stores = [w.rival() for _ in range(4)]

        async def write(number: int) -> None:
            order = jobs if number % 2 else jobs[::-1]
            for turn in range(12):
                fresh = [item(asked(), 0) for _ in range(5)]
                told: list[c.Command] = [
                    c.ReportWaiting(job, WAITS[(turn + number) % 3], turn) for job in order
                ]
                await stores[number].apply_batch(fresh, None)
                await stores[number].apply(told)

        await asyncio.gather(*(write(n) for n in range(4)))
        assert await w.pool.fetchval("SELECT deadlocks FROM pg_stat_database "
                                     "WHERE datname = current_database()") == 0  # fmt: skip
        gaps = await w.pool.fetch(
            "SELECT partition FROM event GROUP BY partition"
            " HAVING min(position) <> 1 OR max(position) <> count(*)"
        )
        assert gaps == []
        heads = await w.pool.fetch(
            "SELECT h.partition, h.position, count(e.position) AS n FROM head h"
            " LEFT JOIN event e USING (partition) GROUP BY 1, 2"
        )
        assert len(heads) == PARTITIONS
        assert [row["partition"] for row in heads if row["position"] != row["n"]] == []
        broken = await w.pool.fetch(
            "SELECT job_id FROM event GROUP BY job_id HAVING min(sequence) <> 1"
            " OR max(sequence) <> count(*) OR count(DISTINCT partition) <> 1"
            " OR array_agg(sequence ORDER BY position) <> array_agg(sequence ORDER BY sequence)"
        )
        assert broken == []
        assert await w.count("event") > 24 + 4 * 12 * 5
        assert await w.pool.fetchval("SELECT sum(queued) FROM job_group") == 24 + 4 * 12 * 5


async def test_what_cannot_be_stored_costs_its_record_alone(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        items: list[InboundItem] = [item(asked(), n) for n in range(9)]
        spoilt = items[4].command
        assert isinstance(spoilt, c.RequestTraining)
        object.__setattr__(spoilt.request, "cohort_query", "select \0")
        with pytest.raises(BatchRefused):
            await w.store.apply_batch(items, OffsetFence([(TOPIC, 0, 0, 9)], GROUP))
        assert await w.count("job") == 0
        isolator = PoisonRecordIsolator(w.store, GROUP, IngestStatus())
        await isolator.apply(items, {(TOPIC, 0): 0}, {(TOPIC, 0): 9})
        assert await w.count("job") == 8
        dead = await w.pool.fetch('SELECT "offset", message FROM dead_letter')
        assert [row["offset"] for row in dead] == [4]
        assert "select" not in dead[0]["message"]
        assert await w.store.offsets(GROUP, [(TOPIC, 0)]) == {(TOPIC, 0): 9}


async def test_a_dead_letter_moves_the_offset(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        origin = item(asked(), 0).source_record
        await w.take(InboundItem(None, origin, dead=DeadLetter("Undecodable", "no event")))
        row = await w.pool.fetchrow("SELECT * FROM dead_letter")
        assert row is not None
        assert (row["value"], row["published_at"]) == (origin.value, None)
        assert await w.store.offsets(GROUP, [(TOPIC, 0)]) == {(TOPIC, 0): 1}


async def test_a_stop_for_nobody_is_answered(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        decision = await w.tell(STOP, {"model_id": str(uuid4())})
        assert decision.reason is not None
        assert decision.reason.code == "unknown_job"
        assert await w.count("model_stop") == 0
        assert await w.pool.fetchval("SELECT type FROM event") == "fl.training.request_refused.v1"


async def test_a_dead_letter_of_a_topic_made_anew_is_kept(migrated_env: dict[str, str]) -> None:
    """Its offsets start again: the same place, another record."""
    async with opened(migrated_env) as w:
        old = item(asked(), 0).source_record
        new = replace(old, timestamp_ms=old.timestamp_ms + 1, value=b"another")
        same_time = replace(old, value=b"a third")
        for ref in (old, old, new, same_time):
            await w.store.apply_batch(
                [InboundItem(None, ref, dead=DeadLetter("Undecodable", "no event"))], None
            )
            await w.pool.execute("UPDATE dead_letter SET published_at = now()")
        await w.pool.execute("UPDATE dead_letter SET published_at = NULL")
        rows = await w.pool.fetch("SELECT value FROM dead_letter ORDER BY timestamp_ms")
        assert [row["value"] for row in rows] == [b"a third", b"another"]
        async with EventOutbox(w.pool).session() as session:
            await session.dead_letters_done((await session.dead_letters(10, 1_000_000))[:1])
        assert await w.count("dead_letter WHERE published_at IS NULL") == 1
