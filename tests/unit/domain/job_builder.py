"""A job's life by real decisions: every state is reached by commands that lead there, never made by hand.

`JobBuilder.do` asks `decide` and follows with `evolve`, checking what holds after every step: published
events number themselves without a gap, nothing follows the end, the graph knows every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from service.domain import commands as c
from service.domain import events as e
from service.domain.decide import decide
from service.domain.decision import Decision, Outcome
from service.domain.enums import TERMINAL, FLBackend, FLJobStatus, ModelStatus, ReasonCode
from service.domain.evolve import RULE_OF, event_name_of, evolve, is_published
from service.domain.facts import Facts, JobLimits, JobTypes
from service.domain.job import Job
from service.domain.registry import Net, NetNow, Project, Registry, Trust
from service.domain.values import Metric, Origin, Problem, Reason, Request, Results, Submission

SPACE: Final = UUID("00000000-0000-4000-8000-000000000000")
TRUSTS: Final = tuple(uuid5(SPACE, f"trust {n}") for n in range(3))
JOB: Final = uuid5(SPACE, "job")
PATH: Final = uuid5(SPACE, "path")
RUN: Final = "run-1"
BEGIN: Final = datetime(2026, 3, 1, tzinfo=UTC)
ORIGIN: Final = Origin("e1", "/test")
RESULTS: Final = Results("s3://results/x.zip", "ab", 3)
NET: Final = Net("net-1", uuid5(SPACE, "net"), FLBackend.EMBEDDED, "http://net",
                 {t: f"Trust_{n}" for n, t in enumerate(TRUSTS, 1)})  # fmt: skip
REGISTRY: Final = Registry(
    1,
    {t: Trust(t, f"hospital {n}") for n, t in enumerate(TRUSTS)},
    {NET.name: NET},
    {"p1": Project("p1", frozenset(TRUSTS))},
)
NOW_OF_NET: Final = NetNow(NET.name, answering=True, online=frozenset(TRUSTS), occupied=0)
LIMITS: Final = JobLimits(missing_lists=2, missing_grace_seconds=1.0)


def request(**more: Any) -> Request:
    fields: dict[str, Any] = {
        "job_id": JOB,
        "model_id": uuid5(SPACE, "model"),
        "project_id": "p1",
        "cohort_query": "select 1",
        "trust_ids": TRUSTS,
        "min_trusts": 3,
        "content_hash": b"a" * 32,
        "origin": ORIGIN,
    }
    return Request(**(fields | more))


@dataclass
class JobBuilder:
    """One job's way. `now` moves a second with every command."""

    asked: Request = field(default_factory=request)
    registry: Registry = REGISTRY
    net: NetNow = NOW_OF_NET
    limits: JobLimits = LIMITS
    hub_paused: bool = False
    models_taken: dict[str, frozenset[UUID]] = field(default_factory=dict)
    job_types: dict[FLBackend, JobTypes] = field(default_factory=dict)
    layouts: frozenset[FLBackend] | None = None
    place: str | None = None
    now: datetime = BEGIN
    job: Job | None = None
    events: list[e.Event] = field(default_factory=list)

    @property
    def there(self) -> Job:
        assert self.job is not None
        return self.job

    def facts(self) -> Facts:
        return Facts(
            self.now,
            self.registry,
            {self.net.name: self.net},
            job_types=self.job_types,
            layouts=self.layouts,
            limits=self.limits,
            hub_paused=self.hub_paused,
            models_taken=self.models_taken,
            results_place=self.place,
        )

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def do(self, command: c.Command) -> Decision:
        """Decide and follow; AssertionError when an invariant breaks."""
        self.now += timedelta(seconds=1)
        decision = decide(self.job, command, self.facts())
        assert bool(decision.events) == (decision.outcome is Outcome.APPLIED)
        for event in decision.events:
            before = self.job
            row = RULE_OF[type(event)]
            self.job = evolve(before, event)
            assert (before.state if before else None) in row.comes_in
            if row.leads_to is not None:
                assert self.job.state is row.leads_to
            told = 1 if is_published(event) else 0
            assert self.job.sequence == (before.sequence if before else 0) + told
            assert (self.job.finished_at is not None) == (self.job.state in TERMINAL)
            if before is not None and before.state in TERMINAL:
                assert self.job.state is before.state
                assert told == 0
            self.events.append(event)
        return decision

    def run(self, *names: str) -> JobBuilder:
        """Several of `COMMANDS` by name, each of which must change something."""
        for name in names:
            decision = self.do(COMMANDS[name](self))
            assert decision.events, f"{name}: {decision}"
        return self

    def published(self) -> list[str]:
        return [str(event_name_of(event)) for event in self.events if is_published(event)]

    # --- parts of commands ------------------------------------------------------------------------

    @property
    def attempt(self) -> int:
        return self.job.attempt_number if self.job else 1

    @property
    def token(self) -> int:
        return self.job.lease.token if self.job and self.job.lease else 99

    def submission(self) -> Submission:
        key = f"{JOB}:{self.attempt}"
        return Submission(1, PATH, key, (), self.now, "s3://apps/x/", "d", {"GLOBAL_ROUNDS": 3})


