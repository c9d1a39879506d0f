"""The values a job is made of. Frozen; times are timezone-aware and come from the database's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any
from uuid import UUID

from service.domain.enums import FLBackend, ReservationState
from service.domain.frozen import value

JsonObject = Mapping[str, Any]


@value
class Problem:
    """One thing wrong with an input: where (`loc`), what (`msg`), and a stable kind (`type`)."""

    loc: tuple[str | int, ...]
    msg: str
    type: str


@value
class Reason:
    """Stable `code` (a `ReasonCode` or `WaitingCode`), `message` for people, the single problems."""

    code: str
    message: str
    errors: tuple[Problem, ...] = ()


@value
class Origin:
    """Which event caused a command: becomes `correlationid`, `causationid` and `traceparent`."""

    event_id: str
    source: str
    traceparent: str | None = None


@value
class Resources:
    """GPUs wanted at each site; memory in GiB for each GPU."""

    num_gpus: int = 0
    mem_per_gpu_gib: int = 0


@value
class PartialRequest:
    """What the registry can judge of a request that broke its contract; named as in `Request`.

    What is not valid by itself has a value that nothing stands against.
    """

    project_id: str | None = None
    trust_ids: tuple[UUID | None, ...] = ()  #: None where an entry is no UUID: places are kept
    fl_backend: FLBackend | None = None
    job_type: str | None = None
    config: JsonObject = field(default_factory=dict)  #: AGGREGATION_WEIGHTS alone
    priority: int = 0
    resources: Resources = Resources()
    deadline: datetime | None = None


@value
class Request:
    """What a producer asked for, validated. Never changes during the job's life."""

    job_id: UUID
    model_id: UUID
    project_id: str
    cohort_query: str
    trust_ids: tuple[UUID, ...]
    min_trusts: int
    content_hash: bytes  #: SHA-256 of the request's canonical content, 32 bytes
    origin: Origin
    fl_backend: FLBackend | None = None
    job_type: str | None = None
    config: JsonObject = field(default_factory=dict)
    app_config: JsonObject = field(default_factory=dict)
    model_files_uri: str | None = None
    model_files_sha256: Mapping[str, str] = field(default_factory=dict)
    priority: int = 5
    resources: Resources = Resources()
    max_attempts: int = 3
    not_before: datetime | None = None
    deadline: datetime | None = None
    max_runtime_seconds: int | None = None  #: None: the service's setting rules
    max_stall_seconds: int | None = None
    requested_by: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@value
class Rejection:
    """What is left of a request that could not become a job: its ids as far as they were usable."""

    job_id: UUID
    model_id: UUID | None
    project_id: str | None
    content_hash: bytes
    requested_by: str | None = None


@value
class Participant:
    """A trust that takes part in an attempt, and its slot name inside the net's FL runtime."""

    trust_id: UUID
    slot: str


@value
class Submission:
    """One try to hand an attempt to the adapter, committed before the call it describes."""

    number: int  #: k of the path id's name, 1.. within the attempt
    path_id: UUID  #: stands as {model_id} in the adapter's paths
    key: str  #: Idempotency-Key
    known_runs: tuple[str, ...]  #: run ids the adapter listed before the call
    opened_at: datetime
    bundle_prefix: str
    bundle_sha256: str
    config: JsonObject  #: effective config, as staged
    earlier_paths: tuple[UUID, ...] = ()  #: path ids of this attempt's former submissions


@value
class Attempt:
    """One try of a job on one net. `leases` counts the leases taken while it prepared and submitted."""

    number: int
    net: str
    backend: FLBackend
    participants: tuple[Participant, ...]
    started_at: datetime
    changed_at: datetime  #: observations whose call began before this are too old to judge it
    reservation: ReservationState = ReservationState.HELD
    leases: int = 1
    submission: Submission | None = None
    run_id: str | None = None
    provisional: bool = (
        False  #: the run id was adopted by list difference, no report confirmed it yet
    )
    submitted_at: datetime | None = None
    running_at: datetime | None = None
    ended_at: datetime | None = None
    reason: Reason | None = None
    missing_polls: int = 0  #: successive lists without the run
    missing_since: datetime | None = None
    counts_as_attempt: bool = (
        True  #: False: gave the net back before the submit; the next claim keeps the number
    )


@value
class Metric:
    """One number of a run. `result` is None where the app's number was not finite."""

    label: str
    result: float | None
    global_round: int
    fl_client_name: str | None = None
    x_value: float | None = None
    x_label: str | None = None


@value
class SiteProgress:
    """The last report of one slot in the current attempt."""

    slot: str
    global_round: int
    state: str  #: training | returned | failed
    detail: str | None = None


@value
class Progress:
    """How far the current attempt's run came. Rounds count from 1 and only move forward."""

    round: int = 0
    aggregated: int = 0
    total: int | None = None
    sites: tuple[SiteProgress, ...] = ()
    metrics: tuple[Metric, ...] = ()  #: the newest of each (label, slot)
    last_activity_at: datetime | None = None


@value
class Results:
    """Where a run's results lie."""

    uri: str
    sha256: str | None = None
    bytes: int | None = None


@value
class Stop:
    """An accepted wish to stop. Sticky."""

    reason: str | None
    requested_by: str | None
    at: datetime
    code: str  #: Reason: stopped_by_request, or why the service itself stops the run
    origin: Origin | None = None


@value
class JobLease:
    """Who works on the job now. A smaller token than the row's writes nothing."""

    holder: str
    token: int
    until: datetime | None = None
