"""CloudEvents 1.0 over Kafka: one record in, one `Envelope`; and the headers of what we publish.

Promise of `decode`: any record gives an `Envelope` or raises `Undecodable`, nothing else. Taken are
binary mode (`ce_*` headers, JSON value) and structured mode (content type
`application/cloudevents+json`, parameters allowed), header names in any letter case, values UTF-8.
Refused are batches, Avro and other formats, `data_base64`, and data that is no JSON object; strict is
only what decides: id, source, type, specversion and content type, each there once. Any other attribute
or header that is given twice, breaks its rules or is no text costs the event nothing: it counts as
left out. The record's key is never looked at: `data` rules.
Source of the rules: CloudEvents 1.0.2, its Kafka protocol binding and its JSON format.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from service.contracts.wire import strict_json
from service.contracts.wire.fields import parse_time
from service.contracts.wire.problems import ContractViolation, problem
from service.domain.frozen import value
from service.domain.values import Problem

#: `ce_source` of everything we publish.
SOURCE: Final = "/fl-job-service"
#: `ce_dataschema` is this and the event type.
SCHEMA_PREFIX: Final = "urn:fl-job-service:schema:"

_MAX_ATTRIBUTE: Final = 1_024
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MEANT: Final = frozenset({"content-type", "traceparent"})
#: Without these attributes an event can't be known, routed or read.
_DECIDING: Final = ("id", "source", "type", "specversion")
_DECIDING_HEADERS: Final = frozenset({"content-type", *(f"ce_{name}" for name in _DECIDING)})
_PARAMETER: Final = re.compile(r';\s*([^=;"\s]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)')
_STRUCTURED: Final = "application/cloudevents+json"
_JSON: Final = "application/json"

Headers = list[tuple[str, bytes]]


class Undecodable(ContractViolation):
    """Not a CloudEvent that we take. A dead letter: nobody can be answered."""

    code = "undecodable"


@value
class Envelope:
    """One decoded record. `data` is the parsed JSON object, not yet checked against a contract;
    `time` is the producer's claim and decides nothing; `traceparent` is W3C text or None."""

    id: str
    source: str
    type: str
    data: dict[str, Any]
    subject: str | None = None
    time: datetime | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None

    def event_key(self) -> bytes:
        """16 bytes that stand for (source, id), by which a repeated event is known."""
        source = self.source.encode()
        named = len(source).to_bytes(4, "big") + source + self.id.encode()
        return hashlib.sha256(named).digest()[:16]

    def content_hash(self) -> bytes:
        """SHA-256 of type and data: equal for equal content in either mode and any key order.

        A member that is null counts as left out.
        """
        content = strict_json.canonical(_without_nulls(self.data))
        return hashlib.sha256(self.type.encode() + b"\n" + content).digest()


def _without_nulls(value: Any) -> Any:
    if type(value) is dict:
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    if type(value) is list:
        return [_without_nulls(part) for part in value]
    return value


def decode(
    _key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]
) -> Envelope:
    """The event that a record carries.

    Raises:
        Undecodable: see the module's promise; `problems` lists everything that was found.
    """
    if value is None:
        raise _undecodable("value", "The record has no value", "missing")
    named = _lower(headers)
    media = _media_type(named.pop("content-type", b""))
    if media.startswith("application/cloudevents"):
        return _structured(media, value, named)
    return _binary(media, value, named)


def _undecodable(where: str, msg: str, kind: str) -> Undecodable:
    return Undecodable("record", [problem((where,), msg, kind)])


