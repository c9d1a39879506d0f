"""The runs of an embedded net on disk: what was asked for and how it ended.

Promise: a run that was answered is here after a restart or a loss of power, with the status it
last had (after a loss of power perhaps the one before); ids are
derived from the idempotency key where there is one, so the same key can make one run only. What
breaks the promise: two servers over one folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from service.domain.enums import FLJobStatus
from service.fl_server.database import Database
from service.fl_server.report_writer import storable
from service.fl_server.runtime import StagedApp, SubmissionRef

_NAMESPACE: Final = UUID("5b0f0a5e-8f0f-5d52-9a1c-6f1f3f7c9d10")
_MAX_DETAILS: Final = 500

OVER: Final = frozenset({FLJobStatus.FINISHED, FLJobStatus.FAILED, FLJobStatus.STOPPED})

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS run (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id   TEXT NOT NULL UNIQUE,
  path_id  TEXT NOT NULL,
  key      TEXT,
  job_id   TEXT,
  attempt  INTEGER,
  app      TEXT NOT NULL,
  slots    TEXT NOT NULL,
  status   TEXT NOT NULL,
  details  TEXT,
  starts   INTEGER NOT NULL DEFAULT 0,
  made     REAL NOT NULL,
  ended    REAL
);
"""
_COLUMNS: Final = (
    "run_id, path_id, key, job_id, attempt, app, slots, status, details, starts, ended"
)


@dataclass(slots=True)
class StoredRun:
    """One run. `starts` counts how often it was begun, `ended` is seconds since 1970 or None."""

    run_id: str
    path_id: UUID
    key: str | None
    job_id: UUID | None
    attempt: int | None
    app: Path
    slots: tuple[str, ...]
    status: FLJobStatus = FLJobStatus.PENDING
    details: str | None = None
    starts: int = 0
    ended: float | None = None

    @property
    def over(self) -> bool:
        """Whether nothing can change any more."""
        return self.status in OVER


class RunStore:
    """All runs, in memory and on disk, oldest first. Used by the event loop's thread alone but for
    `write`, which may wait for the disk."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)
        self.runs: dict[str, StoredRun] = {}
        for row in self._database.rows(f"SELECT {_COLUMNS} FROM run ORDER BY position"):
            run = _run(row)
            self.runs[run.run_id] = run

    @staticmethod
    def new(app: StagedApp, ref: SubmissionRef) -> StoredRun:
        """A run that is not yet in the store."""
        run_id = uuid4() if ref.key is None else uuid5(_NAMESPACE, ref.key)
        return StoredRun(
            str(run_id), app.path_id, ref.key, ref.job_id, ref.attempt, app.folder, app.slots
        )

    @staticmethod
    def id_for(key: str) -> str:
        """The id of the run that a key makes."""
        return str(uuid5(_NAMESPACE, key))

    def write(self, run: StoredRun) -> None:
        """Put a new run on disk; the caller adds it to `runs` afterwards."""
        self._database.execute(
            f"INSERT INTO run ({_COLUMNS}, made) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(run.run_id, str(run.path_id), run.key),
                *(None if run.job_id is None else str(run.job_id), run.attempt),
                *(str(run.app), json.dumps(run.slots), run.status.value, run.details),
                *(run.starts, run.ended, time.time()),
            ),
            sync=True,
        )

    def begin(self, run: StoredRun) -> None:
        """The run trains now (again)."""
        self._update(run, FLJobStatus.RUNNING, None, run.starts + 1, None)

    def end(self, run: StoredRun, status: FLJobStatus, details: str | None = None) -> None:
        """The run is over; the first end stays. `details` may be any text."""
        if run.over:
            return
        if details is not None:
            details = " ".join(storable(details).split())[:_MAX_DETAILS]
        self._update(run, status, details, run.starts, time.time())

    def forget(self, run_ids: Iterable[str]) -> None:
        """Remove runs."""
        for run_id in run_ids:
            self._database.execute("DELETE FROM run WHERE run_id = ?", (run_id,))
            self.runs.pop(run_id, None)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _update(
        self,
        run: StoredRun,
        status: FLJobStatus,
        details: str | None,
        starts: int,
        ended: float | None,
    ) -> None:
        """On disk first: what could not be written is not shown either."""
        self._database.execute(
            "UPDATE run SET status = ?, details = ?, starts = ?, ended = ? WHERE run_id = ?",
            (status.value, details, starts, ended, run.run_id),
        )
        run.status, run.details, run.starts, run.ended = status, details, starts, ended


def _run(row: tuple[Any, ...]) -> StoredRun:
    run_id, path_id, key, job_id, attempt, app, slots, status, details, starts, ended = row
    return StoredRun(
        run_id,
        UUID(path_id),
        key,
        None if job_id is None else UUID(job_id),
        attempt,
        Path(app),
        tuple(json.loads(slots)),
        FLJobStatus(status),
        None if details is None else storable(details),
        starts,
        ended,
    )
