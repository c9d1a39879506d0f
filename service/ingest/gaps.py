"""Where the stored offset and the log no longer meet: records that expired unread, or a topic made anew.

The consumer stops there, since continuing loses or repeats records; an operator accepts it with
`fl-jobs offsets accept`. Pure: offsets in, words out.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.kafka import PartitionId


@dataclass(frozen=True, slots=True)
class Gap:
    """`stored`: the next offset to read by the database; `start`, `end`: of the log as it is."""

    partition_id: PartitionId
    stored: int
    start: int
    end: int

    @property
    def lost(self) -> int:
        """Records that expired before they were read; 0 where the log is another one."""
        return max(0, self.start - self.stored)

    @property
    def cause(self) -> str:
        topic, partition = self.partition_id
        where = f"{topic}, partition {partition}"
        if self.lost:
            last = self.start - 1
            return f"{where}: records {self.stored} to {last} expired before they were read"
        return (
            f"{where}: read up to {self.stored}, but the log ends at {self.end}: the topic was made anew or "
            "lost records"
        )

    @property
    def remedy(self) -> str:
        topic, partition = self.partition_id
        accept = f"`fl-jobs offsets accept {topic}/{partition}`, then start the service again"
        if self.lost:
            return f"Lengthen the topic's retention; to continue without them: {accept}"
        return f"To read it from its start: {accept}"


def find_gap(partition_id: PartitionId, stored: int, start: int, end: int) -> Gap | None:
    """None where reading can continue: `stored` lies between the log's start and end."""
    return None if start <= stored <= end else Gap(partition_id, stored, start, end)
