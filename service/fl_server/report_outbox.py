"""Reports on disk until the broker has them.

Promise: a report that was added is published at least once, also after a restart, always with the
same id and the same content: adding a known id again changes nothing, so a resumed run may tell
its story from the start. The queue is bounded: beyond the bound only status reports are taken and
the rest is counted as dropped. What breaks the promise: a full disk.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from service.fl_server.database import Database

#: Reports that may wait for the broker.
MAX_WAITING: Final = 50_000
#: Seconds for which the ids of published reports are remembered.
REMEMBER_SECONDS: Final = 30 * 86_400.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS report (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id       TEXT NOT NULL UNIQUE,
  type     TEXT NOT NULL,
  subject  TEXT NOT NULL,
  time     REAL NOT NULL,
  data     BLOB
);
CREATE INDEX IF NOT EXISTS report_waiting ON report (position) WHERE data IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class ReportEvent:
    """One CloudEvent to be published. `subject` is the job id and the record's key; `data` JSON."""

    id: str
    type: str
    subject: str
    time: datetime
    data: bytes


class ReportOutbox:
    """The reports of one net in the order they were made."""

    def __init__(self, path: Path, *, max_waiting: int = MAX_WAITING) -> None:
        self._database = Database(path, _SCHEMA)
        self._max_waiting = max_waiting
        self._database.execute(
            "DELETE FROM report WHERE data IS NULL AND time < ?", (time.time() - REMEMBER_SECONDS,)
        )
        [[self._waiting]] = self._database.rows(
            "SELECT count(*) FROM report WHERE data IS NOT NULL"
        )
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """How many reports the broker has not acknowledged."""
        return int(self._waiting)

    def add(self, report: ReportEvent, *, required: bool) -> bool:
        """Keep a report; False when its id is known or, unless it is `required`, the queue is full."""
        if self._waiting >= self._max_waiting and not required:
            self.dropped += 1
            return False
        added = self._database.execute(
            "INSERT OR IGNORE INTO report (id, type, subject, time, data) VALUES (?, ?, ?, ?, ?)",
            (report.id, report.type, report.subject, report.time.timestamp(), report.data),
        )
        self._waiting += added
        return added == 1

    def head(self, most: int) -> list[tuple[int, ReportEvent]]:
        """The oldest waiting reports with their positions."""
        return [
            (position, ReportEvent(id_, type_, subject, datetime.fromtimestamp(made, UTC), data))
            for position, id_, type_, subject, made, data in self._database.rows(
                "SELECT position, id, type, subject, time, data FROM report"
                " WHERE data IS NOT NULL ORDER BY position LIMIT ?",
                (most,),
            )
        ]

    def done(self, positions: Sequence[int]) -> None:
        """These were acknowledged: only their ids are kept."""
        with self._database.transaction():
            for position in positions:
                self._waiting -= self._database.execute(
                    "UPDATE report SET data = NULL WHERE position = ? AND data IS NOT NULL",
                    (position,),
                )

    def close(self) -> None:
        """Close the file."""
        self._database.close()
