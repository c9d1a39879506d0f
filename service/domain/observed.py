"""What the steps learn from outside: responses of adapters, staged bundles, reservations on nets.

They stand here so that the rooms that make them and the steps that read them need not know each other.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from service.domain.enums import FLJobStatus, JobState, ReservationState
from service.domain.frozen import value
from service.domain.values import JsonObject


@value
class Health:
    """An adapter's own statement. `extensions` of idempotency, results, reports, selection."""

    version: str | None
    extensions: frozenset[str]


@value
class Client:
    """One FL client as its adapter sees it; `slot` is its name in the FL runtime."""

    slot: str
    status: str
    online: bool


@value
class Run:
    """One entry of an adapter's list. `status` None where its spelling is unknown (kept in `details`)."""

    run_id: str
    status: FLJobStatus | None
    details: str | None


@value
class RunList:
    """`complete`: a run that is not here is really not there (no page limit was reached)."""

    runs: tuple[Run, ...]
    complete: bool


#: The job and the attempt for which an adapter is called.
About = tuple[UUID, int]


@value
class Handle:
    """Which submission a call is about: the headers and the path of the FL-API."""

    job_id: UUID
    model_id: UUID
    attempt: int
    path_id: UUID
    key: str
    known_runs: tuple[str, ...] = ()
    earlier_paths: tuple[UUID, ...] = ()

    @property
    def about(self) -> About:
        return self.job_id, self.attempt


@value
class Found:
    """A search for a submission's run. `provisional`: by difference of lists, not by name or key.
    `doubt`: nothing may be concluded yet (more than one candidate, or a submit still in flight)."""

    run_id: str | None
    provisional: bool = False
    doubt: str | None = None
    extra_runs: tuple[str, ...] = ()  #: further runs of the same submission: to be aborted


@value
class Staged:
    """A bundle frozen in its own prefix. `sha256` is the digest of its manifest (path, size, sha256)."""

    prefix: str  #: s3://bucket/key/
    sha256: str
    keys: tuple[str, ...]  #: every object's key below the bucket
    config: JsonObject  #: effective, as the run will read it
    job_type: str


@value
class Reservation:
    """An attempt's reservation that is not released: what reconciling judges."""

    job_id: UUID
    attempt: int
    net: str
    state: ReservationState
    job_state: JobState
    current: bool  #: it is the job's newest attempt
    run_id: str | None
    handle: Handle | None
    changed_at: datetime
