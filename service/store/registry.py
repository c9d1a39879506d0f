"""The operator's word in the database: one document with a version, and the rows that claims look at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from service.contracts import registry_file
from service.contracts.registry_file import RegistryFile
from service.domain.eligibility import ineligibility
from service.domain.enums import FLBackend
from service.domain.group import Group
from service.domain.registry import Net, NetNow, Registry
from service.domain.values import Resources
from service.errors import Invalid
from service.settings import DatabaseSettings
from service.store.database import Connection, Pool, close_pool, open_pool, reading, transaction
from service.store.facts import read_nets
from service.store.statements import QUERIES


async def apply_registry(pool: Pool, file: RegistryFile) -> tuple[int, bool]:
    """Make this file the registry. Returns its version, and whether anything changed; the same file
    again changes nothing. Approvals taken back end queued jobs and stop running ones soon after."""
    document = registry_file.document(file)
    async with transaction(pool) as connection:
        row = await connection.fetchrow(QUERIES["registry_lock"])
        assert row is not None, "the registry row is made by the first migration"
        if row["version"] and json.loads(row["document"]) == document:
            return row["version"], False
        text = json.dumps(document, ensure_ascii=False)
        version = await connection.fetchval(QUERIES["registry_update"], text)
        registry = registry_file.to_registry(file, version)
        await _rows(connection, registry, file)
        now = read_nets(await connection.fetchval(QUERIES["facts"], column=3))
        await connection.execute(QUERIES["net_groups_clear"])
        await _net_groups(connection, registry, now, list(registry.nets))
    # Jobs are locked in a transaction of their own: nothing here may wait for them while it holds counters.
    async with transaction(pool) as connection:
        await connection.execute(QUERIES["review_all"])
    return version, True


async def _rows(connection: Connection, registry: Registry, file: RegistryFile) -> None:
    entries = {entry.name: entry for entry in file.nets}
    for name, net in sorted(registry.nets.items()):
        await connection.execute(
            QUERIES["net_register"],
            name,
            net.capacity,
            sorted(net.members),
            net.path_id,
            json.dumps(registry_file.net_document(entries[name]), ensure_ascii=False),
        )
    await connection.execute(QUERIES["nets_unregister"], list(registry.nets))
    for project_id, project in sorted(registry.projects.items()):
        await connection.execute(QUERIES["project_register"], project_id, project.max_running_jobs)
    await connection.execute(QUERIES["projects_unregister"], list(registry.projects))


async def _net_groups(
    connection: Connection, registry: Registry, now: Mapping[str, NetNow], names: list[str]
) -> None:
    """Which of these nets can serve which group: judged by the same rule as requests."""
    pairs: list[tuple[str, UUID]] = []
    for row in await connection.fetch(QUERIES["groups_all"]):
        group = Group(
            row["project_id"],
            None if row["backend"] is None else FLBackend(row["backend"]),
            tuple(row["trust_ids"]),
            row["min_trusts"],
            Resources(row["num_gpus"], row["mem_per_gpu_gib"]),
        )
        for name in names:
            if ineligibility(registry.nets[name], group, now.get(name)) is None:
                pairs.append((name, row["group_id"]))
    if pairs:
        await connection.execute(
            QUERIES["net_groups_insert"], [p[0] for p in pairs], [p[1] for p in pairs]
        )


async def apply_registry_file(database: DatabaseSettings, path: Path) -> tuple[int, bool]:
    """As `apply_registry`, for a file and a database that nobody has opened yet.

    Raises Invalid when the file can't be read, contracts' BadData when it breaks a rule.
    """
    try:
        content = await asyncio.to_thread(path.read_bytes)
    except OSError as exc:
        raise Invalid(f"the registry file {path} can't be read: {exc.strerror}") from exc
    pool = await open_pool(database)
    try:
        return await apply_registry(pool, registry_file.load(content))
    finally:
        await close_pool(pool)


async def draining(connection: Connection) -> dict[str, Net]:
    """Nets that left the registry while something of ours is on them, as they were registered."""
    rows = await connection.fetch(QUERIES["nets_draining"])
    return {row["name"]: registry_file.read_net(json.loads(row["entry"])) for row in rows}


async def show(pool: Pool) -> tuple[int, dict[str, Any]]:
    """(version, the file's structure) of what holds now; version 0: nothing was applied."""
    async with reading(pool) as connection:
        row = await connection.fetchrow(QUERIES["registry_document"])
    assert row is not None
    return row["version"], json.loads(row["document"])


async def pause_net(pool: Pool, name: str, paused: bool) -> None:
    """Take a net out of scheduling, or back in; its runs go on. Raises Invalid for an unknown net."""
    async with transaction(pool) as connection:
        if await connection.fetchval(QUERIES["net_pause"], name, paused) is None:
            raise Invalid(f"the registry has no net {name}; `fl-jobs nets list` names them")


async def pause_hub(pool: Pool, paused: bool) -> None:
    """Start no job anywhere, or start again."""
    async with transaction(pool) as connection:
        await connection.execute(QUERIES["hub_pause"], paused)


async def save_net(
    connection: Connection,
    registry: Registry,
    name: str,
    *,
    answering: bool,
    online: frozenset[UUID],
    extensions: frozenset[str],
    strays: tuple[str, ...] | None,
    body: str,
    unknown_statuses: tuple[str, ...] | None = None,
) -> None:
    """Keep what a poll saw. New extensions may change which groups the net serves."""
    await connection.execute(QUERIES["nets_lock"], [name])
    before = await connection.fetchval(QUERIES["net_extensions"], name)
    await connection.execute(
        QUERIES["net_update"],
        name,
        answering,
        sorted(online),
        sorted(extensions),
        None if strays is None else list(strays),
        body,
        None if unknown_statuses is None else list(unknown_statuses),
    )
    if before is not None and set(before) != extensions and name in registry.nets:
        now = read_nets(await connection.fetchval(QUERIES["facts"], column=3))
        await connection.execute(QUERIES["net_groups_of_net_clear"], name)
        await _net_groups(connection, registry, now, [name])
