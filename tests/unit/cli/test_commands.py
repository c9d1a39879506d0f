"""The command line as a person meets it: help, exit codes, one-line errors, where settings come from."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer

from service.cli import COMMANDS, main
from service.cli.follow import one_line
from service.cli.jobs import advice_on, summary_line
from service.demo import dataset
from service.domain.enums import JobState
from service.errors import Invalid
from service.local import env_file
from service.settings import load, read_env_file


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept_logging: None) -> None:
    """A folder of its own, and no settings."""
    for name in [n for n in os.environ if n.startswith("FL_") and not n.startswith("FL_TEST")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert len(capsys.readouterr().out) > 200


def _whole(command: str) -> list[list[str]]:
    """The command's words; of a group, each of its commands'."""
    found = getattr(importlib.import_module(COMMANDS[command][0]), COMMANDS[command][1])
    if not isinstance(found, typer.Typer):
        return [[command]]
    names = [
        c.name or (c.callback.__name__ if c.callback else "") for c in found.registered_commands
    ]
    return [[command, name] for name in names]


@pytest.mark.parametrize("words", [words for command in COMMANDS for words in _whole(command)])
def test_every_help_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words, "--help") == 0
    told = capsys.readouterr().out.splitlines()
    # The measurements are a program of the checkout, which `fl-jobs bench` only calls.
    program = "python -m " if words[0] == "bench" else "fl-jobs "
    example = program + " ".join(words)
    assert any(example in line and "Usage" not in line for line in told), told


def test_help_names_every_command_and_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    began = time.process_time()
    listed = "import service.cli, sys; service.cli.assemble(None); print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", listed], capture_output=True, text=True, check=True
    )
    assert time.process_time() - began < 5
    heavy = {"asyncpg", "aiokafka", "aioboto3", "numpy", "sklearn", "uvicorn", "rich.live"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ("no-such-command",),
        ("jobs", "no-such-command"),
        ("jobs", "show", "not-a-uuid"),
        ("jobs", "list", "--limit", "0"),
        ("stop",),
        ("run", "--role", "captain"),
        ("demo", "--backend", "abacus"),
        ("dead-letters", "show", "here"),
    ],
)
def test_wrong_usage_is_exit_code_2(words: tuple[str, ...]) -> None:
    assert run(*words) == 2


def test_a_failure_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_DATABASE__DSN", "postgresql://nobody@127.0.0.1:1/none")
    assert run("jobs", "list") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: the database is unavailable")
    assert "`fl-jobs local up`" in told.err
    assert len(told.err.splitlines()) == 1


def test_bad_settings_are_all_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_HTTP__PORT", "99999")
    monkeypatch.setenv("FL_KAFKA__PARTITIONS", "many")
    monkeypatch.setenv("FL_KAFKA__TOPIC_PREFX", "typo.")
    assert run("migrate") == 1
    told = capsys.readouterr().err
    assert (
        "FL_KAFKA__TOPIC_PREFX: there is no such setting; is FL_KAFKA__TOPIC_PREFIX meant?" in told
    )
    assert "FL_HTTP__PORT" in told
    assert "FL_KAFKA__PARTITIONS" in told


@pytest.mark.parametrize("words", [("--env-file", "mine"), ("--env-file=mine",)])
def test_settings_may_stand_before_the_command(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("FL_DATABASE__DSN=postgresql://nobody@127.0.0.1:1/none\n")
    try:
        assert run(*words, "jobs", "list") == 1
        assert os.environ["FL_DATABASE__DSN"].endswith("/none")
    finally:
        os.environ.pop("FL_DATABASE__DSN", None)
    assert "the database is unavailable" in capsys.readouterr().err


def test_a_stack_in_this_folder_is_found_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".local").mkdir()
    text = "FL_DATABASE__DSN=postgresql://nobody@127.0.0.1:1/none\n"
    (tmp_path / ".local" / "env").write_text(text)
    try:
        assert run("jobs", "list") == 1
    finally:
        os.environ.pop("FL_DATABASE__DSN", None)
    assert "using the settings of .local/env" in capsys.readouterr().err


def test_an_env_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jobs", "list", "--env-file", "gone") == 1
    assert "gone" in capsys.readouterr().err


def test_a_part_elsewhere_is_not_started_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_DATABASE__DSN", "postgresql://nobody@db.invalid:1/none")
    assert run("jobs", "list") == 1
    assert "local up" not in capsys.readouterr().err


def test_a_settings_file_reads_the_same_for_a_shell_and_for_us(tmp_path: Path) -> None:
    env = {"A": "a folder/it's $HOME", "B": "", "C": "plain-1,2", "D": "'", "E": "é"}
    file = tmp_path / "env"
    env_file.write(file, env)
    assert read_env_file(file) == env
    shell = 'set -a; . "$0"; printf "%s\n" "$A" "$B" "$C" "$D" "$E"'
    done = subprocess.run(
        ["sh", "-c", shell, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == list(env.values())


def test_a_settings_file_without_quotes_is_read_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=a folder/it's\nB='open\n")
    with pytest.raises(Invalid, match="line 2: B"):
        read_env_file(tmp_path / "env")
    (tmp_path / "env").write_text("A=a folder/it's\n")
    assert read_env_file(tmp_path / "env") == {"A": "a folder/it's"}


def test_a_state_that_is_none_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("jobs", "list", "--state", "nosuch") == 2
    told = capsys.readouterr().err
    assert all(state.value in told for state in JobState)


def test_one_line_tells_what_a_job_of_the_list_does() -> None:
    row: dict[str, Any] = {"job_id": "j", "state": "queued", "net": None, "attempt": 0}
    row |= {"total_rounds": None, "round": 0, "reason": None, "waiting": "net_paused"}
    assert summary_line(row) == "j  queued  net_paused"
    row |= {"state": "running", "net": "net-1", "attempt": 2, "total_rounds": 5, "round": 3}
    assert summary_line(row | {"waiting": None}) == "j  running  on net-1, attempt 2  round 3/5"


def test_an_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("FL_HTTP__PORT=1\nFL_KAFKA__GROUP_ID=file\n")
    monkeypatch.setenv("FL_HTTP__PORT", "2")
    monkeypatch.setenv("FL_KAFKA__GROUP_ID", "environment")
    assert load(tmp_path / "mine").http.port == 2


def test_one_line_tells_where_a_job_is() -> None:
    running: dict[str, Any] = {
        "state": "running",
        "progress": {
            "round": 3,
            "total": 5,
            "metrics": [
                {"label": "loss", "result": 0.25, "fl_client_name": None},
                {"label": "loss", "result": 0.5, "fl_client_name": "Trust_1"},
                {"label": "auc", "result": None, "fl_client_name": None},
            ],
        },
    }
    assert one_line(running) == "running  round 3/5  loss 0.2500"
    queued: dict[str, Any] = {
        "state": "queued",
        "position": 4,
        "waiting_for": "waiting_for_trusts",
        "progress": {},
    }
    assert one_line(queued) == "queued  position 4, waiting_for_trusts"
    done = {
        "state": "completed",
        "progress": {},
        "results": {"uri": "s3://results/j/1/results.zip"},
    }
    assert one_line(done) == "completed  results s3://results/j/1/results.zip"


def test_the_demo_splits_every_patient_once_and_the_same_way_again(tmp_path: Path) -> None:
    found = dataset.write(tmp_path / "data", tmp_path / "test")
    assert sum(place.total for place in found.values()) == 569
    lines: list[str] = []
    for file in sorted(tmp_path.rglob(dataset.FILE)):
        lines += file.read_text().splitlines()[1:]
    assert len(lines) == len(set(lines)) == 569
    shares = {place: who.malignant / who.total for place, who in found.items()}
    assert max(shares.values()) - min(shares.values()) > 0.4, "hospitals should differ"
    before = {f: f.read_bytes() for f in tmp_path.rglob(dataset.FILE)}
    assert dataset.write(tmp_path / "data", tmp_path / "test") == found
    assert before == {f: f.read_bytes() for f in tmp_path.rglob(dataset.FILE)}


def test_a_warning_leaves_standard_output_to_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("schemas", "check", "--json") == 0
    before = capsys.readouterr().out
    structlog.get_logger("a_room").warning("something_odd")
    told = capsys.readouterr()
    assert json.loads(before)
    assert told.out == ""
    assert "something_odd" in told.err


def test_a_job_that_failed_or_waits_is_shown_with_what_to_do() -> None:
    failed = {"state": "failed", "reason": {"code": "backend_failed"}, "waiting_for": None}
    waiting = {"state": "queued", "reason": None, "waiting_for": None}
    done = {"state": "completed", "reason": None, "waiting_for": None}
    assert "run's log" in (advice_on(failed, None) or {})["action"]
    assert "resume --all" in (advice_on(waiting, {"code": "hub_paused"}) or {})["action"]
    assert advice_on(waiting, {"code": None}) is None
    assert advice_on(done, None) is None
