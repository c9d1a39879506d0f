"""The idempotency store: which run an Idempotency-Key led to, kept on disk.

Promise: a key that was answered leads to the same run for ever, also after a restart; a key whose
answer was not yet written is known to have been tried, so that the caller looks before it runs
anything twice. With `sync` that holds over a loss of power too: for a runtime that can't find a
run by its key itself. What breaks the promise: two servers over one folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from service.fl_server.database import Database

#: Keys that are kept; older ones are forgotten, oldest first.
MAX_KEYS: Final = 200_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS book (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  key      TEXT NOT NULL UNIQUE,
  path_id  TEXT NOT NULL,
  run_id   TEXT
);
"""


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What the store holds of a key: the path id it was first tried under, the run once known."""

    path_id: UUID
    run_id: str | None


class IdempotencyStore:
    """Keys and their runs. Every call is one small read or write."""

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self._database = Database(path, _SCHEMA)
        self._sync = sync
        self._database.execute(
            "DELETE FROM book WHERE position <= (SELECT max(position) FROM book) - ?", (MAX_KEYS,)
        )

    def find(self, key: str) -> IdempotencyRecord | None:
        """The entry of a key, or None when it was never tried."""
        found = self._database.rows("SELECT path_id, run_id FROM book WHERE key = ?", (key,))
        return IdempotencyRecord(UUID(found[0][0]), found[0][1]) if found else None

    def reserve(self, key: str, path_id: UUID) -> None:
        """Write down that a submission under this key is about to be made."""
        self._database.execute(
            "INSERT INTO book (key, path_id) VALUES (?, ?) ON CONFLICT (key) DO UPDATE"
            " SET path_id = excluded.path_id WHERE run_id IS NULL",
            (key, str(path_id)),
            sync=self._sync,
        )

    def complete(self, key: str, run_id: str) -> None:
        """Write down the run of a reserved key; the first run stays."""
        self._database.execute(
            "UPDATE book SET run_id = ? WHERE key = ? AND run_id IS NULL",
            (run_id, key),
            sync=self._sync,
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()
