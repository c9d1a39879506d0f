"""A job's current state as the record of the compacted state topic, spliced from its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from service.contracts.outbound import state
from service.store.database import Connection, Pool, reading
from service.store.statements import QUERIES

_SELECT: Final = f"SELECT {', '.join(state.COLUMNS)} FROM job WHERE job_id = ANY($1::uuid[])"

#: (key, body, sequence of the last event in it).
StateRow = tuple[bytes, bytes, int]


class StateRecords:
    """Call it with job ids: {job id: record}; a job that is gone is missing in the answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(self, job_ids: Sequence[UUID]) -> dict[UUID, StateRow]:
        async with reading(self._pool) as connection:
            rows = await connection.fetch(_SELECT, list(job_ids))
        return {
            row["job_id"]: (
                str(row["job_id"]).encode(),
                state.assemble(**dict(row)).encode(),
                row["sequence"],
            )
            for row in rows
        }


async def publish(connection: Connection, job_ids: Sequence[UUID]) -> None:
    """Have the relay publish the states of jobs that changed after their last event."""
    if job_ids:
        await connection.execute(QUERIES["states_due_upsert"], job_ids)
