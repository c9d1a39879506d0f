"""CloudEvents 1.0 over Kafka: one record in, one `Envelope`; and the headers of what we publish.

Promise of `decode`: any record gives an `Envelope` or raises `Undecodable`, nothing else. Taken are
binary mode (`ce_*` headers, JSON value) and structured mode (content type
`application/cloudevents+json`, parameters allowed), header names in any letter case, values UTF-8.
Refused are batches, Avro and other formats, `data_base64`, an attribute named twice, and data that
is no JSON object. The record's key is never looked at: `data` rules.
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
        """SHA-256 of type and data: equal for equal content in either mode and any key order."""
        return hashlib.sha256(
            self.type.encode() + b"\n" + strict_json.canonical(self.data)
        ).digest()


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
        if lower is None:
            continue
        if lower in named and lower != "traceparent":
            raise _undecodable("headers", "An attribute is given twice", "duplicate")
        if raw is not None:
            named[lower] = raw
    return named


@lru_cache(maxsize=256)
def _meant(name: str) -> str | None:
    """A header's name in lower case; None where it means nothing to us."""
    lower = name.lower()
    return lower if lower[:3] == "ce_" or lower in _MEANT else None


@lru_cache(maxsize=256)
def _media_type(raw: bytes) -> str:
    """Media type in lower case without parameters; the charset, if given, must be UTF-8."""
    if not raw:
        return ""
    media, _, parameters = raw.decode("latin-1").lower().partition(";")
    for parameter in parameters.split(";"):
        name, _, charset = parameter.partition("=")
        if name.strip() == "charset" and charset.strip().strip('"') not in ("utf-8", "us-ascii"):
            raise _undecodable("content-type", "The charset should be UTF-8", "charset")
    return media.strip()


def _is_json(media: str) -> bool:
    return media in ("", _JSON) or (media.endswith("+json") and "cloudevents" not in media)


def _binary(media: str, value: bytes, named: dict[str, bytes]) -> Envelope:
    if not _is_json(media):
        raise _undecodable("content-type", f"The content type should be {_JSON}", "content_type")
    try:
        attributes = {name[3:]: raw.decode() for name, raw in named.items() if name[:3] == "ce_"}
    except UnicodeDecodeError as exc:
        raise _undecodable("headers", "A header is not UTF-8", "unicode") from exc
    return _envelope(attributes, _parsed(value, "value"), named)


def _structured(media: str, value: bytes, named: dict[str, bytes]) -> Envelope:
    if media != _STRUCTURED:
        raise _undecodable("content-type", f"The event format should be {_STRUCTURED}", "format")
    event = _parsed(value, "value")
    if "data_base64" in event:
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
    found = attributes.get
    if found("specversion") != "1.0" or not (found("id") and found("source") and found("type")):
        raise Undecodable("record", [*_required(attributes), *_unlawful(attributes)])
    if not _plainly_lawful(attributes) and (wrong := list(_unlawful(attributes))):
        raise Undecodable("record", wrong)
    try:
        time = _event_time(found("time"))
    except ValueError as exc:
        raise _undecodable("time", f"It {exc}", "time_parsing") from exc
    return Envelope(
        attributes["id"],
        attributes["source"],
        attributes["type"],
        data,
        found("subject") or None,
        time,
        _extension(found("correlationid")),
        _extension(found("causationid")),
        _traceparent(found("traceparent"), named),
    )


def _plainly_lawful(attributes: dict[str, Any]) -> bool:
    """Quick to say for what is usual: printable ASCII, all of it no longer than one may be."""
    try:
        text = "".join(attributes.values())
    except TypeError:
        return False
    return len(text) <= _MAX_ATTRIBUTE and text.isascii() and text.isprintable()


def _required(attributes: dict[str, Any]) -> Iterator[Problem]:
    for name in ("id", "source", "type", "specversion"):
        if attributes.get(name) in (None, ""):
            yield problem((name,), "Attribute is required", "missing")
    if attributes.get("specversion") not in ("1.0", None, ""):
        yield problem(("specversion",), "It should be 1.0", "specversion")


def _unlawful(attributes: dict[str, Any]) -> Iterator[Problem]:
    """Attributes whose content CloudEvents or our limits forbid."""
    for name, content in attributes.items():
        if content is None or (isinstance(content, bool | int) and name not in _TEXT_ATTRIBUTES):
            continue  # absent; or an extension attribute of one of the other simple types
        if (
            isinstance(content, str)
            and len(content) <= _MAX_ATTRIBUTE
            and not _CONTROL.search(content)
        ):
            continue
        yield problem((name,), _ATTRIBUTE_RULE, "attribute")


def _event_time(stamp: str | None) -> datetime | None:
    if not stamp:
        return None
    # A leap second is a lawful time that Python does not know.
    return parse_time(stamp[:17] + "59" + stamp[19:] if stamp[17:19] == "60" else stamp)


_TEXT_ATTRIBUTES: Final = frozenset(
    {"id", "source", "type", "specversion", "subject", "time", "dataschema", "datacontenttype"}
)
_ATTRIBUTE_RULE: Final = f"It should be text of at most {_MAX_ATTRIBUTE} printable characters"


def _extension(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _traceparent(value: Any, named: dict[str, bytes]) -> str | None:
    """The trace context; by W3C's rule a malformed one is dropped and never fails the event."""
    if value is None and (raw := named.get("traceparent")):
        value = raw.decode("latin-1")
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


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
