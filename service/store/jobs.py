"""Jobs as rows: one column list makes COPY, the bulk UPDATE and the load.

A row read back is the job that was written: `read(row(job)) == job` but for the lease's end, which the
database sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from service.contracts.outbound import job_columns
from service.domain.enums import JobState, ModelStatus
from service.domain.job import Job
from service.domain.values import JobLease, Origin, Rejection
from service.store.database import Connection
from service.store.records import BatchRefused
from service.store.statements import QUERIES

#: (column, SQL type, does it ever change), in the order of a row.
COLUMNS: Final[tuple[tuple[str, str, bool], ...]] = (
    ("job_id", "uuid", False),
    ("model_id", "uuid", False),
    ("project_id", "text", False),
    ("group_id", "uuid", False),
    ("kafka_partition", "int4", False),
    ("priority", "int2", False),
    ("content_hash", "bytea", False),
    ("correlation_id", "text", False),
    ("source", "text", False),
    ("traceparent", "text", False),
    ("cohort_query", "text", False),
    ("request", "text", False),
    ("created_at", "timestamptz", False),
    ("state", "text", True),
    ("sequence", "int4", True),
    ("model_status", "text", True),
    ("eligible", "bool", True),
    ("waiting", "text", True),
    ("attempts", "text", True),
    ("submissions", "text", True),
    ("progress", "text", True),
    ("stop", "text", True),
    ("reason", "text", True),
    ("results", "text", True),
    ("lease_holder", "text", True),
    ("lease_token", "int8", True),
    ("token", "int8", True),
    ("tries", "int4", True),
    ("next_try_at", "timestamptz", True),
    ("due_at", "timestamptz", True),
    ("changed_at", "timestamptz", True),
    ("finished_at", "timestamptz", True),
)
NAMES: Final = tuple(name for name, _, _ in COLUMNS)
_FIXED: Final = sum(1 for _, _, changes in COLUMNS if not changes)
_CHANGING: Final = COLUMNS[_FIXED:]
#: Jobs that are turned into rows or back between two statements: a transaction must not stand idle.
_PORTION: Final = 250
SELECT: Final = f"SELECT {', '.join(NAMES)}, lease_until FROM job"

_LOCK: Final = f"{SELECT} WHERE job_id = ANY($1) ORDER BY job_id FOR NO KEY UPDATE"
_READ: Final = f"{SELECT} WHERE job_id = ANY($1)"
# A lease's end is the database's: it starts anew with each new token, and goes with the lease.
_UPDATE: Final = (
    "UPDATE job SET "
    + ", ".join(f"{name} = v.{name}" for name, _, _ in _CHANGING)
    + ", lease_until = CASE WHEN v.lease_token IS NULL THEN NULL"
    " WHEN v.lease_token IS DISTINCT FROM job.lease_token"
    " THEN now() + make_interval(secs => $1) ELSE job.lease_until END"
    " FROM unnest($2::uuid[], "
    + ", ".join(f"${i}::{kind}[]" for i, (_, kind, _) in enumerate(_CHANGING, 3))
    + ") AS v(job_id, "
    + ", ".join(name for name, _, _ in _CHANGING)
    + ") WHERE job.job_id = v.job_id"
)


def row(job: Job, group_id: UUID | None, partition: int) -> tuple[Any, ...]:
    """The job as the values of `COLUMNS`."""
    request = job.request
    asked = None if isinstance(request, Rejection) else request
    origin = asked.origin if asked else None
    return (
        request.job_id,
        request.model_id,
        request.project_id,
        group_id,
        partition,
        asked.priority if asked else 5,
        request.content_hash,
        origin.event_id if origin else None,
        origin.source if origin else None,
        origin.traceparent if origin else None,
        asked.cohort_query if asked else None,
        job_columns.write_request(request),
        job.created_at,
        *changing(job),
    )


def changing(job: Job) -> tuple[Any, ...]:
    """The values of the columns that may change."""
    lease = job.lease
    return (
        job.state,
        job.sequence,
        job.model_status,
        job.eligible,
        job.waiting,
        job_columns.write_attempts(job.attempts),
        job_columns.write_submissions(job.attempts),
        job_columns.write_progress(job.progress),
        job_columns.write_stop(job.stop),
        job_columns.write_reason(job.reason),
        job_columns.write_results(job.results),
        lease.holder if lease else None,
        lease.token if lease else None,
        job.token,
        job.tries,
        job.next_try_at,
        job.due_at,
        job.changed_at,
        job.finished_at,
    )


def read(record: asyncpg.Record) -> Job:
    """The job of a row that `SELECT` gave. Raises BatchRefused where it can't be read any more: it costs
    itself alone."""
    try:
        return _read(record)
    except (ValueError, KeyError, TypeError) as exc:
        raise BatchRefused(f"job {record['job_id']} can't be read: {exc!r}") from exc


def _read(record: asyncpg.Record) -> Job:
    lease = None
    if record["lease_holder"] is not None:
        lease = JobLease(record["lease_holder"], record["lease_token"], record["lease_until"])
    return Job(
        request=_request(record),
        state=JobState(record["state"]),
        created_at=record["created_at"],
        changed_at=record["changed_at"],
        sequence=record["sequence"],
        model_status=ModelStatus(record["model_status"]),
        attempts=job_columns.read_attempts(record["attempts"], record["submissions"]),
        progress=job_columns.read_progress(record["progress"]),
        eligible=record["eligible"],
        waiting=record["waiting"],
        stop=job_columns.read_stop(record["stop"]),
        reason=job_columns.read_reason(record["reason"]),
        results=job_columns.read_results(record["results"]),
        lease=lease,
        token=record["token"],
        tries=record["tries"],
        next_try_at=record["next_try_at"],
        due_at=record["due_at"],
        finished_at=record["finished_at"],
    )


def _request(record: asyncpg.Record) -> Any:
    if record["state"] == JobState.REJECTED:
        return Rejection(
            record["job_id"],
            record["model_id"],
            record["project_id"],
            record["content_hash"],
            job_columns.read_requested_by(record["request"]),
        )
    return job_columns.read_request(
        record["request"],
        job_id=record["job_id"],
        model_id=record["model_id"],
        project_id=record["project_id"],
        cohort_query=record["cohort_query"],
        content_hash=record["content_hash"],
        origin=Origin(record["correlation_id"], record["source"], record["traceparent"]),
    )


async def lock_many(
    connection: Connection, job_ids: Sequence[UUID]
) -> tuple[dict[UUID, Job], dict[UUID, int]]:
    """Lock the jobs, given in the order of their ids; and their partitions of the lifecycle topic."""
    jobs: dict[UUID, Job] = {}
    places: dict[UUID, int] = {}
    for first in range(0, len(job_ids), _PORTION):
        for record in await connection.fetch(_LOCK, job_ids[first : first + _PORTION]):
            job_id = record["job_id"]
            jobs[job_id], places[job_id] = read(record), record["kafka_partition"]
    return jobs, places


async def get(connection: Connection, job_id: UUID) -> Job | None:
    """The job as it is now, unlocked."""
    return (await get_many(connection, [job_id])).get(job_id)


async def get_many(connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """Those of the jobs that exist, as they are now, unlocked."""
    records = await connection.fetch(_READ, job_ids)
    return {record["job_id"]: read(record) for record in records}


async def insert(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write new jobs."""
    if rows:
        await connection.copy_records_to_table("job", records=rows, columns=NAMES)


async def update(connection: Connection, jobs: Sequence[Job], lease_seconds: float) -> None:
    """Write what may change of jobs that `load` locked."""
    for first in range(0, len(jobs), _PORTION):
        part = jobs[first : first + _PORTION]
        values = list(zip(*(changing(job) for job in part), strict=True))
        await connection.execute(_UPDATE, lease_seconds, [job.job_id for job in part], *values)


async def renew(connection: Connection, leases: dict[UUID, int], seconds: float) -> set[UUID]:
    """Prolong leases that still have their token; the others are lost."""
    ordered = sorted(leases)
    await connection.execute(QUERIES["lock_jobs"], ordered)
    records = await connection.fetch(
        QUERIES["renew_job_leases"], ordered, [leases[job_id] for job_id in ordered], seconds
    )
    return {record["job_id"] for record in records}
