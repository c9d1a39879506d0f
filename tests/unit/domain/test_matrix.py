"""Every command in every state: what follows is written down here, and nothing raises.

Rows are commands, cells name states; the row's last word is what happens in all states not named. A cell's
text is the events that follow, or `outcome:code` where none do.
"""

from __future__ import annotations

from typing import Final

import pytest

from service.domain import events as e
from service.domain.decide import RULES
from service.domain.enums import JobState, Lifecycle
from service.domain.evolve import EVENTS, IllegalTransition, evolve
from tests.unit.domain.job_builder import COMMANDS, STATES, JobBuilder, answer, job_in

Row = tuple[dict[str, str], str]

LEASED: Final = (
    "preparing, submitting, collecting, collecting freed, stopping, stopping unsubmitted"
)
WAITING: Final = "queued, queued after a give-back, queued after a loss"
RUNNING: Final = "running pending, running"
COLLECTING: Final = "collecting, collecting freed"
STOPPING: Final = "stopping, stopping unsubmitted"
NO_ATTEMPT: Final = "rejected, queued, stopped queued"
NO_RUN: Final = (
    f"nothing, {NO_ATTEMPT}, queued after a give-back, preparing, submitting, stopping unsubmitted, "
    "failed unknown"
)
FREED: Final = "queued after a loss, completed freed, stopped"
QUARANTINED: Final = "completed, failed"
OVER: Final = (
    "rejected, completed, completed freed, failed, failed unknown, stopped, stopped queued"
)


def _report(events: str, *, pending: str, collecting: str, stopping: str) -> Row:
    """A report of the current attempt, by what it does to a run that trains already."""
    cells = {
        "parked": "nothing",
        "ignored:other_attempt": NO_ATTEMPT,
        f"Submitted {pending}": "submitting",
        f"RunIdentified {stopping}": "stopping unsubmitted",
    }
    for text, states in (
        (pending, "running pending"),
        (events, "running"),
        (collecting, COLLECTING),
        (stopping, "stopping"),
    ):
        cells[text] = f"{cells[text]}, {states}" if text in cells else states
    return cells, "ignored:not_running"


_ENDING = _report("Failed", pending="Failed", collecting="Failed", stopping="Stopped")
_LOG = _report(
    "LogRecorded", pending="LogRecorded", collecting="LogRecorded", stopping="ActivitySeen"
)
_ROUND = _report(
    "RoundReported",
    pending="Running RoundReported",
    collecting="RoundReported",
    stopping="ActivitySeen",
)
_SEE_OVER: Row = (
    {
        "ignored:nothing_new": f"{FREED}, collecting freed",
        "Failed": RUNNING,
        "ReservationChanged": f"collecting, {QUARANTINED}",
        "Stopped": "stopping",
    },
    "ignored:other_run",
)
_ALIVE: Row = (
    {
        "ReservationChanged": FREED,
        "ignored:nothing_new": f"{RUNNING}, {COLLECTING}, stopping, {QUARANTINED}",
    },
    "ignored:other_run",
)

