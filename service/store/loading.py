"""What a transaction judges by: its jobs, locked in the order of their ids, and the facts beside them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from service.domain import commands as c
from service.domain.job import Job
from service.store import jobs
from service.store.database import Connection
from service.store.event_log import EventLog
from service.store.facts import FactReader
from service.store.unit_of_work import UnitOfWork, job_ids


async def load(
    connection: Connection, facts: FactReader, wanted: Sequence[object], partitions: int
) -> UnitOfWork:
    """All that judging these commands needs; `partitions` is how many new jobs are spread over."""
    ids = job_ids(wanted)
    before: dict[UUID, Job] = {}
    homes: dict[UUID, int] = {}
    if ids:
        before, homes = await jobs.lock_many(connection, ids)
    firsts = [
        command
        for command in wanted
        if isinstance(command, c.RequestTraining | c.RejectRequest) and command.job_id not in before
    ]
    claims = [command for command in wanted if isinstance(command, c.Claim)]
    projects = {c_.request.project_id for c_ in firsts if isinstance(c_, c.RequestTraining)}
    projects |= {
        before[claim.job_id].accepted_request.project_id
        for claim in claims
        if claim.job_id in before
    }
    tells = any(isinstance(command, c.ReportWaiting) for command in wanted)
    read = await facts.read(
        connection,
        projects=sorted(projects),
        new_jobs=job_ids(firsts),
        claimed=None if tells else [claim.net for claim in claims],
    )
    return UnitOfWork(read, EventLog(partitions), before, homes)
