"""One transaction's work: what came in, what was decided of it, and what is written for it beside the jobs.

Nothing here waits or writes. `judging` fills it, and each part is written by the file of its subject:
`parked`, `inbox`, `state_records`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from service.domain import commands as c
from service.domain.decision import Decision, Outcome
from service.domain.enums import JobState
from service.domain.events import ResultsRecovered
from service.store.occupancy import OccupancyDelta
from service.store.records import DeadLetter, InboundItem, RecordRef, dead_letter
from service.store.unit_of_work import UnitOfWork

_NO_RECORD: Final = RecordRef("", 0, 0, 0, None, None, ())


@dataclass(frozen=True, slots=True)
class Committed:
    """What a committed transaction did, for whoever waits for it."""

    decisions: list[Decision]
    states: frozenset[JobState] = frozenset()
    events: int = 0
    work_available: bool = False  #: a job became ready, or a reservation was released
    model_stops: bool = False  #: a stop by model was accepted


@dataclass(frozen=True, slots=True)
class Parking:
    """A record that waits for its job."""

    item: InboundItem
    job_id: UUID
    is_stop: bool


@dataclass(slots=True)
class Work:
    """`rows`: the parked records that the items were restored from, by index; `resolved`: those of them that
    wait no longer; `repeated`: items whose event id was seen before, by index."""

    items: Sequence[InboundItem]
    group: str = ""
    rows: Sequence[asyncpg.Record] = ()
    repeated: dict[int, Decision] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    dead: list[tuple[RecordRef, DeadLetter]] = field(default_factory=list)
    outcomes: dict[bytes, str] = field(default_factory=dict)
    parking: list[Parking] = field(default_factory=list)
    resolved: list[int] = field(default_factory=list)
    forgotten: list[bytes] = field(default_factory=list)
    model_stops: bool = False

    @classmethod
    def of_commands(cls, commands: Sequence[c.Command]) -> Work:
        """The work of commands that came from no record."""
        return cls([InboundItem(command, _NO_RECORD) for command in commands])

    def wanted(self) -> list[object]:
        """The commands that are judged."""
        return [item.command for n, item in enumerate(self.items) if n not in self.repeated]

    def keep(self, item: InboundItem, decision: Decision) -> None:
        """Remember what a decision asks for beside the job."""
        if decision.outcome is Outcome.PARKED and isinstance(item.command, c.Command):
            is_stop = isinstance(item.command, c.RequestStop)
            self.parking.append(Parking(item, item.command.job_id, is_stop))
        if item.event_key is not None and decision.outcome is not Outcome.APPLIED:
            code = decision.reason.code if decision.reason is not None else ""
            self.outcomes[item.event_key] = f"{decision.outcome}:{code}".rstrip(":")

    def bury(self, item: InboundItem, decision: Decision) -> None:
        """The record becomes a dead letter; the decision's reason says why."""
        reason = decision.reason
        assert reason is not None, f"{decision.outcome} says why"
        self.dead.append((item.source_record, dead_letter(reason.code, reason.message)))

    def forget(self, row: asyncpg.Record) -> None:
        """Forget the event id of a parked record that became a dead letter: it may be sent again."""
        if row["event_id"] is not None:
            self.forgotten.append(row["event_id"])

    def recovered(self) -> list[UUID]:
        """Jobs that changed after their end: no event follows, so their state is published by itself."""
        return sorted(
            item.command.job_id
            for item, decision in zip(self.items, self.decisions, strict=True)
            if isinstance(item.command, c.Command)
            and any(isinstance(event, ResultsRecovered) for event in decision.events)
        )

    def committed(self, unit: UnitOfWork, occupancy: OccupancyDelta) -> Committed:
        """What is told after the commit."""
        return Committed(
            self.decisions,
            frozenset(unit.states()),
            len(unit.log.rows),
            bool(occupancy.ready_in or occupancy.reservations_out),
            self.model_stops,
        )
