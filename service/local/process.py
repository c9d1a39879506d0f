"""Child processes that outlive the program which started them, and how to end exactly those.

Promises: a process is only ever signalled when it is provably the one that was started: its pid is
recorded with its start time, and every process also carries a tag in its environment that its
children inherit, so that a worker whose parent was killed is found too. What breaks it: a
system without `/proc` has no tag to look for, so there only recorded pids are stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TAG_VARIABLE: Final = "FL_LOCAL_PART"
_PROC: Final = Path("/proc")
_HAS_PROC: Final = (_PROC / "self" / "stat").exists()
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "TMPDIR", "LD_LIBRARY_PATH")
# English messages, and paths in UTF-8: in plain C, Java takes every other letter for a question tag.
# macOS has no C.UTF-8, and its paths are UTF-8 whatever the locale.
_LOCALE: Final = "C" if sys.platform == "darwin" else "C.UTF-8"

# Started here and still to be reaped by us; a Popen that is collected while its process runs warns.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start. `user` is a login name to change to (only root can), `env` is added."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process as recorded on disk: `start_time` tells it from a later owner of the same pid."""

    pid: int
    start_time: str

    @classmethod
    def read(cls, path: Path) -> ProcessRecord | None:
        """None where nothing, or nothing readable, is recorded."""
        try:
            raw = json.loads(path.read_text())
            return cls(int(raw["pid"]), str(raw["start_time"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"pid": self.pid, "start_time": self.start_time}))
        fresh.replace(path)

    def alive(self) -> bool:
        return start_time_of(self.pid) == self.start_time


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a process and its descendants; `pss` shares common pages fairly, None if unknown."""

    rss: int
    pss: int | None


def start_time_of(pid: int) -> str | None:
    """When this process was started, as opaque text; None when it is gone or only waits to be reaped."""
    if _HAS_PROC:
        fields = _stat(pid)
        start_time = None if fields is None or _ended(pid, fields[0]) else fields[19]
    else:
        start_time = _start_time_by_ps(pid)
    if (
        start_time is None
        and (child := _children.get(pid)) is not None
        and child.poll() is not None
    ):
        _children.pop(pid, None)
    return start_time


def _ended(pid: int, state: str) -> bool:
    """Whether nothing of it runs: a process whose first thread is gone may have others left."""
    if state not in "ZX":
        return False
    try:
        return sum(1 for _ in (_PROC / str(pid) / "task").iterdir()) <= 1
    except OSError:
        return True


def _start_time_by_ps(pid: int) -> str | None:
    argv = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the command's name: state first, start time 20th."""
    try:
        raw = (_PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return raw.rpartition(")")[2].split()


def child_environment(extra: Mapping[str, str], tag: str) -> dict[str, str]:
    """A small environment: components get no credentials or settings that they were not given."""
    env = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    env.update(LC_ALL=_LOCALE, TZ="UTC")
    env.update(extra)
    env[TAG_VARIABLE] = tag
    return env


def spawn(launch: Launch, *, log: Path, tag: str) -> ProcessRecord:
    """Start a process in a session of its own, its output appended to `log`. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            list(launch.argv),
            cwd=launch.cwd,
            env=child_environment(launch.env, tag),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=launch.user,
            group=None if launch.user is None else group_of(launch.user),
            extra_groups=None if launch.user is None else [],
        )
    _children[child.pid] = child
    return ProcessRecord(child.pid, start_time_of(child.pid) or "")


def group_of(user: str) -> int:
    """The id of a login's main group. Raises KeyError for one that doesn't exist."""
    import pwd

    return pwd.getpwnam(user).pw_gid


def stop(process: ProcessRecord, *, first: signal.Signals, seconds: float) -> None:
    """Ask with `first`, wait up to `seconds`, then kill it and what is left of its group."""
    if not process.alive():
        return
    group = _group_leader(process.pid)
    stop_alone(process, first=first, seconds=seconds)
    if group:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    child = _children.pop(process.pid, None)
    if child is not None:
        with suppress(subprocess.TimeoutExpired):
            child.wait(5.0)


def stop_alone(process: ProcessRecord, *, first: signal.Signals, seconds: float) -> None:
    """As `stop`, but for the others of its group: a shell's pipeline is not ours."""
    _signal(process, first)
    if not wait_gone(process, seconds):
        _signal(process, signal.SIGKILL)
        wait_gone(process, 5.0)


def _group_leader(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _signal(process: ProcessRecord, number: signal.Signals) -> None:
    if process.alive():
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def wait_gone(process: ProcessRecord, seconds: float) -> bool:
    """True once the process has ended, False when it still lives after `seconds`."""
    until = time.monotonic() + seconds
    while process.alive():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def tagged(tag: str) -> list[ProcessRecord]:
    """Every living process started under `tag`, descendants included. Empty without /proc."""
    wanted = f"{TAG_VARIABLE}={tag}".encode()
    found = []
    for pid in _pids():
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and (start_time := start_time_of(pid)):
            found.append(ProcessRecord(pid, start_time))
    return found


def command_of(pid: int) -> list[str]:
    """The words of its command line; empty when it is gone."""
    if not _HAS_PROC:
        argv = ["ps", "-o", "command=", "-p", str(pid)]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]


def age_of(pid: int) -> float | None:
    """Seconds since its start; None when it is gone or the system does not know."""
    fields = _stat(pid) if _HAS_PROC else None
    if fields is None:
        return None
    up = float((_PROC / "uptime").read_text().split()[0])
    return up - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def kill_tagged(tag: str) -> int:
    """Kill what still runs under `tag`; says how many there were."""
    strays = tagged(tag)
    for stray in strays:
        _signal(stray, signal.SIGKILL)
    for stray in strays:
        wait_gone(stray, 5.0)
    return len(strays)


def _pids() -> Iterator[int]:
    if _HAS_PROC:
        for entry in os.scandir(_PROC):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                yield int(entry.name)


def memory_of(pid: int) -> Memory | None:
    """Memory of a process and all its descendants; None when it is gone or can't be read."""
    if not _HAS_PROC:
        answer = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return Memory(int(answer.stdout) * 1024, None) if answer.stdout.strip() else None
    parents = {child: int(stat[1]) for child in _pids() if (stat := _stat(child))}
    family = {pid}
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    rolls = [roll for member in family if (roll := _rollup(member))]
    if not rolls:
        return None
    return Memory(sum(r[0] for r in rolls), sum(r[1] for r in rolls))


def _rollup(pid: int) -> tuple[int, int] | None:
    values = {}
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
            key, _, rest = line.partition(":")
            values[key] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return values.get("Rss", 0), values.get("Pss", 0)


def python() -> str:
    """The interpreter that runs us: children use the same environment."""
    return sys.executable
