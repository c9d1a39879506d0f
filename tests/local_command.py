"""`fl-jobs local` in a process of its own, over a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.local.process import tagged
from service.local.stack import ALL_COMPONENTS

_ADDRESSES = ("FL_KAFKA__BOOTSTRAP_SERVERS", "FL_DATABASE__DSN", "FL_S3__ENDPOINT_URL")


@contextmanager
def stack_folder() -> Iterator[Path]:
    """A folder for a stack; whatever runs there at the end is stopped."""
    path = Path(tempfile.mkdtemp(prefix="fl-job-service-command-"))
    path.chmod(0o711)
    yield path
    local("down", path, "--wipe")


def heed_a_hangup() -> None:
    """In a child: even when the tests themselves run under `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "service", "local", *words]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in _ADDRESSES}


def local(verb: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(verb, "--dir", str(folder), *more),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def document_of(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def running(folder: Path) -> bool:
    return any(tagged(f"{part}@{folder}") for part in ALL_COMPONENTS)


def interrupt_up(folder: Path, number: signal.Signals) -> None:
    """Send the signal to an `up` that has started something: it stops that again."""
    process = subprocess.Popen(
        command("up", "--dir", str(folder)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_a_hangup,
    )
    until = time.monotonic() + 30
    while not running(folder):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted")
    assert not running(folder)
