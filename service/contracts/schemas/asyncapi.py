"""The AsyncAPI 3 document of the service, made from the catalogue.

Promise: every topic is a channel, every event type a message with its headers, shape and an example,
and the document stands alone (no reference leaves it). Shapes stand under `components/schemas` in
the JSON Schema words that AsyncAPI's own dialect shares; the full JSON Schemas lie in `events/`. The
examples are the shipped ones of `examples/`. Broken by an event type that has no example there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.contracts.inbound import beyond_schema
from service.contracts.package_data import data_path
from service.contracts.schemas.catalogue import (
    EVENTS,
    JOB_STATUS,
    REQUESTS,
    TOPICS,
    Direction,
    Topic,
)
from service.contracts.schemas.json_schema import SchemaGenerator, without_titles
from service.contracts.wire.fields import ONE_LINE

#: Version of the outside interface: events may gain optional fields within a major version.
INTERFACE_VERSION: Final = "1.0.0"
_KAFKA_BINDING: Final = "0.5.0"
_ABOUT: Final = (
    "Training requests in, jobs' lives out. Records are CloudEvents 1.0: binary mode out, binary or "
    "structured mode in. `sequence` counts a job's lifecycle events from 1 without a gap; read the "
    "lifecycle and state topics read-committed. Topic names may carry a prefix of the deployment."
)
_TEXT: Final = {"type": "string"}
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f]+$"
_DLT: Final = (
    "kafka_dlt-original-topic",
    "kafka_dlt-original-partition",
    "kafka_dlt-original-offset",
    "kafka_dlt-original-timestamp",
    "kafka_dlt-original-consumer-group",
    "kafka_dlt-exception-fqcn",
    "kafka_dlt-exception-message",
)


def document() -> bytes:
    """The document as YAML."""
    return yaml.dump(
        content(), Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=100
    ).encode()


class _Dumper(yaml.SafeDumper):
    """Without anchors: equal parts are written out, since many readers know no YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def content() -> dict[str, Any]:
    """The document as JSON values."""
    schemas, references = _schemas()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:fl-job-service",
        "info": {"title": "fl-job-service", "version": INTERFACE_VERSION, "description": _ABOUT},
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{bootstrapServers}",
                "protocol": "kafka",
                "description": "Apache Kafka",
                "variables": {
                    "bootstrapServers": {"description": "The setting FL_KAFKA__BOOTSTRAP_SERVERS"}
                },
            }
        },
        "channels": {_id(topic): _channel(topic) for topic in TOPICS}
        | {_dead_id(topic): _dead_channel(topic) for topic in (REQUESTS, JOB_STATUS)},
        "operations": {
            _operation_id(topic): _operation(_id(topic), topic.direction, topic.about)
            for topic in TOPICS
        }
        | {
            f"send_{_dead_id(topic)}": _operation(
                _dead_id(topic), Direction.OUT, "What could not be answered, as it came."
            )
            for topic in (REQUESTS, JOB_STATUS)
        },
        "components": {
            "messages": {event.type: _message(event.type, references) for event in EVENTS}
            | {"dead_letter": _dead_letter()},
            "schemas": schemas,
        },
    }


def _id(topic: Topic) -> str:
    return topic.name.removeprefix("fl.").removesuffix(".v1")


def _dead_id(topic: Topic) -> str:
    return f"{_id(topic)}-dead-letters"


def _operation_id(topic: Topic) -> str:
    verb = "receive" if topic.direction is Direction.IN else "send"
    return f"{verb}_{_id(topic)}"


def _channel(topic: Topic) -> dict[str, Any]:
    names = [event.type for event in EVENTS if event.topic == topic]
    policy = "compact" if topic.compacted else "delete"
    return {
        "address": topic.name,
        "title": topic.name,
        "description": f"{topic.about} Key: {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topicConfiguration": {"cleanup.policy": [policy]},
                "bindingVersion": _KAFKA_BINDING,
            }
        },
    }


