"""The topics: their names, what each keeps, and a check that the broker's agree.

A name is the prefix and the wire name. Partitions are decided once: placement depends on their number, so
`ensure_topics` makes what is missing and never changes what is there; a difference is told, and one that
would break a promise (partitions, compaction) is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from service.errors import Invalid, Transient
from service.kafka.clients import admin, within
from service.kafka.connection import Connection

REQUESTS: Final = "fl.training-requests.v1"
JOB_STATUS: Final = "fl.job-status.v1"
LIFECYCLE: Final = "fl.job-lifecycle.v1"
JOB_STATE: Final = "fl.job-state.v1"
NET_STATUS: Final = "fl.net-status.v1"
INBOUND: Final = (REQUESTS, JOB_STATUS)
DEAD: Final = ".dlq"

DAY_MS: Final = 24 * 60 * 60 * 1000
_TOPIC_EXISTS: Final = 36


@dataclass(frozen=True, slots=True)
class TopicOptions:
    """What new topics get. Days are of retention; `replication` 0: 3, or as many brokers as there are."""

    partitions: int = 12
    net_status_partitions: int = 1
    dead_letter_partitions: int = 3
    replication: int = 0
    inbound_days: float = 7
    lifecycle_days: float = 30
    dead_letter_days: float = 14
    max_message_bytes: int = 1_048_588


@dataclass(frozen=True, slots=True)
class Topics:
    """The real names, under a prefix."""

    prefix: str = ""

    def name(self, wire_name: str) -> str:
        return f"{self.prefix}{wire_name}"

    @property
    def requests(self) -> str:
        return self.name(REQUESTS)

    @property
    def job_status(self) -> str:
        return self.name(JOB_STATUS)

    @property
    def lifecycle(self) -> str:
        return self.name(LIFECYCLE)

    @property
    def job_state(self) -> str:
        return self.name(JOB_STATE)

    @property
    def net_status(self) -> str:
        return self.name(NET_STATUS)

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


def plan(topics: Topics, options: TopicOptions) -> list[TopicPlan]:
    """Every topic of the service with what it needs."""
    size = {"max.message.bytes": str(options.max_message_bytes)}
    compacted = {"cleanup.policy": "compact", **size}

    def kept(days: float) -> dict[str, str]:
        return {"cleanup.policy": "delete", "retention.ms": str(int(days * DAY_MS)), **size}

    plans = [
        TopicPlan(topics.requests, options.partitions, kept(options.inbound_days)),
        TopicPlan(topics.job_status, options.partitions, kept(options.inbound_days)),
        TopicPlan(topics.lifecycle, options.partitions, kept(options.lifecycle_days)),
        TopicPlan(topics.job_state, options.partitions, compacted),
        TopicPlan(topics.net_status, options.net_status_partitions, compacted),
    ]
    dead = kept(options.dead_letter_days)
    plans += [
        TopicPlan(topics.dead_letters(name), options.dead_letter_partitions, dead)
        for name in topics.inbound
    ]
    return plans


async def ensure_topics(
    connection: Connection, options: TopicOptions | None = None, *, create: bool = True
) -> TopicReport:
    """Make the topics that are missing and compare the others with the plan; change nothing that is there.

    With `create=False` a missing topic is one of the report's errors. Raises errors.Transient when the
    broker is away or refuses to make one; the report's `errors` are for the caller to raise.
    """
    options = options or TopicOptions()
    plans = plan(Topics(connection.topic_prefix), options)
    report = TopicReport()
    async with admin(connection) as client:
        existing = await within(10, "listing topics", client.list_topics())
        missing = [item for item in plans if item.name not in existing]
        if create and missing:
            await _create(client, missing, options, report)
        elif missing:
            report.errors += [
                f"topic {item.name} is missing: `fl-jobs migrate` makes it" for item in missing
            ]
        names = [item.name for item in plans if create or item not in missing]
        described = await within(10, "describing topics", client.describe_topics(names))
        report.partitions = {item["topic"]: len(item["partitions"]) for item in described}
        configs = await _configs(client, names)
    for item in plans:
        if item.name in names:
            _compare(item, report, configs.get(item.name, {}))
    _same_partitions(Topics(connection.topic_prefix), report)
    return report


async def topic_configs(connection: Connection, names: list[str]) -> dict[str, dict[str, str]]:
    """The broker's settings of these topics, by real name. Raises errors.Transient."""
    async with admin(connection) as client:
        return await _configs(client, names)


async def max_message_bytes(connection: Connection, names: list[str]) -> dict[str, int]:
    """The real `max.message.bytes` of each topic, in bytes; a topic that can't be read is left out."""
    configs = await topic_configs(connection, names)
    return {
        name: int(values["max.message.bytes"])
        for name, values in configs.items()
        if values.get("max.message.bytes")
    }


async def _create(
    client: AIOKafkaAdminClient,
    missing: list[TopicPlan],
    options: TopicOptions,
    report: TopicReport,
) -> None:
    cluster = await within(10, "describing the cluster", client.describe_cluster())
    replication = options.replication or min(3, len(cluster["brokers"]))
    new = [
        NewTopic(item.name, item.partitions, replication, topic_configs=dict(item.configs))
        for item in missing
    ]
    answer = await within(30, "making topics", client.create_topics(new))
    for name, code, *rest in answer.topic_errors:
        if code == 0:
            report.created.append(name)
        elif code != _TOPIC_EXISTS:
            text = rest[0] if rest and rest[0] else for_code(code).__name__
            raise Transient(f"topic {name} can't be made: {text}", code="topic_not_made")


async def _configs(client: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answers = await within(10, "reading topic settings", client.describe_configs(wanted))
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
