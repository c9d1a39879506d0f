"""The demo on a bad day: no crash harms its job, and whatever ends it leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.local.stack import ALL_COMPONENTS
from tests.e2e.demo_process import DemoProcess, demo_folder, interrupt

_TERMINAL = {f"fl.job.{word}.v1" for word in ("completed", "failed", "stopped", "rejected")}


@pytest.fixture
def apart() -> Iterator[Path]:
    with demo_folder() as folder:
        yield folder


def test_a_killed_service_still_completes_the_job(apart: Path) -> None:
    demo = DemoProcess(apart)
    process = demo.start("--json", "--rounds", "100")
    demo.wait_for("round 10/100", process)
    os.kill(int((demo.dir / "service.pid").read_text()), signal.SIGKILL)
    demo.wait_for("died; started again", process)
    found = demo.document(process)
    demo.assert_nothing_left()

    assert found["state"] == "completed"
    assert found["service_restarts"] == 1
    assert len(found["rounds"]) == 100
    kinds = [event["type"] for event in found["lifecycle"]]
    assert [kind for kind in kinds if kind in _TERMINAL] == ["fl.job.completed.v1"]
    runs = demo.runs(found["job_id"])
    assert sorted(attempt for attempt, _ in runs) == list(range(1, found["attempts"] + 1))
    assert len(found["backend_runs"]) == len(runs)


def test_a_shell_with_the_settings_of_another_stack_changes_nothing(apart: Path) -> None:
    demo = DemoProcess(apart)
    nowhere = {
        "FL_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "FL_KAFKA__TOPIC_PREFIX": "theirs.",
        "FL_DATABASE__DSN": "postgresql://fl@127.0.0.1:1/theirs",
        "FL_S3__ENDPOINT_URL": "http://127.0.0.1:1",
        "FL_REGISTRY_FILE": "/nowhere/registry.yaml",
        "AWS_ACCESS_KEY_ID": "THEIRS",
        "AWS_SECRET_ACCESS_KEY": "theirs",
    }
    found = demo.document(demo.start("--json", "--rounds", "3", **nowhere))
    demo.assert_nothing_left()
    assert found["state"] == "completed"
    told = [line for line in demo.stderr.read_text().splitlines() if line.startswith("ignored: ")]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("running", signal.SIGTERM),
        ("running", signal.SIGHUP),
        ("starting", signal.SIGTERM),
        ("starting", signal.SIGHUP),
    ],
)
def test_an_interrupted_demo_stops_everything(
    apart: Path, when: str, number: signal.Signals
) -> None:
    interrupt(DemoProcess(apart), when, number)


def test_down_ends_a_demo_and_its_service(apart: Path) -> None:
    demo = DemoProcess(apart)
    process = demo.start("--rounds", "1000")
    demo.wait_for("running", process)
    down = [sys.executable, "-m", "service", "local", "down", "--json", "--dir", str(demo.dir)]
    done = subprocess.run(down, capture_output=True, text=True, check=True, timeout=90)
    process.communicate(timeout=5)
    assert process.returncode == 130
    assert json.loads(done.stdout)["stopped"] == ["demo"]
    demo.assert_nothing_left()


def test_down_ends_what_a_killed_demo_left(apart: Path) -> None:
    demo = DemoProcess(apart)
    process = demo.start("--rounds", "1000")
    demo.wait_for("running", process)
    process.kill()
    process.communicate(timeout=10)
    assert "service" in demo.running()
    down = [sys.executable, "-m", "service", "local", "down", "--json", "--dir", str(demo.dir)]
    done = subprocess.run(down, capture_output=True, text=True, check=True, timeout=90)
    assert sorted(json.loads(done.stdout)["stopped"]) == sorted(("service", *ALL_COMPONENTS))
    assert demo.running() == []
    assert not (demo.dir / "service.pid").exists()

    # Its job is still there, and does not keep the next demo's waiting.
    found = demo.document(demo.start("--json", "--rounds", "3"))
    assert found["state"] == "completed"
    assert "of an earlier demo" in demo.stderr.read_text()
