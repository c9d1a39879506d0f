"""Every event type in one table: its topic, direction, key, shape and what it means.

Promise: a type that is not here is neither read nor published; the JSON Schemas, the examples' list
and the AsyncAPI document are made from this table alone (`service.contracts.schemas.schema_files`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from service.contracts.fl import INetStatus
from service.contracts.inbound import reports, stop, training
from service.contracts.outbound import lifecycle, net_status, state
from service.contracts.wire.envelope import SCHEMA_PREFIX

#: The model of an event's `data`.
Shape = type[BaseModel]


class Direction(StrEnum):
    """Seen from the service."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's name on the wire, without the prefix that a deployment may put before it."""

    name: str
    direction: Direction
    compacted: bool
    key: str
    about: str


@dataclass(frozen=True, slots=True)
class EventType:
    """One event type. `closed`: unknown fields are errors."""

    type: str
    topic: Topic
    model: Shape
    about: str

    @property
    def schema_id(self) -> str:
        """`$id` of its JSON Schema, and `ce_dataschema` of its records."""
        return SCHEMA_PREFIX + self.type

    @property
    def direction(self) -> Direction:
        return self.topic.direction


REQUESTS: Final = Topic(
    "fl.training-requests.v1",
    Direction.IN,
    compacted=False,
    key="the job's id; the model's on a stop by model. Never trusted: `data` rules",
    about="What producers ask for.",
)
JOB_STATUS: Final = Topic(
    "fl.job-status.v1",
    Direction.IN,
    compacted=False,
    key="the job's id. Never trusted: `data` rules",
    about="What FL-API servers and training apps report of running jobs.",
)
LIFECYCLE: Final = Topic(
    "fl.job-lifecycle.v1",
    Direction.OUT,
    compacted=False,
    key="the job's id; the model's where no job is meant",
    about="Everything that happened to a job, in order. Read it read-committed.",
)
JOB_STATE: Final = Topic(
    "fl.job-state.v1",
    Direction.OUT,
    compacted=True,
    key="the job's id",
    about="Each job's whole current state; a tombstone after its retention.",
)
NET_STATUS: Final = Topic(
    "fl.net-status.v1",
    Direction.OUT,
    compacted=True,
    key="the net's name",
    about="Each net's status whenever it changes.",
)
TOPICS: Final = (REQUESTS, JOB_STATUS, LIFECYCLE, JOB_STATE, NET_STATUS)

_INBOUND: Final = (
    EventType(
        training.REQUESTED,
        REQUESTS,
        training.TrainingRequested,
        "Train this model over these trusts. Closed: an unknown field is an error.",
    ),
    EventType(
        stop.STOP_REQUESTED,
        REQUESTS,
        stop.StopRequestModel,
        "Stop a job, or every unfinished job of a model. Closed: an unknown field is an error.",
    ),
    EventType(
        reports.STATUS_REPORTED,
        JOB_STATUS,
        reports.StatusReported,
        "A run says where it is.",
    ),
    EventType(
        reports.ROUND_REPORTED,
        JOB_STATUS,
        reports.RoundReportModel,
        "Something happened in a round of a run.",
    ),
    EventType(
        reports.METRICS_REPORTED,
        JOB_STATUS,
        reports.MetricsReported,
        "A run's numbers.",
    ),
    EventType(
        reports.LOG_REPORTED,
        JOB_STATUS,
        reports.LogReported,
        "A line of a run's log.",
    ),
)

_OUTBOUND: Final = (
    *(
        EventType(lifecycle.TYPES[name], LIFECYCLE, body.model, body.about)
        for name, body in lifecycle.BODIES.items()
    ),
    EventType(
        lifecycle.REFUSED,
        LIFECYCLE,
        lifecycle.RefusedData,
        "A request event was answered and changed nothing. Has no `sequence`.",
    ),
    EventType(state.STATE, JOB_STATE, state.StateData, "A job's whole current state."),
    EventType(net_status.STATUS, NET_STATUS, INetStatus, "A net as it is now."),
)

#: All event types, inbound first, in the order of a job's life.
EVENTS: Final[tuple[EventType, ...]] = (*_INBOUND, *_OUTBOUND)
BY_TYPE: Final[dict[str, EventType]] = {event.type: event for event in EVENTS}
