"""A batch that is being filled: decoded items, and where the offsets stand after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.kafka import PartitionId
from service.store.records import InboundItem


@dataclass(slots=True)
class BatchBuilder:
    """Items ordered as they came, per partition by offset. `old`, `new`: next offsets by partition."""

    max_records: int
    max_bytes: int
    items: list[InboundItem] = field(default_factory=list)
    bytes: int = 0
    old: dict[PartitionId, int] = field(default_factory=dict)
    new: dict[PartitionId, int] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """How many more records fit; 0 when the batch is closed."""
        return 0 if self.bytes >= self.max_bytes else self.max_records - len(self.items)

    def fits(self, size: int) -> bool:
        """Does a record of `size` bytes still go in? The first always does."""
        return not self.items or (self.room > 0 and self.bytes + size <= self.max_bytes)

    def add(
        self,
        item: InboundItem,
        size: int,
        at: Mapping[PartitionId, int],
        following: int | None = None,
    ) -> None:
        """`at`: the next offset of every partition before this batch; `following`: the one behind this item,
        where it stands for several records."""
        partition_id = (item.source_record.topic, item.source_record.partition)
        self.old.setdefault(partition_id, at[partition_id])
        self.new[partition_id] = item.source_record.offset + 1 if following is None else following
        self.items.append(item)
        self.bytes += size

    def ordered(self) -> list[InboundItem]:
        """The items by partition, then offset."""
        return sorted(
            self.items,
            key=lambda i: (
                i.source_record.topic,
                i.source_record.partition,
                i.source_record.offset,
            ),
        )
