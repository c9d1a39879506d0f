"""The demo, as a user runs it: a model better than a coin, everything stopped, and no crash harms it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.local.env_file import ADDRESS_OF
from service.local.process import marked
from service.local.stack import ALL_PARTS, Stack

_TERMINAL = {f"fl.job.{word}.v1" for word in ("completed", "failed", "stopped", "rejected")}


class Demo:
    """One folder for a demo, and one that is its temporary directory."""

    def __init__(self, home: Path) -> None:
        self.dir = home / "demo"
        self.temporary = home / "temporary"
        self.said = home / "said.txt"

    def start(self, *more: str, **settings: str) -> subprocess.Popen[str]:
        own = {key: value for key, value in os.environ.items() if key not in ADDRESS_OF.values()}
        with self.said.open("w") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "service", "demo", "--dir", str(self.dir), *more],
                env=own | {"TMPDIR": str(self.temporary)} | settings,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )

    def document(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, _ = process.communicate(timeout=100)
        assert process.returncode == 0, self.said.read_text()
        found: dict[str, Any] = json.loads(out)
        return found

    def wait_for(self, text: str, process: subprocess.Popen[str], seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while text not in self.said.read_text():
            assert process.poll() is None, self.said.read_text()
            assert time.monotonic() < until, self.said.read_text()
            time.sleep(0.02)

    def running(self) -> list[str]:
        names = (*ALL_PARTS, "service")
        return [name for name in names if marked(f"{name}@{self.dir}")]

    def assert_nothing_left(self) -> None:
        assert self.running() == []
        assert list(self.temporary.iterdir()) == []
        assert not (self.dir / "service.pid").exists()

    def runs(self, job_id: str) -> list[tuple[int, str]]:
        """(attempt, status) of the runs that the net itself has on record for the job."""
        with closing(sqlite3.connect(self.dir / "net" / "runs.db")) as ledger:
            query = "SELECT attempt, status FROM run WHERE job_id = ?"
            return ledger.execute(query, (job_id,)).fetchall()


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fl-job-service-demo-"))
    folder.chmod(0o711)
    (folder / "temporary").mkdir(mode=0o711)
    yield folder
    Stack(folder / "demo", environ={}).down()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with _folder() as folder:
        yield folder


@pytest.fixture
def apart() -> Iterator[Path]:
    """For a job that is left unfinished: the next demo would wait for it."""
    with _folder() as folder:
        yield folder


def test_it_trains_a_model_and_leaves_nothing_running(home: Path) -> None:
    demo = Demo(home)
    began = time.monotonic()
    found = demo.document(demo.start("--json"))
    print(f"demo from an empty folder: {time.monotonic() - began:.1f} s, parts {found['seconds']}")
    demo.assert_nothing_left()

    assert found["state"] == "completed"
    assert [r["round"] for r in found["rounds"]] == list(range(1, 21))
    places = {"all", "Trust_1", "Trust_2", "Trust_3"}
    for one in found["rounds"]:
        assert set(one["scores"]) == places
        assert all(set(s) == {"loss", "accuracy", "auc"} for s in one["scores"].values())
    test = found["test"]
    assert test["federated"]["accuracy"] > 0.95
    assert test["federated"]["auc"] > 0.98
    alone = [test[place]["accuracy"] for place in places - {"all"}]
    assert test["federated"]["accuracy"] > sum(alone) / 3
    assert test["pooled"]["accuracy"] > 0.95
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert Path(found["results_file"]).stat().st_size == found["results"]["bytes"]
    assert [e["sequence"] for e in found["lifecycle"]] == list(
        range(1, len(found["lifecycle"]) + 1)
    )
    assert found["service_restarts"] == 0
    assert 0 < sum(found["memory"].values()) < 10**9


def test_a_killed_service_still_completes_the_job(home: Path) -> None:
    demo = Demo(home)
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


def test_a_shell_with_the_settings_of_another_stack_changes_nothing(home: Path) -> None:
    demo = Demo(home)
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
    told = [line for line in demo.said.read_text().splitlines() if line.startswith("ignored: ")]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGINT, "running"),
        (signal.SIGTERM, "running"),
        (signal.SIGTERM, "starting"),
        (signal.SIGHUP, "starting"),
        (signal.SIGHUP, "running"),
    ],
)
def test_an_interrupted_demo_stops_everything(
    apart: Path, number: signal.Signals, when: str
) -> None:
    demo = Demo(apart)
    process = demo.start("--rounds", "1000")
    demo.wait_for(when, process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert demo.said.read_text().splitlines()[-1].startswith("interrupted")
    assert "pending" not in demo.said.read_text()
    demo.assert_nothing_left()


def test_down_ends_a_demo_and_its_service(apart: Path) -> None:
    demo = Demo(apart)
    process = demo.start("--rounds", "1000")
    demo.wait_for("running", process)
    down = [sys.executable, "-m", "service", "local", "down", "--json", "--dir", str(demo.dir)]
    done = subprocess.run(down, capture_output=True, text=True, check=True, timeout=90)
    process.communicate(timeout=5)
    assert process.returncode == 130
    assert json.loads(done.stdout)["stopped"] == ["demo"]
    demo.assert_nothing_left()


def test_down_ends_what_a_killed_demo_left(apart: Path) -> None:
    demo = Demo(apart)
    process = demo.start("--rounds", "1000")
    demo.wait_for("running", process)
    process.kill()
    process.communicate(timeout=10)
    assert "service" in demo.running()
    down = [sys.executable, "-m", "service", "local", "down", "--json", "--dir", str(demo.dir)]
    done = subprocess.run(down, capture_output=True, text=True, check=True, timeout=90)
    assert sorted(json.loads(done.stdout)["stopped"]) == sorted(("service", *ALL_PARTS))
    assert demo.running() == []
    assert not (demo.dir / "service.pid").exists()


def test_a_backend_that_it_has_not_is_a_usage_error(home: Path) -> None:
    done = Demo(home).start("--backend", "abacus")
    done.communicate(timeout=30)
    assert done.returncode == 2
