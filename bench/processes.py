"""Programs under measurement: started with an environment of their own, asked for their memory, ended.

A process that dies by itself is an error of the measurement, reported with the end of what it wrote.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from service.errors import Transient
from service.local.process import Memory, memory_of

_ROOT: Final = Path(__file__).resolve().parent.parent
_STOP_SECONDS: Final = 15.0


class Process:
    """One program. `name` is for people."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._popen = popen
        self._log = log

    @property
    def pid(self) -> int:
        return self._popen.pid

    def check(self) -> None:
        """Raises errors.Transient when it has ended by itself."""
        code = self._popen.poll()
        if code is not None:
            said = self._log.read_text("utf-8", "replace").strip()[-1_500:]
            raise Transient(f"{self.name} ended with {code}: {said or 'it wrote nothing'}")

    def memory(self) -> Memory | None:
        return memory_of(self.pid)

    def cpu(self) -> float | None:
        """Seconds of processor time it has used, its start included; None where that can't be read."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text("ascii", "replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ask, wait, kill. Safe to call twice."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


def start(
    module: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    output: Path | None = None,
) -> Process:
    """Start `python -m module`; a module that starts with a dot is one of this package."""
    name = f"bench{module}" if module.startswith(".") else module
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("ab") as err, (output or log).open("ab") as out:
        popen = subprocess.Popen(
            [sys.executable, "-m", name, *arguments],
            env={**env, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    return Process(" ".join([name, *arguments]), popen, log)
