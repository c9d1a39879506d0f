"""The operator's word in the database: one document with a version, and the rows that claims look at."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from service.contracts import registry_file
from service.contracts.registry_file import RegistryFile
from service.domain.eligibility import serving
from service.domain.enums import FLBackend
from service.domain.facts import Facts
from service.domain.group import Group
from service.domain.registry import Net, Registry
from service.domain.values import Resources
from service.errors import Invalid, Transient
from service.settings import DatabaseSettings
from service.store import admission, commit_hints, registry_review
from service.store.database import Connection, Pool, close_pool, open_pool, reading, transaction
from service.store.facts import read_nets
from service.store.keepalive import KeepAlive
from service.store.statements import QUERIES


async def apply_registry(pool: Pool, file: RegistryFile) -> tuple[int, bool]:
    """Make this file the registry. Returns its version, and whether anything changed; the same file
    again changes nothing. One transaction: with the version stands the review of the jobs whose approvals
    it takes back (`service.store.registry_review`), which ends queued ones and stops running ones."""
    document = registry_file.document(file)
    text = json.dumps(document, ensure_ascii=False)
    async with reading(pool) as connection:
        seen, same = await _compared(connection, document)
    while not same:
        registry = registry_file.to_registry(file, seen + 1)
        async with transaction(pool) as connection:
            await admission.lock(connection)
            if await connection.fetchval(QUERIES["registry_lock"]) == seen:
                await _replace(connection, registry, file, text)
                break
        async with reading(pool) as connection:  # somebody else applied one meanwhile
            seen, same = await _compared(connection, document)
    if same:
        return seen, False
    with contextlib.suppress(Transient):  # a hint: it is applied without it
        await commit_hints.send_hint(pool, commit_hints.Hint.REGISTRY)
    return seen + 1, True


async def _compared(connection: Connection, document: Any) -> tuple[int, bool]:
    """The version in force, and whether it holds this document already."""
    row = await connection.fetchrow(QUERIES["registry_document"])
    assert row is not None, "the registry row is made by the first migration"
    return row["version"], bool(row["version"]) and json.loads(row["document"]) == document


async def _replace(
    connection: Connection, registry: Registry, file: RegistryFile, text: str
) -> None:
    """All that follows from a new registry, in its transaction."""
    await connection.execute(QUERIES["registry_update"], text, registry.version)
    groups = await _groups(connection)
    await _rows(connection, registry, file)
    pairs = await _pairs(connection, registry, groups, registry.nets)
    await connection.execute(QUERIES["net_groups_drop_others"], *pairs)
    await connection.execute(QUERIES["net_groups_insert"], *pairs)
    await registry_review.mark(connection, registry, groups)


async def _rows(connection: Connection, registry: Registry, file: RegistryFile) -> None:
    entries = {entry.name: entry for entry in file.nets}
    await connection.execute(QUERIES["nets_lock_all"])
    for name, net in sorted(registry.nets.items()):
        await connection.execute(
            QUERIES["net_register"],
            name,
            net.capacity,
            sorted(net.members),
            net.path_id,
            net.gpus,
            net.backend,
            json.dumps(registry_file.net_document(entries[name]), ensure_ascii=False),
        )
    await connection.execute(QUERIES["nets_unregister"], list(registry.nets))
    await connection.execute(QUERIES["projects_lock_all"])
    listed = sorted(registry.projects.items())
    await connection.execute(
        QUERIES["projects_register"],
        [name for name, _ in listed],
        [p.max_running_jobs for _, p in listed],
    )
    await connection.execute(QUERIES["projects_unregister"], [name for name, _ in listed])


async def _groups(connection: Connection) -> dict[UUID, Group]:
    """Every group there is."""
    return {
        row["group_id"]: Group(
            row["project_id"],
            None if row["backend"] is None else FLBackend(row["backend"]),
            tuple(row["trust_ids"]),
            row["min_trusts"],
            Resources(row["num_gpus"], row["mem_per_gpu_gib"]),
            row["job_type"],
        )
        for row in await connection.fetch(QUERIES["groups_all"])
    }


async def _pairs(
    connection: Connection,
    registry: Registry,
    groups: Mapping[UUID, Group],
    names: Container[str],
) -> tuple[list[str], list[UUID]]:
    """Which of these nets can serve which group: judged by the same rule as requests, with the admission
    locked, so that no request is judged otherwise meanwhile."""
    row = await connection.fetchrow(QUERIES["facts"])
    assert row is not None, "the registry row is made by the first migration"
    facts = Facts(row["now"], registry, read_nets(row["nets"]))
    alive = KeepAlive(connection)
    nets: list[str] = []
    ids: list[UUID] = []
    for group_id, group in groups.items():
        for net in serving(group, facts, whole=True):
            if net.name in names:
                nets.append(net.name)
                ids.append(group_id)
        if alive.due:
            await alive.ping()
    return nets, ids


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
    """Keep what a poll saw. The first answer, and new extensions, may change which groups the net serves:
    then nobody makes a group at the same time."""
    before = await connection.fetchrow(QUERIES["net_extensions"], name)
    changes = (
        answering
        and before is not None
        and (before["seen_at"] is None or set(before["extensions"]) != extensions)
    )
    if changes:
        await admission.lock(connection)
    await connection.execute(QUERIES["nets_lock"], [name])
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
    if changes and name in registry.nets:
        groups = await _groups(connection)
        pairs = await _pairs(connection, registry, groups, {name})
        await connection.execute(QUERIES["net_groups_of_net_drop"], name)
        await connection.execute(QUERIES["net_groups_insert"], *pairs)
