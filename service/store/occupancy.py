"""What a job occupies, and the tables that follow from it: the ready queue, reservations, and counters.

All of it is derived: occupancy after less occupancy before. Counters are locked sorted, each kind in a
statement of its own before its bulk UPDATE, nets before projects before groups, as the last locks but the
heads of the event log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from service.domain.eligibility import served_nets
from service.domain.enums import ACTIVE, JobState, ReservationState
from service.domain.facts import Facts
from service.domain.group import Group, by_number, group_id, group_of
from service.domain.job import Job
from service.domain.values import Request
from service.errors import Transient
from service.store.database import Connection
from service.store.statements import QUERIES

#: (net, group) pairs that one statement notes.
_PAIRS: Final = 10_000

ReadyKey = tuple[UUID, int, Any, UUID]
ReservationKey = tuple[UUID, int]
ReservationValue = tuple[str, str, str | None, bool, int, str]


def group_of_job(job: Job) -> UUID | None:
    """None for a rejected one, which never queues."""
    return group_id(group_of(job.request)) if isinstance(job.request, Request) else None


def ready_key(job: Job | None, group: UUID | None) -> ReadyKey | None:
    """The job's entry in its group's queue; None while it has none."""
    if job is None or group is None or not job.eligible:
        return None
    return (group, 9 - job.accepted_request.priority, job.created_at, job.job_id)


def reservations(job: Job | None) -> dict[ReservationKey, ReservationValue]:
    """(job, attempt): (net, state, run id, in doubt, GPUs at each site, those sites' trusts) of every
    reservation that the job's attempts hold."""
    if job is None or not job.attempts:
        return {}
    gpus = job.accepted_request.resources.num_gpus
    return {
        (job.job_id, a.number): (
            a.net,
            a.reservation,
            a.run_id,
            a.submission is not None and a.run_id is None,
            gpus,
            ",".join(str(p.trust_id) for p in a.participants) if gpus else "",
        )
        for a in job.attempts
        if a.reservation is not ReservationState.RELEASED
    }


@dataclass(slots=True)
class OccupancyDelta:
    """The difference that a batch makes. Feed it every changed job once, then `write`."""

    ready_in: list[ReadyKey] = field(default_factory=list)
    ready_out: list[ReadyKey] = field(default_factory=list)
    reservations_put: dict[ReservationKey, ReservationValue] = field(default_factory=dict)
    reservations_out: list[ReservationKey] = field(default_factory=list)
    runs: set[tuple[str, str, UUID, int]] = field(default_factory=set)
    nets: Counter[str] = field(default_factory=Counter)
    projects: Counter[str] = field(default_factory=Counter)
    groups: Counter[UUID] = field(default_factory=Counter)

    def moved(self, before: Job | None, after: Job, group: UUID | None) -> None:
        """Count one job's step from what the transaction loaded to what it leaves."""
        was, now = ready_key(before, group), ready_key(after, group)
        if was != now:
            if was is not None:
                self.ready_out.append(was)
            if now is not None:
                self.ready_in.append(now)
        if after.attempts:
            self._reservations(reservations(before), reservations(after))
            had = {(a.net, a.run_id) for a in before.attempts} if before is not None else set()
            for a in after.attempts:
                if a.run_id is not None and (a.net, a.run_id) not in had:
                    self.runs.add((a.net, a.run_id, after.job_id, a.number))
        if before is not None:
            self._count(before, -1, group)
        self._count(after, 1, group)

    def _reservations(
        self,
        was: dict[ReservationKey, ReservationValue],
        now: dict[ReservationKey, ReservationValue],
    ) -> None:
        for key, value in now.items():
            if was.get(key) != value:
                self.reservations_put[key] = value
        self.reservations_out += [key for key in was if key not in now]
        self.nets.update(value[0] for value in now.values())
        self.nets.subtract(value[0] for value in was.values())

    def _count(self, job: Job, by: int, group: UUID | None) -> None:
        if job.state is JobState.QUEUED and group is not None:
            self.groups[group] += by
        elif job.state in ACTIVE:
            self.projects[job.accepted_request.project_id] += by

    async def write(self, connection: Connection) -> None:
        """Queue entries and reservations, then the counters in their order."""
        if self.ready_out:
            keys = list(zip(*self.ready_out, strict=True))
            await connection.execute(QUERIES["ready_delete"], *keys)
        if self.ready_in:
            await connection.copy_records_to_table("ready", records=self.ready_in)
        if self.reservations_out:
            await connection.execute(
                QUERIES["reservations_delete"],
                [k[0] for k in self.reservations_out],
                [k[1] for k in self.reservations_out],
            )
        if self.reservations_put:
            rows = [(*key, *value) for key, value in self.reservations_put.items()]
            rows.sort(key=lambda row: (row[2], row[0], row[1]))  # a net has one open submission
            await connection.execute(QUERIES["reservations_upsert"], *zip(*rows, strict=True))
        if self.runs:
            await connection.execute(QUERIES["runs_insert"], *zip(*sorted(self.runs), strict=True))
        for name, deltas in (
            ("nets", self.nets),
            ("projects", self.projects),
            ("groups", self.groups),
        ):
            changed = sorted((key, n) for key, n in deltas.items() if n)
            if changed:
                ids = [key for key, _ in changed]
                await connection.execute(QUERIES[f"{name}_lock"], ids)
                await connection.execute(QUERIES[f"{name}_count"], ids, [n for _, n in changed])


def _columns(g: Group) -> tuple[object, ...]:
    """The group as the values of its row, but for its id."""
    return (
        g.project_id,
        g.fl_backend,
        list(g.trust_ids),
        g.min_trusts,
        g.resources.num_gpus,
        g.resources.mem_per_gpu_gib,
        g.job_type,
    )


class SchedulingGroups:
    """Makes groups when they are first seen, and notes which nets can serve them."""

    def __init__(self) -> None:
        self._known: set[UUID] = set()

    async def ensure(
        self, connection: Connection, requests: Mapping[UUID, Request], facts: Facts
    ) -> set[UUID]:
        """Rows for groups, each given with one of its requests.

        Returns what this transaction made or found: call `remember` with it after the commit. Raises
        errors.Transient when another registry was applied since `facts` were read: a new group must not
        be left with the nets of the old one.
        """
        unknown = sorted((key for key in requests if key not in self._known), key=by_number)
        if not unknown:
            return set()
        if await connection.fetchval(QUERIES["registry_version"]) != facts.registry.version:
            raise Transient("the registry changed meanwhile: judge again", code="database_busy")
        records = await connection.fetch(QUERIES["groups_select"], unknown)
        there = {r["group_id"] for r in records}
        made = {key: group_of(requests[key]) for key in unknown if key not in there}
        if made:
            projects = sorted({g.project_id for g in made.values()})
            await connection.execute(QUERIES["projects_make"], projects)
            rows = [(key, *_columns(g)) for key, g in made.items()]
            await connection.executemany(QUERIES["group_insert"], rows)
            await self._serve(connection, {key: requests[key] for key in made}, facts)
        return set(unknown)

    async def _serve(
        self, connection: Connection, requests: Mapping[UUID, Request], facts: Facts
    ) -> None:
        """Note which nets the registry lets serve new groups, in portions: a transaction must not stand idle.
        What a net can run changes without a registry: a claim looks at that itself."""
        nets: list[str] = []
        groups: list[UUID] = []
        for key, request in requests.items():
            served = served_nets(request, facts)
            nets += [net.name for net in served]
            groups += [key] * len(served)
            if len(nets) >= _PAIRS:
                await connection.execute(QUERIES["net_groups_insert"], nets, groups)
                nets, groups = [], []
        if nets:
            await connection.execute(QUERIES["net_groups_insert"], nets, groups)

    def remember(self, keys: set[UUID]) -> None:
        if len(self._known) > 200_000:
            self._known.clear()
        self._known |= keys