def _why(code: ReasonCode) -> Reason:
    return Reason(code, "so it is")


def _status(status: ModelStatus, results: Results | None = None, **more: Any) -> Make:
    def make(builder: JobBuilder) -> c.Command:
        fields: dict[str, Any] = {"attempt": builder.attempt, "run_id": RUN} | more
        return c.ReportStatus(
            JOB, origin=ORIGIN, status=status, results=results, detail="said", **fields
        )

    return make


def _round(word: str, number: int | None, slot: str | None = None) -> Make:
    return lambda builder: c.ReportRound(
        JOB,
        builder.attempt,
        ORIGIN,
        RUN,
        slot,
        event_type=word,
        global_round=number,
        details={"n": 1},
    )


def _see(status: FLJobStatus | None, settled: bool = True) -> Make:
    return lambda builder: c.ObserveRun(
        JOB, builder.attempt, RUN, status, "listed", builder.now + timedelta(seconds=1), settled
    )


Make = Callable[[JobBuilder], c.Command]
_BAD: Final = (Problem(("x",), "is wrong", "t"),)

COMMANDS: Final[dict[str, Make]] = {
    "request": lambda builder: c.RequestTraining(JOB, builder.asked),
    "other request": lambda builder: c.RequestTraining(JOB, request(content_hash=b"z" * 32)),
    "bad request": lambda builder: c.RejectRequest(JOB, None, None, b"y" * 32, _BAD, ORIGIN),
    "stop": lambda builder: c.RequestStop(JOB, "enough", "me", ORIGIN),
    "prepared": _status(ModelStatus.PREPARED),
    "running": _status(ModelStatus.RUNNING),
    "uploaded": _status(ModelStatus.RESULTS_UPLOADED),
    "uploaded with results": _status(ModelStatus.RESULTS_UPLOADED, RESULTS),
    "upload failed": _status(ModelStatus.RESULTS_UPLOAD_FAILED),
    "error": _status(ModelStatus.ERROR),
    "stopped outside": _status(ModelStatus.STOPPED),
    "initiated": _status(ModelStatus.INITIATED),
    "no run id": _status(ModelStatus.RUNNING, run_id=None),
    "other attempt": _status(ModelStatus.ERROR, attempt=7),
    "round": _round("ROUND_STARTED", 1),
    "site failed": _round("CLIENT_FAILED", 1, "Trust_1"),
    "odd event": _round("JOB_WAITING_FOR_RESOURCES", None),
    "metrics": lambda builder: c.ReportMetrics(
        JOB, builder.attempt, ORIGIN, RUN, "Trust_1", (Metric("loss", 0.5, 1),)
    ),
    "log": lambda builder: c.ReportLog(JOB, builder.attempt, ORIGIN, RUN, log="a line"),
    "claim": lambda builder: c.Claim(JOB, NET.name, "a"),
    "take lease": lambda builder: c.TakeLease(JOB, "b"),
    "open": lambda builder: c.OpenSubmission(
        JOB, builder.attempt, builder.token, builder.submission()
    ),
    "know run": lambda builder: c.RecordRun(JOB, builder.attempt, PATH, RUN),
    "give back": lambda builder: c.ReleaseNet(
        JOB, builder.attempt, builder.token, _why(ReasonCode.CLIENTS_UNAVAILABLE)
    ),
    "fail": lambda builder: c.FailAttempt(
        JOB, builder.attempt, builder.token, _why(ReasonCode.ADAPTER_REJECTED), run_over=True
    ),
    "fail unknown": lambda builder: c.FailAttempt(
        JOB, builder.attempt, builder.token, _why(ReasonCode.SUBMIT_UNKNOWN), run_over=False
    ),
    "fail passing": lambda builder: c.FailAttempt(
        JOB, builder.attempt, builder.token, _why(ReasonCode.ADAPTER_UNAVAILABLE), run_over=True
    ),
    "nothing runs": lambda builder: c.ConfirmNoRun(JOB, builder.attempt, builder.token),
    "stale": lambda builder: c.StoreResults(JOB, builder.attempt, builder.token - 1, RESULTS),
    "store results": lambda builder: c.StoreResults(JOB, builder.attempt, builder.token, RESULTS),
    "delay": lambda builder: c.DeferStep(
        JOB, builder.attempt, builder.token, _why(ReasonCode.INTERNAL_ERROR)
    ),
    "collect now": lambda builder: c.CollectNow(JOB),
    "record results": lambda builder: c.RecordResults(JOB, builder.attempt, RESULTS),
    "release slot": lambda builder: c.ReleaseReservation(JOB, builder.attempt),
    "see pending": _see(FLJobStatus.PENDING),
    "see running": _see(FLJobStatus.RUNNING),
    "see finished": _see(FLJobStatus.FINISHED),
    "see failed": _see(FLJobStatus.FAILED),
    "see stopped": _see(FLJobStatus.STOPPED),
    "see aborted unsettled": _see(FLJobStatus.STOPPED, settled=False),
    "see unknown": _see(None),
    "miss": lambda builder: c.ObserveRunMissing(
        JOB, builder.attempt, RUN, builder.now + timedelta(seconds=1)
    ),
    "review": lambda builder: c.Review(JOB),
    "tell waiting": lambda builder: c.ReportWaiting(JOB, "waiting_for_trusts", 3),
}

