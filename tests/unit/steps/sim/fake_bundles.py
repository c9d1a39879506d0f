"""The object store: remembers what was staged where, and the results; can be unavailable, slow, or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from service.bundles.archive import whole_archive
from service.domain.observed import Staged
from service.domain.registry import Net
from service.domain.values import Request, Results
from service.errors import ServiceError


@dataclass
class FakeBundles:
    errors: list[ServiceError] = field(default_factory=list)  #: raised by the next calls
    staged: list[UUID] = field(default_factory=list)
    removed: list[UUID] = field(default_factory=list)
    stored: dict[tuple[UUID, int], bytes] = field(default_factory=dict)
    seconds: float = 0.05

    async def stage(
        self,
        request: Request,
        *,
        net: Net,
        attempt: int,
        path_id: UUID,
        slots: Mapping[UUID, str],
    ) -> Staged:
        await asyncio.sleep(self.seconds)
        self._fail()
        assert path_id not in self.staged, "two submissions shared one prefix"
        self.staged.append(path_id)
        prefix = f"s3://app/{request.job_id}/{attempt}/{path_id}/"
        return Staged(prefix, "sha", (f"{path_id}/a",), {"GLOBAL_ROUNDS": 2}, "standard")

    async def remove(self, job_id: UUID) -> int:
        self.removed.append(job_id)
        return 0

    async def presign(self, staged: Staged) -> tuple[str, ...]:
        return tuple(f"http://s3/{key}" for key in staged.keys)

    async def store_results(
        self, job_id: UUID, attempt: int, chunks: AsyncIterator[bytes]
    ) -> Results:
        self._fail()
        content = b"".join([chunk async for chunk in whole_archive(chunks)])
        self.stored[job_id, attempt] = content
        return Results(f"s3://results/{job_id}/{attempt}/results.zip", "sha", len(content))

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
