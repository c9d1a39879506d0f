"""Outgoing bodies that are larger than their topic takes, cut to size.

What comes in is bounded so that no ordinary body comes near; this is the net below it, since one record
that the broker refuses would hold back every event behind it. Promise: a cut body still has its type's
shape, every common field and the newest attempt, and `truncated` names the parts that were cut, by path.
The largest part goes first, and no more parts than must: a list or an object is emptied (of `attempts` the
newest stays), a long text keeps its beginning. What was cut from a state is whole in the service's own API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from service.contracts.wire.strict_json import write

#: The largest record that our topics take, in bytes: Kafka's own default.
MAX_MESSAGE_BYTES: Final = 1_048_588
#: What a record's key, headers and batch may need beside its body.
RESERVE: Final = 16 * 1024
#: The largest body of an event or a state record, in bytes.
BODY_BYTES: Final = MAX_MESSAGE_BYTES - RESERVE

#: UTF-8 needs no more bytes than this for a character.
_WIDEST: Final = 4
_TEXT_KEPT: Final = 1_000
#: What may be cut, by path; inside a list its last entry is meant.
_PARTS: Final = (
    "details",
    "metrics",
    "config",
    "participants",
    "trust_ids",
    "warnings",
    "log",
    "reason.errors",
    "reason.message",
    "request.model_files.sha256",
    "request.config",
    "request.app_config",
    "request.trust_ids",
    "progress.metrics",
    "progress.sites",
    "attempts",
    "attempts.participants",
    "attempts.reason.errors",
    "attempts.reason.message",
    "stop.reason",
)


def truncate_to(body: str, limit: int = BODY_BYTES) -> str:
    """`body`, or a cut one where it needs more than `limit` bytes as UTF-8."""
    if len(body) * _WIDEST <= limit or len(body.encode()) <= limit:
        return body
    data = json.loads(body)
    data["truncated"] = []
    for name, holder, key in _largest_first(data):
        holder[key] = _cut(name, holder[key])
        data["truncated"].append(name)
        body = write(data)
        if len(body.encode()) <= limit:
            break
    return body


def _largest_first(data: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    found = [(len(write(holder[key])), name, holder, key) for name, holder, key in _parts(data)]
    found.sort(key=lambda part: part[0], reverse=True)
    return [(name, holder, key) for _, name, holder, key in found]


def _parts(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(path, the object it stands in, its name there) of every part that has something to cut."""
    for path in _PARTS:
        holder: Any = data
        *way, key = path.split(".")
        for step in way:
            holder = holder.get(step) if isinstance(holder, dict) else None
            if isinstance(holder, list):
                holder = holder[-1] if holder else None
        if isinstance(holder, dict):
            value = holder.get(key)
            if value and value != _cut(path, value):
                yield path, holder, key


def _cut(path: str, value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _TEXT_KEPT else f"{value[:_TEXT_KEPT]}…"
    if path == "attempts":
        return value[-1:]
    return {} if isinstance(value, dict) else []
