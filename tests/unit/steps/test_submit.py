"""Submitting: the commitment before the call, lost answers, busy adapters, nets in doubt, takeovers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from service.domain.enums import JobState, ModelStatus, ReasonCode, ReservationState, WaitingCode
from service.errors import Permanent, Transient
from service.steps.options import StepOptions
from tests.unit.steps.sim.fake_net import FakeNet, RealRun
from tests.unit.steps.sim.harness import Simulation
from tests.unit.steps.sim.virtual_time import run

KINDS = ["keyed", "named", "plain"]


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", ["lost_after", "late"])
async def test_a_run_whose_answer_was_lost_is_adopted(kind: str, lost: str) -> None:
    sim = Simulation(kind)
    sim.net.script["submit"] = [lost]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COMPLETED, 300)
    assert len(sim.net.real) == 1
    attempt = sim.job(job_id).attempts[-1]
    assert attempt.run_id == sim.net.real[0].run_id
    assert attempt.number == 1
    assert attempt.provisional is (kind == "plain")
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", KINDS)
async def test_a_submit_that_created_nothing_is_sent_again_under_a_new_path(kind: str) -> None:
    sim = Simulation(kind)
    sim.net.script["submit"] = ["lost_before"]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COMPLETED, 300)
    attempt = sim.job(job_id).attempts[-1]
    assert attempt.number == 1
    assert attempt.submission is not None
    assert len(attempt.submission.earlier_paths) == 1
    assert attempt.submission.path_id not in attempt.submission.earlier_paths
    assert attempt.submission.key == f"{job_id}:1"
    fenced = set(attempt.submission.earlier_paths)
    assert sim.net.fenced == (set() if kind == "keyed" else fenced)
    await sim.end()


@pytest.mark.virtual_time
async def test_an_adapter_that_fails_for_minutes_costs_no_job() -> None:
    sim = Simulation()
    sim.net.script["submit"] = ["lost_before"] * 9
    sim.start()
    job_id = sim.ask()
    took = await sim.until_state(job_id, JobState.RUNNING, 300)
    assert took > 60
    assert sim.job(job_id).attempt_number == 1
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", ["keyed", "named"])
async def test_submissions_of_an_attempt_are_bounded(kind: str) -> None:
    sim = Simulation(kind, options=StepOptions(most_submissions=3))
    sim.net.script["submit"] = ["lost_before"] * 3
    sim.start()
    job_id = sim.ask()
    words = ("Failed", "RetryScheduled")
    await sim.until(lambda: any(w in sim.words(job_id) for w in words), 300)
    assert sim.net.count("submit") == 3
    keyed = kind == "keyed"
    unknown, busy = ReasonCode.SUBMIT_UNKNOWN, ReasonCode.ADAPTER_UNAVAILABLE
    assert sim.code(job_id) == (unknown if keyed else busy)
    await sim.end()


@pytest.mark.virtual_time
async def test_a_late_first_submit_is_fenced_where_no_key_holds_it() -> None:
    """A worker stopped just before its POST wakes after another one submitted again."""

    sim = Simulation("named")
    sim.net.script["submit"] = ["lost_before"]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING, 300)
    first = sim.net.real[0].handle
    assert first is not None
    stale = replace(first, path_id=first.earlier_paths[0], earlier_paths=())
    assert sim.net.create(stale) is None
    await sim.end()


@pytest.mark.virtual_time
async def test_the_submission_is_committed_before_the_call() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") == 1)
    assert sim.state(job_id) is JobState.SUBMITTING
    submission = sim.job(job_id).attempts[-1].submission
    assert submission is not None
    assert str(submission.path_id) == sim.net.calls[-1][2]
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("fault", ["busy", "away"])
async def test_an_adapter_that_took_nothing_is_asked_again_in_place(fault: str) -> None:
    sim = Simulation()
    sim.net.script["submit"] = [fault, fault]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING, 10)
    assert "RetryScheduled" not in sim.words(job_id)
    await sim.end()


@pytest.mark.virtual_time
async def test_an_adapter_that_stays_busy_gives_the_net_back_and_burns_no_attempt() -> None:
    sim = Simulation(options=StepOptions(call_tries=3))
    sim.net.script["submit"] = ["busy"] * 3
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: "RetryScheduled" in sim.words(job_id), 30)
    assert sim.code(job_id) == ReasonCode.ADAPTER_UNAVAILABLE
    await sim.until_state(job_id, JobState.COMPLETED, 300)
    assert sim.job(job_id).attempt_number == 1
    assert len(sim.net.real) == 1
    await sim.end()


@pytest.mark.virtual_time
async def test_a_refusal_ends_the_job_with_the_adapters_reason() -> None:
    sim = Simulation()
    sim.net.script["submit"] = ["rejected"]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.FAILED, 10)
    job = sim.job(job_id)
    assert sim.code(job_id) == ReasonCode.ADAPTER_REJECTED
    assert job.attempts[-1].reservation is ReservationState.RELEASED
    await sim.end()


@pytest.mark.virtual_time
async def test_an_outcome_that_nobody_can_tell_ends_as_submit_unknown_and_blocks_the_net() -> None:
    sim = Simulation(options=StepOptions(submit_unknown_seconds=60))
    sim.net.script["submit"] = ["lost_after"]
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") == 1)
    sim.net.down = True
    await sim.until_state(job_id, JobState.FAILED, 100)
    job = sim.job(job_id)
    assert sim.code(job_id) == ReasonCode.SUBMIT_UNKNOWN
    assert job.attempts[-1].reservation is ReservationState.QUARANTINED
    assert sim.store.now_of_nets()["net-1"].in_doubt
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", ["lost_after", "lost_before"])
async def test_a_blocked_net_is_freed_by_evidence(kind: str, lost: str) -> None:
    sim = Simulation(kind, options=StepOptions(submit_unknown_seconds=60))
    sim.net.train_seconds = 10_000
    sim.net.script["submit"] = [lost]
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") == 1)
    sim.net.down = True
    await sim.until_state(job_id, JobState.FAILED, 120)
    sim.net.down = False
    await sim.until(
        lambda: sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED, 300
    )
    assert sim.net.alive() == []
    await sim.end()


@pytest.mark.virtual_time
async def test_a_second_submission_waits_while_the_first_is_open() -> None:
    sim = Simulation("named", capacity=2)
    sim.net.script["submit"] = ["late"]
    sim.start()
    first, second = sim.ask(1), sim.ask(2)
    await sim.until(lambda: sim.net.count("submit") == 1)
    await sim.until(lambda: JobState.PREPARING in (sim.state(first), sim.state(second)))
    await sim.until(lambda: all(sim.state(j) is JobState.RUNNING for j in (first, second)), 60)
    assert len(sim.net.real) == 2
    await sim.end()


@pytest.mark.virtual_time
async def test_a_run_of_another_job_of_ours_is_never_adopted_by_difference() -> None:
    """The second job's list was taken before the first one's run began."""

    sim = Simulation("plain", capacity=2)
    sim.net.train_seconds = 100
    sim.net.script["submit"] = ["", "lost_before"]
    sim.start()
    jobs = [sim.ask(1), sim.ask(2)]
    await sim.until(lambda: all(sim.state(j) is JobState.RUNNING for j in jobs), 300)
    runs = {sim.job(j).attempts[-1].run_id for j in jobs}
    assert len(runs) == 2
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_killed_in_its_call_leaves_one_run(kind: str) -> None:
    sim = Simulation(kind)
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.state(job_id) is JobState.SUBMITTING)
    sim.kill(0)
    await asyncio.sleep(15)
    sim.start()
    await sim.until_state(job_id, JobState.COMPLETED, 300)
    assert len(sim.net.real) == 1
    assert sim.job(job_id).attempt_number == 1
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_stopped_past_its_lease_changes_nothing_when_it_wakes(kind: str) -> None:
    sim = Simulation(kind)
    sim.net.train_seconds = 300
    sim.bundles.seconds = 1.0
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.PREPARING)
    sim.kill(0)
    await asyncio.sleep(12)
    sim.start()
    await sim.until_state(job_id, JobState.RUNNING, 300)
    sequence = sim.job(job_id).sequence
    sim.wake(0)
    await asyncio.sleep(30)
    assert len(sim.net.real) == 1
    assert sim.job(job_id).sequence - sequence <= 1  # `running` alone
    assert sim.state(job_id) is JobState.RUNNING
    await sim.end()


@pytest.mark.virtual_time
async def test_a_second_run_of_a_submission_is_aborted() -> None:
    sim = Simulation("named")
    sim.net.script["submit"] = ["lost_after"]
    sim.net.script["find_run"] = ["away"]
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: len(sim.net.real) == 1)
    first = sim.net.real[0]
    twin = RealRun("twin", first.handle, first.began, first.runs_for)
    sim.net.real.append(twin)
    await sim.until_state(job_id, JobState.RUNNING, 60)
    assert sim.job(job_id).attempts[-1].run_id == first.run_id
    await sim.until(lambda: not twin.alive(sim.net.now()), 5)
    assert first.alive(sim.net.now())
    await sim.end()


@pytest.mark.virtual_time
async def test_a_second_run_is_aborted_until_it_ends_and_is_no_stray() -> None:
    sim = Simulation("named", net_options={"strays": "report"})
    sim.net.train_seconds = 10_000
    sim.net.script["submit"] = ["lost_after"]
    sim.net.script["find_run"] = ["away"]
    sim.net.script["abort"] = ["ignored", "away", "ignored", "ignored"]
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: len(sim.net.real) == 1)
    first = sim.net.real[0]
    twin = RealRun("twin", first.handle, first.began, first.runs_for)
    sim.net.real.append(twin)
    await sim.until_state(job_id, JobState.RUNNING, 60)
    await sim.until(lambda: sim.net.count("abort") == 4, 60)
    assert sim.store.nets["net-1"].strays == ()
    await sim.until(lambda: not twin.alive(sim.net.now()), 60)
    assert {about for _, call, about in sim.net.calls if call == "abort"} == {"twin"}
    await asyncio.sleep(5)
    assert sim.supervisors[0][0].context.net_cache.unwanted("net-1") == set()
    assert first.alive(sim.net.now())
    await sim.end()


@pytest.mark.virtual_time
async def test_a_run_that_a_late_answer_names_beside_the_reported_one_is_aborted() -> None:
    sim = Simulation("named")
    sim.net.train_seconds = 10_000
    job_id = sim.ask()

    def twin(net: FakeNet, made: RealRun) -> None:
        net.on_create = None
        net.real.append(RealRun("told", made.handle, made.began, made.runs_for))
        sim.report(job_id, ModelStatus.RUNNING, "told")

    sim.net.on_create = twin
    sim.start()
    await sim.until_state(job_id, JobState.RUNNING, 60)
    answered = sim.net.real[0]
    await sim.until(lambda: not answered.alive(sim.net.now()), 30)
    assert sim.job(job_id).attempts[-1].run_id == "told"
    assert sim.net.real[1].alive(sim.net.now())
    await sim.end()


# --- before the submission ------------------------------------------------------------------------


@pytest.mark.virtual_time
async def test_clients_that_went_away_give_the_net_back() -> None:
    sim = Simulation()
    sim.start()
    await sim.until(lambda: bool(sim.store.nets))
    await asyncio.sleep(1)
    sim.net.offline.add("net-1-slot-1")
    sim.supervisors[0][0].context.net_cache._nets.clear()
    job_id = sim.ask()
    await sim.until(lambda: "RetryScheduled" in sim.words(job_id), 30)
    job = sim.job(job_id)
    assert sim.code(job_id) == ReasonCode.CLIENTS_UNAVAILABLE
    assert "net-1-slot-1" in str(job.reason)
    sim.net.offline.clear()
    await sim.until_state(job_id, JobState.COMPLETED, 300)
    assert sim.job(job_id).attempt_number == 1
    await sim.end()


def _lose_a_member(sim: Simulation) -> None:
    members = {t: s for t, s in sim.net.net.members.items() if s != "net-1-slot-1"}
    sim.change_net("net-1", members=members)


@pytest.mark.virtual_time
async def test_a_member_that_left_the_net_gives_it_back() -> None:
    sim = Simulation()
    sim.bundles.seconds = 2.0
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.PREPARING)
    _lose_a_member(sim)
    await sim.until(lambda: "RetryScheduled" in sim.words(job_id), 30)
    assert sim.code(job_id) == ReasonCode.CLIENTS_UNAVAILABLE
    assert sim.job(job_id).attempts[-1].reservation is ReservationState.RELEASED
    await asyncio.sleep(60)
    assert sim.net.count("submit") == 0
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", KINDS)
async def test_a_submission_is_not_repeated_on_a_net_that_lost_a_member(kind: str) -> None:
    """Under a key, the first one may still arrive: its place is kept until the lists tell."""

    sim = Simulation(kind)
    sim.net.script["submit"] = ["lost_before"]
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: sim.net.count("submit") == 1)
    _lose_a_member(sim)
    keyed = kind == "keyed"
    word = "Failed" if keyed else "RetryScheduled"
    await sim.until(lambda: word in sim.words(job_id), 300)
    why = ReasonCode.SUBMIT_UNKNOWN if keyed else ReasonCode.CLIENTS_UNAVAILABLE
    assert sim.code(job_id) == why
    assert sim.net.count("submit") == 1
    await sim.end()


@pytest.mark.virtual_time
async def test_an_old_look_never_counts_against_a_client() -> None:
    sim = Simulation()
    supervisor = sim.start(reconcile=False)
    await sim.kit_look()
    sim.net.offline.add("net-1-slot-1")
    context = supervisor.context
    await context.net_cache.refresh(context.nets.client("net-1"))
    sim.net.offline.clear()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING, 8)
    assert "RetryScheduled" not in sim.words(job_id)
    await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Permanent("no file", code="required_file_missing"), "required_file_missing"),
        (Permanent("odd", code="something_else"), "internal_error"),
    ],
)
async def test_a_bundle_that_can_never_be_staged_ends_the_job(error: Permanent, code: str) -> None:
    sim = Simulation()
    sim.bundles.errors = [error]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.FAILED, 30)
    job = sim.job(job_id)
    assert sim.code(job_id) == code
    assert job.attempts[-1].reservation is ReservationState.RELEASED
    assert sim.net.count("submit") == 0
    await sim.end()


@pytest.mark.virtual_time
async def test_a_store_that_is_away_gives_the_net_back() -> None:
    sim = Simulation()
    sim.bundles.errors = [Transient("S3 is unavailable")]
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: "RetryScheduled" in sim.words(job_id), 30)
    job = sim.job(job_id)
    assert sim.code(job_id) == ReasonCode.ADAPTER_UNAVAILABLE
    assert "S3" in str(job.reason)
    await sim.until_state(job_id, JobState.COMPLETED, 300)
    await sim.end()


@pytest.mark.virtual_time
async def test_a_manifest_that_is_away_at_staging_is_named_as_the_reason() -> None:
    sim = Simulation()
    sim.bundles.errors = [Transient("no manifest", code=WaitingCode.MANIFEST_UNAVAILABLE)]
    sim.start()
    job_id = sim.ask()
    await sim.until(lambda: "RetryScheduled" in sim.words(job_id), 30)
    assert sim.code(job_id) == ReasonCode.MANIFEST_UNAVAILABLE
    await sim.until_state(job_id, JobState.COMPLETED, 300)
    assert sim.job(job_id).attempt_number == 1
    await sim.end()


@pytest.mark.virtual_time
async def test_an_upload_without_an_answer_is_repeated() -> None:
    sim = Simulation()
    sim.net.script["upload"] = ["lost", "away"]
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING, 30)
    assert sim.net.count("upload") == 3
    assert "RetryScheduled" not in sim.words(job_id)
    await sim.end()


def test_a_bug_in_a_driver_ends_its_job_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        sim = Simulation(capacity=2)
        broken, stage = sim.ask(1), sim.bundles.stage

        async def stage_or_break(request: Any, **more: Any) -> Any:
            if request.job_id == broken:
                raise ZeroDivisionError
            return await stage(request, **more)

        monkeypatch.setattr(sim.bundles, "stage", stage_or_break)
        fine = sim.ask(2)
        sim.start()
        await sim.until_state(broken, JobState.FAILED, 30)
        assert sim.code(broken) == ReasonCode.INTERNAL_ERROR
        await sim.until_state(fine, JobState.COMPLETED)
        await sim.end()

    run(story())
