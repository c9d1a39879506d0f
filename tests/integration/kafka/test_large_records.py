"""One job's large words on the real broker: they are told, whole or cut, and hold back nobody else's."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from service.contracts.inbound import reports
from service.contracts.outbound.lifecycle import CompletedData, MetricsData
from service.contracts.outbound.state import StateData
from service.domain import commands as c
from service.domain.decision import Outcome
from service.domain.enums import JobState
from service.relay.relay import Relay
from service.settings import DatabaseSettings
from service.store.database import open_pool
from service.store.outbox import EventOutbox
from service.store.state_records import StateRecords
from tests.integration.relay import harness as relay_harness
from tests.integration.store import harness as store_harness

CONFIG = {"vocabulary": "y" * 1_048_400}
#: As much as one record of the status topic holds.
METRICS = [
    {
        "label": f"{n:04}{'y' * 246}",
        "result": 0.123456789,
        "global_round": 1,
        "fl_client_name": f"{'y' * 250}",
        "x_value": 1.5,
        "x_label": "y" * 250,
    }
    for n in range(1_000)
]
DIGESTS = {f"{n:05}{'y' * 140}": "0" * 64 for n in range(4_500)}


async def completed(w: store_harness.StoreHarness) -> UUID:
    """A job that ran to its end with a config and a report as large as can be."""
    job_id: UUID = await w.ask(model_files={"uri": "s3://models/a/", "sha256": DIGESTS})
    job = await w.store.claim("me")
    assert job is not None
    assert job.lease is not None
    opened = replace(store_harness.submission(await w.store.now()), config=CONFIG)
    await w.store.apply([c.OpenSubmission(job_id, 1, job.lease.token, opened)])
    await w.store.apply([c.RecordRun(job_id, 1, opened.path_id, "run-1")])
    about = {"job_id": str(job_id), "attempt": 1}
    told = await w.tell(reports.METRICS_REPORTED, about | {"metrics": METRICS})
    assert told.outcome is Outcome.APPLIED
    results = {"uri": "s3://results/a.zip"}
    ended = about | {"status": "RESULTS_UPLOADED", "results": results}
    assert (await w.tell(reports.STATUS_REPORTED, ended)).outcome is Outcome.APPLIED
    return job_id


async def test_a_job_with_much_to_tell_holds_back_no_other(migrated_env: dict[str, str]) -> None:
    async with relay_harness.harness(migrated_env, store_harness.PARTITIONS) as out:
        pool = await open_pool(DatabaseSettings(dsn=SecretStr(migrated_env["FL_DATABASE__DSN"])))
        try:
            w = store_harness.StoreHarness(pool, store_harness.make_store(pool))
            await w.register(store_harness.registry())
            await w.store.start_offsets(store_harness.GROUP, {(store_harness.TOPIC, 0): 0})
            await w.answers()
            large = await completed(w)
            others = [await w.ask() for _ in range(24)]
            wake, stop = asyncio.Event(), asyncio.Event()
            relay = Relay(EventOutbox(pool), out.kafka, StateRecords(pool), wake)
            task = asyncio.create_task(relay.run(stop))
            try:
                await out.all_hinted()
            finally:
                stop.set()
                await asyncio.wait_for(task, 20)
        finally:
            await pool.close()
        await out.published_once()
        lifecycle = await out.log(out.topics.lifecycle)
        states = {job_of(r): r for r in await out.log(out.topics.job_state)}
    assert {job_of(r) for r in lifecycle} == set(states) == {large, *others}
    own = [
        (r.headers["ce_type"].decode(), body(r)) for r in lifecycle if r.key == str(large).encode()
    ]
    metrics = [data for kind, data in own if kind == "fl.job.metrics_recorded.v1"]
    assert len(metrics) > 1
    assert [m["label"] for data in metrics for m in data["metrics"]] == [
        m["label"] for m in METRICS
    ]
    for data in metrics:
        MetricsData.model_validate(data)
        assert "truncated" not in data
    end = own[-1][1]
    CompletedData.model_validate(end)
    assert end["truncated"] == ["config"]
    assert end["results"]["uri"] == "s3://results/a.zip"
    assert end["metrics"]
    state = body(states[large])
    StateData.model_validate(state)
    assert state["state"] == JobState.COMPLETED
    assert state["truncated"] == ["request.model_files.sha256"]
    assert state["request"]["model_files"]["uri"] == "s3://models/a/"


def job_of(record: relay_harness.Snapshot) -> UUID:
    assert record.key is not None
    return UUID(record.key.decode())


def body(record: relay_harness.Snapshot) -> Any:
    return json.loads(record.value or b"")
