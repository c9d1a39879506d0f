"""Records become events or dead letters, never anything else; and another library agrees."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.http import CloudEvent
from cloudevents.kafka import KafkaMessage, from_binary, to_binary, to_structured
from hypothesis import given
from hypothesis import strategies as st

from service.contracts.inbound.translation import read
from service.contracts.wire.envelope import SOURCE, Envelope, Undecodable, decode, headers, rfc3339
from service.contracts.wire.problems import ContractViolation
from service.domain.values import Problem

HEAD = [
    ("ce_id", b"e-1"),
    ("ce_source", b"/hub"),
    ("ce_type", b"t.v1"),
    ("ce_specversion", b"1.0"),
    ("content-type", b"application/json"),
]
STRUCTURED = [("content-type", b"application/cloudevents+json")]
EVENT = {"specversion": "1.0", "id": "e-1", "source": "/hub", "type": "t.v1", "data": {"a": 1}}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _structured(**changes: Any) -> bytes:
    return json.dumps(EVENT | changes).encode()


def test_headers_in_any_letter_case() -> None:
    head = [(name.upper(), value) for name, value in HEAD]
    assert decode(None, b'{"a": 1}', head) == decode(b"key", b'{"a":1}', HEAD)


def test_both_modes_give_the_same_event() -> None:
    more = [
        ("ce_correlationid", b"c"),
        ("ce_causationid", b"d"),
        ("ce_traceparent", TRACE.encode()),
        ("ce_time", b"2026-01-02T03:04:05Z"),
        ("ce_subject", b"s"),
    ]
    binary = decode(None, b'{"a": 1}', HEAD + more)
    value = _structured(
        correlationid="c",
        causationid="d",
        traceparent=TRACE,
        time="2026-01-02T04:04:05+01:00",
        subject="s",
    )
    assert decode(None, value, STRUCTURED) == binary
    assert binary.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "media",
    [
        "application/cloudevents+json",
        "APPLICATION/CloudEvents+JSON; charset=UTF-8",
        'application/cloudevents+json;charset="utf-8"',
    ],
)
def test_structured_media_types_that_are_taken(media: str) -> None:
    assert decode(None, _structured(), [("Content-Type", media.encode())]).data == {"a": 1}


@pytest.mark.parametrize(
    "media",
    [
        "application/cloudevents",
        "application/cloudevents+avro",
        "application/cloudevents+xml",
        "application/cloudevents-batch+json",
        "application/cloudevents+json-seq",
        "application/cloudevents+json; charset=utf-16",
        "text/plain",
        "application/avro",
    ],
)
def test_other_media_types_are_refused(media: str) -> None:
    with pytest.raises(Undecodable):
        decode(None, _structured(), [*HEAD[:4], ("content-type", media.encode())])


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"data_base64": "e30="}, "data_base64"),
        ({"data": [1]}, "data"),
        ({"data": None}, "data"),
        ({"data": "text"}, "data"),
        ({"id": ""}, "id"),
        ({"id": 5}, "id"),
        ({"source": None}, "source"),
        ({"type": {"a": 1}}, "type"),
        ({"specversion": "1.1"}, "specversion"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-01-02T03:04:05"}, "time"),
        ({"time": "1969-12-31T23:59:59Z"}, "time"),
        ({"time": 17}, "time"),
        ({"subject": "a\0b"}, "subject"),
        ({"id": "x" * 1025}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
        ({"datacontenttype": 5}, "datacontenttype"),
        ({"correlationid": ["a"]}, "correlationid"),
    ],
)
def test_unlawful_events_name_the_attribute(change: dict[str, Any], loc: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(None, _structured(**change), STRUCTURED)
    assert (loc,) in {p.loc for p in caught.value.problems}


def test_all_missing_attributes_are_told() -> None:
    with pytest.raises(Undecodable) as caught:
        decode(None, b"{}", [("ce_time", b"x")])
    assert {p.loc[0] for p in caught.value.problems} >= {"id", "source", "type", "specversion"}


def test_an_attribute_given_twice_is_refused() -> None:
    with pytest.raises(Undecodable, match="twice"):
        decode(None, b"{}", [*HEAD, ("CE_ID", b"e-2")])


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 1}',
        b'{"b": {"a": 1, "a": 1}}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": "\x01"}',
        b"\xef\xbb\xbf{}",
        b'{"a": "\xed\xa0\x80"}',
    ],
)
def test_values_that_are_no_json_object_are_refused(value: bytes | None) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(None, value, HEAD)
    assert caught.value.code == "undecodable"
    assert caught.value.problems


def test_leap_second_and_optional_parts() -> None:
    event = decode(None, b"{}", [*HEAD[:4], ("ce_time", b"2016-12-31T23:59:60Z")])
    assert event.time == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert decode(None, b"{}", [*HEAD, ("ce_subject", b"")]).subject is None


@pytest.mark.parametrize("text", ["", "00-short", TRACE.upper(), TRACE + "\n"])
def test_a_malformed_trace_is_dropped_and_fails_nothing(text: str) -> None:
    assert decode(None, b"{}", [*HEAD, ("traceparent", text.encode())]).traceparent is None


def test_a_trace_in_the_plain_header_is_taken() -> None:
    assert decode(None, b"{}", [*HEAD, ("traceparent", TRACE.encode())]).traceparent == TRACE


def test_content_ignores_mode_order_time_trace_and_number_spelling() -> None:
    def content(value: bytes, *more: tuple[str, bytes]) -> bytes:
        return decode(None, value, [*HEAD, *more]).content_hash()

    base = content(b'{"a": 1, "b": {"c": "\\u00e9"}}')
    assert content('{"b":{"c":"é"},"a":1.0}'.encode()) == base
    assert content(b'{"a": 1, "b": {"c": "\\u00e9"}}', ("ce_traceparent", TRACE.encode())) == base
    assert content(b'{"a": 2, "b": {"c": "\\u00e9"}}') != base
    structured = json.dumps(
        EVENT | {"data": {"b": {"c": "é"}, "a": 1}, "time": "2026-01-01T00:00:00Z"}
    )
    assert decode(None, structured.encode(), STRUCTURED).content_hash() == base


def test_event_key_tells_source_and_id_apart() -> None:
    def key(source: str, name: str) -> bytes:
        return Envelope(name, source, "t", {}).event_key()

    assert len(key("a", "b")) == 16
    assert key("a", "bc") != key("ab", "c")
    assert key("a", "b") == key("a", "b")


@given(st.binary(max_size=300), st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=30))))
def test_any_bytes_give_an_event_or_a_dead_letter(
    value: bytes, extra: list[tuple[str, bytes]]
) -> None:
    for head in (HEAD, STRUCTURED, []):
        for problem in _refused(value, [*head, *extra]):
            problem.msg.encode()
            "".join(map(str, problem.loc)).encode()


def _refused(value: bytes, head: list[tuple[str, bytes]]) -> tuple[Problem, ...]:
    """What is told of a refused record; nothing of one that is taken."""
    try:
        read(None, value, head)
    except ContractViolation as bad:
        told = bad.problems
    else:
        return ()
    assert 0 < len(told) <= 100
    return told


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
_TYPES = st.sampled_from(
    [
        "fl.training.requested.v1",
        "fl.training.stop_requested.v1",
        "fl.job.status_reported.v1",
        "fl.job.round_reported.v1",
        "fl.job.metrics_reported.v1",
        "fl.job.log_reported.v1",
    ]
)
_FIELDS = st.sampled_from(
    [
        "job_id",
        "model_id",
        "trust_ids",
        "config",
        "app_config",
        "min_trusts",
        "resources",
        "not_before",
        "deadline",
        "labels",
        "model_files",
        "attempt",
        "status",
        "details",
        "event_type",
        "global_round",
        "metrics",
        "log",
        "reason",
    ]
)


@given(_TYPES, st.dictionaries(_FIELDS | st.text(max_size=8), _JSON, max_size=8))
def test_any_json_gives_a_command_or_a_listed_refusal(kind: str, data: dict[str, Any]) -> None:
    head = [*HEAD[:2], ("ce_type", kind.encode()), *HEAD[3:]]
    _refused(json.dumps(data).encode(), head)


def _ours(sequence: int | None = 3) -> list[tuple[str, bytes]]:
    return headers(
        event_id="e-9",
        event_type="fl.job.queued.v1",
        time=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        subject="job",
        sequence=sequence,
        correlationid="c",
        traceparent=TRACE,
    )


def test_what_we_publish_is_read_by_the_cloudevents_library() -> None:
    message = KafkaMessage(headers=dict(_ours()), key=b"job", value=b'{"a": "\xc3\xa9"}')
    event = from_binary(message)
    assert event.get_attributes()["type"] == "fl.job.queued.v1"
    assert event["source"] == SOURCE
    assert event["sequence"] == "3"
    assert event["time"] == "2026-01-02T03:04:05.000006Z"
    assert event["datacontenttype"] == "application/json"
    assert event["dataschema"] == "urn:fl-job-service:schema:fl.job.queued.v1"
    assert event["traceparent"] == TRACE
    assert event.get_data() == {"a": "é"}


def test_we_read_what_we_publish() -> None:
    event = decode(b"job", b'{"a":1}', _ours(None))
    assert (event.id, event.correlationid, event.traceparent) == ("e-9", "c", TRACE)
    assert event.causationid is None


@pytest.mark.parametrize("convert", [to_binary, to_structured])
def test_we_read_what_the_cloudevents_library_publishes(convert: Any) -> None:
    attributes = {
        "type": "t.v1",
        "source": "/hub",
        "id": "e-1",
        "subject": "s",
        "time": "2026-01-02T03:04:05+00:00",
        "correlationid": "c",
        "datacontenttype": "application/json",
    }
    message = convert(CloudEvent(attributes, {"a": "é", "b": [1, None]}))
    # In structured mode this library names the data's media type in the header, where the binding
    # wants the event format's.
    head = STRUCTURED if convert is to_structured else list(message.headers.items())
    event = decode(message.key, message.value, head)
    assert (event.id, event.source, event.type, event.subject) == ("e-1", "/hub", "t.v1", "s")
    assert event.correlationid == "c"
    assert event.data == {"a": "é", "b": [1, None]}


def test_times_are_written_in_utc() -> None:
    assert (
        rfc3339(datetime.fromisoformat("2026-01-02T03:04:05+02:00"))
        == "2026-01-02T01:04:05.000000Z"
    )
