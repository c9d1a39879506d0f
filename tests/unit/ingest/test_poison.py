"""One record spoils a batch: it alone is buried, offsets move without a hole, races are nobody's fault."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.decision import Decision
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
