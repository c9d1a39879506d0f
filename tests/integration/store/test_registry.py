"""The registry in force, and what is kept of jobs that are long over."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from service.cli.migrate import _migrate
from service.contracts.inbound.stop import STOP_REQUESTED as STOP
from service.domain import commands as c
from service.domain.decision import Outcome
from service.domain.enums import JobState, ReasonCode
from service.domain.facts import Facts
from service.domain.group import group_id, group_of
from service.domain.values import Reason, Results
from service.errors import Invalid, Transient
from service.settings import load
from service.store.occupancy import SchedulingGroups
from service.store.outbox import EventOutbox
from service.store.queries import Queries
from service.store.registry import pause_net, show
from service.store.state_records import StateRecords
from tests.integration.store.harness import (
    TRUSTS,
    StoreHarness,
    asked,
    item,
    net,
    opened,
    registry,
    submission,
)

NAMES = [str(t) for t in TRUSTS]
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


async def test_the_same_file_changes_nothing(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        assert await w.register(registry()) == (1, False)
        assert await w.register(registry(nets=[net("net-1", 3)])) == (2, True)
        assert await w.register(registry(nets=[net("net-1", 3)])) == (2, False)
        version, document = await show(w.pool)
        assert version == 2
        assert await w.register(document) == (2, False)
        assert await w.pool.fetchval("SELECT capacity FROM net") == 3


async def test_an_approval_taken_back_ends_a_queued_job(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        few = await w.ask(trust_ids=NAMES[:2])
        whole = await w.ask()
        assert await w.store.due(10) == []
        await w.register(registry(projects=[{"id": "demo", "approved_trusts": NAMES[:2]}]))
        assert await reviewed(w) == 1
        assert await w.kinds(whole) == ["job.queued", "job.failed"]
        assert await w.kinds(few) == ["job.queued"]
        body = await w.pool.fetchval(
            "SELECT body FROM event WHERE job_id = $1 AND sequence = 2", whole
        )
        assert "trust_not_approved" in body
        job = await w.store.claim("me")
        assert job is not None
        assert job.job_id == few


async def reviewed(w: StoreHarness, limit: int = 500) -> int:
    """How many jobs were looked at again for the registry."""
    pages = []
    while page := await w.store.review_registry("me", limit):
        pages.append(page)
    return sum(pages)


async def test_a_claim_looks_at_approvals_itself(migrated_env: dict[str, str]) -> None:
    """No review has come yet: still nothing trains on data that was taken back."""
    async with opened(migrated_env) as w:
        job_id = await w.ask()
        await w.register(registry(projects=[{"id": "demo", "approved_trusts": NAMES[:2]}]))
        assert await w.store.claim("me") is None
        assert await w.kinds(job_id) == ["job.queued", "job.failed"]


async def test_a_net_that_left_takes_no_job(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env, registry(nets=[net("net-1", 1), net("net-2", 1)])) as w:
        await w.ask()
        await w.register(registry(nets=[net("net-2", 1)]))
        assert await w.store.claim("me") is None  # net-2 has not answered yet
        await w.answers("net-1")  # a poll under way when its net went
        assert await w.store.claim("me") is None
        await w.answers("net-2")
        job = await w.store.claim("me")
        assert job is not None
        assert job.attempt is not None
        assert job.attempt.net == "net-2"
        with pytest.raises(Invalid, match="net-1"):
            await pause_net(w.pool, "net-1", True)


async def test_migrate_applies_the_registry_file(
    fresh_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in fresh_env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("FL_REGISTRY_FILE", raising=False)
    done, none = await _migrate(load())
    assert (bool(done), none) == (True, None)
    file = tmp_path / "registry.json"
    monkeypatch.setenv("FL_REGISTRY_FILE", str(file))
    with pytest.raises(Invalid, match=r"registry\.json"):
        await _migrate(load())
    file.write_text(json.dumps(registry()))
    told = {"version": 1, "changed": True, "held_on_removed_nets": []}
    assert await _migrate(load()) == ([], told)
    assert await _migrate(load()) == ([], told | {"changed": False})


async def test_a_new_net_serves_jobs_that_wait(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        for _ in range(3):
            await w.ask()
        await w.store.claim("me")
        await w.store.claim("me")
        assert await w.store.claim("me") is None
        await w.register(registry(nets=[net("net-1", 2), net("net-2", 1)]))
        await w.answers("net-2")
        job = await w.store.claim("me")
        assert job is not None
        assert job.attempt is not None
        assert job.attempt.net == "net-2"


async def clean(w: StoreHarness) -> int:
    return await w.store.clean(await w.store.purgeable(10), 10)


async def finished_long_ago(w: StoreHarness, data: dict[str, object]) -> UUID:
    """A stopped job that ended 100 days ago, its events on the log."""
    job_id = UUID(str(data["job_id"]))
    await w.take(item(data, w.next_offset))
    await w.store.apply([c.RequestStop(job_id, "enough", "tests")])
    await w.pool.execute(
        "UPDATE job SET finished_at = now() - interval '100 days' WHERE job_id = $1", job_id
    )
    return job_id


async def test_only_what_is_published_goes(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        job_id = await finished_long_ago(w, asked())
        await clean(w)
        assert await w.count("tombstone") == 0  # no event of it is on the log yet
        await w.pool.execute("INSERT INTO checkpoint SELECT partition, position, 0 FROM head")
        await clean(w)
        assert await w.count("tombstone") == 1
        await clean(w)
        assert await w.store.get(job_id) is not None  # nor is its tombstone
        assert set(await StateRecords(w.pool)([job_id])) == {job_id}


async def test_what_is_acknowledged_meanwhile_keeps_its_rows(migrated_env: dict[str, str]) -> None:
    """Else its bundles would lie in the object store for ever."""
    async with opened(migrated_env) as w:
        first, second = [await finished_long_ago(w, asked()) for _ in range(2)]
        await w.pool.execute("INSERT INTO checkpoint SELECT partition, position, 0 FROM head")
        await clean(w)
        acknowledge = "UPDATE tombstone SET published_at = now() WHERE job_id = $1"
        await w.pool.execute(acknowledge, first)
        purgeable = await w.store.purgeable(10)
        assert purgeable == [first]
        await w.pool.execute(acknowledge, second)
        assert await w.store.clean(purgeable, 10) == 4  # three events and their job
        assert (await w.store.get(first), await w.store.purgeable(10)) == (None, [second])
        assert await clean(w) == 4


async def test_refusals_about_no_job_go_by_their_age(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        job_id = await w.ask()
        await w.tell(STOP, {"job_id": str(job_id), "job": "misspelt"})
        await w.tell(STOP, {"model_id": str(uuid4())})
        refusals = await w.count("event WHERE sequence IS NULL")
        await w.pool.execute("UPDATE event SET at = now() - interval '100 days'")
        await w.tell(STOP, {"model_id": str(uuid4())})  # a young one
        assert await clean(w) == 0  # none is on the log yet
        await w.pool.execute("INSERT INTO checkpoint SELECT partition, position, 0 FROM head")
        assert (refusals, await clean(w)) == (2, 1)
        assert await w.kinds(job_id) == ["job.queued", "training.request_refused"]


async def test_a_cleaned_job_keeps_its_id(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        data = asked()
        job_id = await finished_long_ago(w, data)
        young = await w.ask()
        await w.store.apply([c.RequestStop(young, None, None)])
        await w.pool.execute("INSERT INTO checkpoint SELECT partition, position, 0 FROM head")
        await clean(w)
        await w.pool.execute("UPDATE tombstone SET published_at = now()")
        assert await clean(w) == 4
        assert await w.store.get(job_id) is None
        assert await w.kinds(job_id) == []
        assert (await w.count("retired"), await w.count("tombstone")) == (1, 0)
        kept = await w.store.get(young)
        assert kept is not None
        assert kept.state is JobState.STOPPED
        same, other = await w.take(
            item(data, w.next_offset), item(data | {"priority": 1}, w.next_offset + 1)
        )
        assert same.outcome is Outcome.IGNORED
        assert other.outcome is Outcome.REFUSED
        assert await w.count("job") == 1


async def test_a_group_is_not_made_under_a_registry_that_has_gone(
    migrated_env: dict[str, str],
) -> None:
    """Else it would be left with the nets of the old one, until the next registry."""
    async with opened(migrated_env) as w:
        job = await w.store.get(await w.ask())
        assert job is not None
        key = group_id(group_of(job.accepted_request))
        facts = Facts(BEGIN, await w.store.registry())
        await w.register(registry(nets=[net("net-1", 3)]))
        async with w.pool.acquire() as connection, connection.transaction():
            with pytest.raises(Transient, match="registry changed"):
                await SchedulingGroups().ensure(connection, {key: job.accepted_request}, facts)


async def test_a_page_of_retention_is_bounded_by_events(migrated_env: dict[str, str]) -> None:
    """A job with many events goes in as many pages as it needs, its own row last."""
    async with opened(migrated_env) as w:
        job_id = await finished_long_ago(w, asked())
        await w.pool.execute(
            "INSERT INTO checkpoint SELECT partition, position + 1000, 0 FROM head"
        )
        await w.pool.execute(
            "INSERT INTO event (partition, position, event_id, job_id, sequence, type, subject, at, body)"
            " SELECT partition, position + n, gen_random_uuid(), job_id, sequence - n, type, subject, at,"
            " body FROM event, generate_series(1, 22) n WHERE job_id = $1 AND type LIKE '%stopped%'",
            job_id,
        )
        await clean(w)
        await w.pool.execute("UPDATE tombstone SET published_at = now()")
        pages = []
        while gone := await clean(w):
            pages.append(gone)
            if len(pages) < 3:
                assert await w.store.get(job_id) is not None
        assert pages == [10, 10, 6]  # 25 events and their job
        assert await w.store.get(job_id) is None


async def test_a_net_that_left_is_remembered_until_nothing_of_ours_is_on_it(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env) as w:
        await w.ask()
        waiting = [await w.ask() for _ in range(2)]
        job = await w.store.claim("me")
        assert job is not None
        assert job.lease is not None
        assert await w.store.draining() == {}
        known = (await w.store.registry()).nets["net-1"]
        await w.register(registry(nets=[net("net-2", 1)]))
        assert await w.store.draining() == {"net-1": known}
        assert await w.store.claim("me") is None
        shown = {each["name"]: each["draining"] for each in await Queries(w.pool).nets()}
        assert shown == {"net-1": True, "net-2": False}
        why = Reason(ReasonCode.MODEL_FILES_MISSING, "over")
        await w.store.apply([c.FailAttempt(job.job_id, 1, job.lease.token, why, run_over=True)])
        assert await w.store.draining() == {}
        await w.register(registry())
        assert (await w.store.registry()).nets["net-1"] == known
        assert waiting


async def test_words_that_nobody_knows_are_kept_with_the_net(migrated_env: dict[str, str]) -> None:
    async with opened(migrated_env) as w:
        for words, kept in ((("WARM",), ["WARM"]), (None, ["WARM"]), ((), [])):
            await w.store.save_net(
                "net-1",
                answering=True,
                online=frozenset(),
                extensions=frozenset(),
                strays=None,
                body=b"{}",
                unknown_statuses=words,
            )
            (shown,) = await Queries(w.pool).nets()
            assert shown["unknown_statuses"] == kept


async def test_results_had_after_the_end_make_the_state_due_once_its_events_are_out(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env) as w:
        job_id = await w.ask()
        job = await w.store.claim("me")
        assert job is not None
        assert job.lease is not None
        sub = submission(await w.store.now())
        await w.store.apply([c.OpenSubmission(job_id, 1, job.lease.token, submission=sub)])
        await w.store.apply([c.RecordRun(job_id, 1, sub.path_id, "run-1")])
        failed = {"job_id": str(job_id), "attempt": 1, "status": "RESULTS_UPLOAD_FAILED"}
        await w.tell("fl.job.status_reported.v1", failed)
        results = Results("s3://results/x/results.zip", "0" * 64, 3)
        await w.store.apply([c.RecordResults(job_id, 1, results)])
        async with EventOutbox(w.pool).session() as session:
            assert await session.states_due(10) == []
            await w.pool.execute(
                "INSERT INTO checkpoint (partition, position) SELECT partition, position FROM head "
                "ON CONFLICT (partition) DO UPDATE SET position = EXCLUDED.position"
            )
            due = await session.states_due(10)
            assert [job for job, _ in due] == [job_id]
            state = json.loads((await StateRecords(w.pool)([job_id]))[job_id][1])
            assert (state["state"], state["results"]["uri"]) == ("failed", results.uri)
            await session.states_due_done(due)
            assert await session.states_due(10) == []
