"""A demo in a folder of its own, run as a user runs it, and what it may leave there: nothing."""

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

from service.local.env_file import ADDRESS_OF
from service.local.process import tagged
from service.local.stack import ALL_COMPONENTS, Stack
from tests.local_command import heed_a_hangup


class DemoProcess:
    """One folder for a demo, and one that is its temporary directory."""

    def __init__(self, home: Path) -> None:
        self.dir = home / "demo"
        self.temporary = home / "temporary"
        self.stderr = home / "said.txt"

    def start(self, *more: str, **settings: str) -> subprocess.Popen[str]:
        own = {key: value for key, value in os.environ.items() if key not in ADDRESS_OF.values()}
        with self.stderr.open("w") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "service", "demo", "--dir", str(self.dir), *more],
                env=own | {"TMPDIR": str(self.temporary)} | settings,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                preexec_fn=heed_a_hangup,
            )

    def document(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, _ = process.communicate(timeout=100)
        assert process.returncode == 0, self.stderr.read_text()
        found: dict[str, Any] = json.loads(out)
        return found

    def wait_for(self, text: str, process: subprocess.Popen[str], seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while text not in self.stderr.read_text():
            assert process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < until, self.stderr.read_text()
            time.sleep(0.02)

    def running(self) -> list[str]:
        names = (*ALL_COMPONENTS, "service")
        return [name for name in names if tagged(f"{name}@{self.dir}")]

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
def demo_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fl-job-service-demo-"))
    folder.chmod(0o711)
    (folder / "temporary").mkdir(mode=0o711)
    yield folder
    Stack(folder / "demo", environ={}).down()
    shutil.rmtree(folder)


def interrupt(demo: DemoProcess, when: str, number: signal.Signals) -> None:
    """Send the signal to a demo that has said `when`: it ends everything that it has started."""
    process = demo.start("--rounds", "1000")
    demo.wait_for(when, process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert demo.stderr.read_text().splitlines()[-1].startswith("interrupted")
    assert "pending" not in demo.stderr.read_text()
    demo.assert_nothing_left()