def _dead_channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": f"{topic.name}.dlq",
        "title": f"{topic.name}.dlq",
        "description": (
            f"Records of {topic.name} that could not be answered: key, value and headers untouched, "
            "and where they came from. It needs the rights of that topic."
        ),
        "messages": {"dead_letter": {"$ref": "#/components/messages/dead_letter"}},
    }


def _operation(channel: str, direction: Direction, about: str) -> dict[str, Any]:
    return {
        "action": "receive" if direction is Direction.IN else "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": about,
    }


def _message(event_type: str, references: dict[str, dict[str, Any]]) -> dict[str, Any]:
    event = next(event for event in EVENTS if event.type == event_type)
    inbound = event.direction is Direction.IN
    headers = "InboundHeaders" if inbound else "OutboundHeaders"
    message: dict[str, Any] = {
        "name": event.type,
        "title": event.type,
        "summary": event.about,
        "contentType": "application/json",
        "headers": {"$ref": f"#/components/schemas/{headers}"},
        "payload": references[event.type],
        "examples": [_first(event_type)],
    }
    if inbound:
        message["description"] = beyond_schema.comment(event_type)
    else:
        message["correlationId"] = {
            "location": "$message.header#/ce_correlationid",
            "description": "Id of the request event",
        }
    return message


def _first(event_type: str) -> dict[str, Any]:
    """The first of the shipped valid examples in the order of their names."""
    folder = data_path("schemas") / "examples" / event_type / "valid"
    return _shown(sorted(folder.glob("*.json"))[0])


def _shown(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_bytes())
    return {
        "name": path.stem,
        "summary": record["about"],
        "headers": record["headers"],
        "payload": record["data"],
    }


def _dead_letter() -> dict[str, Any]:
    return {
        "name": "dead_letter",
        "title": "Dead letter",
        "summary": "A record as it came, with the reason.",
        "headers": {
            "type": "object",
            "required": list(_DLT),
            "properties": {
                **dict.fromkeys(_DLT, _TEXT),
                "fl-truncated": {
                    "type": "string",
                    "const": "true",
                    "description": "Only the first 64 KiB of a value too large for the topic",
                },
            },
        },
        "payload": {"description": "The value of the original record, any bytes"},
    }


def _schemas() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """All shapes by name, and the reference to each event type's own."""
    modes: dict[Direction, JsonSchemaMode] = {
        Direction.IN: "validation",
        Direction.OUT: "serialization",
    }
    wanted = list(dict.fromkeys((event.model, modes[event.direction]) for event in EVENTS))
    by_model, made = models_json_schema(
        wanted, ref_template="#/components/schemas/{model}", schema_generator=SchemaGenerator
    )
    references = {event.type: by_model[event.model, modes[event.direction]] for event in EVENTS}
    shapes = {**_headers(), **without_titles(made["$defs"], inside_names=True)}
    return shapes, references


def _headers() -> dict[str, Any]:
    required = ["ce_specversion", "ce_id", "ce_source", "ce_type"]
    deciding = _TEXT | {"minLength": 1, "maxLength": 1_024, "pattern": _PRINTABLE, **ONE_LINE}
    named = {
        "ce_specversion": {"type": "string", "const": "1.0"},
        **dict.fromkeys(("ce_id", "ce_source", "ce_type"), deciding),
        "ce_time": _TEXT | {"format": "date-time"},
        "ce_subject": _TEXT,
        "ce_traceparent": _TEXT,
    }
    others = {
        "ce_dataschema": _TEXT,
        "ce_correlationid": _TEXT,
        "ce_causationid": _TEXT,
        "ce_sequence": _TEXT | {"description": "Per job, from 1 without a gap, as decimal text"},
    }
    always = ["ce_time", "ce_subject", "ce_dataschema"]
    inbound = {
        "type": "object",
        "required": required,
        "properties": named,
        "description": "The required ones decide; of the others an unlawful one counts as left out",
    }
    outbound = {
        "type": "object",
        "required": [*required, *always],
        "properties": named | others,
    }
    return {"InboundHeaders": inbound, "OutboundHeaders": outbound}
