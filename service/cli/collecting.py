"""What `fl-jobs jobs collect` does: results that could not be had, fetched again by somebody's wish."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import Any
from uuid import UUID

from service.cli.command import pool_of
from service.contracts.outbound.job_columns import results_object
from service.domain.commands import CollectNow
from service.domain.enums import JobState, ReasonCode
from service.domain.job import Job
from service.errors import Invalid
from service.ingest.progress import ReadProgress
from service.kafka.topics import Topics
from service.settings import Settings
from service.steps.collect import fetch_given_up
from service.steps.context import StepContext
from service.steps.options import StepOptions
from service.store.database import Pool
from service.store.outbox import EventOutbox
from service.store.queries import Queries
from service.store.store import PostgresStore


async def collect_again(settings: Settings, job_id: UUID) -> dict[str, Any]:
    """The job's id and state, and its results where this fetched them.

    Raises errors.Invalid where there is nothing to fetch again; errors.Transient and errors.Permanent when
    it can't be had.
    """
    async with pool_of(settings) as pool:
        store = await _store(settings, pool)
        job = await store.get(job_id)
        if job is None:
            raise Invalid(f"no job {job_id}: `fl-jobs jobs list` shows those there are")
        results = None
        if job.state is JobState.COLLECTING:
            await store.apply([CollectNow(job_id)])
        elif _given_up(job):
            results = await _fetch(settings, pool, store, job)
        else:
            raise Invalid(
                f"job {job_id} is {job.state}: only results that are being fetched, or that were given up "
                f"({ReasonCode.RESULTS_UPLOAD_FAILED}), can be fetched again"
            )
        return {"job_id": str(job_id), "state": job.state.value, "results": results}


def _given_up(job: Job) -> bool:
    code = None if job.reason is None else job.reason.code
    return job.state is JobState.FAILED and code == ReasonCode.RESULTS_UPLOAD_FAILED


async def _store(settings: Settings, pool: Pool) -> PostgresStore:
    from service.app import make_store

    async with EventOutbox(pool).session() as session:
        stream = await session.stream(Topics(settings.kafka.topic_prefix).lifecycle)
    if stream is None:
        raise Invalid("the service never ran on this database")
    return make_store(settings, pool, stream.partitions)


async def _fetch(
    settings: Settings, pool: Pool, store: PostgresStore, job: Job
) -> dict[str, Any] | None:
    from service.app import make_bundles, make_nets

    nets, bundles = make_nets(settings), make_bundles(settings)
    holder = f"fl-jobs:{os.getpid()}:{secrets.token_hex(4)}"
    reports = ReadProgress(Queries(pool), settings.kafka)
    try:
        return results_object(
            await fetch_given_up(
                StepContext(store, nets, bundles, reports, StepOptions(), holder=holder), job
            )
        )
    finally:
        await asyncio.gather(nets.close(), bundles.close())
