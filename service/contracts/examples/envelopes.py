"""Examples of records that are no event we take: they all end as dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from service.contracts.examples import fixtures
from service.contracts.examples.record import Example, ExampleOutcome, Expected
from service.contracts.inbound.training import REQUESTED

_HEADERS: Final = fixtures.ce_headers(REQUESTED, "request-envelope", "/hub")
_STRUCTURED: Final = {"content-type": "application/cloudevents+json"}
_EVENT: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "request-envelope",
    "source": "/hub",
    "type": REQUESTED,
}


def examples() -> Iterator[Example]:
    """All of them, in no particular order."""
    without_id = {name: text for name, text in _HEADERS.items() if name != "ce_id"}
    yield _text("no_id", "An event has an id.", without_id, "{}", ("id",), "missing")
    old = _HEADERS | {"ce_specversion": "0.3"}
    yield _text("old_version", "CloudEvents 1.0.", old, "{}", ("specversion",), "specversion")
    unknown = _HEADERS | {"ce_type": "fl.training.requested.v2"}
    yield _text("unknown_type", "A type that nobody knows.", unknown, "{}", ("type",), "event_type")
    avro = {"content-type": "application/cloudevents+avro"}
    yield _text("avro", "Another event format.", avro, "{}", ("content-type",), "format")
    batch = {"content-type": "application/cloudevents-batch+json"}
    events = json.dumps([_EVENT | {"data": {}}])
    yield _text("batch", "One event a record.", batch, events, ("content-type",), "format")
    encoded = json.dumps(_EVENT | {"data_base64": "e30="})
    yield _text("base64", "Data is JSON.", _STRUCTURED, encoded, ("data_base64",), "data_base64")
    no_data = json.dumps(_EVENT)
    yield _text("no_data", "An event has data.", _STRUCTURED, no_data, ("data",), "missing")
    yield _text("not_json", "The value is no JSON.", _HEADERS, "job_id=1", ("value",), "json")
    yield _text("not_a_number", "NaN is no JSON.", _HEADERS, '{"a": NaN}', ("value",), "json")
    yield _text("infinite", "1e999 is no number.", _HEADERS, '{"a": 1e999}', ("value",), "json")
    deep = "[" * 5_000
    yield _text("too_deep", "Nested 5,000 levels.", _HEADERS, deep, ("value",), "json")
    twice = '{"job_id": "a", "job_id": "b"}'
    yield _text("named_twice", "A member is named twice.", _HEADERS, twice, ("value",), "json")
    yield _text("a_list", "Data is an object.", _HEADERS, "[1, 2]", ("value",), "type")
    digits = '{"priority": ' + "9" * 5_000 + "}"
    yield _text("many_digits", "A number of 5,000 digits.", _HEADERS, digits, ("value",), "json")
    yield Example(
        REQUESTED,
        "not_utf8",
        "The value is not UTF-8.",
        _HEADERS,
        str(fixtures.JOB),
        value_bytes=b'{"project_id": "\xff\xfe"}',
        expect=_dead(("value",), "json"),
    )


def _text(
    name: str,
    about: str,
    headers: dict[str, str],
    value: str,
    loc: tuple[str | int, ...],
    kind: str,
) -> Example:
    expect = _dead(loc, kind)
    key = str(fixtures.JOB)
    return Example(REQUESTED, name, about, headers, key, value_text=value, expect=expect)


def _dead(loc: tuple[str | int, ...], kind: str) -> Expected:
    return Expected(ExampleOutcome.DEAD_LETTER, ((loc, kind),))
