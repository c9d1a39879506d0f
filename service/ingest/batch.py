"""A batch that is being filled: decoded items, and where the offsets stand after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.store.batch import Item

Place = tuple[str, int]


@dataclass(slots=True)
class Filling:
    """Items ordered as they came, per partition by offset. `old`, `new`: next offsets by place."""

    max_records: int
    max_bytes: int
    items: list[Item] = field(default_factory=list)
    bytes: int = 0
    old: dict[Place, int] = field(default_factory=dict)
    new: dict[Place, int] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """How many more records fit; 0 when the batch is closed."""
        return 0 if self.bytes >= self.max_bytes else self.max_records - len(self.items)

    def fits(self, size: int) -> bool:
        """Does a record of `size` bytes still go in? The first always does."""
        return not self.items or (self.room > 0 and self.bytes + size <= self.max_bytes)

    def add(self, item: Item, size: int, at: Mapping[Place, int]) -> None:
        """`at`: the next offset of every place before this batch."""
        place = (item.origin.topic, item.origin.partition)
        self.old.setdefault(place, at[place])
        self.new[place] = item.origin.offset + 1
        self.items.append(item)
        self.bytes += size

    def ordered(self) -> list[Item]:
        """The items by partition, then offset."""
        return sorted(
            self.items, key=lambda i: (i.origin.topic, i.origin.partition, i.origin.offset)
        )
