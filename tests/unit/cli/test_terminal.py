"""Text that others wrote reaches a terminal as text: it crashes nothing, and does nothing there."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from service.cli import events, follow, jobs, nets, submit
from service.domain.values import Problem
from service.kafka.read import Record
from service.telemetry import logs, terminal
from service.telemetry.terminal import Terminal, json_text, line, lines, styled

CLIPBOARD = "\x1b]52;c;Y3VybCBldmlsfHNo\x07"
HOSTILE = [
    "[/]",
    "[/red]",
    "[link=http://evil.example]x",
    "[bold",
    ":bomb: [red]",
    CLIPBOARD,
    "\x1b[2J\x1b[Hcompleted",
    "\x9b2J\x9d0;title\x9c",
    "safe\r failed",
    "one\ncompleted  job 1",
    "a\u2028b\u2029c\x85d\x0bx\x0cy",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200f",
    "\x08\x08\x7f\x00",
    "\U000e0041\u200b\ufeff",
    "\udcff",
]
#: What a terminal acts upon; colours of our own are taken out before.
ACTS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069\u200b\ufeff\U000e0041]"
)
OUR_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def shown(what: RenderableType) -> str:
    file = io.StringIO()
    Terminal(file=file, force_terminal=True, width=400).print(what)
    return file.getvalue()


def harmless(text: str) -> bool:
    return ACTS.search(OUR_COLOUR.sub("", text)) is None


def a_table(text: str) -> Table:
    table = Table(title="x", box=None)
    table.add_column(text)
    table.add_row(text)
    return table


FORMS: dict[str, Callable[[str], RenderableType]] = {
    "text": str,
    "cell": a_table,
    "styled text": lambda text: styled((text, "bold"), text),
    "a text of rich's own": lambda text: Text(text, style="red"),
    "a panel": lambda text: Panel(text, title="x"),
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_of_a_foreign_text_acts_on_the_terminal(form: str, hostile: str) -> None:
    assert harmless(shown(FORMS[form](hostile)))


@given(st.text())
def test_any_text_is_harmless_in_every_form(text: str) -> None:
    for form in FORMS.values():
        assert harmless(shown(form(text)))
    assert "\n" not in line(text)
    assert harmless(line(text))
    assert harmless(lines(text))


def test_plain_words_of_any_script_stay_as_they_are() -> None:
    for text in ("Trust_1 [0.5]", "Ärzte", "病院", "مستشفى", "क्‍ष", "👩‍⚕️"):
        assert line(text) == lines(text) == text


@given(
    st.recursive(
        st.text() | st.none() | st.integers(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_json_stays_exact_and_is_harmless(value: Any) -> None:
    for indent in (None, 2):
        text = json_text(value, indent)
        assert json.loads(text) == value
        assert harmless(text)


def reason(text: str) -> dict[str, Any]:
    return {
        "code": "stop_requested",
        "message": text,
        "errors": [{"loc": [text], "msg": text, "type": "x"}],
    }


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": f"fl.job.{kind}.v1", "sequence": 1, "data": {"reason": None, **data}}


def job(text: str) -> dict[str, Any]:
    metric = {"label": text, "result": 0.5, "fl_client_name": text}
    return {
        "job_id": "1",
        "state": "running",
        "attempt": 1,
        "net": text,
        "round": 1,
        "total_rounds": 2,
        "priority": 5,
        "waiting": text,
        "waiting_for": text,
        "changed_at": datetime.now(UTC),
        "reason": reason(text),
        "results": {"uri": text},
        "progress": {
            "total": 2,
            "round": 1,
            "aggregated": 1,
            "metrics": [metric, metric | {"fl_client_name": None}],
            "sites": [{"slot": text, "state": "training"}],
        },
    }


def record(text: str) -> Record:
    data = {"reason": reason(text), "global_round": text}
    headers = {"ce_type": text, "ce_time": text, "ce_sequence": text}
    return Record(0, 0, text, json.dumps(data).encode(), headers)


DETAILS: list[Callable[[str], dict[str, Any]]] = [
    lambda t: event("stopped", reason=reason(t)),
    lambda t: event("queued", priority=5, waiting_for=t),
    lambda t: event("started", net=t, participants=[{"slot": t}]),
    lambda t: event("metrics_recorded", metrics=[{"fl_client_name": t, "label": t, "result": 1}]),
    lambda t: event("round_started", global_round=1, total_rounds=2, slot=t),
    lambda t: event("log_recorded", log=t),
    lambda t: event("completed", results={"uri": t}),
    lambda t: event("submitted", fl_backend_job_id=t),
]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()

    def out() -> Terminal:
        return Terminal(file=file, force_terminal=True, width=400)

    for module in (terminal, nets, submit):
        monkeypatch.setattr(module, "out", out)
    return file


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_commands_show_of_jobs_and_events_is_harmless(hostile: str) -> None:
    for what in (
        jobs.jobs_table([job(hostile)]),
        jobs.summary_line(job(hostile)),
        follow.panel(job(hostile)),
        follow.panel(job(hostile) | {"state": "queued"}),
        follow.one_line(job(hostile)),
        events._pretty(record(hostile)),
        *(jobs.detail(make(hostile)) for make in DETAILS),
    ):
        assert harmless(shown(what))
    for text in (jobs.summary_line(job(hostile)), follow.one_line(job(hostile))):
        assert "\n" not in text
    assert json.loads(events.as_line(record(hostile)))["data"]["reason"]["message"] == hostile
    assert harmless(events.as_line(record(hostile)))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_submit_and_nets_show_is_harmless(
    hostile: str, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit._tell({"job_id": "1"}, [Problem((hostile,), hostile, hostile)], None, hostile, False)
    submit._tell({"job_id": "1"}, [], None, hostile, False)
    slot = {
        "in_doubt": True,
        "state": "held",
        "job_id": "1",
        "attempt": 1,
        "run_id": hostile,
        "job_state": "x",
    }
    client = {"online": True, "name": hostile, "fl_kit_slot": hostile, "status": hostile}
    net = {
        "name": hostile,
        "paused": False,
        "answering": True,
        "occupied": 1,
        "capacity": 2,
        "online": [],
        "seen_at": None,
        "status": {"clients": [client]},
        "slots": [slot],
        "strays": [hostile],
    }
    monkeypatch.setattr(nets, "settings_of", lambda _: None)
    monkeypatch.setattr(nets, "_nets", lambda _: None)
    monkeypatch.setattr(nets, "run_async", lambda _: [net])
    nets.status()
    nets.list_nets()
    assert "of 2 places taken" in printed.getvalue()
    assert harmless(printed.getvalue())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_error_is_harmless(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(f"error: {line(hostile)}", error=True)
    assert harmless(capsys.readouterr().err)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_log_on_a_terminal_is_harmless(hostile: str, kept_logging: None) -> None:
    file = io.StringIO()
    logs.configure("info", "console", file)
    structlog.get_logger("x").warning("step_failed", error=hostile, seen={"a": [hostile]})
    logging.getLogger("some.library").warning("%s", hostile)
    try:
        raise ValueError(hostile)
    except ValueError:
        structlog.get_logger("x").exception("boom")
    assert "step_failed" in file.getvalue()
    assert harmless(file.getvalue())


@pytest.mark.parametrize("value", [None, b"", b"\xff{", b"[1]", b'{"reason": 7}', b"[" * 100_000])
def test_a_record_on_the_lifecycle_topic_that_is_no_event_is_shown_all_the_same(
    value: bytes | None,
) -> None:
    strange = Record(0, 0, None, value, {})
    assert "?" in shown(events._pretty(strange))
    assert json.loads(events.as_line(strange))["offset"] == 0
