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
        ({"id": "x" * 1025}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
        ({"datacontenttype": 5}, "datacontenttype"),
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


@pytest.mark.parametrize(
    "name", ["ce_id", "CE_source", "ce_type", "ce_specversion", "Content-Type"]
)
def test_a_deciding_attribute_with_two_values_is_refused(name: str) -> None:
    with pytest.raises(Undecodable, match="twice"):
        decode(None, b"{}", [*HEAD, (name, b"other")])


@pytest.mark.parametrize("name", ["ce_id", "ce_source", "ce_type", "ce_specversion"])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"", b"a\0b", b"x" * 1_025])
def test_a_deciding_attribute_keeps_its_rules(name: str, value: bytes) -> None:
    head = [(header, value if header == name else raw) for header, raw in HEAD]
    with pytest.raises(Undecodable):
        decode(None, b"{}", head)


#: Times that producers write and that are no RFC 3339 time of the years 1970 to 9999 with an offset.
_ODD_TIMES = [
    "0001-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "2026-01-02T10:15:30.1234567890Z",
    "2026-01-02T10:15Z",
    "2026-01-02T10:15:30.5",
    "2026-01-02T10:15:30+0000",
    "2026-01-02T10:15:30.5GMT",
    "2026-01-02T24:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-01-02T10:15:61Z",
    "2026-01-02",
    "1767348930123",
    "+10000-01-01T00:00:00Z",
    "٢٠٢٦-01-02T10:15:30Z",
    "yesterday",
    " ",
    "\x00",
    "x" * 5_000,
]
_UNDECIDING = [
    "time",
    "subject",
    "dataschema",
    "correlationid",
    "causationid",
    "traceparent",
    "flag",
]


@pytest.mark.parametrize("stamp", _ODD_TIMES)
def test_a_time_that_can_not_be_read_costs_the_event_nothing(stamp: str) -> None:
    plain = decode(None, b'{"a": 1}', HEAD)
    assert decode(None, b'{"a": 1}', [*HEAD, ("ce_time", stamp.encode())]) == plain
    assert decode(None, _structured(time=stamp), STRUCTURED) == plain


@pytest.mark.parametrize("name", _UNDECIDING)
@pytest.mark.parametrize("value", [b"\xff\xfe\x00", b"a\x00b", b"\x7f", b"", b"x" * 5_000])
def test_an_attribute_that_decides_nothing_is_dropped_where_it_is_unlawful(
    name: str, value: bytes
) -> None:
    plain = decode(None, b"{}", HEAD)
    assert decode(None, b"{}", [*HEAD, (f"ce_{name}", value)]) == plain
    assert decode(None, b"{}", [(name, value), *HEAD]) == plain


@pytest.mark.parametrize("name", _UNDECIDING)
@pytest.mark.parametrize(
    "value", [None, 17, 0.5, True, ["a"], {"route": "r"}, "", "\ud800", "a\nb"]
)
def test_a_member_that_decides_nothing_is_dropped_where_it_is_unlawful(
    name: str, value: Any
) -> None:
    assert decode(None, _structured(**{name: value}), STRUCTURED) == decode(
        None, _structured(), STRUCTURED
    )


@pytest.mark.parametrize("name", [*(f"ce_{name}" for name in _UNDECIDING), "traceparent", "x-any"])
def test_a_header_that_decides_nothing_and_has_two_values_is_dropped(name: str) -> None:
    twice = [(name, TRACE.encode()), (name.upper(), b"2026-01-02T03:04:05Z")]
    assert decode(None, b"{}", [*HEAD, *twice]) == decode(None, b"{}", HEAD)


def test_a_header_given_twice_with_one_value_counts_once() -> None:
    more = [
        ("ce_time", b"2026-01-02T03:04:05Z"),
        ("ce_subject", b"s"),
        ("traceparent", TRACE.encode()),
    ]
    once = decode(None, b"{}", [*HEAD, *more])
    assert decode(None, b"{}", [*HEAD, *more, *HEAD, *more]) == once
    assert once.time is not None
    assert once.traceparent == TRACE


def test_lawful_attributes_are_kept_beside_unlawful_ones() -> None:
    more = [
        ("ce_time", b"x"),
        ("ce_subject", "é".encode()),
        ("ce_blob", b"\xff"),
        ("ce_causationid", b"c"),
    ]
    event = decode(None, b"{}", [*HEAD, *more])
    assert (event.subject, event.causationid, event.time) == ("é", "c", None)


@pytest.mark.parametrize("value", [b"\xef\xbb\xbf{}", b"\xef\xbb\xbf \n{}\r\n"])
def test_a_byte_order_mark_is_passed_over(value: bytes) -> None:
    assert decode(None, value, HEAD).data == {}
    whole = b"\xef\xbb\xbf" + _structured()
    assert decode(None, whole, STRUCTURED) == decode(None, _structured(), STRUCTURED)


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        ";charset=utf-8",
        "; charset=UTF8",
        ' ; charset = "Utf-8"',
        ";charset=utf_8",
        ";charset=us-ascii",
        ";charset=",
        ";charset",
        ";",
        ";;",
        '; boundary=x; profile="https://example.org/a;charset=latin1"',
        "; odata.metadata=none; IEEE754Compatible=true",
        "; \xff=\xfe",
    ],
)
@pytest.mark.parametrize(
    "media", ["application/json", "Application/JSON", "application/vnd.hub+json"]
)
def test_parameters_of_the_content_type_decide_nothing_but_another_charset(
    media: str, parameters: str
) -> None:
    kind = ("content-type", f"{media}{parameters}".encode("latin-1"))
    assert decode(None, b"{}", [*HEAD[:4], kind]) == decode(None, b"{}", HEAD)


@pytest.mark.parametrize("charset", ["utf-16", "ISO-8859-1", '"windows-1252"', "utf-7", "utf16le"])
def test_another_charset_is_refused(charset: str) -> None:
    with pytest.raises(Undecodable, match="UTF-8"):
        decode(
            None,
            b"{}",
            [*HEAD[:4], ("content-type", f"application/json; a=b;charset={charset}".encode())],
        )


def test_a_trace_in_the_plain_header_is_taken_where_the_attribute_is_malformed() -> None:
    more = [("ce_traceparent", b"00-short"), ("traceparent", TRACE.encode())]
    assert decode(None, b"{}", [*HEAD, *more]).traceparent == TRACE


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


def test_content_ignores_mode_order_time_trace_nulls_and_number_spelling() -> None:
    def content(value: bytes, *more: tuple[str, bytes]) -> bytes:
        return decode(None, value, [*HEAD, *more]).content_hash()

    base = content(b'{"a": 1, "b": {"c": "\\u00e9"}}')
    assert content('{"b":{"c":"é"},"a":1.0}'.encode()) == base
    assert content(b'{"a": 1, "b": {"c": "\\u00e9"}}', ("ce_traceparent", TRACE.encode())) == base
    assert content(b'{"a": 2, "b": {"c": "\\u00e9"}}') != base
    assert content(b'{"a": 1, "b": {"c": "\\u00e9", "d": null}, "e": null}') == base
    assert content(b'{"a": 1, "b": {"c": "\\u00e9"}, "e": [null]}') != base
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
