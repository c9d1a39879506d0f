"""Rules that change beside those who judge by them: nothing judged by the old ones comes after the new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from service.contracts.inbound.stop import STOP_REQUESTED as STOP
from service.domain import commands as c
from service.domain.decision import Decision, Outcome
from service.domain.enums import JobState
from service.errors import Transient
from service.store import judging, registry_review
from service.store.store import PostgresStore
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
FEWER = registry(projects=[{"id": "demo", "approved_trusts": NAMES[:2]}])


class Gate:
    """Holds the transaction that judges one job between its judgement and its commit."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.judged = asyncio.Event()
        self.open = asyncio.Event()


@asynccontextmanager
async def held(job_id: UUID) -> AsyncIterator[Gate]:
    gate, judge = Gate(job_id), judging.judge

    async def judged(connection: Any, unit: Any, work: Any, alive: Any) -> None:
        await judge(connection, unit, work, alive)
        if any(getattr(i.command, "job_id", None) == gate.job_id for i in work.items):
            gate.judged.set()
            async with asyncio.timeout(20):
                while not gate.open.is_set():  # as a transaction that works, never idle for long
                    await connection.execute("SELECT")
                    await asyncio.sleep(0.02)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "judge", judged)
        yield gate


async def reviewed(w: StoreHarness, limit: int = 500) -> int:
    pages = []
    while page := await w.store.review_registry("me", limit):
        pages.append(page)
    return sum(pages)


async def state(w: StoreHarness, job_id: UUID | str) -> str:
    return str(await w.pool.fetchval("SELECT state FROM job WHERE job_id = $1", UUID(str(job_id))))


async def running(w: StoreHarness) -> UUID:
    job_id = await w.ask()
    job = await w.store.claim("me")
    assert job is not None
    assert job.lease is not None
    handed = submission(await w.store.now())
    await w.store.apply([c.OpenSubmission(job_id, 1, job.lease.token, submission=handed)])
    await w.store.apply([c.RecordRun(job_id, 1, handed.path_id, "run-1")])
    return job_id


# --- stops by model ---------------------------------------------------------------------------------


async def test_a_stop_for_a_model_waits_for_the_requests_under_way(
    migrated_env: dict[str, str],
) -> None:
    """Judged before the stop and committed after it: the request is stopped all the same."""
    async with opened(migrated_env) as w:
        model = str(uuid4())
        await w.ask(model_id=model)
        data = asked(model_id=model)
        async with held(UUID(data["job_id"])) as gate:
            asking = asyncio.create_task(w.store.apply_batch([item(data, 0)], None))
            await gate.judged.wait()
            halt = item({"model_id": model}, 0, STOP)
            stopping = asyncio.create_task(w.rival().apply_batch([halt], None))
            done, _ = await asyncio.wait({stopping}, timeout=0.3)
            assert not done
            gate.open.set()
            await asyncio.gather(asking, stopping)
        while await w.store.stop_models(500):
            pass
        assert await state(w, data["job_id"]) == "stopped"
        assert await w.count("model_stop") == 0


async def test_any_number_of_models_is_stopped_beside_a_forgotten_transaction(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env) as w:
        models = [str(uuid4()) for _ in range(130)]
        await w.take(*(item(asked(model_id=m), n) for n, m in enumerate(models)))
        forgotten = await asyncpg.connect(migrated_env["FL_DATABASE__DSN"])
        try:
            async with forgotten.transaction():
                await forgotten.execute("SELECT pg_current_xact_id(), count(*) FROM job")
                start = w.next_offset
                halts = (item({"model_id": m}, start + n, STOP) for n, m in enumerate(models))
                decisions = await w.take(*halts)
                assert {d.outcome for d in decisions} == {Outcome.APPLIED}
                assert await w.store.stop_models(500) == 130
                assert await w.store.stop_models(500) == 0
                assert await w.count("job WHERE state = 'stopped'") == 130
                assert await w.count("model_stop") == 0
        finally:
            await forgotten.close()


