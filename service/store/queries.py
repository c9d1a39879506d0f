"""Reads for people and programs: nothing here locks, writes or decides. Never gives a cohort query."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from service.contracts.outbound import state
from service.domain.eligibility import (
    describe_waiting,
    describe_waiting_for,
    eligible_nets,
    why_waiting,
)
from service.domain.enums import JobState, WaitingCode
from service.domain.queue import describe_delay
from service.store import jobs
from service.store.database import Pool, reading
from service.store.facts import FactReader
from service.store.outbox import decode_headers
from service.store.statements import QUERIES


class Queries:
    """Every answer is made of dicts and lists ready for JSON. Raises errors.Transient when the database
    is unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def jobs(
        self,
        *,
        state: str | None = None,
        model_id: UUID | None = None,
        project_id: str | None = None,
        before: datetime | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """The newest jobs first."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                QUERIES["q_jobs"], state, model_id, project_id, before, limit
            )
        return [_summary(dict(row)) for row in rows]

    async def jobs_live(self, since: datetime, limit: int) -> list[dict[str, Any]]:
        """Unfinished jobs and those that have finished since, the newest first."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(QUERIES["q_jobs_live"], since, limit)
        return [_summary(dict(row)) for row in rows]

    async def job(self, job_id: UUID) -> dict[str, Any] | None:
        """The whole current state, as the state topic tells it, and while queued its `position`."""
        async with reading(self._pool) as connection:
            found = await jobs.get(connection, job_id)
            if found is None:
                return None
            whole: dict[str, Any] = json.loads(state.body(found))
            if found.state is JobState.QUEUED:
                ready = await connection.fetchval(QUERIES["q_position"], job_id)
                whole["position"] = ready if found.eligible else None
        return whole

    async def why_waiting(self, job_id: UUID, facts: FactReader) -> dict[str, Any] | None:
        """What holds a queued job back at this moment; None when it is not queued."""
        async with reading(self._pool) as connection:
            found = await jobs.get(connection, job_id)
            if found is None or found.state is not JobState.QUEUED:
                return None
            known = await facts.read(
                connection, projects=[found.accepted_request.project_id], claimed=None
            )
        request = found.accepted_request
        if not found.eligible:
            message = describe_delay(found) or describe_waiting(WaitingCode.NOT_BEFORE)
            return {"code": WaitingCode.NOT_BEFORE, "message": message}
        code = why_waiting(request, eligible_nets(request, known), known)
        return {"code": code, "message": describe_waiting_for(code, request, known)}

    async def events(
        self, job_id: UUID, after: int = 0, limit: int = 10_000
    ) -> list[dict[str, Any]]:
        """The job's events above a sequence, in order."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(QUERIES["q_events"], job_id, after, limit)
        return [
            {
                "sequence": row["sequence"],
                "type": row["type"],
                "at": row["at"],
                "id": str(row["event_id"]),
                "data": json.loads(row["body"]),
            }
            for row in rows
        ]

    async def nets(self) -> list[dict[str, Any]]:
        """What the last poll of each net showed, with the reservations on it."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(QUERIES["q_nets"])
            taken = await connection.fetch(QUERIES["q_reservations"])
        places = [
            {key: (str(value) if isinstance(value, UUID) else value) for key, value in slot.items()}
            for slot in taken
        ]
        return [
            {
                "name": row["name"],
                "answering": row["answering"],
                "paused": row["paused"],
                "draining": not row["registered"],
                "capacity": row["capacity"],
                "occupied": row["occupied"],
                "online": [str(t) for t in row["online"]],
                "extensions": row["extensions"],
                "strays": row["strays"],
                "unknown_statuses": row["unknown_statuses"],
                "seen_at": row["seen_at"],
                "slots": [p for p in places if p["net"] == row["name"]],
                "status": None if row["status_body"] is None else json.loads(row["status_body"]),
            }
            for row in rows
        ]

    async def stuck_reservations(self, quarantined_seconds: float) -> list[dict[str, Any]]:
        """Reservations quarantined for so many seconds, and those on nets that the registry does not have:
        net, job_id, attempt, state, run_id, in_doubt, job_state, registered, seconds since the job's last
        change."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(QUERIES["q_reservations_stuck"], quarantined_seconds)
        return [{**dict(row), "job_id": str(row["job_id"])} for row in rows]

    async def offsets(self, group: str) -> dict[tuple[str, int], int]:
        """Where a consumer group reads on, by (topic, partition)."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(QUERIES["q_offsets"], group)
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def dead_letters(self, topic: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest first, without their content."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(QUERIES["q_dead_letters"], topic, limit)
        return [dict(row) for row in rows]

    async def dead_letter(self, topic: str, partition: int, offset: int) -> dict[str, Any] | None:
        """One record as it came: `key` and `value` bytes, `headers` as pairs."""
        async with reading(self._pool) as connection:
            row = await connection.fetchrow(QUERIES["q_dead_letter"], topic, partition, offset)
        if row is None:
            return None
        return {**dict(row), "headers": decode_headers(row["headers"])}

    async def counts(self) -> dict[str, Any]:
        """The numbers behind the gauges: see `telemetry.metrics.Metrics.take_counts`."""
        async with reading(self._pool) as connection:
            states = await connection.fetch(QUERIES["q_states"])
            row = await connection.fetchrow(QUERIES["q_counts"])
        nets = await self.nets()
        assert row is not None
        return {
            **dict(row),
            "jobs": {r["state"]: r["n"] for r in states},
            "nets": {
                net["name"]: {
                    "answering": int(net["answering"]),
                    "online": len(net["online"]),
                    "occupied": net["occupied"],
                    "capacity": net["capacity"],
                    "strays": len(net["strays"]),
                    "unknown_statuses": len(net["unknown_statuses"]),
                    "in_doubt": int(any(s["in_doubt"] for s in net["slots"])),
                }
                for net in nets
            },
        }


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    attempts = json.loads(row.pop("attempts"))
    progress = json.loads(row.pop("progress"))
    reason = row.pop("reason")
    return {
        **{k: (str(v) if isinstance(v, UUID) else v) for k, v in row.items()},
        "attempt": attempts[-1]["number"] if attempts else 0,
        "net": attempts[-1]["net"] if attempts else None,
        "round": progress.get("round", 0),
        "total_rounds": progress.get("total"),
        "reason": None if reason is None else json.loads(reason),
    }
