"""Reads what `decide` may know, at the time of the transaction. The registry is cached by its version."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from service.contracts import registry_file
from service.domain.enums import FLBackend
from service.domain.facts import Facts, JobLimits, JobTypes
from service.domain.registry import NetNow, Registry
from service.store.database import Connection
from service.store.statements import QUERIES

#: Gives the manifests of all backends; None where one can't be read now.
Manifests = Callable[[], Mapping[FLBackend, JobTypes]]


@dataclass(frozen=True, slots=True)
class Runnable:
    """Backends whose bundles can be laid out, and their job types as `<backend>/<job type>`."""

    backends: list[str]
    job_types: list[str]


class FactReader:
    """One process's view: the registry is parsed anew when its version moved, the nets with their text."""

    def __init__(
        self,
        limits: JobLimits,
        manifests: Manifests,
        results_place: str | None = None,
        layouts: Collection[FLBackend] = tuple(FLBackend),
    ) -> None:
        self.limits = limits
        self._results_place = results_place
        self._manifests = manifests
        self._layouts = frozenset(layouts)
        self._registry = Registry()
        self._nets_text: str | None = None
        self._nets: Mapping[str, NetNow] = {}

    async def read(
        self,
        connection: Connection,
        *,
        projects: Sequence[str] = (),
        new_jobs: Sequence[UUID] = (),
        claimed: Iterable[str] | None = (),
    ) -> Facts:
        """The facts for judging; running jobs of `projects`, past lives of `new_jobs` and the models on the
        `claimed` nets (None: on all) where asked."""
        row = await connection.fetchrow(QUERIES["facts"])
        assert row is not None, "the registry row is made by the first migration"
        if row["version"] != self._registry.version:
            await self._reload(connection)
        if row["nets"] != self._nets_text:
            self._nets = read_nets(row["nets"])
            self._nets_text = row["nets"]
        running: dict[str, int] = {}
        limited = [p for p in projects if self._is_limited(p)]
        if limited:
            records = await connection.fetch(QUERIES["projects_running"], limited)
            running = {r["project_id"]: r["running"] for r in records}
        retired: dict[UUID, bytes] = {}
        if new_jobs:
            records = await connection.fetch(QUERIES["retired"], new_jobs)
            retired = {r["job_id"]: r["content_hash"] for r in records}
        named = self._registry.nets if claimed is None else claimed
        by_model = [name for name in named if self._goes_by_model(name)]
        return Facts(
            now=row["now"],
            registry=self._registry,
            nets=self._nets,
            job_types=self._manifests(),
            layouts=self._layouts,
            limits=self.limits,
            project_running=running,
            hub_paused=row["hub_paused"],
            retired=retired,
            results_place=self._results_place,
            models_taken=await models_taken(connection, by_model) if by_model else {},
        )

    def runnable(self) -> Runnable:
        """What nets can run at all, for choosing a claim."""
        types = self._manifests()
        return Runnable(
            [str(backend) for backend in self._layouts],
            [f"{b}/{name}" for b in self._layouts for name in types.get(b) or ()],
        )

    async def registry(self, connection: Connection) -> Registry:
        """The registry as it is now."""
        if (await connection.fetchval("SELECT version FROM registry")) != self._registry.version:
            await self._reload(connection)
        return self._registry

    def _is_limited(self, project_id: str) -> bool:
        project = self._registry.projects.get(project_id)
        return project is not None and project.max_running_jobs is not None

    def _goes_by_model(self, net: str) -> bool:
        found = self._registry.nets.get(net)
        return found is not None and found.path_id == "model"

    async def _reload(self, connection: Connection) -> None:
        row = await connection.fetchrow(QUERIES["registry_document"])
        assert row is not None
        file = registry_file.parse(json.loads(row["document"]))
        self._registry = registry_file.to_registry(file, row["version"])


async def models_taken(connection: Connection, nets: Sequence[str]) -> dict[str, frozenset[UUID]]:
    """By net: the models that it works on, or whose results are still fetched from it."""
    found: dict[str, set[UUID]] = {}
    for row in await connection.fetch(QUERIES["models_taken"], nets):
        found.setdefault(row["net"], set()).add(row["model_id"])
    return {name: frozenset(models) for name, models in found.items()}


@lru_cache(maxsize=4_096)
def _trusts(texts: tuple[str, ...]) -> frozenset[UUID]:
    """The trusts of these ids. The same ones are online from one transaction to the next."""
    return frozenset(UUID(text) for text in texts)


def read_nets(text: str | None) -> dict[str, NetNow]:
    """The nets of the `facts` statement's JSON."""
    found = {}
    for net in json.loads(text or "[]"):
        name, answering, online, occupied, paused, in_doubt, extensions, has_answered, *more = net
        strays, gpus = more
        found[name] = NetNow(
            name=name,
            answering=answering,
            online=_trusts(tuple(online)),
            occupied=occupied,
            paused=paused,
            in_doubt=in_doubt,
            extensions=frozenset(extensions),
            has_answered=has_answered,
            strays=strays,
            gpus_taken={UUID(trust): taken for trust, taken in (gpus or {}).items()},
        )
    return found
