"""The headers that a dead letter's way leaves on a record: each once, however often it goes round.

Promise: a record's own headers are kept as they came, in their order. What a dead-letter topic adds says
where the record failed last; it replaces what an earlier failure left. A redrive adds one header, a count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[str, bytes | None]]

PREFIX: Final = "kafka_dlt-"
TRUNCATED: Final = "fl-truncated"
SHA256: Final = "fl-value-sha256"
BYTES: Final = "fl-value-bytes"
REDRIVES: Final = "fl-redrives"
_MOST_DIGITS: Final = 9


def own_headers(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """A record's headers without what a dead-letter topic added to them, ours or another program's."""
    added = (TRUNCATED, SHA256, BYTES)
    return [
        (name, value)
        for name, value in headers
        if not name.startswith(PREFIX) and name not in added
    ]


def redriven(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """The headers with which a record is published again, its redrives counted in one of them."""
    own = own_headers(headers)
    counts = [_number(value) for name, value in own if name == REDRIVES]
    kept = [(name, value) for name, value in own if name != REDRIVES]
    return [*kept, (REDRIVES, b"%d" % (max(counts, default=0) + 1))]


def _number(value: bytes | None) -> int:
    digits = value or b""
    return int(digits) if digits.isdigit() and len(digits) <= _MOST_DIGITS else 0
