"""What makes two jobs schedulable together or not at all."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from operator import attrgetter
from typing import Final
from uuid import UUID

from service.domain.enums import FLBackend
from service.domain.frozen import value
from service.domain.values import Request, Resources

#: Key that orders UUIDs as they and Postgres order them, at a fifth of the cost of their own comparison.
by_number: Final = attrgetter("int")


@value
class Group:
    """Everything a claim looks at in a request but for its priority and age. `trust_ids` is sorted."""

    project_id: str
    fl_backend: FLBackend | None
    trust_ids: tuple[UUID, ...]
    min_trusts: int
    resources: Resources
    job_type: str | None = None


def group_of(request: Request) -> Group:
    return Group(
        request.project_id,
        request.fl_backend,
        tuple(sorted(request.trust_ids, key=by_number)),
        request.min_trusts,
        request.resources,
        request.job_type,
    )


@lru_cache(maxsize=65_536)
def group_id(group: Group) -> UUID:
    """The same id for the same group in every process: 16 bytes of a hash of its parts."""
    parts = (
        group.project_id,
        group.fl_backend or "",
        *(str(t) for t in group.trust_ids),
        str(group.min_trusts),
        str(group.resources.num_gpus),
        str(group.resources.mem_per_gpu_gib),
        *(() if group.job_type is None else (group.job_type,)),
    )
    text = "\x00".join(parts)
    return UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])