async def test_trouble_with_one_model_holds_up_no_other(
    migrated_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(migrated_env) as w:
        first, second = [await w.ask() for _ in range(2)]
        for job_id in (first, second):
            model = await w.pool.fetchval("SELECT model_id FROM job WHERE job_id = $1", job_id)
            await w.tell(STOP, {"model_id": str(model)})
        real = PostgresStore.apply_each

        async def away(self: PostgresStore, commands: Any) -> list[Decision]:
            wanted = list(commands)
            if wanted[0].job_id == first:
                raise Transient("the database is unavailable")
            return await real(self, wanted)

        monkeypatch.setattr(PostgresStore, "apply_each", away)
        assert await w.store.stop_models(500) == 1
        assert (await state(w, first), await state(w, second)) == ("queued", "stopped")
        with pytest.raises(Transient):
            await w.store.stop_models(500)
        monkeypatch.undo()
        assert await w.store.stop_models(500) == 1
        assert await state(w, first) == "stopped"


# --- a registry -------------------------------------------------------------------------------------


async def test_a_registry_waits_for_what_is_judged_by_the_old_one(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env) as w:
        data = asked()
        async with held(UUID(data["job_id"])) as gate:
            asking = asyncio.create_task(w.store.apply_batch([item(data, 0)], None))
            await gate.judged.wait()
            applying = asyncio.create_task(w.register(FEWER))
            done, _ = await asyncio.wait({applying}, timeout=0.3)
            assert not done
            gate.open.set()
            await asyncio.gather(asking, applying)
        assert await reviewed(w) == 1
        assert await state(w, data["job_id"]) == "failed"


async def test_a_review_that_a_crash_interrupts_is_ended_by_another_instance(
    migrated_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(migrated_env) as w:
        trained = await running(w)
        queued = [await w.ask() for _ in range(7)]
        spared = await w.ask(trust_ids=NAMES[:2])
        assert await w.register(FEWER) == (2, True)

        async def crash(*_: object) -> None:
            raise ConnectionError

        with monkeypatch.context() as patch:
            patch.setattr(registry_review, "finish_page", crash)
            with pytest.raises(ConnectionError):
                await w.store.review_registry("first", 3)
        # What holds data in use goes first; the same file again changes nothing, and forgets nothing.
        assert await state(w, trained) == "stopping"
        assert await w.register(FEWER) == (2, False)
        assert await w.store.review_registry("second", 3) == 0  # the first may be alive
        await w.pool.execute("UPDATE lease SET until = now()")
        assert await reviewed(w, 3) >= len(queued)
        assert {await state(w, job_id) for job_id in queued} == {"failed"}
        assert await state(w, spared) == "queued"
        assert await w.count("registry_review") == 0
        assert await w.store.review_registry("me", 3) == 0


async def test_a_registry_applied_meanwhile_starts_the_review_anew(
    migrated_env: dict[str, str],
) -> None:
    async with opened(migrated_env) as w:
        job_id = await w.ask()
        await w.register(FEWER)
        page = await registry_review.next_page(w.pool, 10)
        assert page is not None
        assert page.jobs == [job_id]
        await w.register(FEWER | {"nets": [net("net-1", 3)]})
        await registry_review.finish_page(w.pool, page)  # an instance that was slow
        assert await w.count("registry_review") == 1
        assert await reviewed(w) == 1
        assert await state(w, job_id) == "failed"


async def test_a_review_holds_up_no_lease(migrated_env: dict[str, str]) -> None:
    """Applying a registry locks no job."""
    async with opened(migrated_env) as w:
        await w.ask()
        job = await w.store.claim("me")
        assert job is not None
        assert job.lease is not None
        async with w.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT 1 FROM job FOR UPDATE")
            assert (await asyncio.wait_for(w.register(FEWER), 5))[1]


# --- what a net can do ------------------------------------------------------------------------------


async def test_no_net_is_left_out_of_a_group_that_is_made_while_it_answers(
    migrated_env: dict[str, str],
) -> None:
    flower = net("flower", 1) | {"fl_backend": "flower"}
    async with opened(migrated_env, registry(nets=[flower, net("other", 1)]), ["other"]) as w:
        await w.answers("flower")
        data = asked(
            trust_ids=NAMES[:2]
        )  # the Flower net has not said that it can select two of three
        async with held(UUID(data["job_id"])) as gate:
            asking = asyncio.create_task(w.store.apply_batch([item(data, 0)], None))
            await gate.judged.wait()
            polling = asyncio.create_task(
                w.rival().save_net(
                    "flower",
                    answering=True,
                    online=frozenset(TRUSTS),
                    extensions=frozenset({"selection"}),
                    strays=None,
                    body=b"{}",
                )
            )
            await asyncio.sleep(0.2)
            gate.open.set()
            await asyncio.gather(asking, polling)
        rows = await w.pool.fetch("SELECT net FROM net_group ORDER BY net")
        assert [row["net"] for row in rows] == ["flower", "other"]


async def test_a_request_before_a_nets_first_answer_is_kept(migrated_env: dict[str, str]) -> None:
    flower = net("flower", 1) | {"fl_backend": "flower"}
    async with opened(migrated_env, registry(nets=[flower]), ["nobody"]) as w:
        part = await w.ask(trust_ids=NAMES[:2])
        assert await state(w, part) == "queued"
        await w.store.save_net(
            "flower",
            answering=True,
            online=frozenset(TRUSTS),
            extensions=frozenset({"selection"}),
            strays=None,
            body=b"{}",
        )
        job = await w.store.claim("me")
        assert job is not None
        assert (job.job_id, job.state) == (part, JobState.PREPARING)


async def test_a_net_that_can_not_select_holds_up_nobody(migrated_env: dict[str, str]) -> None:
    """The job that it turned out not to serve does not stand at the head of its queue."""
    flower = net("flower", 1) | {"fl_backend": "flower"}
    async with opened(migrated_env, registry(nets=[flower]), ["nobody"]) as w:
        part = await w.ask(trust_ids=NAMES[:2])
        whole = await w.ask()
        await w.answers("flower")
        job = await w.store.claim("me")
        assert job is not None
        assert job.job_id == whole
        assert await state(w, part) == "queued"
        assert (await w.take(item(asked(trust_ids=NAMES[1:]), w.next_offset)))[0].events
        assert await w.count("job WHERE state = 'rejected'") == 1
