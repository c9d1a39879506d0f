"""What is heard and seen of a run, in any order and any number of times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import commands as c
from service.domain import events as e
from service.domain.enums import FLJobStatus, JobState, ModelStatus, ReasonCode, ReservationState
from service.domain.facts import JobLimits
from service.domain.values import Metric, Results
from tests.unit.domain.job_builder import (
    COMMANDS,
    JOB,
    NET,
    ORIGIN,
    PATH,
    REGISTRY,
    RESULTS,
    RUN,
    TRUSTS,
    JobBuilder,
    answer,
    job_in,
    request,
)

SLOTS = ("Trust_1", "Trust_2", "Trust_3")


def _round(word: str, number: int, slot: str | None = None) -> c.Command:
    return c.ReportRound(JOB, 1, ORIGIN, RUN, slot, event_type=word, global_round=number)


def _status(status: ModelStatus, results: Results | None = None) -> c.Command:
    return c.ReportStatus(JOB, 1, ORIGIN, RUN, status=status, results=results)


def _loss(number: int, slot: str) -> c.Command:
    return c.ReportMetrics(JOB, 1, ORIGIN, RUN, slot, (Metric("loss", 1 / number, number),))


#: Everything that a run of two rounds reports but its end.
TOLD: list[c.Command] = [_status(ModelStatus.PREPARED), _status(ModelStatus.RUNNING)] + [
    command
    for number in (1, 2)
    for command in (
        _round("ROUND_STARTED", number),
        *(_round("CLIENT_RESULT_RECEIVED", number, slot) for slot in SLOTS[:2]),
        _round("CLIENT_FAILED", number, SLOTS[2]),
        *(_loss(number, slot) for slot in SLOTS),
        _round("ROUND_AGGREGATED", number),
    )
]
ENDS = {
    "completed": _status(ModelStatus.RESULTS_UPLOADED, RESULTS),
    "failed": _status(ModelStatus.ERROR),
}
Order = tuple[list[c.Command], list[c.Command], Random]
orders: st.SearchStrategy[Order] = st.tuples(
    st.permutations(TOLD), st.lists(st.sampled_from(TOLD), max_size=12), st.randoms()
)


def _shuffled(order: Order) -> list[c.Command]:
    told, again, rng = order
    mixed = [*told, *again]
    rng.shuffle(mixed)
    return mixed


@settings(max_examples=150, deadline=None)
@given(orders)
def test_any_order_of_the_same_reports_tells_the_same_progress(
    order: Order,
) -> None:
    builder = job_in("submitting")
    for command in _shuffled(order):
        builder.do(command)
    job = builder.there
    assert (job.state, job.model_status) == (JobState.RUNNING, ModelStatus.RUNNING)
    progress = job.progress
    assert (progress.round, progress.aggregated) == (2, 2)
    assert [(s.slot, s.global_round, s.state) for s in progress.sites] == [
        ("Trust_1", 2, "returned"),
        ("Trust_2", 2, "returned"),
        ("Trust_3", 2, "failed"),
    ]
    assert {(m.fl_client_name, m.global_round) for m in progress.metrics} == {
        (slot, 2) for slot in SLOTS
    }
    assert builder.published().count("running") == 1
    assert builder.published().count("round_aggregated") <= 2
    assert job.sequence == len(builder.published())


@settings(max_examples=150, deadline=None)
@given(orders, st.sampled_from(sorted(ENDS)), st.integers(0, 3))
def test_any_order_around_the_end_comes_to_the_same_end(
    order: Order, end: str, repeats: int
) -> None:
    """Reports after the end, before it, and the end again: one terminal event, nothing after it."""
    builder = job_in("submitting")
    mixed = _shuffled(order)
    mixed[len(mixed) // 2 : len(mixed) // 2] = [ENDS[end]] * (1 + repeats)
    for command in mixed:
        builder.do(command)
    assert builder.there.state == end
    assert builder.published()[-1] == end
    assert builder.published().count(end) == 1
    assert builder.there.sequence == len(builder.published())
    assert builder.there.attempts[0].reservation is ReservationState.QUARANTINED
    assert builder.run("see finished").there.attempts[0].reservation is ReservationState.RELEASED


_ANYTHING = st.lists(st.sampled_from(sorted(COMMANDS)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(_ANYTHING, st.lists(st.integers(0, 4_000), min_size=40, max_size=40))
def test_no_sequence_of_commands_breaks_an_invariant(names: list[str], pauses: list[int]) -> None:
    """`JobBuilder.do` checks the graph, the numbering and the end at every step."""
    builder = JobBuilder()
    stopped = False
    for name, pause in zip(names, pauses, strict=False):
        builder.pass_seconds(pause)
        opened = len([x for x in builder.events if type(x).__name__ == "SubmissionOpened"])
        builder.do(COMMANDS[name](builder))
        if stopped:
            now = len([x for x in builder.events if type(x).__name__ == "SubmissionOpened"])
            assert now == opened, "submitted after a stop"
        stopped = builder.job is not None and builder.job.stop is not None
    numbers = [a.number for a in builder.job.attempts] if builder.job else []
    assert numbers == list(range(1, len(numbers) + 1))
    assert (
        sum(
            builder.published().count(end) for end in ("completed", "failed", "stopped", "rejected")
        )
        <= 1
    )


def test_a_repeated_step_changes_nothing() -> None:
    """An unknown COMMIT is answered by sending the command again."""
    for state, name in (
        ("queued", "claim"),
        ("submitting", "know run"),
        ("preparing", "give back"),
        ("collecting", "store results"),
        ("submitting", "fail"),
    ):
        builder = job_in(state)
        command = COMMANDS[name](builder)
        builder.do(command)
        before = builder.there
        builder.do(command)
        assert builder.there == before, name


def test_a_report_proves_that_the_submit_arrived() -> None:
    builder = job_in("submitting").run("round")
    assert builder.published()[-3:] == ["submitted", "running", "round_started"]
    assert builder.there.attempts[0].run_id == RUN
    assert builder.there.lease is None


REPORTS: dict[str, dict[str, object]] = {
    "error": {"status": ModelStatus.ERROR},
    "results": {"status": ModelStatus.RESULTS_UPLOADED, "results": RESULTS},
    "upload failed": {"status": ModelStatus.RESULTS_UPLOAD_FAILED},
    "stopped": {"status": ModelStatus.STOPPED},
    "round": {"event_type": "ROUND_STARTED", "global_round": 1},
    "client failed": {"event_type": "CLIENT_FAILED", "global_round": 1, "fl_client_name": SLOTS[0]},
    "metrics": {"metrics": (Metric("loss", 0.5, 1, SLOTS[0]),)},
    "log": {"log": "a line"},
}


def _report(what: str, run_id: str | None, path_id: UUID | None = None) -> c.Command:
    fields: dict[str, Any] = REPORTS[what]
    kind: dict[str, Callable[..., c.Command]] = {
        "status": c.ReportStatus,
        "event_type": c.ReportRound,
        "metrics": c.ReportMetrics,
    }
    make = next((k for name, k in kind.items() if name in fields), c.ReportLog)
    return make(JOB, 1, ORIGIN, run_id=run_id, path_id=path_id, **fields)


@pytest.mark.parametrize("state", ["running pending", "running", "collecting", "stopping"])
@pytest.mark.parametrize("what", REPORTS)
def test_another_run_of_the_attempt_changes_nothing(state: str, what: str) -> None:
    builder = job_in(state)
    before = builder.there
    for path_id in (None, PATH):
        decision = builder.do(_report(what, "run-of-somebody", path_id))
        assert answer(decision) == "ignored:other_run"
        assert builder.there == before


@pytest.mark.parametrize("what", REPORTS)
@pytest.mark.parametrize("state", ["submitting", "stopping unsubmitted", "running provisional"])
def test_a_run_not_known_for_certain_is_told_by_its_path_id(state: str, what: str) -> None:
    def start() -> JobBuilder:
        if state != "running provisional":
            return job_in(state)
        builder = job_in("submitting")
        builder.do(c.RecordRun(JOB, 1, PATH, "guess", provisional=True))
        return builder

    builder = start()
    before = builder.there
    assert answer(builder.do(_report(what, "run-9", TRUSTS[0]))) == "ignored:other_run"
    assert answer(builder.do(_report(what, None, TRUSTS[0]))) == "ignored:other_run"
    assert builder.there == before
    for path_id in (PATH, None, builder.there.accepted_request.model_id):
        builder = start()
        builder.do(_report(what, "run-9", path_id))
        attempt = builder.there.attempts[0]
        assert (attempt.run_id, attempt.provisional) == ("run-9", False)


def test_an_earlier_submission_of_the_attempt_is_its_own() -> None:
    builder = job_in("submitting")
    again = replace(builder.submission(), number=2, path_id=TRUSTS[1], earlier_paths=(PATH,))
    builder.do(c.OpenSubmission(JOB, 1, builder.token, again))
    assert builder.do(_report("round", "run-9", PATH)).events
    assert builder.there.attempts[0].run_id == "run-9"


def test_a_known_run_counts_whatever_path_it_names() -> None:
    """An adapter that knows keys may name a run of a lease before, under its own path."""
    builder = job_in("running")
    assert builder.do(_report("round", RUN, TRUSTS[0])).events
    assert builder.do(_report("round", None, TRUSTS[0])).events == ()


def test_a_site_that_fails_before_the_first_round_is_told_with_its_cause() -> None:
    builder = job_in("running pending")
    failed = c.ReportRound(
        JOB, 1, ORIGIN, RUN, SLOTS[1], event_type="CLIENT_FAILED", details={"cause": "no data"}
    )
    assert answer(builder.do(failed)) == "RoundReported"
    event = builder.events[-1]
    assert isinstance(event, e.RoundReported)
    assert event.event_name == "client_failed"
    assert (event.global_round, event.trust_id, event.slot) == (0, TRUSTS[1], SLOTS[1])
    assert (event.details, event.site_detail) == ({"cause": "no data"}, "no data")
    site = builder.there.progress.sites[0]
    assert (site.slot, site.state, site.detail) == (SLOTS[1], "failed", "no data")
    assert builder.there.model_status is ModelStatus.INITIATED, "nothing trains yet"
    builder.do(failed)
    assert builder.published().count("client_failed") == 1
    assert "log_recorded" not in builder.published()


def test_such_a_failure_heard_after_its_site_was_in_a_round_keeps_its_cause() -> None:
    builder = job_in("running")
    builder.do(_round("CLIENT_RESULT_RECEIVED", 1, SLOTS[1]))
    builder.do(
        c.ReportRound(
            JOB, 1, ORIGIN, RUN, SLOTS[1], event_type="CLIENT_FAILED", details={"cause": "no data"}
        )
    )
    event = builder.events[-1]
    assert isinstance(event, e.LogRecorded)
    assert event.success is False
    assert "Trust_2" in event.log
    assert "no data" in event.log
    assert builder.there.progress.sites[0].state == "returned"


@pytest.mark.parametrize("field", ["error", "cause", "detail"])
def test_a_failed_site_shows_the_cause_that_its_report_names(field: str) -> None:
    builder = job_in("running")
    builder.do(
        c.ReportRound(
            JOB,
            1,
            ORIGIN,
            RUN,
            SLOTS[0],
            event_type="CLIENT_FAILED",
            global_round=1,
            details={"error": None, field: "ran out of memory" + "!" * 600},
        )
    )
    detail = builder.there.progress.sites[0].detail
    assert detail is not None
    assert detail.startswith("ran out of memory")
    assert len(detail) == 500


def test_rounds_only_move_forward() -> None:
    builder = job_in("running")
    for number in (3, 1, 2, 3):
        builder.do(_round("ROUND_STARTED", number))
    assert builder.published().count("round_started") == 1
    assert builder.there.progress.round == 3


@pytest.mark.parametrize("state", ["running pending", "running", "completed freed", "stopped"])
@pytest.mark.parametrize("status", list(FLJobStatus))
def test_an_old_list_judges_nothing(state: str, status: FLJobStatus) -> None:
    """The attempt moved while the adapter was asked."""
    builder = job_in(state)
    began = builder.there.attempts[0].changed_at - timedelta(seconds=1)
    before = builder.there
    for old in (
        c.ObserveRun(JOB, 1, RUN, status, None, began),
        c.ObserveRunMissing(JOB, 1, RUN, began),
    ):
        assert answer(builder.do(old)) == "ignored:old_list"
        assert builder.there == before


@pytest.mark.parametrize("state", ["completed", "failed", "collecting"])
def test_an_absent_run_frees_the_place_of_a_job_that_needs_it_no_more(state: str) -> None:
    builder = job_in(state)
    told, before = builder.published(), builder.there.state
    reservations = []
    for _ in range(2):
        builder.run("miss")
        reservations.append(builder.there.attempts[0].reservation)
    assert reservations[0] is not ReservationState.RELEASED
    assert reservations[1] is ReservationState.RELEASED
    assert (builder.there.state, builder.published()) == (before, told)


def test_a_run_is_lost_after_several_lists_and_a_grace_from_the_first_miss() -> None:
    builder = job_in("running").run("miss")
    assert builder.there.state is JobState.RUNNING
    builder.run("see running")
    assert builder.there.attempts[0].missing_polls == 0
    builder.run("miss", "miss")
    assert builder.published()[-1] == "retry_scheduled"


def _delayed(builder: JobBuilder, times: int) -> None:
    for _ in range(times):
        if builder.there.state is JobState.COLLECTING:
            builder.pass_seconds(1_000)
            if builder.there.lease is None:
                builder.run("take lease")
            builder.run("delay")


@pytest.mark.parametrize(
    ("limits", "tries"),
    [
        (JobLimits(collect_seconds=30_000), 30),
        (JobLimits(collect_tries=20), 20),
        (JobLimits(), 259),
    ],
)
def test_results_that_cannot_be_had_end_the_job_after_their_time(
    limits: JobLimits, tries: int
) -> None:
    builder = job_in("collecting", limits=limits)
    _delayed(builder, tries - 2)
    assert builder.there.state is JobState.COLLECTING
    assert builder.there.reason is not None
    assert builder.there.reason.message == "so it is"
    _delayed(builder, 3)
    job = builder.there
    assert job.state is JobState.FAILED
    assert job.reason is not None
    assert job.reason.code == ReasonCode.RESULTS_UPLOAD_FAILED
    assert job.model_status is ModelStatus.RESULTS_UPLOAD_FAILED
    assert builder.published().count("log_recorded") <= 10  # why, ever more seldom


def test_results_are_fetched_ever_more_seldom() -> None:
    builder = job_in("collecting")
    pauses = []
    for _ in range(12):
        builder.run("delay")
        assert builder.there.next_try_at is not None
        pauses.append((builder.there.next_try_at - builder.now).total_seconds())
        builder.now = builder.there.next_try_at
        builder.run("take lease")
    assert pauses[0] < 10 < pauses[3] < pauses[5] < builder.limits.backoff_max_seconds * 1.3
    assert all(pause >= builder.limits.backoff_max_seconds for pause in pauses[7:])


def test_delayed_results_are_fetched_at_once_when_somebody_wants_it() -> None:
    builder = job_in("collecting")
    _delayed(builder, 5)
    assert builder.there.next_try_at is not None
    builder.run("collect now")
    job = builder.there
    assert (job.next_try_at, job.tries) == (None, 0)


def test_results_had_after_all_stand_in_the_state_and_end_nothing_twice() -> None:
    builder = job_in("running").run("upload failed")
    told = builder.published()
    builder.run("record results")
    assert builder.there.results == RESULTS
    assert (builder.there.state, builder.published()) == (JobState.FAILED, told)
    assert answer(builder.do(COMMANDS["record results"](builder))) == "ignored:known"


OURS, THEIRS = "s3://results/", "s3://elsewhere/models/"


@pytest.mark.parametrize(
    ("uri", "at_once"),
    [
        ("s3://results/x.zip", True),
        ("s3://elsewhere/models/x.zip", True),
        ("s3://elsewhere/x.zip", False),
        ("s3://results.evil/x.zip", False),
        ("s3://results/../other/x.zip", False),
        ("file:///etc/passwd", False),
    ],
)
def test_results_complete_a_job_at_once_where_somebody_vouches_for_their_place(
    uri: str, at_once: bool
) -> None:
    net = replace(NET, results=(THEIRS,))
    builder = job_in("running", registry=replace(REGISTRY, nets={NET.name: net}), place=OURS)
    builder.do(_status(ModelStatus.RESULTS_UPLOADED, Results(uri)))
    if at_once:
        assert builder.there.state is JobState.COMPLETED
        return
    assert builder.there.state is JobState.COLLECTING
    other = job_in("running", registry=builder.registry, place=OURS)
    other.do(_status(ModelStatus.RESULTS_UPLOADED, Results(uri)))
    builder.run("take lease")
    builder.do(c.StoreResults(JOB, 1, builder.token, None, "the net has none"))
    end = builder.events[-1]
    assert isinstance(end, e.Completed)
    assert (end.results, bool(end.note)) == (Results(uri), True)
    other.run("take lease", "store results")
    assert (other.there.results, getattr(other.events[-1], "note", "")) == (RESULTS, None)


@pytest.mark.parametrize(
    ("state", "more", "seconds", "code"),
    [
        ("running pending", {}, 3_600, ReasonCode.PENDING_EXCEEDED),
        ("running", {"max_runtime_seconds": 60}, 70, ReasonCode.RUNTIME_EXCEEDED),
        ("running", {"max_stall_seconds": 60}, 70, ReasonCode.NO_PROGRESS),
        ("running", {}, 7_300, ReasonCode.NO_PROGRESS),
        ("running", {}, 0, None),
    ],
)
def test_limits_end_a_run_and_keep_its_place(
    state: str, more: dict[str, int], seconds: int, code: ReasonCode | None
) -> None:
    builder = job_in(state, asked=request(**more))
    due = builder.there.due_at
    builder.pass_seconds(seconds)
    builder.run("review")
    if code is None:
        assert builder.there.state is JobState.RUNNING
        return
    assert due is not None
    assert due <= builder.now, "a limit would have been looked at too late"
    assert builder.there.state is JobState.FAILED
    assert builder.there.reason is not None
    assert builder.there.reason.code == code
    assert builder.there.attempts[0].reservation is ReservationState.QUARANTINED


@pytest.mark.parametrize("sign", ["round", "metrics", "log", "running"])
def test_any_sign_of_life_puts_the_stall_limit_off(sign: str) -> None:
    builder = job_in("running", asked=request(max_stall_seconds=60))
    builder.pass_seconds(50)
    builder.run(sign)
    builder.pass_seconds(50)
    builder.run("review")
    assert builder.there.state is JobState.RUNNING
    builder.pass_seconds(20)
    assert builder.run("review").there.state is JobState.FAILED


def test_the_end_tells_all_that_a_reader_needs() -> None:
    builder = job_in("running")
    for command in TOLD:
        builder.do(command)
    builder.run("uploaded with results")
    job, done = builder.there, builder.events[-1]
    assert job.results == RESULTS
    assert getattr(done, "rounds", None) == 2
    assert len(getattr(done, "metrics", ())) == 3
    assert getattr(done, "bundle_sha256", None) == "d"


def _see(builder: JobBuilder, status: FLJobStatus | None = FLJobStatus.RUNNING) -> None:
    builder.do(
        c.ObserveRun(
            JOB, builder.attempt, RUN, status, None, builder.now + timedelta(milliseconds=500)
        )
    )


def _miss(builder: JobBuilder) -> None:
    builder.do(
        c.ObserveRunMissing(JOB, builder.attempt, RUN, builder.now + timedelta(milliseconds=500))
    )


@pytest.mark.parametrize("status", [FLJobStatus.RUNNING, FLJobStatus.PENDING, None])
@pytest.mark.parametrize("state", ["running", "collecting", "stopping", "completed", "failed"])
def test_only_misses_that_follow_each_other_end_a_run(
    state: str, status: FLJobStatus | None
) -> None:
    builder = job_in(state)
    before = builder.there.state
    for _ in range(5):
        builder.pass_seconds(100)
        _miss(builder)
        builder.pass_seconds(100)
        _see(builder, status)
        assert builder.there.attempts[-1].missing_polls == 0
        assert builder.there.attempts[-1].missing_since is None
        assert builder.there.attempts[-1].reservation is not ReservationState.RELEASED
    assert builder.there.state is before


def test_a_run_that_lives_again_after_its_place_was_freed_needs_a_whole_series_of_misses() -> None:
    builder = job_in("failed")
    for _ in range(2):
        builder.pass_seconds(10)
        _miss(builder)
    assert builder.there.attempts[-1].reservation is ReservationState.RELEASED
    _see(builder)
    orphan = builder.there.attempts[-1]
    assert orphan.reservation is ReservationState.QUARANTINED
    builder.pass_seconds(1000)
    _miss(builder)
    orphan = builder.there.attempts[-1]
    assert orphan.reservation is ReservationState.QUARANTINED


def test_one_list_is_one_miss_however_often_it_is_told() -> None:
    builder = job_in("running")
    told = c.ObserveRunMissing(JOB, builder.attempt, RUN, builder.now)
    older = c.ObserveRunMissing(JOB, builder.attempt, RUN, builder.now - timedelta(milliseconds=1))
    builder.do(told)
    builder.pass_seconds(1000)
    for again in (told, older, told):
        assert answer(builder.do(again)) == "ignored:old_list"
    assert builder.there.attempts[-1].missing_polls == 1


def test_an_end_in_the_list_ends_the_series_of_misses_too() -> None:
    builder = job_in("running")
    _miss(builder)
    _see(builder, FLJobStatus.FINISHED)
    assert builder.there.state is JobState.COLLECTING
    assert builder.there.attempts[-1].missing_polls == 0
