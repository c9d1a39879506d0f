"""A benchmark that is ended leaves neither processes nor files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from service.local.process import tagged
from service.local.stack import ALL_COMPONENTS


def command_lines() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes().decode("utf-8", "replace"))
    return found


@pytest.mark.parametrize("measured", ["ingest", "latency"])
def test_an_ended_benchmark_stops_what_it_started(measured: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fl-job-service-bench-") as folder:
        Path(folder).chmod(0o711)
        said = Path(folder) / "said"
        with said.open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench", measured],
                env=os.environ | {"TMPDIR": folder},
                stdout=subprocess.DEVNULL,
                stderr=err,
            )
        until = time.monotonic() + 60
        while "stack up" not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.05)
        (own,) = Path(folder).glob("fl-bench-*")
        time.sleep(3)  # into the first contestant's run
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        assert not any(tagged(f"{part}@{own / 'stack'}") for part in ALL_COMPONENTS)
        assert [path.name for path in Path(folder).iterdir()] == ["said"]
        assert not [line for line in command_lines() if str(own) in line]
