"""The operator's decisions as values: trusts, nets, projects, and what is known of each net at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any
from uuid import UUID

from service.domain.enums import FLBackend
from service.domain.frozen import value


@value
class Trust:
    id: UUID
    name: str
    code: str | None = None


@value
class Net:
    """A registered net. `members` maps trust id to slot name; `options` holds what only its caller reads
    (time limits, authentication, encryption)."""

    name: str
    id: UUID
    backend: FLBackend
    endpoint: str
    members: Mapping[UUID, str]
    capacity: int = 1
    gpus: int = 0
    gpu_memory_gib: int = 0
    path_id: str = "attempt"  #: attempt or model
    selects_clients: bool = False
    strays: str = "report"  #: report or abort
    poll_seconds: float | None = None
    results: tuple[str, ...] = ()  #: URI prefixes below which its runs may put results themselves
    options: Mapping[str, Any] = field(default_factory=dict)


@value
class Project:
    id: str
    approved_trusts: frozenset[UUID]
    max_running_jobs: int | None = None
    max_priority: int = 9
    on_revocation: str = "stop"  #: stop or finish


@value
class Registry:
    """One version of the registry file. `unlisted_projects` is reject or allow."""

    version: int = 0
    trusts: Mapping[UUID, Trust] = field(default_factory=dict)
    nets: Mapping[str, Net] = field(default_factory=dict)
    projects: Mapping[str, Project] = field(default_factory=dict)
    unlisted_projects: str = "reject"
    #: what is worked out from this version once, by whoever asks first
    memo: dict[str, object] = field(init=False, default_factory=dict, compare=False, repr=False)

    def approved(self, project_id: str, trust_id: UUID) -> bool:
        """May this trust's data serve this project? Unlisted projects follow `unlisted_projects`."""
        project = self.projects.get(project_id)
        if project is None:
            return self.unlisted_projects == "allow"
        return trust_id in project.approved_trusts


@value
class NetNow:
    """What the database knows of a net at this moment."""

    name: str
    answering: bool
    online: frozenset[UUID]  #: member trusts whose client is online
    occupied: int
    paused: bool = False
    in_doubt: bool = False  #: a submission without a known outcome blocks it
    extensions: frozenset[str] = frozenset()  #: as of its last answer
    has_answered: bool = True  #: False: nobody has heard from it yet
    strays: int = (
        0  #: live runs that nobody here submitted; each takes a place, its GPUs are unknown
    )
    gpus_taken: Mapping[UUID, int] = field(
        default_factory=dict
    )  #: by trust; none where it is missing

    @property
    def taken(self) -> int:
        """Places of the net's capacity that nobody else can have."""
        return self.occupied + self.strays