def _lower(headers: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """The headers that mean something to us, by name: content type, attributes and trace context."""
    named: dict[str, bytes] = {}
    for name, raw in headers:
        lower = _meant(name)
        if lower is None or raw is None:
            continue
        if named.setdefault(lower, raw) != raw:
            if lower in _DECIDING_HEADERS:
                raise _undecodable("headers", "An attribute is given twice", "duplicate")
            named[lower] = b""  # two values say as much as none
    return named


@lru_cache(maxsize=256)
def _meant(name: str) -> str | None:
    """A header's name in lower case; None where it means nothing to us."""
    lower = name.lower()
    return lower if lower[:3] == "ce_" or lower in _MEANT else None


@lru_cache(maxsize=256)
def _media_type(raw: bytes) -> str:
    """Media type in lower case without parameters; the charset, if given, must be UTF-8 or ASCII."""
    if not raw:
        return ""
    text = raw.decode("latin-1").lower()
    for name, content in _PARAMETER.findall(text):
        charset = re.sub(r'["\s_-]', "", content)
        if name == "charset" and charset not in _UTF8:
            raise _undecodable("content-type", "The charset should be UTF-8", "charset")
    return text.partition(";")[0].strip()


#: Spellings of charsets whose bytes are UTF-8, without hyphens; an empty one says nothing.
_UTF8: Final = frozenset({"", "utf8", "ascii", "usascii"})


def _is_json(media: str) -> bool:
    return media in ("", _JSON) or (media.endswith("+json") and "cloudevents" not in media)


def _binary(media: str, value: bytes, named: dict[str, bytes]) -> Envelope:
    if not _is_json(media):
        raise _undecodable("content-type", f"The content type should be {_JSON}", "content_type")
    attributes = _attributes(named)
    return _envelope(attributes, _parsed(value, "value"), named)


def _attributes(named: dict[str, bytes]) -> dict[str, Any]:
    try:
        return {name[3:]: raw.decode() for name, raw in named.items() if name[:3] == "ce_"}
    except UnicodeDecodeError:
        pass  # one by one, since only what decides must be text
    attributes: dict[str, Any] = {}
    for name, raw in named.items():
        try:
            attributes[name[3:]] = raw.decode()
        except UnicodeDecodeError as exc:
            if name in _DECIDING_HEADERS:
                raise _undecodable("headers", "A header is not UTF-8", "unicode") from exc
    return attributes


def _structured(media: str, value: bytes, named: dict[str, bytes]) -> Envelope:
    if media != _STRUCTURED:
        raise _undecodable("content-type", f"The event format should be {_STRUCTURED}", "format")
    event = _parsed(value, "value")
    if event.get("data_base64") is not None:
        raise _undecodable("data_base64", "Data should be JSON, not base64", "data_base64")
    if "data" not in event:
        raise _undecodable("data", "The event has no data", "missing")
    inner = event.get("datacontenttype")
    if inner is not None and not (
        isinstance(inner, str) and _is_json(_media_type(inner.encode("utf-8", "replace")))
    ):
        raise _undecodable("datacontenttype", f"It should be {_JSON}", "content_type")
    data = event.pop("data")
    if not isinstance(data, dict):
        raise _undecodable("data", "Data should be a JSON object", "type")
    return _envelope(event, data, named)


def _parsed(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(raw)
    except strict_json.NotJson as exc:
        reason = str(exc)
        raise _undecodable(where, f"Not usable as JSON: {reason}", "json") from exc
    if not isinstance(value, dict):
        raise _undecodable(where, "Should be a JSON object", "type")
    return value


def _envelope(
    attributes: dict[str, Any], data: dict[str, Any], named: dict[str, bytes]
) -> Envelope:
    if not _plainly_lawful(attributes):
        attributes = _lawful(attributes)
    found = attributes.get
    if found("specversion") != "1.0" or not (found("id") and found("source") and found("type")):
        raise Undecodable("record", _required(attributes))
    return Envelope(
        attributes["id"],
        attributes["source"],
        attributes["type"],
        data,
        found("subject") or None,
        _event_time(found("time")),
        found("correlationid") or None,
        found("causationid") or None,
        _traceparent(found("traceparent"), named),
    )


def _plainly_lawful(attributes: dict[str, Any]) -> bool:
    """Quick to say for what is usual: printable ASCII, all of it no longer than one may be."""
    try:
        text = "".join(attributes.values())
    except TypeError:
        return False
    return len(text) <= _MAX_ATTRIBUTE and text.isascii() and text.isprintable()


def _lawful(attributes: dict[str, Any]) -> dict[str, str]:
    """The attributes whose content CloudEvents and our limits allow.

    Raises:
        Undecodable: one that decides is not among them.
    """
    lawful = {name: content for name, content in attributes.items() if _is_lawful(content)}
    wrong = [n for n in _DECIDING if attributes.get(n) is not None and n not in lawful]
    if wrong:
        unlawful = [problem((name,), _ATTRIBUTE_RULE, "attribute") for name in wrong]
        raise Undecodable("record", [*_required(attributes), *unlawful])
    return lawful


def _is_lawful(value: object) -> bool:
    text = isinstance(value, str) and len(value) <= _MAX_ATTRIBUTE
    return text and not _CONTROL.search(str(value))


def _required(attributes: dict[str, Any]) -> Iterator[Problem]:
    for name in _DECIDING:
        if attributes.get(name) in (None, ""):
            yield problem((name,), "Attribute is required", "missing")
    if attributes.get("specversion") not in ("1.0", None, ""):
        yield problem(("specversion",), "It should be 1.0", "specversion")


_ATTRIBUTE_RULE: Final = f"It should be text of at most {_MAX_ATTRIBUTE} printable characters"


def _event_time(stamp: str | None) -> datetime | None:
    """The producer's time; it decides nothing, so that one that can't be read is none."""
    if not stamp:
        return None
    try:
        # A leap second is a lawful time that Python does not know.
        return parse_time(stamp[:17] + "59" + stamp[19:] if stamp[17:19] == "60" else stamp)
    except ValueError:
        return None


def _traceparent(value: str | None, named: dict[str, bytes]) -> str | None:
    """The trace context; by W3C's rule a malformed one is dropped and never fails the event."""
    if value and _TRACEPARENT.fullmatch(value):
        return value
    raw = named.get("traceparent")
    text = raw.decode("latin-1") if raw else ""
    return text if _TRACEPARENT.fullmatch(text) else None


def headers(
    *,
    event_id: str,
    event_type: str,
    time: datetime,
    subject: str,
    source: str = SOURCE,
    sequence: int | None = None,
    correlationid: str | None = None,
    causationid: str | None = None,
    traceparent: str | None = None,
) -> Headers:
    """The Kafka headers of one of our events in binary mode; values UTF-8, times RFC 3339 in UTC."""
    made = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", event_type.encode()),
        ("ce_time", rfc3339(time).encode()),
        ("ce_subject", subject.encode()),
        ("ce_dataschema", (SCHEMA_PREFIX + event_type).encode()),
    ]
    if sequence is not None:
        made.append(("ce_sequence", b"%d" % sequence))
    for name, content in (
        ("ce_correlationid", correlationid),
        ("ce_causationid", causationid),
        ("ce_traceparent", traceparent),
    ):
        if content is not None:
            made.append((name, content.encode()))
    return made


@lru_cache(maxsize=4_096)
def rfc3339(time: datetime) -> str:
    """A time as RFC 3339 text in UTC with microseconds, for example 2026-01-02T03:04:05.000006Z.

    Remembered, since everything that one transaction writes has the same time.
    """
    return time.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
