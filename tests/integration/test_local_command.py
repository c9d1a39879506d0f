"""`fl-jobs local`: from nothing to a stack that every other command can use, and back to nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.local.process import marked
from service.local.stack import ALL_PARTS
from tests.stack import RunningStack

_ADDRESSES = ("FL_KAFKA__BOOTSTRAP_SERVERS", "FL_DATABASE__DSN", "FL_S3__ENDPOINT_URL")


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="fl-job-service-command-"))
    path.chmod(0o711)
    yield path
    _local("down", path, "--wipe")


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "service", "local", *words]


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in _ADDRESSES}


def _local(verb: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(verb, "--dir", str(folder), *more),
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def _document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _running(folder: Path) -> bool:
    return any(marked(f"{part}@{folder}") for part in ALL_PARTS)


def test_up_makes_everything_and_down_leaves_nothing(folder: Path) -> None:
    document = _document(_local("up", folder, "--json"))
    assert {part["state"] for part in document["parts"]} == {"running"}
    assert sorted(document["started"]) == sorted(ALL_PARTS)
    lines = Path(document["env_file"]).read_text().splitlines()
    env = dict(line.split("=", 1) for line in lines)
    stack = RunningStack(folder, env)
    assert int(stack.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) > 5
    assert Path(env["FL_REGISTRY_FILE"]).exists()
    net = next(part for part in document["parts"] if part["name"] == "net")
    with urllib.request.urlopen(f"{net['endpoint']}/check_client_status") as answer:
        assert {site["name"] for site in json.load(answer)} == {"Trust_1", "Trust_2", "Trust_3"}
    assert sum(part["pss"] or part["rss"] for part in document["parts"]) < 600 * 2**20

    assert _document(_local("up", folder, "--json"))["started"] == []
    assert env["AWS_SECRET_ACCESS_KEY"] not in _local("status", folder).stdout
    assert sorted(_document(_local("down", folder, "--json"))["stopped"]) == sorted(ALL_PARTS)
    assert not _running(folder)
    assert _local("status", folder).returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_stops_what_it_started(folder: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        _command("up", "--dir", str(folder)),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 30
    while not _running(folder):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted")
    assert not _running(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_of_the_last_step_stops_the_stack_too(
    folder: Path, number: signal.Signals
) -> None:
    # Whoever listens here never answers: `up` has started all it needs, and is held up afterwards.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        process = subprocess.Popen(
            _command("up", "--dir", str(folder)),
            env=_environment() | {"FL_DATABASE__DSN": f"postgresql://fl@127.0.0.1:{port}/fl"},
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
    assert not _running(folder)
    assert not (folder / "env").exists()


def test_down_ends_the_service_that_the_folder_names(folder: Path) -> None:
    document = _document(_local("up", folder, "--json"))
    words = ["--env-file", document["env_file"], "--pid-file", str(folder / "service.pid")]
    with (folder / "said").open("w") as said:
        service = subprocess.Popen(
            [sys.executable, "-m", "service", "run", *words], env=_environment(), stderr=said
        )
    try:
        until = time.monotonic() + 30
        while "service_started" not in (folder / "said").read_text():
            assert service.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        stopped = _document(_local("down", folder, "--json"))["stopped"]
        assert sorted(stopped) == sorted(("service", *ALL_PARTS))
        assert service.wait(5) == 0
    finally:
        service.kill()
        service.wait()
    assert not (folder / "service.pid").exists()


def test_what_cannot_be_had_is_one_line_with_the_ways_out(folder: Path) -> None:
    done = subprocess.run(
        _command("up", "--dir", str(folder)),
        env=_environment() | {"KAFKA_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "KAFKA_HOME" in done.stderr.splitlines()[-1]
    assert not _running(folder)
