"""What `decide` may know beside the job: the transaction's time, the registry, the nets, the limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from service.domain.enums import FLBackend
from service.domain.frozen import value
from service.domain.registry import Net, NetNow, Registry

#: Required files by job type of one backend; None: its manifest can't be read now.
JobTypes = Mapping[str, tuple[str, ...]] | None


@value
class JobLimits:
    """The service's own limits, in seconds; a request's own values win over runtime and stall."""

    pending_seconds: float = 3_600.0  #: submitted, and the backend never starts it
    runtime_seconds: float = 86_400.0
    stall_seconds: float = 7_200.0
    submit_unknown_seconds: float = 300.0  #: how long a lost answer is looked for
    collect_seconds: float = (
        259_200.0  #: how long results are fetched again before they are given up
    )
    collect_tries: int | None = None  #: at most so many times, whatever the time
    missing_lists: int = 3
    missing_grace_seconds: float = 30.0
    net_gone_seconds: float = 300.0  #: how long a stop waits for a net that left the registry
    backoff_seconds: float = 5.0  #: first delay of a retry; doubles
    backoff_max_seconds: float = 300.0


@dataclass(slots=True)
class Fits:
    """Nets for equal wants: those that the registry allows, and by job type those of them that may run it."""

    served: list[Net]
    by_type: dict[str | None, list[Net]] = field(default_factory=dict)


@value
class Facts:
    now: datetime
    registry: Registry
    nets: Mapping[str, NetNow] = field(default_factory=dict)
    job_types: Mapping[FLBackend, JobTypes] = field(default_factory=dict)
    #: backends whose bundles this service can lay out; None: all
    layouts: frozenset[FLBackend] | None = None
    limits: JobLimits = JobLimits()
    project_running: Mapping[str, int] = field(default_factory=dict)
    hub_paused: bool = False
    #: content hashes of jobs whose rows were cleaned: an old job_id must not train again
    retired: Mapping[UUID, bytes] = field(default_factory=dict)
    #: by net with `path_id: model`: models whose app or results the next upload would replace
    models_taken: Mapping[str, frozenset[UUID]] = field(default_factory=dict)
    #: where results that need no further look lie, as an `s3://` prefix; None: anywhere
    results_place: str | None = None
    #: a memory of `eligibility.eligible_nets` for as long as these facts hold: by what the registry judges,
    #: then by job type
    fits: dict[Any, Fits] = field(init=False, default_factory=dict, compare=False, repr=False)

    def has_layout(self, backend: FLBackend) -> bool:
        """Can a bundle for this backend be laid out?"""
        return self.layouts is None or backend in self.layouts
