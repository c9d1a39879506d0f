"""One record spoils a batch: it alone is buried, offsets move without a hole, races are nobody's fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.decision import Decision
from service.errors import Transient
from service.ingest.poison import PoisonRecordIsolator, ReadAgain
from service.ingest.status import IngestStatus
from service.store.records import BatchRefused, InboundItem, OffsetFence, OffsetMoved, RecordRef

Place = tuple[str, int]


class FencedStore:
    """Keeps offsets as the database does; refuses a batch that holds a poisonous record alive."""

    def __init__(self, poison: set[tuple[int, int]], sqlstate: str | None = "22021") -> None:
        self.poison = poison
        self.sqlstate = sqlstate
        self.at: dict[Place, int] = {}
        self.applied: list[InboundItem] = []
        self.calls = 0
        self.races = 0

    async def apply_batch(
        self, items: Sequence[InboundItem], fence: OffsetFence | None
    ) -> list[Decision]:
        self.calls += 1
        assert fence is not None
        if self.races:
            self.races -= 1
            raise BatchRefused("raced", sqlstate="23505")
        for topic, partition, old, _ in fence.entries:
            if self.at[topic, partition] != old:
                raise OffsetMoved("moved")
        for item in items:
            place = (item.source_record.partition, item.source_record.offset)
            if item.dead is None and place in self.poison:
                raise BatchRefused("can't be stored", sqlstate=self.sqlstate) from ValueError("NUL")
        for topic, partition, _, new in fence.entries:
            self.at[topic, partition] = new
        self.applied += items
        return [Decision() for _ in items]


def item(partition: int, offset: int) -> InboundItem:
    return InboundItem(None, RecordRef("t", partition, offset, 0, b"k", b"v", ()), None, None, None)


def batch(counts: dict[int, int]) -> tuple[list[InboundItem], dict[Place, int], dict[Place, int]]:
    items = [item(p, offset) for p in sorted(counts) for offset in range(counts[p])]
    old = {("t", p): 0 for p in counts}
    return items, old, {("t", p): count + 3 for p, count in counts.items()}


@given(
    counts=st.dictionaries(st.integers(0, 3), st.integers(1, 12), min_size=1),
    poison=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 11)), max_size=5),
)
async def test_only_the_poisonous_are_buried(
    counts: dict[int, int], poison: set[tuple[int, int]]
) -> None:
    items, old, new = batch(counts)
    store, status = FencedStore(poison), IngestStatus()
    store.at = dict(old)
    done = await PoisonRecordIsolator(store, "g", status).apply(items, old, new)
    assert len(done) == len(items)
    assert store.at == new
    places = [(i.source_record.partition, i.source_record.offset) for i in store.applied]
    assert sorted(places) == sorted(
        (i.source_record.partition, i.source_record.offset) for i in items
    )
    buried = {
        (i.source_record.partition, i.source_record.offset)
        for i in store.applied
        if i.dead is not None
    }
    assert buried == poison & set(places)
    assert status.isolated == len(buried)


async def test_the_cause_is_named() -> None:
    items, old, new = batch({0: 5})
    store = FencedStore({(0, 2)})
    store.at = dict(old)
    await PoisonRecordIsolator(store, "g", IngestStatus()).apply(items, old, new)
    (dead,) = [i.dead for i in store.applied if i.dead is not None]
    assert (dead.kind, dead.message) == ("ValueError", "can't be stored")


async def test_a_race_is_tried_once_more() -> None:
    items, old, new = batch({0: 5})
    store = FencedStore(set())
    store.at, store.races = dict(old), 1
    await PoisonRecordIsolator(store, "g", IngestStatus()).apply(items, old, new)
    assert store.calls == 2
    assert store.at == new


async def test_a_race_is_never_poison() -> None:
    items, old, new = batch({0: 1})
    store = FencedStore({(0, 0)}, sqlstate="23505")
    store.at = dict(old)
    with pytest.raises(ReadAgain):
        await PoisonRecordIsolator(store, "g", IngestStatus()).apply(items, old, new)
    assert store.at == old


async def test_a_moved_offset_ends_it() -> None:
    items, old, new = batch({0: 4})
    store = FencedStore({(0, 1)})
    store.at = {("t", 0): 9}
    with pytest.raises(OffsetMoved):
        await PoisonRecordIsolator(store, "g", IngestStatus()).apply(items, old, new)
    assert not store.applied


class FailingStore(FencedStore):
    """Fails with any error while a batch holds a poisonous record; `outage` calls fail whatever they hold."""

    def __init__(self, poison: set[tuple[int, int]], error: Callable[[], Exception]) -> None:
        super().__init__(poison)
        self.error = error
        self.outage = 0
        self.largest_failed: list[int] = []

    async def apply_batch(
        self, items: Sequence[InboundItem], fence: OffsetFence | None
    ) -> list[Decision]:
        alive = {
            (i.source_record.partition, i.source_record.offset) for i in items if i.dead is None
        }
        if self.outage or alive & self.poison:
            self.outage = max(0, self.outage - 1)
            self.largest_failed.append(len(items))
            raise self.error()
        return await super().apply_batch(items, fence)


def ended_session() -> Exception:
    """As the store says that the server ended a session."""
    error = Transient("the database is unavailable", code="database_away")
    error.__cause__ = ConnectionResetError("in the middle of an operation")
    return error


def caused_by(sqlstate: str) -> Exception:
    error = Transient("the database is unavailable", code="database_away")
    error.__cause__ = SqlError()
    error.__cause__.sqlstate = sqlstate
    return error


class SqlError(Exception):
    sqlstate = ""


async def read_until_stored(
    isolator: PoisonRecordIsolator, store: FencedStore, counts: dict[int, int]
) -> int:
    """What the consumer does: after an error it reads again from what is stored. How often it had to."""
    items, old, new = batch(counts)
    store.at = dict(old)
    for again in range(20):
        left = [
            i for i in items if i.source_record.offset >= store.at["t", i.source_record.partition]
        ]
        try:
            await isolator.apply(left, dict(store.at), new)
        except (Transient, OffsetMoved):
            continue
        return again
    raise AssertionError("never stored")


@pytest.mark.parametrize("error", [ended_session, lambda: caused_by("25P03"), RuntimeError])
@pytest.mark.parametrize("poison", [set(), {(0, 0)}, {(0, 6), (1, 11)}])
async def test_a_batch_that_failed_twice_at_one_offset_is_halved_whatever_the_error_was(
    error: Callable[[], Exception], poison: set[tuple[int, int]]
) -> None:
    store, status = FailingStore(poison, error), IngestStatus()
    await read_until_stored(PoisonRecordIsolator(store, "g", status, 0.0), store, {0: 12, 1: 12})
    buried = {
        (i.source_record.partition, i.source_record.offset)
        for i in store.applied
        if i.dead is not None
    }
    assert buried == poison
    assert status.isolated == len(poison)
    assert len(store.applied) == 24
    assert min(store.largest_failed, default=1) == 1


async def test_records_that_together_take_too_long_are_all_stored() -> None:
    class Slow(FencedStore):
        async def apply_batch(
            self, items: Sequence[InboundItem], fence: OffsetFence | None
        ) -> list[Decision]:
            if len(items) > 3:
                raise ended_session()
            return await super().apply_batch(items, fence)

    store, status = Slow(set()), IngestStatus()
    assert (
        await read_until_stored(PoisonRecordIsolator(store, "g", status, 0.0), store, {0: 64}) == 1
    )
    assert status.isolated == 0
    assert [i.source_record.offset for i in store.applied] == list(range(64))


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_an_outage_buries_nothing(calls: int) -> None:
    store, status = FailingStore(set(), ended_session), IngestStatus()
    store.outage = calls
    await read_until_stored(PoisonRecordIsolator(store, "g", status, 0.0), store, {0: 1, 1: 5})
    assert status.isolated == 0
    assert all(item.dead is None for item in store.applied)


@pytest.mark.parametrize(
    "sqlstate", ["53100", "53200", "58030", "25006", "57P01", "57P03", "28P01"]
)
async def test_what_speaks_of_the_server_is_never_a_records_fault(sqlstate: str) -> None:
    store = FailingStore({(0, 0)}, lambda: caused_by(sqlstate))
    with pytest.raises(AssertionError, match="never stored"):
        await read_until_stored(
            PoisonRecordIsolator(store, "g", IngestStatus(), 0.0), store, {0: 1}
        )
    assert not store.applied


async def test_a_batch_that_failed_and_was_stored_all_the_same_is_not_stored_twice() -> None:
    class Unknown(FencedStore):
        async def apply_batch(
            self, items: Sequence[InboundItem], fence: OffsetFence | None
        ) -> list[Decision]:
            done = await super().apply_batch(items, fence)
            if self.calls == 1:
                raise ended_session()
            return done

    store, status = Unknown(set()), IngestStatus()
    await read_until_stored(PoisonRecordIsolator(store, "g", status, 0.0), store, {0: 4})
    assert len(store.applied) == 4