EXPECTED: Final[dict[str, Row]] = {
    "request": ({"Queued": "nothing", "refused": "rejected"}, "ignored:same_request"),
    "other request": ({"Queued": "nothing"}, "refused"),
    "bad request": ({"Rejected": "nothing", "ignored:same_request": "rejected"}, "refused"),
    "stop": (
        {
            "parked": "nothing",
            "StopRequested Stopped": f"{WAITING}, preparing, {COLLECTING}",
            "StopRequested Stopping": f"submitting, {RUNNING}",
            "ignored:over": OVER,
        },
        "ignored:stopping",
    ),
    "prepared": _report(
        "ActivitySeen", pending="Prepared", collecting="ActivitySeen", stopping="ActivitySeen"
    ),
    "running": _report(
        "ActivitySeen", pending="Running", collecting="ActivitySeen", stopping="ActivitySeen"
    ),
    "uploaded": _report(
        "ResultsPending", pending="ResultsPending", collecting="ActivitySeen", stopping="Stopped"
    ),
    "uploaded with results": _report(
        "Completed", pending="Completed", collecting="Completed", stopping="Stopped"
    ),
    "upload failed": _ENDING,
    "error": _ENDING,
    "stopped outside": _ENDING,
    "initiated": _report(
        "ActivitySeen", pending="ActivitySeen", collecting="ActivitySeen", stopping="ActivitySeen"
    ),
    "no run id": (
        {
            "parked": "nothing, submitting",
            "ignored:other_attempt": NO_ATTEMPT,
            "Running": "running pending",
            "ActivitySeen": f"running, {COLLECTING}, {STOPPING}",
        },
        "ignored:not_running",
    ),
    "other attempt": ({"parked": "nothing"}, "ignored:other_attempt"),
    "round": _ROUND,
    "site failed": _ROUND,
    "odd event": _LOG,
    "metrics": _report(
        "MetricsRecorded",
        pending="MetricsRecorded",
        collecting="MetricsRecorded",
        stopping="ActivitySeen",
    ),
    "log": _LOG,
    "claim": ({"Started": "queued"}, "ignored:not_queued"),
    "take lease": ({"fenced": LEASED, "LeaseTaken": RUNNING}, "ignored:not_active"),
    "open": (
        {
            "SubmissionOpened": "preparing, submitting",
            "ignored:too_late": f"{COLLECTING}, {STOPPING}",
        },
        "fenced",
    ),
    "know run": (
        {
            "ignored:no_job": "nothing",
            "ignored:other_attempt": f"{NO_ATTEMPT}, queued after a give-back, preparing",
            "Submitted": "submitting",
            "RunIdentified": "stopping unsubmitted, failed unknown",
        },
        "ignored:known",
    ),
    "give back": (
        {
            "RetryScheduled": "preparing, submitting",
            "ignored:too_late": COLLECTING,
            "Stopped": STOPPING,
        },
        "fenced",
    ),
    "fail": ({"Failed": f"preparing, submitting, {COLLECTING}", "Stopped": STOPPING}, "fenced"),
    "fail unknown": ({"Failed": LEASED}, "fenced"),
    "fail passing": (
        {"RetryScheduled": "preparing, submitting", "Failed": COLLECTING, "Stopped": STOPPING},
        "fenced",
    ),
    "nothing runs": (
        {"ignored:not_stopping": f"preparing, submitting, {COLLECTING}", "Stopped": STOPPING},
        "fenced",
    ),
    "stale": ({}, "fenced"),
    "store results": (
        {
            "ignored:not_collecting": f"preparing, submitting, {STOPPING}",
            "Completed": COLLECTING,
        },
        "fenced",
    ),
    "delay": (
        {
            "StepDeferred": LEASED.replace(f", {COLLECTING}", ""),
            "LogRecorded StepDeferred": COLLECTING,
        },
        "fenced",
    ),
    "collect now": ({"ignored:under_way": COLLECTING}, "ignored:not_collecting"),
    "record results": ({}, "ignored:not_given_up"),
    "release slot": (
        {"ReservationChanged": f"{QUARANTINED}, failed unknown"},
        "ignored:not_quarantined",
    ),
    "see pending": _ALIVE,
    "see running": (
        {
            "Running": "running pending",
            "ReservationChanged": FREED,
            "ignored:nothing_new": f"running, {COLLECTING}, stopping, {QUARANTINED}",
        },
        "ignored:other_run",
    ),
    "see finished": (
        {
            "ignored:nothing_new": f"{FREED}, collecting freed",
            "ResultsPending": RUNNING,
            "ReservationChanged": f"collecting, {QUARANTINED}",
            "Stopped": "stopping",
        },
        "ignored:other_run",
    ),
    "see failed": _SEE_OVER,
    "see stopped": _SEE_OVER,
    "see aborted unsettled": (
        {
            "ignored:nothing_new": f"{FREED}, {COLLECTING}, {QUARANTINED}",
            "Failed": RUNNING,
            "Stopped": "stopping",
        },
        "ignored:other_run",
    ),
    "see unknown": ({"ignored:other_run": NO_RUN}, "ignored:nothing_new"),
    "miss": (
        {
            "ignored:free": f"{FREED}, collecting freed",
            "RunMissed": f"{RUNNING}, collecting, stopping, {QUARANTINED}",
        },
        "ignored:other_run",
    ),
    "review": ({"ignored:over": f"nothing, {OVER}"}, "Reviewed"),
    "tell waiting": (
        {
            "WaitingChanged": "queued",
            "ignored:too_late": "queued after a give-back, queued after a loss",
        },
        "ignored:not_queued",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_follows_in_every_state(name: str) -> None:
    cells, otherwise = EXPECTED[name]
    wanted = {state: text for text, states in cells.items() for state in states.split(", ")}
    assert set(wanted) <= set(STATES)
    seen, expected = {}, {}
    for state in STATES:
        builder = job_in(state)
        seen[state] = answer(builder.do(COMMANDS[name](builder)))
        expected[state] = wanted.get(state, otherwise)
    assert seen == expected


def test_the_matrix_has_every_command_and_state() -> None:
    assert set(EXPECTED) == set(COMMANDS)
    assert {type(make(JobBuilder())) for make in COMMANDS.values()} == set(RULES)
    states = {builder.job.state for name in STATES if (builder := job_in(name)).job is not None}
    assert states == set(JobState)


def _some_of_each_event() -> dict[type[e.Event], e.Event]:
    found: dict[type[e.Event], e.Event] = {}
    for state in STATES:
        for make in COMMANDS.values():
            builder = job_in(state)
            builder.do(make(builder))
            found |= {type(event): event for event in builder.events}
    builder = job_in("queued after a loss")
    builder.pass_seconds(10_000)
    builder.do(COMMANDS["review"](builder))
    again = job_in("running").run("miss", "see running")
    given_up = job_in("running").run("upload failed", "record results")
    hurried = job_in("collecting").run("delay", "collect now")
    more = (*builder.events, *again.events, *given_up.events, *hurried.events)
    return found | {type(event): event for event in more}


def test_evolve_refuses_what_the_graph_does_not_know() -> None:
    events = _some_of_each_event()
    assert set(events) == {row.event for row in EVENTS}
    refused = 0
    for kind, came_from, *_ in EVENTS:
        for name in STATES:
            job = job_in(name).job
            state = None if job is None else job.state
            if state not in came_from:
                with pytest.raises(IllegalTransition):
                    evolve(job, events[kind])
                refused += 1
    assert refused > 150


def test_every_event_is_one_row_and_every_name_belongs_to_one_event() -> None:
    kinds = [kind for kind in vars(e).values() if isinstance(kind, type)]
    events = [kind for kind in kinds if issubclass(kind, e.Event) and kind is not e.Event]
    assert {row.event for row in EVENTS} == set(events)
    assert len(EVENTS) == len(events)
    names = [name for row in EVENTS for name in row.names]
    assert sorted(names) == sorted(Lifecycle)
