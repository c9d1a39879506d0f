"""`fl-jobs local`: from nothing to a stack that every other command can use, and back to nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.local.stack import ALL_COMPONENTS
from tests.local_command import (
    command,
    document_of,
    environment,
    interrupt_up,
    local,
    running,
    stack_folder,
)
from tests.stack import RunningStack


@pytest.fixture
def folder() -> Iterator[Path]:
    with stack_folder() as path:
        yield path


def test_up_makes_everything_and_down_leaves_nothing(folder: Path) -> None:
    document = document_of(local("up", folder, "--json"))
    assert {part["state"] for part in document["parts"]} == {"running"}
    assert sorted(document["started"]) == sorted(ALL_COMPONENTS)
    lines = Path(document["env_file"]).read_text().splitlines()
    env = dict(line.split("=", 1) for line in lines)
    stack = RunningStack(folder, env)
    assert int(stack.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) > 5
    assert Path(env["FL_REGISTRY_FILE"]).exists()
    net = next(part for part in document["parts"] if part["name"] == "net")
    with urllib.request.urlopen(f"{net['endpoint']}/check_client_status") as answer:
        assert {site["name"] for site in json.load(answer)} == {"Trust_1", "Trust_2", "Trust_3"}
    assert sum(part["pss"] or part["rss"] for part in document["parts"]) < 600 * 2**20

    assert document_of(local("up", folder, "--json"))["started"] == []
    assert env["AWS_SECRET_ACCESS_KEY"] not in local("status", folder).stdout
    assert sorted(document_of(local("down", folder, "--json"))["stopped"]) == sorted(ALL_COMPONENTS)
    assert not running(folder)
    assert local("status", folder).returncode == 1


def test_an_interrupted_up_stops_what_it_started(folder: Path) -> None:
    interrupt_up(folder, signal.SIGINT)


def test_what_cannot_be_had_is_one_line_with_the_ways_out(folder: Path) -> None:
    done = subprocess.run(
        command("up", "--dir", str(folder)),
        env=environment() | {"KAFKA_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "KAFKA_HOME" in done.stderr.splitlines()[-1]
    assert not running(folder)
