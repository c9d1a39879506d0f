"""What the service needs in the components: topics, buckets, schema, and the demo's registry."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from service.bundles import ensure_buckets
from service.kafka.topics import ensure_topics, raise_errors
from service.local.component import ComponentProgress, OnProgress
from service.local.stack import Stack
from service.settings import DatabaseSettings, Settings
from service.store.database import close_pool, open_pool
from service.store.migrate import migrate
from service.store.registry import apply_registry_file, show


async def prepare(settings: Settings, stack: Stack, report: OnProgress) -> None:
    """Make what the service needs in the components: topics, buckets, schema, and the demo's registry.

    Everything is idempotent, and a registry that was applied by hand stays. Raises the rooms' own errors.
    """
    topics, buckets, _ = await asyncio.gather(
        ensure_topics(settings.kafka),
        ensure_buckets(
            bucket_names(settings),
            endpoint_url=settings.s3.endpoint_url,
            region=settings.s3.region,
        ),
        migrate(settings.database),
    )
    raise_errors(topics)
    made = f"{len(topics.created)} topics, {len(buckets)} buckets made"
    for warning in topics.warnings:
        report(ComponentProgress("topics", warning, finished=True))
    if settings.registry_file is not None:
        await _apply_registry(settings.database, settings.registry_file, stack)
    report(ComponentProgress("prepare", f"schema and registry in place, {made}", finished=True))


async def _apply_registry(database: DatabaseSettings, path: Path, stack: Stack) -> None:
    """Apply the file when it changed since it was last applied here, or the database has none: a repair
    must not undo what `fl-jobs registry apply` wrote meanwhile."""
    digest = await asyncio.to_thread(_digest, path)
    if digest and digest == stack.applied_registry():
        pool = await open_pool(database)
        try:
            version, _ = await show(pool)
        finally:
            await close_pool(pool)
        if version:
            return
    await apply_registry_file(database, path)
    stack.note_applied_registry(digest)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def bucket_names(settings: Settings) -> list[str]:
    """The buckets that the service uses, as its settings name them."""
    s3 = settings.s3
    return [
        s3.model_files_bucket,
        s3.app_base_bucket,
        s3.app_destination_bucket,
        s3.results_bucket,
    ]
