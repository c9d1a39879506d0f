"""Who works on a stack: a demo, and the service. They are ended before the components that they use.

Promises that only those are signalled: the demo by its record, the service of a demo by its tag, and
a pid that somebody wrote into `service.pid` only while it is a service's `run` that was there before the
file was. What breaks it: a file that is written anew for a process of another stack.
"""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

from service.local.component import ComponentProgress, OnProgress, silent
from service.local.process import (
    ProcessRecord,
    age_of,
    command_of,
    start_time_of,
    stop_alone,
    tagged,
)

_DEMO_SECONDS: Final = 60.0
_SERVICE_SECONDS: Final = 15.0
#: Clocks of files and of processes differ by this much.
_SLACK_SECONDS: Final = 2.0


def demo_record(dir: Path) -> Path:
    """Where a demo that runs in this folder is recorded."""
    return dir / "run" / "demo.pid"


def service_pid(dir: Path) -> Path:
    """The file with the bare pid of the service."""
    return dir / "service.pid"


def service_tag(dir: Path) -> str:
    """What a service that a demo started carries in its environment."""
    return f"service@{dir}"


def stop_dependents(dir: Path, progress: OnProgress = silent) -> list[str]:
    """End them, the demo first, since it would start the service again. Names what was ended."""
    ended = []
    demo = ProcessRecord.read(demo_record(dir))
    if demo is not None and demo.alive() and demo.pid != os.getpid():
        progress(ComponentProgress("demo", "stopping"))
        stop_alone(demo, first=signal.SIGTERM, seconds=_DEMO_SECONDS)
        progress(ComponentProgress("demo", "stopped", finished=True))
        ended.append("demo")
    services = tagged(service_tag(dir))
    named = _named(service_pid(dir))
    if named is not None and named not in services:
        services.append(named)
    for service in services:
        progress(ComponentProgress("service", f"stopping (pid {service.pid})"))
        stop_alone(service, first=signal.SIGTERM, seconds=_SERVICE_SECONDS)
        progress(ComponentProgress("service", "stopped", finished=True))
    if services:
        ended.append("service")
        service_pid(dir).unlink(missing_ok=True)
    return ended


def _named(file: Path) -> ProcessRecord | None:
    """The service that the file names, if it is one."""
    try:
        pid, written = int(file.read_text()), file.stat().st_mtime
    except (OSError, ValueError):
        return None
    start_time = start_time_of(pid) if pid > 1 else None
    if start_time is None or not _runs_service(command_of(pid)):
        return None
    age = age_of(pid)
    if age is not None and time.time() - age > written + _SLACK_SECONDS:
        return None
    return ProcessRecord(pid, start_time)


def _runs_service(words: list[str]) -> bool:
    ours = any(Path(word).name == "fl-jobs" for word in words[:3])
    module = any(pair == ("-m", "service") for pair in pairwise(words))
    return "run" in words and (ours or module)
