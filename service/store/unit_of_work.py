"""A transaction's work in memory: commands applied to locked jobs, and everything that follows from it.

Nothing here waits or writes; `service.store.loading` loads it, and `service.store.apply` has it written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from service.domain import jobless
from service.domain.commands import Command, RefuseStop
from service.domain.decide import decide
from service.domain.decision import Decision, Outcome
from service.domain.enums import JobState
from service.domain.evolve import evolve, is_published
from service.domain.facts import Facts
from service.domain.group import by_number
from service.domain.job import Job
from service.domain.values import Origin, Request
from service.store.event_log import EventLog
from service.store.jobs import row
from service.store.occupancy import OccupancyDelta, group_of_job
from service.store.records import BatchRefused, Row


@dataclass(slots=True)
class UnitOfWork:
    """`before`: what was loaded; `jobs`: what stands now; `occupancy`: each job's partition."""

    facts: Facts
    log: EventLog
    before: dict[UUID, Job]
    partitions: dict[UUID, int]
    jobs: dict[UUID, Job] = field(default_factory=dict)
    _groups: dict[UUID, UUID | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.jobs = dict(self.before)

    def apply(self, command: Command, index: int | None = None) -> Decision:
        """Judge one command and follow what was decided.

        Raises BatchRefused when judging fails: a bug, or an input that nobody foresaw; it costs its own
        record alone.
        """
        job = self.jobs.get(command.job_id)
        try:
            decision = decide(job, command, self.facts)
            if decision.events:
                self._follow(command, job, decision)
        except Exception as exc:  # the isolating edge: whatever a rule raises
            raise BatchRefused(
                f"{type(command).__name__} could not be judged: {exc!r}", index=index
            ) from exc
        model = job.request.model_id if job is not None else None
        return self.answer(decision, command.job_id, model, origin_of(command))

    def judge(self, command: object, index: int | None = None) -> Decision:
        """The same for whatever a record holds: also a stop that breaks its contract, which no job judges."""
        if isinstance(command, RefuseStop):
            decision = jobless.refuse_stop(command)
            return self.answer(decision, command.job_id, command.model_id, command.origin)
        assert isinstance(command, Command)
        return self.apply(command, index)

    def answer(
        self, decision: Decision, job_id: UUID | None, model_id: UUID | None, origin: Origin | None
    ) -> Decision:
        """Publish the answer to an event that was refused."""
        reason = decision.reason
        if decision.outcome is Outcome.REFUSED and reason is not None and origin is not None:
            self.log.append_refusal(job_id, model_id, origin, reason, self.facts.now)
        return decision

    def _follow(self, command: Command, job: Job | None, decision: Decision) -> None:
        cause = origin_of(command)
        subject = str(command.job_id)
        partition = self.partitions.get(command.job_id)
        if partition is None:
            partition = self.partitions[command.job_id] = self.log.partition_of(subject)
        published: list[tuple[Job, Any]] = []
        for event in decision.events:
            job = evolve(job, event)
            if is_published(event):
                published.append((job, event))
        assert job is not None
        for after, event in published:
            self.log.append(after, event, subject, partition, cause)
        self.jobs[command.job_id] = job

    def _group(self, job: Job) -> UUID | None:
        """The job's group, worked out once."""
        found = self._groups.get(job.job_id)
        if found is None and job.job_id not in self._groups:
            found = self._groups[job.job_id] = group_of_job(job)
        return found

    def new(self) -> dict[UUID, Job]:
        """The jobs that this transaction makes."""
        if not self.before:
            return self.jobs
        return {job_id: job for job_id, job in self.jobs.items() if job_id not in self.before}

    def new_rows(self) -> Iterator[Row]:
        """Their rows."""
        for job_id, job in self.new().items():
            yield row(job, self._group(job), self.partitions[job_id])

    def changed(self) -> list[Job]:
        """Loaded jobs that are not what they were, in the order of their ids."""
        moved = [job_id for job_id, old in self.before.items() if self.jobs[job_id] is not old]
        return [self.jobs[job_id] for job_id in sorted(moved, key=by_number)]

    def new_groups(self) -> dict[UUID, Request]:
        """The groups of the new jobs, each with one of its requests."""
        return {
            group: job.request
            for job in self.new().values()
            if isinstance(job.request, Request) and (group := self._group(job)) is not None
        }

    def occupancy(self) -> OccupancyDelta:
        """What the step from `before` to `jobs` occupies and frees."""
        occupancy = OccupancyDelta()
        before = self.before
        for job_id, job in self.jobs.items():
            old = before.get(job_id) if before else None
            if old is not job:
                occupancy.moved(old, job, self._group(job))
        return occupancy

    def states(self) -> set[JobState]:
        """The states that some changed job is in now."""
        before = self.before
        return {
            job.state
            for job_id, job in self.jobs.items()
            if not before or before.get(job_id) is not job
        }


def origin_of(command: object) -> Origin | None:
    """The event that a command came from; None for a step's."""
    request = getattr(command, "request", None)
    origin = request.origin if isinstance(request, Request) else getattr(command, "origin", None)
    return origin if isinstance(origin, Origin) else None


def job_ids(commands: Sequence[object]) -> list[UUID]:
    """The jobs that commands are about, each once, in lock order."""
    return sorted({c.job_id for c in commands if isinstance(c, Command)}, key=by_number)
