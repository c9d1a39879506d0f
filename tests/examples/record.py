"""One example: a whole Kafka record, and for an invalid one what becomes of it.

Its file is JSON: `about`, `headers` (name to text), `key`, then one of `data` (the value as JSON,
binary mode), `value_text` (the value as text where JSON could not hold it) and `value_base64`
(bytes); an invalid one has `expect` with its `outcome` and the errors that must be among those told.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ExampleOutcome(StrEnum):
    """What becomes of an invalid record."""

    DEAD_LETTER = "dead_letter"
    REJECTED = "rejected"  #: the job is answered by `fl.job.rejected.v1`
    REFUSED = "refused"  #: the request is answered by `fl.training.request_refused.v1`
    NOT_PUBLISHED = "not_published"  #: the service never writes such a record


@dataclass(frozen=True, slots=True)
class Expected:
    """`errors` are pairs of location and type that must be among the errors told."""

    outcome: ExampleOutcome
    errors: tuple[tuple[tuple[str | int, ...], str], ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A record under a name. Exactly one of `data`, `value_text`, `value_bytes` is given."""

    type: str
    name: str
    about: str
    headers: Mapping[str, str]
    key: str
    data: Any = None
    value_text: str | None = None
    value_bytes: bytes | None = None
    expect: Expected | None = field(default=None)

    @property
    def invalid(self) -> bool:
        return self.expect is not None

    def raw(self) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
        """Key, value and headers as they are on a topic."""
        if self.value_bytes is not None:
            value = self.value_bytes
        elif self.value_text is not None:
            value = self.value_text.encode()
        else:
            value = json.dumps(self.data).encode()
        return self.key.encode(), value, [(n, text.encode()) for n, text in self.headers.items()]

    def record(self) -> dict[str, Any]:
        """The content of the example's file."""
        made: dict[str, Any] = {
            "about": self.about,
            "headers": dict(self.headers),
            "key": self.key,
        }
        if self.value_bytes is not None:
            made["value_base64"] = base64.b64encode(self.value_bytes).decode()
        elif self.value_text is not None:
            made["value_text"] = self.value_text
        else:
            made["data"] = self.data
        if self.expect is not None:
            errors = [{"loc": list(loc), "type": kind} for loc, kind in self.expect.errors]
            made["expect"] = {"outcome": self.expect.outcome.value, "errors": errors}
        return made


def from_record(event_type: str, name: str, made: Mapping[str, Any]) -> Example:
    """The example that a file's content stands for: the inverse of `Example.record`."""
    expect = None
    if (told := made.get("expect")) is not None:
        errors = tuple((tuple(e["loc"]), e["type"]) for e in told["errors"])
        expect = Expected(ExampleOutcome(told["outcome"]), errors)
    encoded = made.get("value_base64")
    return Example(
        event_type,
        name,
        made["about"],
        made["headers"],
        made["key"],
        made.get("data"),
        made.get("value_text"),
        None if encoded is None else base64.b64decode(encoded),
        expect,
    )