_TO_RUNNING: Final = ("request", "claim", "open", "know run")
#: {name: commands that lead there}. A name's first word is its state.
STATES: Final[dict[str, tuple[str, ...]]] = {
    "nothing": (),
    "rejected": ("bad request",),
    "queued": ("request",),
    "queued after a give-back": ("request", "claim", "give back"),
    "queued after a loss": (*_TO_RUNNING, "running", "miss", "miss"),
    "preparing": ("request", "claim"),
    "submitting": ("request", "claim", "open"),
    "running pending": _TO_RUNNING,
    "running": (*_TO_RUNNING, "running"),
    "collecting": (*_TO_RUNNING, "uploaded", "take lease"),
    "collecting freed": (*_TO_RUNNING, "see finished", "take lease"),
    "stopping": (*_TO_RUNNING, "stop", "take lease"),
    "stopping unsubmitted": ("request", "claim", "open", "stop"),
    "completed": (*_TO_RUNNING, "uploaded with results"),
    "completed freed": (*_TO_RUNNING, "see finished", "take lease", "store results"),
    "failed": (*_TO_RUNNING, "error"),
    "failed unknown": ("request", "claim", "open", "fail unknown"),
    "stopped": (*_TO_RUNNING, "stop", "see stopped"),
    "stopped queued": ("request", "stop"),
}


def job_in(name: str, **more: Any) -> JobBuilder:
    """A builder that has come to one of `STATES`."""
    builder = JobBuilder(**more)
    builder.run(*STATES[name])
    state = "" if builder.job is None else builder.job.state
    assert name == "nothing" or name.split()[0] == state, state
    return builder


def without(trust: UUID) -> Registry:
    """The registry after the project lost its approval for one trust."""
    return replace(REGISTRY, version=2, projects={"p1": Project("p1", frozenset(TRUSTS) - {trust})})


def answer(decision: Decision) -> str:
    """A decision in few words."""
    if decision.events:
        return " ".join(type(event).__name__ for event in decision.events)
    code = decision.reason.code if decision.reason and decision.outcome is Outcome.IGNORED else None
    return f"{decision.outcome}:{code}" if code else str(decision.outcome)
