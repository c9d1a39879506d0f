"""A pid in `service.pid` is only believed when it is a service's, and as old as the file says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.local.dependents import service_pid, stop_dependents

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Programs that sleep under the name they are given."""
    running = []

    def one(name: str, *words: str) -> subprocess.Popen[bytes]:
        program = tmp_path / name
        program.write_text("import time\nprint(flush=True)\ntime.sleep(60)\n")
        argv = [sys.executable, str(program), *words]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield one
    for process in running:
        process.kill()
        process.communicate()


def test_the_service_that_the_file_names_is_ended(tmp_path: Path, start: Start) -> None:
    service = start("fl-jobs", "run")
    service_pid(tmp_path).write_text(f"{service.pid}\n")
    ended: list[list[str]] = []
    # Reaped at once, as a shell would.
    while service.poll() is None:
        ended.append(stop_dependents(tmp_path))
    assert ended[0] == ["service"]
    assert not service_pid(tmp_path).exists()


@pytest.mark.parametrize("words", [("sleeper", "run"), ("fl-jobs", "local", "up")])
def test_another_program_is_left_alone(
    tmp_path: Path, start: Start, words: tuple[str, ...]
) -> None:
    other = start(*words)
    service_pid(tmp_path).write_text(f"{other.pid}\n")
    assert stop_dependents(tmp_path) == []
    assert other.poll() is None


def test_a_later_owner_of_the_pid_is_left_alone(tmp_path: Path, start: Start) -> None:
    later = start("fl-jobs", "run")
    service_pid(tmp_path).write_text(f"{later.pid}\n")
    before = time.time() - 60
    os.utime(service_pid(tmp_path), (before, before))
    assert stop_dependents(tmp_path) == []
    assert later.poll() is None


@pytest.mark.parametrize("text", ["", "no pid", "-1", "0", "1"])
def test_a_file_that_names_nobody_is_none(tmp_path: Path, text: str) -> None:
    service_pid(tmp_path).write_text(text)
    assert stop_dependents(tmp_path) == []
