"""The topics: their names, what each keeps, and a check that the broker's agree.

A name is the prefix and the wire name. Partitions are decided once: placement depends on their number, so
`ensure_topics` makes what is missing and never changes what is there; a difference is reported, and one that
would break a promise (partitions, compaction) is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from service.contracts.outbound.truncate import MAX_MESSAGE_BYTES
from service.contracts.schemas import catalogue
from service.errors import Invalid, Transient
from service.kafka.clients import admin, with_deadline
from service.kafka.connection import Connection

DEAD: Final = ".dlq"

HOUR_MS: Final = 60 * 60 * 1000
_TOPIC_EXISTS: Final = 36


class TopicSettings(Connection, Protocol):
    """What new topics get, from the settings' Kafka section. Retention is in hours."""

    @property
    def partitions(self) -> int: ...
    @property
    def replication_factor(self) -> int: ...
    @property
    def requests_retention_hours(self) -> int: ...
    @property
    def status_retention_hours(self) -> int: ...
    @property
    def lifecycle_retention_hours(self) -> int: ...
    @property
    def dead_letter_retention_hours(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Topics:
    """The real names, under a prefix."""

    prefix: str = ""

    def name(self, wire_name: str) -> str:
        return f"{self.prefix}{wire_name}"

    @property
    def requests(self) -> str:
        return self.name(catalogue.REQUESTS.name)

    @property
    def job_status(self) -> str:
        return self.name(catalogue.JOB_STATUS.name)

    @property
    def lifecycle(self) -> str:
        return self.name(catalogue.LIFECYCLE.name)

    @property
    def job_state(self) -> str:
        return self.name(catalogue.JOB_STATE.name)

    @property
    def net_status(self) -> str:
        return self.name(catalogue.NET_STATUS.name)

    @property
    def inbound(self) -> tuple[str, ...]:
        return (self.requests, self.job_status)

    @staticmethod
    def dead_letters(topic: str) -> str:
        """The dead-letter topic of an inbound topic's real name."""
        return f"{topic}{DEAD}"


@dataclass(frozen=True, slots=True)
class TopicPlan:
    name: str
    partitions: int
    configs: Mapping[str, str]


@dataclass(slots=True)
class TopicReport:
    """What `ensure_topics` did and saw. `partitions`: by real name, as the broker has them now."""

    created: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    partitions: dict[str, int] = field(default_factory=dict)


def plan(settings: TopicSettings) -> list[TopicPlan]:
    """Every topic of the service with what it needs."""
    topics = Topics(settings.topic_prefix)
    size = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    compacted = {"cleanup.policy": "compact", **size}

    def kept(hours: int) -> dict[str, str]:
        return {"cleanup.policy": "delete", "retention.ms": str(hours * HOUR_MS), **size}

    count = settings.partitions
    plans = [
        TopicPlan(topics.requests, count, kept(settings.requests_retention_hours)),
        TopicPlan(topics.job_status, count, kept(settings.status_retention_hours)),
        TopicPlan(topics.lifecycle, count, kept(settings.lifecycle_retention_hours)),
        TopicPlan(topics.job_state, count, compacted),
        TopicPlan(topics.net_status, 1, compacted),
    ]
    dead = kept(settings.dead_letter_retention_hours)
    plans += [TopicPlan(topics.dead_letters(name), min(3, count), dead) for name in topics.inbound]
    return plans


async def ensure_topics(settings: TopicSettings, *, create: bool = True) -> TopicReport:
    """Make the topics that are missing and compare the others with the plan; change nothing that is there.

    With `create=False` a missing topic is one of the report's errors. Raises errors.Transient when the
    broker is unavailable or refuses to make one; the report's `errors` are for the caller to raise.
    """
    plans = plan(settings)
    report = TopicReport()
    async with admin(settings) as client:
        existing = await with_deadline(10, "listing topics", client.list_topics())
        missing = [item for item in plans if item.name not in existing]
        if create and missing:
            await _create(client, missing, settings.replication_factor, report)
        elif missing:
            report.errors += [
                f"topic {item.name} is missing: `fl-jobs run` makes it" for item in missing
            ]
        names = [item.name for item in plans if create or item not in missing]
        described = await with_deadline(10, "describing topics", client.describe_topics(names))
        report.partitions = {item["topic"]: len(item["partitions"]) for item in described}
        configs = await _configs(client, names)
    for item in plans:
        if item.name in names:
            _compare(item, report, configs.get(item.name, {}))
    _same_partitions(Topics(settings.topic_prefix), report)
    return report


async def topic_configs(connection: Connection, names: list[str]) -> dict[str, dict[str, str]]:
    """The broker's settings of these topics, by real name. Raises errors.Transient."""
    async with admin(connection) as client:
        return await _configs(client, names)


async def partition_counts(connection: Connection, names: list[str]) -> dict[str, int]:
    """How many partitions each of these topics has; one that is missing is left out.

    Raises errors.Transient.
    """
    async with admin(connection) as client:
        existing = await with_deadline(10, "listing topics", client.list_topics())
        present = [name for name in names if name in existing]
        if not present:
            return {}
        described = await with_deadline(10, "describing topics", client.describe_topics(present))
    return {item["topic"]: len(item["partitions"]) for item in described}


async def max_message_bytes(connection: Connection, names: list[str]) -> dict[str, int]:
    """The real `max.message.bytes` of each topic, in bytes; a topic that can't be read is left out."""
    configs = await topic_configs(connection, names)
    return {
        name: int(values["max.message.bytes"])
        for name, values in configs.items()
        if values.get("max.message.bytes")
    }


async def _create(
    client: AIOKafkaAdminClient, missing: list[TopicPlan], replication: int, report: TopicReport
) -> None:
    new = [
        NewTopic(item.name, item.partitions, replication, topic_configs=dict(item.configs))
        for item in missing
    ]
    answer = await with_deadline(30, "making topics", client.create_topics(new))
    for name, code, *rest in answer.topic_errors:
        if code == 0:
            report.created.append(name)
        elif code != _TOPIC_EXISTS:
            text = rest[0] if rest and rest[0] else for_code(code).__name__
            raise Transient(f"topic {name} can't be made: {text}", code="topic_not_made")


async def _configs(client: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answers = await with_deadline(10, "reading topic settings", client.describe_configs(wanted))
    found: dict[str, dict[str, str]] = {}
    for answer in answers:
        for resource in answer.resources:
            code, _, _, name, entries = resource[:5]
            if code == 0:
                found[name] = {entry[0]: entry[1] or "" for entry in entries}
    return found


def _compare(item: TopicPlan, report: TopicReport, real: Mapping[str, str]) -> None:
    partitions = report.partitions.get(item.name)
    if partitions and partitions != item.partitions:
        report.warnings.append(
            f"topic {item.name} has {partitions} partitions, the settings say {item.partitions}; "
            f"the topic's number rules"
        )
    for key, wanted in item.configs.items():
        is_now = real.get(key)
        if is_now is None or is_now == wanted:
            continue
        if key == "cleanup.policy":
            report.errors.append(
                f"topic {item.name} has cleanup.policy {is_now!r} and needs {wanted!r}: "
                f"change it with kafka-configs.sh"
            )
        else:
            report.warnings.append(
                f"topic {item.name} has {key} {is_now}, the settings say {wanted}"
            )


def _same_partitions(topics: Topics, report: TopicReport) -> None:
    lifecycle = report.partitions.get(topics.lifecycle)
    state = report.partitions.get(topics.job_state)
    if lifecycle and state and lifecycle != state:
        report.errors.append(
            f"topic {topics.job_state} has {state} partitions and {topics.lifecycle} {lifecycle}: "
            f"they must have the same number, since one relay owns a job's partition on both"
        )


def raise_errors(report: TopicReport) -> None:
    """Raises errors.Invalid (`topics`) with everything that is wrong, when anything is."""
    if report.errors:
        raise Invalid("; ".join(report.errors), code="topics")
