"""When nothing comes for a while: is that true, and what lies between the records?

A client can die silently, with a log to read before it; and the positions behind the last records move over
markers and aborted transactions, which no record tells.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition

from service.errors import Transient
from service.kafka.clients import with_deadline

Place = tuple[str, int]

#: So many looks in a row at an unread log mean that the client has died.
_STANDS_STILL = 3


class IdleLook:
    """Remembers what the last looks saw; one for each client."""

    def __init__(self) -> None:
        self._positions: dict[Place, int] = {}
        self._standing: dict[Place, int] = {}

    async def look(self, client: AIOKafkaConsumer, places: Iterable[Place]) -> dict[Place, int]:
        """The client's positions, all below them read. Raises errors.Transient (`poll_stalled`) when it
        stands still below the end of the log, or when the broker is away."""
        assigned = client.assignment()
        wanted = [TopicPartition(*p) for p in places if TopicPartition(*p) in assigned]
        at = {
            (tp.topic, tp.partition): await with_deadline(5, "reading a position", client.position(tp))
            for tp in wanted
        }
        ends = await with_deadline(5, "reading log ends", client.end_offsets(wanted))
        self._standing = {
            place: self._standing.get(place, 0) + 1
            for place, position in at.items()
            if ends[TopicPartition(*place)] > position == self._positions.get(place)
        }
        self._positions = at
        if any(count >= _STANDS_STILL for count in self._standing.values()):
            raise Transient("the client stands still below the end of the log", code="poll_stalled")
        return at
