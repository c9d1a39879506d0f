"""The store as a dictionary: a specification of what the steps may rely on.

It decides with the real `decide` and `evolve`, picks by `min`, keeps leases by its own clock, and writes
down every event with its time, so that the invariants can be checked afterwards. `shaky` makes a share of
calls fail, half of them after they were applied: an unknown COMMIT.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from service.domain import commands as c
from service.domain import events as e
from service.domain.decide import decide
from service.domain.decision import LEASE_LOST, Decision
from service.domain.eligibility import eligible_nets, why_waiting
from service.domain.enums import ACTIVE, FLBackend, JobState, ReservationState, WaitingCode
from service.domain.evolve import evolve
from service.domain.facts import Facts, JobLimits, JobTypes
from service.domain.job import Job
from service.domain.observed import Handle, Reservation
from service.domain.registry import Net, NetNow, Registry
from service.domain.values import Attempt
from service.errors import Transient

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Snapshot:
    answering: bool = False
    online: frozenset[UUID] = frozenset()
    extensions: frozenset[str] = frozenset()
    strays: tuple[str, ...] = ()
    unknown_statuses: tuple[str, ...] = ()


@dataclass
class FakeStore:
    known: Registry
    limits: JobLimits = field(default_factory=JobLimits)
    lease_seconds: float = 10.0
    shaky: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    jobs: dict[UUID, Job] = field(default_factory=dict)
    log: list[tuple[datetime, UUID, e.Event]] = field(default_factory=list)
    parked: list[c.Command] = field(default_factory=list)
    nets: dict[str, Snapshot] = field(default_factory=dict)
    left: dict[str, Net] = field(default_factory=dict)  #: nets that are out of the registry
    bodies: dict[str, list[bytes]] = field(default_factory=dict)
    leases: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    runs: set[tuple[str, str]] = field(default_factory=set)
    manifests: dict[FLBackend, JobTypes] = field(default_factory=dict)
    refused: list[tuple[c.Command, Decision]] = field(default_factory=list)

    def time(self) -> datetime:
        return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())

    async def _trip(self) -> bool:
        """The way to the database: takes a moment, may fail before, or (True) after the work."""
        await asyncio.sleep(0.002)
        if self.rng.random() >= self.shaky:
            return False
        if self.rng.random() < 0.5:
            raise Transient("the database is unavailable")
        return True

    # --- writing ----------------------------------------------------------------------------------

    def facts(self) -> Facts:
        types = self.manifests
        return Facts(self.time(), self.known, self.now_of_nets(), types, limits=self.limits)

    async def apply(self, commands: Iterable[c.Command]) -> list[Decision]:
        lost = await self._trip()
        decisions = [self.do(command) for command in commands]
        if lost:
            raise Transient("the connection broke during COMMIT")
        return decisions

    async def apply_each(self, commands: Iterable[c.Command]) -> list[Decision]:
        return await self.apply(commands)

    def do(self, command: c.Command) -> Decision:
        job = self.jobs.get(command.job_id)
        if isinstance(command, c.OpenSubmission):
            self._feed(command.job_id)
            job = self.jobs.get(command.job_id)
            others = [
                a
                for other, a in self._places()
                if other.job_id != command.job_id and _in_doubt(a) and job is not None
                if job.attempt is not None and a.net == job.attempt.net
            ]
            if others:
                raise Transient("another submission is open", code="net_in_doubt")
        decision = decide(job, command, self.facts())
        if job is None and not decision.events:
            self.parked.append(command)
        for event in decision.events:
            job = self._with_lease(evolve(job, event), event)
            self.jobs[command.job_id] = job
            self.log.append((self.time(), command.job_id, event))
            self.runs |= {(a.net, a.run_id) for a in job.attempts if a.run_id is not None}
        if decision == LEASE_LOST:
            self.refused.append((command, decision))
        return decision

    def _with_lease(self, job: Job, event: e.Event) -> Job:
        if isinstance(event, (e.Started, e.LeaseTaken)) and job.lease is not None:
            until = self.time() + timedelta(seconds=self.lease_seconds)
            return replace(job, lease=replace(job.lease, until=until))
        return job

    def _feed(self, job_id: UUID | None) -> int:
        fed = [p for p in self.parked if p.job_id in self.jobs and job_id in (None, p.job_id)]
        for command in fed:
            self.parked.remove(command)
            self.do(command)
        return len(fed)

    async def claim(self, holder: str, without: Collection[str] = ()) -> Job | None:
        lost = await self._trip()
        waiting = [j for j in self.jobs.values() if j.state is JobState.QUEUED and j.eligible]
        waiting.sort(key=lambda j: (-j.accepted_request.priority, j.created_at, j.job_id))
        for job in waiting:
            for net in sorted(set(self.known.nets) - set(without)):
                decision = self.do(c.Claim(job.job_id, net, holder))
                if any(isinstance(event, e.Started) for event in decision.events):
                    if lost:
                        raise Transient("the connection broke during COMMIT")
                    return self.jobs[job.job_id]
        return None

    async def take(
        self, states: Iterable[JobState], holder: str, limit: int, without: Collection[str] = ()
    ) -> list[Job]:
        lost, wanted = await self._trip(), set(states)
        taken: list[Job] = []
        for job in list(self.jobs.values()):
            kept = job.attempt is not None and job.attempt.net in without
            if job.state in wanted and len(taken) < limit and not kept:
                decision = self.do(c.TakeLease(job.job_id, holder))
                if any(isinstance(event, e.LeaseTaken) for event in decision.events):
                    taken.append(self.jobs[job.job_id])
        if lost:
            raise Transient("the connection broke during COMMIT")
        return taken

    async def renew(self, leases: Mapping[UUID, int]) -> set[UUID]:
        await self._trip()
        kept = set()
        for job_id, token in leases.items():
            job = self.jobs[job_id]
            if job.lease is not None and job.lease.token == token:
                until = self.time() + timedelta(seconds=self.lease_seconds)
                self.jobs[job_id] = replace(job, lease=replace(job.lease, until=until))
                kept.add(job_id)
        return kept

    async def resolve_parked(self, limit: int) -> int:
        await self._trip()
        return self._feed(None)

    async def stop_models(self, limit: int) -> int:
        return 0

    async def review_registry(self, holder: str, limit: int) -> int:
        return 0

    async def save_net(
        self,
        name: str,
        *,
        answering: bool,
        online: frozenset[UUID],
        extensions: frozenset[str],
        strays: tuple[str, ...] | None,
        body: bytes,
        unknown_statuses: tuple[str, ...] | None = None,
    ) -> None:
        await self._trip()
        before = self.nets.get(name, Snapshot())
        kept = before.strays if strays is None else strays
        words = before.unknown_statuses if unknown_statuses is None else unknown_statuses
        self.nets[name] = Snapshot(answering, online, extensions, kept, words)
        if not self.bodies.get(name) or self.bodies[name][-1] != body:
            self.bodies.setdefault(name, []).append(body)

    async def lease(self, name: str, holder: str, ttl_seconds: float) -> bool:
        await self._trip()
        owner, until = self.leases.get(name, (holder, self.time()))
        if owner != holder and until > self.time():
            return False
        self.leases[name] = (holder, self.time() + timedelta(seconds=ttl_seconds))
        return True

    async def purgeable(self, limit: int) -> list[UUID]:
        return []

    async def clean(self, purgeable: Sequence[UUID], limit: int) -> int:
        return 0

    # --- reading ----------------------------------------------------------------------------------

    async def get(self, job_id: UUID) -> Job | None:
        await self._trip()
        return self.jobs.get(job_id)

    async def now(self) -> datetime:
        await self._trip()
        return self.time()

    async def registry(self) -> Registry:
        await self._trip()
        return self.known

    def _places(self) -> list[tuple[Job, Attempt]]:
        return [
            (job, attempt)
            for job in self.jobs.values()
            for attempt in job.attempts
            if attempt.reservation is not ReservationState.RELEASED
        ]

    def now_of_nets(self) -> dict[str, NetNow]:
        places = [attempt for _, attempt in self._places()]
        gpus: dict[str, Counter[UUID]] = defaultdict(Counter)
        for job, attempt in self._places():
            for participant in attempt.participants:
                wanted = job.accepted_request.resources.num_gpus
                gpus[attempt.net][participant.trust_id] += wanted
        return {
            name: NetNow(
                name,
                seen.answering,
                seen.online,
                sum(a.net == name for a in places),
                in_doubt=any(
                    a.net == name and _in_doubt(a) and a.reservation is ReservationState.QUARANTINED
                    for a in places
                ),
                extensions=seen.extensions,
                strays=len(seen.strays),
                gpus_taken=gpus[name],
            )
            for name, seen in self.nets.items()
        }

    async def draining(self) -> Mapping[str, Net]:
        await self._trip()
        busy = {a.net for _, a in self._places()} | {
            job.attempt.net
            for job in self.jobs.values()
            if job.attempt is not None and job.state in ACTIVE
        }
        return {n: net for n, net in self.left.items() if n in busy and n not in self.known.nets}

    async def net_now(self) -> Mapping[str, NetNow]:
        await self._trip()
        return self.now_of_nets()

    async def reservations(self, net: str) -> list[Reservation]:
        await self._trip()
        return [
            Reservation(
                job.job_id,
                a.number,
                net,
                a.reservation,
                job.state,
                a is job.attempt and job.state in ACTIVE,
                a.run_id,
                _handle(job, a),
                a.changed_at,
            )
            for job, a in self._places()
            if a.net == net
        ]

    async def known_runs(self, net: str, run_ids: Sequence[str]) -> set[str]:
        await self._trip()
        return {run_id for run_id in run_ids if (net, run_id) in self.runs}

    async def due(self, limit: int) -> list[UUID]:
        await self._trip()
        now = self.time()
        due = [j for j in self.jobs.values() if j.due_at is not None and j.due_at <= now]
        return [job.job_id for job in sorted(due, key=lambda j: j.job_id)[:limit]]

    async def waiting_heads(self, limit: int) -> list[tuple[UUID, str | None, int]]:
        await self._trip()
        facts = self.facts()
        queued = [j for j in self.jobs.values() if j.state is JobState.QUEUED]
        queued.sort(key=lambda job: not job.eligible)
        heads: list[tuple[UUID, str | None, int]] = []
        for position, job in enumerate(queued[:limit], 1):
            code: str | None = WaitingCode.NOT_BEFORE
            if job.eligible:
                nets = eligible_nets(job.accepted_request, facts)
                code = why_waiting(job.accepted_request, nets, facts)
            if code != job.waiting:
                heads.append((job.job_id, code, position))
        return heads


def _in_doubt(attempt: Attempt) -> bool:
    return attempt.submission is not None and attempt.run_id is None


def _handle(job: Job, attempt: Attempt) -> Handle | None:
    s = attempt.submission
    if s is None:
        return None
    return Handle(
        job.job_id,
        job.accepted_request.model_id,
        attempt.number,
        s.path_id,
        s.key,
        s.known_runs,
        s.earlier_paths,
    )
