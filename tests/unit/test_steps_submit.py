"""Submitting: the commitment before the call, lost answers, busy adapters, nets in doubt, takeovers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from service.domain.enums import JobState, ModelStatus, ReasonCode, ReservationState, WaitingCode
from service.errors import Permanent, Transient
from service.steps.options import StepOptions
from tests.unit.sim.fake_net import FakeNet, RealRun
from tests.unit.sim.virtual_time import run
from tests.unit.sim.world import World

KINDS = ["keyed", "named", "plain"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", ["lost_after", "late"])
def test_a_run_whose_answer_was_lost_is_adopted(kind: str, lost: str) -> None:
    async def story() -> None:
        world = World(kind)
        world.net.script["submit"] = [lost]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COMPLETED, 300)
        assert len(world.net.real) == 1
        attempt = world.job(job_id).attempts[-1]
        assert attempt.run_id == world.net.real[0].run_id
        assert attempt.number == 1
        assert attempt.provisional is (kind == "plain")
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", KINDS)
def test_a_submit_that_created_nothing_is_sent_again_under_a_new_path(kind: str) -> None:
    async def story() -> None:
        world = World(kind)
        world.net.script["submit"] = ["lost_before"]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COMPLETED, 300)
        attempt = world.job(job_id).attempts[-1]
        assert attempt.number == 1
        assert attempt.submission is not None
        assert len(attempt.submission.earlier_paths) == 1
        assert attempt.submission.path_id not in attempt.submission.earlier_paths
        assert attempt.submission.key == f"{job_id}:1"
        fenced = set(attempt.submission.earlier_paths)
        assert world.net.fenced == (set() if kind == "keyed" else fenced)
        await world.end()

    run(story())


def test_an_adapter_that_fails_for_minutes_costs_no_job() -> None:
    async def story() -> None:
        world = World()
        world.net.script["submit"] = ["lost_before"] * 9
        world.start()
        job_id = world.ask()
        took = await world.until_state(job_id, JobState.RUNNING, 300)
        assert took > 60
        assert world.job(job_id).attempt_number == 1
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", ["keyed", "named"])
def test_submissions_of_an_attempt_are_bounded(kind: str) -> None:
    async def story() -> None:
        world = World(kind, options=StepOptions(most_submissions=3))
        world.net.script["submit"] = ["lost_before"] * 3
        world.start()
        job_id = world.ask()
        words = ("Failed", "RetryScheduled")
        await world.until(lambda: any(w in world.words(job_id) for w in words), 300)
        assert world.net.count("submit") == 3
        keyed = kind == "keyed"
        unknown, busy = ReasonCode.SUBMIT_UNKNOWN, ReasonCode.ADAPTER_UNAVAILABLE
        assert world.code(job_id) == (unknown if keyed else busy)
        await world.end()

    run(story())


def test_a_late_first_submit_is_fenced_where_no_key_holds_it() -> None:
    """A worker stopped just before its POST wakes after another one submitted again."""

    async def story() -> None:
        world = World("named")
        world.net.script["submit"] = ["lost_before"]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING, 300)
        first = world.net.real[0].handle
        assert first is not None
        stale = replace(first, path_id=first.earlier_paths[0], earlier_paths=())
        assert world.net.create(stale) is None
        await world.end()

    run(story())


def test_the_submission_is_committed_before_the_call() -> None:
    async def story() -> None:
        world = World()
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") == 1)
        assert world.state(job_id) is JobState.SUBMITTING
        submission = world.job(job_id).attempts[-1].submission
        assert submission is not None
        assert str(submission.path_id) == world.net.calls[-1][2]
        await world.end()

    run(story())


@pytest.mark.parametrize("fault", ["busy", "away"])
def test_an_adapter_that_took_nothing_is_asked_again_in_place(fault: str) -> None:
    async def story() -> None:
        world = World()
        world.net.script["submit"] = [fault, fault]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING, 10)
        assert "RetryScheduled" not in world.words(job_id)
        await world.end()

    run(story())


def test_an_adapter_that_stays_busy_gives_the_net_back_and_burns_no_attempt() -> None:
    async def story() -> None:
        world = World(options=StepOptions(call_tries=3))
        world.net.script["submit"] = ["busy"] * 3
        world.start()
        job_id = world.ask()
        await world.until(lambda: "RetryScheduled" in world.words(job_id), 30)
        assert world.code(job_id) == ReasonCode.ADAPTER_UNAVAILABLE
        await world.until_state(job_id, JobState.COMPLETED, 300)
        assert world.job(job_id).attempt_number == 1
        assert len(world.net.real) == 1
        await world.end()

    run(story())


def test_a_refusal_ends_the_job_with_the_adapters_reason() -> None:
    async def story() -> None:
        world = World()
        world.net.script["submit"] = ["rejected"]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.FAILED, 10)
        job = world.job(job_id)
        assert world.code(job_id) == ReasonCode.ADAPTER_REJECTED
        assert job.attempts[-1].reservation is ReservationState.RELEASED
        await world.end()

    run(story())


def test_an_outcome_that_nobody_can_tell_ends_as_submit_unknown_and_blocks_the_net() -> None:
    async def story() -> None:
        world = World(options=StepOptions(submit_unknown_seconds=60))
        world.net.script["submit"] = ["lost_after"]
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") == 1)
        world.net.down = True
        await world.until_state(job_id, JobState.FAILED, 100)
        job = world.job(job_id)
        assert world.code(job_id) == ReasonCode.SUBMIT_UNKNOWN
        assert job.attempts[-1].reservation is ReservationState.QUARANTINED
        assert world.store.now_of_nets()["net-1"].in_doubt
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", ["lost_after", "lost_before"])
def test_a_blocked_net_is_freed_by_evidence(kind: str, lost: str) -> None:
    async def story() -> None:
        world = World(kind, options=StepOptions(submit_unknown_seconds=60))
        world.net.train_seconds = 10_000
        world.net.script["submit"] = [lost]
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") == 1)
        world.net.down = True
        await world.until_state(job_id, JobState.FAILED, 120)
        world.net.down = False
        await world.until(
            lambda: world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 300
        )
        assert world.net.alive() == []
        await world.end()

    run(story())


def test_a_second_submission_waits_while_the_first_is_open() -> None:
    async def story() -> None:
        world = World("named", capacity=2)
        world.net.script["submit"] = ["late"]
        world.start()
        first, second = world.ask(1), world.ask(2)
        await world.until(lambda: world.net.count("submit") == 1)
        await world.until(lambda: JobState.PREPARING in (world.state(first), world.state(second)))
        await world.until(
            lambda: all(world.state(j) is JobState.RUNNING for j in (first, second)), 60
        )
        assert len(world.net.real) == 2
        await world.end()

    run(story())


def test_a_run_of_another_job_of_ours_is_never_adopted_by_difference() -> None:
    """The second job's list was taken before the first one's run began."""

    async def story() -> None:
        world = World("plain", capacity=2)
        world.net.train_seconds = 100
        world.net.script["submit"] = ["", "lost_before"]
        world.start()
        jobs = [world.ask(1), world.ask(2)]
        await world.until(lambda: all(world.state(j) is JobState.RUNNING for j in jobs), 300)
        runs = {world.job(j).attempts[-1].run_id for j in jobs}
        assert len(runs) == 2
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_killed_in_its_call_leaves_one_run(kind: str) -> None:
    async def story() -> None:
        world = World(kind)
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.state(job_id) is JobState.SUBMITTING)
        world.kill(0)
        await asyncio.sleep(15)
        world.start()
        await world.until_state(job_id, JobState.COMPLETED, 300)
        assert len(world.net.real) == 1
        assert world.job(job_id).attempt_number == 1
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_stopped_past_its_lease_changes_nothing_when_it_wakes(kind: str) -> None:
    async def story() -> None:
        world = World(kind)
        world.net.train_seconds = 300
        world.bundles.seconds = 1.0
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.PREPARING)
        world.kill(0)
        await asyncio.sleep(12)
        world.start()
        await world.until_state(job_id, JobState.RUNNING, 300)
        sequence = world.job(job_id).sequence
        world.wake(0)
        await asyncio.sleep(30)
        assert len(world.net.real) == 1
        assert world.job(job_id).sequence - sequence <= 1  # `running` alone
        assert world.state(job_id) is JobState.RUNNING
        await world.end()

    run(story())


def test_a_second_run_of_a_submission_is_aborted() -> None:
    async def story() -> None:
        world = World("named")
        world.net.script["submit"] = ["lost_after"]
        world.net.script["find_run"] = ["away"]
        world.start()
        job_id = world.ask()
        await world.until(lambda: len(world.net.real) == 1)
        first = world.net.real[0]
        twin = RealRun("twin", first.handle, first.began, first.runs_for)
        world.net.real.append(twin)
        await world.until_state(job_id, JobState.RUNNING, 60)
        assert world.job(job_id).attempts[-1].run_id == first.run_id
        await world.until(lambda: not twin.alive(world.net.now()), 5)
        assert first.alive(world.net.now())
        await world.end()

    run(story())


def test_a_second_run_is_aborted_until_it_ends_and_is_no_stray() -> None:
    async def story() -> None:
        world = World("named", net_options={"strays": "report"})
        world.net.train_seconds = 10_000
        world.net.script["submit"] = ["lost_after"]
        world.net.script["find_run"] = ["away"]
        world.net.script["abort"] = ["ignored", "away", "ignored", "ignored"]
        world.start()
        job_id = world.ask()
        await world.until(lambda: len(world.net.real) == 1)
        first = world.net.real[0]
        twin = RealRun("twin", first.handle, first.began, first.runs_for)
        world.net.real.append(twin)
        await world.until_state(job_id, JobState.RUNNING, 60)
        await world.until(lambda: world.net.count("abort") == 4, 60)
        assert world.store.nets["net-1"].strays == ()
        await world.until(lambda: not twin.alive(world.net.now()), 60)
        assert {about for _, call, about in world.net.calls if call == "abort"} == {"twin"}
        await asyncio.sleep(5)
        assert world.supervisors[0][0].context.net_cache.unwanted("net-1") == set()
        assert first.alive(world.net.now())
        await world.end()

    run(story())


def test_a_run_that_a_late_answer_names_beside_the_reported_one_is_aborted() -> None:
    async def story() -> None:
        world = World("named")
        world.net.train_seconds = 10_000
        job_id = world.ask()

        def twin(net: FakeNet, made: RealRun) -> None:
            net.on_create = None
            net.real.append(RealRun("told", made.handle, made.began, made.runs_for))
            world.report(job_id, ModelStatus.RUNNING, "told")

        world.net.on_create = twin
        world.start()
        await world.until_state(job_id, JobState.RUNNING, 60)
        answered = world.net.real[0]
        await world.until(lambda: not answered.alive(world.net.now()), 30)
        assert world.job(job_id).attempts[-1].run_id == "told"
        assert world.net.real[1].alive(world.net.now())
        await world.end()

    run(story())


# --- before the submission ------------------------------------------------------------------------


def test_clients_that_went_away_give_the_net_back() -> None:
    async def story() -> None:
        world = World()
        world.start()
        await world.until(lambda: bool(world.store.nets))
        await asyncio.sleep(1)
        world.net.offline.add("net-1-slot-1")
        world.supervisors[0][0].context.net_cache._nets.clear()
        job_id = world.ask()
        await world.until(lambda: "RetryScheduled" in world.words(job_id), 30)
        job = world.job(job_id)
        assert world.code(job_id) == ReasonCode.CLIENTS_UNAVAILABLE
        assert "net-1-slot-1" in str(job.reason)
        world.net.offline.clear()
        await world.until_state(job_id, JobState.COMPLETED, 300)
        assert world.job(job_id).attempt_number == 1
        await world.end()

    run(story())


def _lose_a_member(world: World) -> None:
    members = {t: s for t, s in world.net.net.members.items() if s != "net-1-slot-1"}
    world.change_net("net-1", members=members)


def test_a_member_that_left_the_net_gives_it_back() -> None:
    async def story() -> None:
        world = World()
        world.bundles.seconds = 2.0
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.PREPARING)
        _lose_a_member(world)
        await world.until(lambda: "RetryScheduled" in world.words(job_id), 30)
        assert world.code(job_id) == ReasonCode.CLIENTS_UNAVAILABLE
        assert world.job(job_id).attempts[-1].reservation is ReservationState.RELEASED
        await asyncio.sleep(60)
        assert world.net.count("submit") == 0
        await world.end()

    run(story())


@pytest.mark.parametrize("kind", KINDS)
def test_a_submission_is_not_repeated_on_a_net_that_lost_a_member(kind: str) -> None:
    """Under a key, the first one may still arrive: its place is kept until the lists tell."""

    async def story() -> None:
        world = World(kind)
        world.net.script["submit"] = ["lost_before"]
        world.start()
        job_id = world.ask()
        await world.until(lambda: world.net.count("submit") == 1)
        _lose_a_member(world)
        keyed = kind == "keyed"
        word = "Failed" if keyed else "RetryScheduled"
        await world.until(lambda: word in world.words(job_id), 300)
        why = ReasonCode.SUBMIT_UNKNOWN if keyed else ReasonCode.CLIENTS_UNAVAILABLE
        assert world.code(job_id) == why
        assert world.net.count("submit") == 1
        await world.end()

    run(story())


def test_an_old_look_never_counts_against_a_client() -> None:
    async def story() -> None:
        world = World()
        supervisor = world.start(reconcile=False)
        await world.kit_look()
        world.net.offline.add("net-1-slot-1")
        await supervisor.context.net_cache.refresh(world.net)
        world.net.offline.clear()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING, 8)
        assert "RetryScheduled" not in world.words(job_id)
        await world.end()

    run(story())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Permanent("no file", code="required_file_missing"), "required_file_missing"),
        (Permanent("odd", code="something_else"), "internal_error"),
    ],
)
def test_a_bundle_that_can_never_be_staged_ends_the_job(error: Permanent, code: str) -> None:
    async def story() -> None:
        world = World()
        world.bundles.errors = [error]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.FAILED, 30)
        job = world.job(job_id)
        assert world.code(job_id) == code
        assert job.attempts[-1].reservation is ReservationState.RELEASED
        assert world.net.count("submit") == 0
        await world.end()

    run(story())


def test_a_store_that_is_away_gives_the_net_back() -> None:
    async def story() -> None:
        world = World()
        world.bundles.errors = [Transient("S3 is unavailable")]
        world.start()
        job_id = world.ask()
        await world.until(lambda: "RetryScheduled" in world.words(job_id), 30)
        job = world.job(job_id)
        assert world.code(job_id) == ReasonCode.ADAPTER_UNAVAILABLE
        assert "S3" in str(job.reason)
        await world.until_state(job_id, JobState.COMPLETED, 300)
        await world.end()

    run(story())


def test_a_manifest_that_is_away_at_staging_is_named_as_the_reason() -> None:
    async def story() -> None:
        world = World()
        world.bundles.errors = [Transient("no manifest", code=WaitingCode.MANIFEST_UNAVAILABLE)]
        world.start()
        job_id = world.ask()
        await world.until(lambda: "RetryScheduled" in world.words(job_id), 30)
        assert world.code(job_id) == ReasonCode.MANIFEST_UNAVAILABLE
        await world.until_state(job_id, JobState.COMPLETED, 300)
        assert world.job(job_id).attempt_number == 1
        await world.end()

    run(story())


def test_an_upload_without_an_answer_is_repeated() -> None:
    async def story() -> None:
        world = World()
        world.net.script["upload"] = ["lost", "away"]
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.RUNNING, 30)
        assert world.net.count("upload") == 3
        assert "RetryScheduled" not in world.words(job_id)
        await world.end()

    run(story())


def test_a_bug_in_a_driver_ends_its_job_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        world = World(capacity=2)
        broken, stage = world.ask(1), world.bundles.stage

        async def stage_or_break(request: Any, **more: Any) -> Any:
            if request.job_id == broken:
                raise ZeroDivisionError
            return await stage(request, **more)

        monkeypatch.setattr(world.bundles, "stage", stage_or_break)
        fine = world.ask(2)
        world.start()
        await world.until_state(broken, JobState.FAILED, 30)
        assert world.code(broken) == ReasonCode.INTERNAL_ERROR
        await world.until_state(fine, JobState.COMPLETED)
        await world.end()

    run(story())
