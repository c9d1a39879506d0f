"""The service as the demo's child process, watched and started again when it dies.

Promises one service at a time: one that an interrupted demo left is ended first, and a dead one is
followed by a new one at once, which continues where the dead one was. Its pid stands in
`<dir>/service.pid`. What breaks it: a service that can't start; after three deaths in a row, each soon
after its start, the demo gives up and names the log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import service
from service.errors import Transient
from service.local.dependents import service_pid, service_tag
from service.local.process import (
    Launch,
    Memory,
    ProcessRecord,
    kill_tagged,
    memory_of,
    python,
    spawn,
    stop,
)

_QUICK_DEATH_SECONDS: Final = 5.0
_MOST_DEATHS: Final = 6
_STOP_SECONDS: Final = 10.0
#: A killed service's successor is back in its consumer group, and takes over its jobs, within seconds.
_QUICK_TAKEOVER: Final = {
    "FL_KAFKA__GROUP_INSTANCE_ID": "demo",
    "FL_STEPS__LEASE_SECONDS": "4",
    "FL_STEPS__RENEW_SECONDS": "1",
    "FL_STEPS__FENCE_WAIT_SECONDS": "5",
}


class ServiceProcess:
    """`announce` is event of each death. Use: `start`, `watch` as a task, `stop`."""

    def __init__(self, dir: Path, env_file: Path, announce: Callable[[str], None]) -> None:
        self._dir = dir
        self._env_file = env_file
        self.announce = announce
        self._process: ProcessRecord | None = None
        self._began = 0.0
        self.restarts = 0

    @property
    def log(self) -> Path:
        return self._dir / "logs" / "service.log"

    @property
    def pid_file(self) -> Path:
        return service_pid(self._dir)

    def start(self) -> int:
        """Start it; its pid. Raises Transient when no process can be made."""
        kill_tagged(self._tag)
        own = {k: v for k, v in os.environ.items() if k.startswith(("FL_", "AWS_"))}
        # Started from a checkout, the package is found by the folder that it lies in.
        own["PYTHONPATH"] = str(Path(service.__file__).parents[1])
        argv = [python(), "-m", "service", "run", "--env-file", str(self._env_file)]
        launch = Launch(argv, self._dir, {**_QUICK_TAKEOVER, **own})
        self._began = time.monotonic()
        try:
            self._process = spawn(launch, log=self.log, tag=self._tag)
        except OSError as exc:
            raise Transient(f"the service can't be started: {exc}") from exc
        self.pid_file.write_text(f"{self._process.pid}\n")
        return self._process.pid

    async def watch(self) -> None:
        """Start it again whenever it dies; ends only with Transient, when that is no use."""
        quick = 0
        while True:
            await asyncio.sleep(0.1)
            process = self._process
            if process is None or process.alive():
                continue
            quick = quick + 1 if time.monotonic() - self._began < _QUICK_DEATH_SECONDS else 1
            if quick >= _MOST_DEATHS:
                raise Transient(f"the service ends soon after every start: see {self.log}")
            self.restarts += 1
            pid = self.start()
            self.announce(f"the service (pid {process.pid}) died; started again (pid {pid})")

    def stop(self) -> None:
        """End it, and whatever it left."""
        process, self._process = self._process, None
        if process is not None:
            stop(process, first=signal.SIGTERM, seconds=_STOP_SECONDS)
        kill_tagged(self._tag)
        self.pid_file.unlink(missing_ok=True)

    def memory(self) -> Memory | None:
        """What it takes now; None when it is gone or the system does not know."""
        return None if self._process is None else memory_of(self._process.pid)

    @property
    def _tag(self) -> str:
        return service_tag(self._dir)
