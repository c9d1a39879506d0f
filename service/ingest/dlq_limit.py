"""Stops reading when (nearly) everything of a partition is undecodable.

A broken producer is a dead letter now and then. When more than a share of the last thousand records can't
be decoded, the likelier fault is ours (a bad deployment) or a wrong topic, and continuing would drain the
topic into the dead letters. Then nothing of the batch is stored and the offset stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from service.errors import Permanent

WINDOW: Final = 1_000


class DlqLimitExceeded(Permanent):
    """The consumer must not continue; an operator checks the records or the deployment."""

    code = "line_stopped"


class DlqLimit:
    """Watches the partitions of one assignment. `ratio` 0 turns it off."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._windows: dict[tuple[str, int], deque[bool]] = {}
        self._bad: dict[tuple[str, int], int] = {}

    def begin(self, topic: str, partition: int, undecodable: int, seen: int) -> None:
        """A partition is taken over. Of the `seen` records before it (at most the window) `undecodable`
        are dead letters already, so that a restart does not begin with an empty window."""
        seen = min(seen, WINDOW)
        undecodable = min(undecodable, seen)
        window = deque([False] * (seen - undecodable) + [True] * undecodable, maxlen=WINDOW)
        self._windows[topic, partition] = window
        self._bad[topic, partition] = undecodable

    def see(self, topic: str, partition: int, undecodable: Iterable[bool]) -> None:
        """Take the next records into account. Raises DlqLimitExceeded."""
        if self._ratio <= 0:
            return
        partition_id = (topic, partition)
        window = self._windows.setdefault(partition_id, deque(maxlen=WINDOW))
        bad = self._bad.get(partition_id, 0)
        for is_bad in undecodable:
            if len(window) == WINDOW and window[0]:
                bad -= 1
            window.append(is_bad)
            bad += is_bad
            if bad > self._ratio * WINDOW and len(window) == WINDOW:
                raise DlqLimitExceeded(
                    f"{bad} of the last {WINDOW} records of {topic}, partition {partition}, can't be "
                    f"decoded: more than {self._ratio:.0%}. Nothing more is read, and the offset stays. "
                    f"Look at a record with `fl-jobs dead-letters list`, then repair the producers or the "
                    f"deployment; FL_INGEST__MAX_UNDECODABLE_RATIO=0 lets everything through"
                )
        self._bad[partition_id] = bad
