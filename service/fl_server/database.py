"""The small files of state: SQLite opened the same way everywhere.

Promise: what was committed survives the death of the process; with `sync` also the loss of power,
at the cost of waiting for the disk (some 15 ms on a busy one). One connection serves the event
loop and worker threads, so every use holds its lock. RuntimeFailed by a disk that lies about syncing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.errors import Invalid


class Database:
    """One SQLite file."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open or create `path` and make its tables.

        Raises:
            Invalid: the file is no SQLite database or can't be written.
        """
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # A text that is not UTF-8 must not keep a whole table from being read.
            self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(schema)
        except sqlite3.Error as exc:
            raise Invalid(
                f"{path} can't be used: {exc}; remove it or choose another --dir"
            ) from exc

    def execute(self, sql: str, values: Sequence[Any] = (), *, sync: bool = False) -> int:
        """Run one statement in a transaction of its own; how many rows it changed."""
        with self._lock:
            if not sync:
                return self._connection.execute(sql, values).rowcount
            self._connection.execute("PRAGMA synchronous = FULL")
            try:
                return self._connection.execute(sql, values).rowcount
            finally:
                self._connection.execute("PRAGMA synchronous = NORMAL")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written, or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file; nothing may be called afterwards."""
        with self._lock:
            self._connection.close()
