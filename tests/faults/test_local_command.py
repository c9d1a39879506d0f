"""`fl-jobs local` interrupted in its first and last steps, and a `down` under a running service."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
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


@pytest.fixture
def folder() -> Iterator[Path]:
    with stack_folder() as path:
        yield path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_stops_what_it_started(folder: Path, number: signal.Signals) -> None:
    interrupt_up(folder, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_of_the_last_step_stops_the_stack_too(
    folder: Path, number: signal.Signals
) -> None:
    # Whoever listens here never answers: `up` has started all it needs, and is held up afterwards.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        process = subprocess.Popen(
            command("up", "--dir", str(folder)),
            env=environment() | {"FL_DATABASE__DSN": f"postgresql://fl@127.0.0.1:{port}/fl"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(60)
        with silent.accept()[0]:
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    # The driver may still speak of the connection that it lost: after this line or before it.
    assert any(line.startswith("interrupted") for line in said.splitlines()), said
    assert "pending" not in said
    assert not running(folder)
    assert not (folder / "env").exists()


def test_down_ends_the_service_that_the_folder_names(folder: Path) -> None:
    document = document_of(local("up", folder, "--json"))
    words = ["--env-file", document["env_file"], "--pid-file", str(folder / "service.pid")]
    with (folder / "said").open("w") as said:
        service = subprocess.Popen(
            [sys.executable, "-m", "service", "run", *words], env=environment(), stderr=said
        )
    try:
        until = time.monotonic() + 30
        while "service_started" not in (folder / "said").read_text():
            assert service.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        stopped = document_of(local("down", folder, "--json"))["stopped"]
        assert sorted(stopped) == sorted(("service", *ALL_COMPONENTS))
        assert service.wait(5) == 0
    finally:
        service.kill()
        service.wait()
    assert not (folder / "service.pid").exists()
