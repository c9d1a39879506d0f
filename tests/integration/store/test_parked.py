"""What comes too early waits for its job, is fed to it once, and is answered when no job ever comes."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from service.contracts.inbound import reports, stop
from service.domain import commands as c
from service.domain.decide import decide
from service.domain.decision import Decision, Outcome
from service.domain.enums import JobState
from service.domain.facts import Facts
from service.domain.job import Job
from service.store import unit_of_work
from service.store.records import OffsetFence
from tests.integration.store.harness import (
    GROUP,
    TOPIC,
    StoreHarness,
    asked,
    item,
    net,
    opened,
    registry,
    submission,
)

STOP = stop.STOP_REQUESTED
STATUS = reports.STATUS_REPORTED


async def submitting(w: StoreHarness) -> tuple[UUID, UUID]:
    """A job whose submission is open and unanswered, and the submission's path id."""
    job_id = await w.ask()
    job = await w.store.claim("me")
    assert job is not None
    assert job.lease is not None
    opened_one = submission(await w.store.now())
    await w.store.apply([c.OpenSubmission(job_id, 1, job.lease.token, opened_one)])
    return job_id, opened_one.path_id


async def test_a_report_waits_until_its_run_is_known(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        job_id, path_id = await submitting(w)
        report = {"job_id": str(job_id), "attempt": 1, "status": "RUNNING"}
        assert (await w.tell(STATUS, report)).outcome is Outcome.PARKED
        assert await w.store.resolve_parked(10) == 0
        await w.store.apply([c.RecordRun(job_id, 1, path_id, "run-1")])
        resolved = await asyncio.gather(*(w.rival().resolve_parked(10) for _ in range(3)))
        assert sum(resolved) == 1
        assert await w.count("parked") == 0
        kinds = await w.kinds(job_id)
        assert kinds == ["job.queued", "job.started", "job.submitted", "job.running"]


async def test_a_report_that_names_its_run_proves_the_submit(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        job_id, _ = await submitting(w)
        report = {
            "job_id": str(job_id),
            "attempt": 1,
            "status": "RUNNING",
            "fl_backend_job_id": "run-1",
        }
        decision = await w.tell(STATUS, report)
        assert decision.outcome is Outcome.APPLIED
        job = await w.store.get(job_id)
        assert job is not None
        assert job.attempt is not None
        assert (job.state, job.attempt.run_id) == (JobState.RUNNING, "run-1")
        assert await w.store.known_runs("net-1", ["run-1", "run-2"]) == {"run-1"}


async def test_what_nobody_asked_for_ends_in_time(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        unknown = str(uuid4())
        report = item({"job_id": unknown, "attempt": 1, "status": "RUNNING"}, 0, STATUS, "report-1")
        halt = item({"job_id": unknown}, 1, STOP, "stop-1")
        impatient = w.rival(parked_seconds=0)
        parked = await impatient.apply_batch([report, halt], OffsetFence([(TOPIC, 0, 0, 2)], GROUP))
        assert {d.outcome for d in parked} == {Outcome.PARKED}
        assert await w.store.resolve_parked(10) == 2
        dead = await w.pool.fetch('SELECT kind, "offset", value FROM dead_letter')
        assert [tuple(row) for row in dead] == [("UnknownJob", 0, report.source_record.value)]
        events = await w.pool.fetch("SELECT type, job_id, body FROM event")
        assert [row["type"] for row in events] == ["fl.training.request_refused.v1"]
        assert "unknown_job" in events[0]["body"]
        assert await w.count("parked") == 0
        # The dead letter may be sent again, as it was, once its job exists.
        w.next_offset = 2
        await w.ask(job_id=unknown)
        again = await w.tell(
            STATUS, {"job_id": unknown, "attempt": 1, "status": "RUNNING"}, "report-1"
        )
        assert again.outcome is not Outcome.DUPLICATE


async def test_a_model_is_stopped_page_by_page(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        model = str(uuid4())
        jobs = [await w.ask(model_id=model) for _ in range(5)]
        other = await w.ask()
        await w.tell(STOP, {"model_id": model, "reason": "withdrawn"}, "stop-1")
        later = await w.ask(model_id=model)
        pages = []
        for _ in range(100):  # the order is kept until nothing older can commit any more
            pages.append(await w.store.stop_models(2))
            if not await w.count("model_stop"):
                break
            await asyncio.sleep(0.05)
        assert [n for n in pages if n] == [2, 2, 1]
        assert await w.count("model_stop") == 0
        for job_id in jobs:
            assert (await w.kinds(job_id))[-1] == "job.stopped"
        assert await w.kinds(other) == await w.kinds(later) == ["job.queued"]


async def test_a_stop_and_its_request_in_two_hands(migrated_env: dict[str, str]) -> None:
    """Two consumers at once: whoever commits first, the stop is not lost."""
    async with opened(migrated_env) as w:
        for _ in range(20):
            data = asked()
            halt = item({"job_id": data["job_id"]}, 0, STOP)
            await asyncio.gather(
                w.store.apply_batch([item(data, 0)], None), w.rival().apply_batch([halt], None)
            )
            await w.store.resolve_parked(10)
            assert (await w.kinds(UUID(data["job_id"])))[-1] == "job.stopped"
        assert await w.count("parked") == 0


async def test_what_must_wait_longer_holds_up_nobody(migrated_env: dict[str, str]) -> None:
    """Reports that a page is full of, and that nothing can be done with yet."""
    nets = [net("net-1", 1), net("net-2", 1)]
    async with opened(migrated_env, registry(nets=nets), ["net-1", "net-2"]) as w:
        stuck, _ = await submitting(w)
        for _ in range(3):
            report = {"job_id": str(stuck), "attempt": 1, "status": "RUNNING"}
            assert (await w.tell(STATUS, report)).outcome is Outcome.PARKED
        job_id, path_id = await submitting(w)
        await w.tell(STATUS, {"job_id": str(job_id), "attempt": 1, "status": "RUNNING"})
        await w.store.apply([c.RecordRun(job_id, 1, path_id, "run-1")])
        assert await w.store.resolve_parked(3) == 1
        assert (await w.kinds(job_id))[-1] == "job.running"
        assert await w.count("parked") == 3


async def test_what_cannot_be_judged_is_buried_alone(
    migrated_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that fails on a record costs neither its neighbours nor the request that it waits for."""
    nets = [net("net-1", 1), net("net-2", 1)]
    async with opened(migrated_env, registry(nets=nets), ["net-1", "net-2"]) as w:
        bad, bad_path = await submitting(w)
        good, good_path = await submitting(w)
        data = asked()
        poisoned = {str(bad), data["job_id"]}
        for job_id in (*poisoned, str(good)):
            await w.tell(STATUS, {"job_id": job_id, "attempt": 1, "status": "RUNNING"})
        await w.store.apply([c.RecordRun(bad, 1, bad_path, "run-1")])
        await w.store.apply([c.RecordRun(good, 1, good_path, "run-2")])

        def spoiled(job: Job | None, command: c.Command, facts: Facts) -> Decision:
            if isinstance(command, c.ReportStatus) and str(command.job_id) in poisoned:
                raise RuntimeError("a rule that fails")
            return decide(job, command, facts)

        monkeypatch.setattr(unit_of_work, "decide", spoiled)
        assert (await w.take(item(data, w.next_offset)))[0].outcome is Outcome.APPLIED
        assert await w.store.resolve_parked(10) == 2
        assert (await w.kinds(good))[-1] == "job.running"
        assert (await w.kinds(UUID(data["job_id"]))) == ["job.queued"]
        assert await w.count("parked") == 0
        dead = await w.pool.fetch("SELECT kind, consumer_group FROM dead_letter")
        assert [tuple(row) for row in dead] == [("RuntimeError", GROUP)] * 2


@pytest.mark.parametrize(
    ("spoiled", "kind"), [(b"{", "Undecodable"), (b'{"job_id": 7}', "InvalidReport")]
)
async def test_what_can_no_longer_be_decoded_is_buried_alone(
    migrated_env: dict[str, str], spoiled: bytes, kind: str
) -> None:
    """As after an upgrade: neither the request that it waits for nor its neighbours pay for it."""
    async with opened(migrated_env) as w:
        job_id, path_id = await submitting(w)
        running = {"job_id": str(job_id), "attempt": 1, "status": "RUNNING"}
        data = asked()
        early = {"job_id": data["job_id"], "attempt": 1, "status": "RUNNING"}
        await w.tell(STATUS, running, "old-1")
        await w.tell(STATUS, early, "old-2")
        await w.pool.execute("UPDATE parked SET value = $1", spoiled)
        await w.tell(STATUS, running)
        halt = {"job_id": data["job_id"]}
        await w.tell(STOP, halt)
        assert (await w.take(item(data, w.next_offset)))[0].outcome is Outcome.APPLIED
        assert (await w.kinds(UUID(data["job_id"])))[-1] == "job.stopped"
        await w.store.apply([c.RecordRun(job_id, 1, path_id, "run-1")])
        assert await w.store.resolve_parked(10) == 2
        assert (await w.kinds(job_id))[-1] == "job.running"
        assert await w.count("parked") == 0
        dead = await w.pool.fetch('SELECT kind, consumer_group FROM dead_letter ORDER BY "offset"')
        assert [tuple(row) for row in dead] == [(kind, GROUP)] * 2
        # Repaired, it may be sent again under its id.
        for event_id in ("old-1", "old-2"):
            assert (await w.tell(STATUS, running, event_id)).outcome is not Outcome.DUPLICATE


async def test_a_stop_that_missed_its_job_ends_it_before_the_submit(
    migrated_env: dict[str, str],
) -> None:
    """Stop and request were read from two partitions at once: neither transaction saw the other's rows."""
    async with opened(migrated_env) as w:
        job_id, elsewhere = uuid4(), uuid4()
        told = await w.tell(STOP, {"job_id": str(job_id), "reason": "enough"})
        assert told.outcome is Outcome.PARKED
        await w.pool.execute("UPDATE parked SET job_id = $1", elsewhere)
        await w.ask(job_id=str(job_id))
        await w.pool.execute("UPDATE parked SET job_id = $1", job_id)
        job = await w.store.claim("me")
        assert job is not None
        assert job.lease is not None
        command = c.OpenSubmission(job_id, 1, job.lease.token, submission(await w.store.now()))
        decision = (await w.store.apply([command]))[0]
        assert decision.events == ()
        after = await w.store.get(job_id)
        assert after is not None
        assert after.state is JobState.STOPPED
        assert after.attempts[0].submission is None
        assert await w.count("parked") == 0
