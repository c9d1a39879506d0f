"""What is heard and seen of a run, in any order and any number of times."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import commands as c
from service.domain import events as e
from service.domain.enums import FLJobStatus, JobState, ModelStatus, ReasonCode, ReservationState
from service.domain.values import Metric, Results
from tests.unit.domain_life import (
    COMMANDS,
    JOB,
    ORIGIN,
    PATH,
    RESULTS,
    RUN,
    TRUSTS,
    Life,
    answer,
    life_in,
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
orders = st.tuples(
    st.permutations(TOLD), st.lists(st.sampled_from(TOLD), max_size=12), st.randoms()
)


def _shuffled(order: tuple[list[c.Command], list[c.Command], object]) -> list[c.Command]:
    told, again, rng = order
    mixed = [*told, *again]
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    return mixed


@settings(max_examples=150, deadline=None)
@given(orders)
def test_any_order_of_the_same_reports_tells_the_same_progress(
    order: tuple[list[c.Command], list[c.Command], object],
) -> None:
    life = life_in("submitting")
    for command in _shuffled(order):
        life.do(command)
    job = life.there
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
    assert life.told().count("running") == 1
    assert life.told().count("round_aggregated") <= 2
    assert job.sequence == len(life.told())


@settings(max_examples=150, deadline=None)
@given(orders, st.sampled_from(sorted(ENDS)), st.integers(0, 3))
def test_any_order_around_the_end_comes_to_the_same_end(
    order: tuple[list[c.Command], list[c.Command], object], end: str, repeats: int
) -> None:
    """Reports after the end, before it, and the end again: one terminal event, nothing after it."""
    life = life_in("submitting")
    mixed = _shuffled(order)
    mixed[len(mixed) // 2 : len(mixed) // 2] = [ENDS[end]] * (1 + repeats)
    for command in mixed:
        life.do(command)
    assert life.there.state == end
    assert life.told()[-1] == end
    assert life.told().count(end) == 1
    assert life.there.sequence == len(life.told())
    assert life.there.attempts[0].reservation is ReservationState.QUARANTINED
    assert life.run("see finished").there.attempts[0].reservation is ReservationState.RELEASED


_ANYTHING = st.lists(st.sampled_from(sorted(COMMANDS)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(_ANYTHING, st.lists(st.integers(0, 4_000), min_size=40, max_size=40))
def test_no_sequence_of_commands_breaks_an_invariant(names: list[str], pauses: list[int]) -> None:
    """`Life.do` checks the graph, the numbering and the end at every step."""
    life = Life()
    stopped = False
    for name, pause in zip(names, pauses, strict=False):
        life.pass_seconds(pause)
        opened = len([x for x in life.events if type(x).__name__ == "SubmissionOpened"])
        life.do(COMMANDS[name](life))
        if stopped:
            now = len([x for x in life.events if type(x).__name__ == "SubmissionOpened"])
            assert now == opened, "submitted after a stop"
        stopped = life.job is not None and life.job.stop is not None
    numbers = [a.number for a in life.job.attempts] if life.job else []
    assert numbers == list(range(1, len(numbers) + 1))
    assert (
        sum(life.told().count(end) for end in ("completed", "failed", "stopped", "rejected")) <= 1
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
        life = life_in(state)
        command = COMMANDS[name](life)
        life.do(command)
        before = life.there
        life.do(command)
        assert life.there == before, name


def test_a_report_proves_that_the_submit_arrived() -> None:
    life = life_in("submitting").run("round")
    assert life.told()[-3:] == ["submitted", "running", "round_started"]
    assert life.there.attempts[0].run_id == RUN
    assert life.there.lease is None


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
    kind = {"status": c.ReportStatus, "event_type": c.ReportRound, "metrics": c.ReportMetrics}
    made = next((k for name, k in kind.items() if name in fields), c.ReportLog)
    return made(JOB, 1, ORIGIN, run_id=run_id, path_id=path_id, **fields)


@pytest.mark.parametrize("state", ["running pending", "running", "collecting", "stopping"])
@pytest.mark.parametrize("what", REPORTS)
def test_another_run_of_the_attempt_changes_nothing(state: str, what: str) -> None:
    life = life_in(state)
    before = life.there
    for path_id in (None, PATH):
        decision = life.do(_report(what, "run-of-somebody", path_id))
        assert answer(decision) == "ignored:other_run"
        assert life.there == before


@pytest.mark.parametrize("what", REPORTS)
@pytest.mark.parametrize("state", ["submitting", "stopping unsubmitted", "running provisional"])
def test_a_run_not_known_for_certain_is_told_by_its_path_id(state: str, what: str) -> None:
    def start() -> Life:
        if state != "running provisional":
            return life_in(state)
        life = life_in("submitting")
        life.do(c.RecordRun(JOB, 1, PATH, "guess", provisional=True))
        return life

    life = start()
    before = life.there
    assert answer(life.do(_report(what, "run-9", TRUSTS[0]))) == "ignored:other_run"
    assert answer(life.do(_report(what, None, TRUSTS[0]))) == "ignored:other_run"
    assert life.there == before
    for path_id in (PATH, None, life.there.accepted_request.model_id):
        life = start()
        life.do(_report(what, "run-9", path_id))
        attempt = life.there.attempts[0]
        assert (attempt.run_id, attempt.provisional) == ("run-9", False)


def test_an_earlier_submission_of_the_attempt_is_its_own() -> None:
    life = life_in("submitting")
    again = replace(life.submission(), number=2, path_id=TRUSTS[1], earlier_paths=(PATH,))
    life.do(c.OpenSubmission(JOB, 1, life.token, again))
    assert life.do(_report("round", "run-9", PATH)).events
    assert life.there.attempts[0].run_id == "run-9"


def test_a_known_run_counts_whatever_path_it_names() -> None:
    """An adapter that knows keys may name a run of a lease before, under its own path."""
    life = life_in("running")
    assert life.do(_report("round", RUN, TRUSTS[0])).events
    assert life.do(_report("round", None, TRUSTS[0])).events == ()


def test_a_site_that_fails_before_the_first_round_is_told_with_its_cause() -> None:
    life = life_in("running pending")
    failed = c.ReportRound(
        JOB, 1, ORIGIN, RUN, SLOTS[1], event_type="CLIENT_FAILED", details={"cause": "no data"}
    )
    assert answer(life.do(failed)) == "RoundReported"
    event = life.events[-1]
    assert isinstance(event, e.RoundReported)
    assert event.event_name == "client_failed"
    assert (event.global_round, event.trust_id, event.slot) == (0, TRUSTS[1], SLOTS[1])
    assert (event.details, event.site_detail) == ({"cause": "no data"}, "no data")
    site = life.there.progress.sites[0]
    assert (site.slot, site.state, site.detail) == (SLOTS[1], "failed", "no data")
    assert life.there.model_status is ModelStatus.INITIATED, "nothing trains yet"
    life.do(failed)
    assert life.told().count("client_failed") == 1
    assert "log_recorded" not in life.told()


def test_such_a_failure_heard_after_its_site_was_in_a_round_keeps_its_cause() -> None:
    life = life_in("running")
    life.do(_round("CLIENT_RESULT_RECEIVED", 1, SLOTS[1]))
    life.do(
        c.ReportRound(
            JOB, 1, ORIGIN, RUN, SLOTS[1], event_type="CLIENT_FAILED", details={"cause": "no data"}
        )
    )
    event = life.events[-1]
    assert isinstance(event, e.LogRecorded)
    assert event.success is False
    assert "Trust_2" in event.log
    assert "no data" in event.log
    assert life.there.progress.sites[0].state == "returned"


@pytest.mark.parametrize("field", ["error", "cause", "detail"])
def test_a_failed_site_shows_the_cause_that_its_report_names(field: str) -> None:
    life = life_in("running")
    life.do(
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
    detail = life.there.progress.sites[0].detail
    assert detail is not None
    assert detail.startswith("ran out of memory")
    assert len(detail) == 500


def test_rounds_only_move_forward() -> None:
    life = life_in("running")
    for number in (3, 1, 2, 3):
        life.do(_round("ROUND_STARTED", number))
    assert life.told().count("round_started") == 1
    assert life.there.progress.round == 3


@pytest.mark.parametrize("state", ["running pending", "running", "completed freed", "stopped"])
@pytest.mark.parametrize("status", list(FLJobStatus))
def test_an_old_list_judges_nothing(state: str, status: FLJobStatus) -> None:
    """The attempt moved while the adapter was asked."""
    life = life_in(state)
    began = life.there.attempts[0].changed_at - timedelta(seconds=1)
    before = life.there
    for old in (
        c.ObserveRun(JOB, 1, RUN, status, None, began),
        c.ObserveRunMissing(JOB, 1, RUN, began),
    ):
        assert answer(life.do(old)) == "ignored:old_list"
        assert life.there == before


@pytest.mark.parametrize("state", ["completed", "failed", "collecting"])
def test_an_absent_run_frees_the_place_of_a_job_that_needs_it_no_more(state: str) -> None:
    life = life_in(state)
    told, before = life.told(), life.there.state
    life.run("miss")
    assert life.there.attempts[0].reservation is not ReservationState.RELEASED
    life.run("miss")
    assert life.there.attempts[0].reservation is ReservationState.RELEASED
    assert (life.there.state, life.told()) == (before, told)


def test_a_run_is_lost_after_several_lists_and_a_grace_from_the_first_miss() -> None:
    life = life_in("running").run("miss")
    assert life.there.state is JobState.RUNNING
    life.run("see running")
    assert life.there.attempts[0].missing_polls == 0
    life.run("miss", "miss")
    assert life.told()[-1] == "retry_scheduled"


def test_results_that_cannot_be_had_end_the_job_after_their_tries() -> None:
    life = life_in("collecting")
    for _ in range(life.limits.collect_tries + 1):
        if life.there.state is not JobState.COLLECTING:
            break
        life.pass_seconds(1_000)
        if life.there.lease is None:
            life.run("take lease")
        life.run("delay")
    assert life.there.state is JobState.FAILED
    assert life.there.reason is not None
    assert life.there.reason.code == ReasonCode.RESULTS_UPLOAD_FAILED
    assert life.there.model_status is ModelStatus.RESULTS_UPLOAD_FAILED


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
    life = life_in(state, asked=request(**more))
    due = life.there.due_at
    life.pass_seconds(seconds)
    life.run("review")
    if code is None:
        assert life.there.state is JobState.RUNNING
        return
    assert due is not None
    assert due <= life.now, "a limit would have been looked at too late"
    assert life.there.state is JobState.FAILED
    assert life.there.reason is not None
    assert life.there.reason.code == code
    assert life.there.attempts[0].reservation is ReservationState.QUARANTINED


@pytest.mark.parametrize("sign", ["round", "metrics", "log", "running"])
def test_any_sign_of_life_puts_the_stall_limit_off(sign: str) -> None:
    life = life_in("running", asked=request(max_stall_seconds=60))
    life.pass_seconds(50)
    life.run(sign)
    life.pass_seconds(50)
    life.run("review")
    assert life.there.state is JobState.RUNNING
    life.pass_seconds(20)
    assert life.run("review").there.state is JobState.FAILED


def test_the_end_tells_all_that_a_reader_needs() -> None:
    life = life_in("running")
    for command in TOLD:
        life.do(command)
    life.run("uploaded with results")
    job, done = life.there, life.events[-1]
    assert job.results == RESULTS
    assert getattr(done, "rounds", None) == 2
    assert len(getattr(done, "metrics", ())) == 3
    assert getattr(done, "bundle_sha256", None) == "d"
