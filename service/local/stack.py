"""The embedded stack: a real broker, database, object store and FL net, up and down as one.

Promises: `up` starts what isn't running and touches nothing that is; a second `up` changes
nothing; a component that died is started again, on its old ports while they are free. `down` leaves no
process behind and nothing in the temporary directory, and keeps the data for the next `up`. Both
hold one lock per folder, so that two at once take turns. A component whose address is already set in
the environment is used as it is, and never started or stopped. A start that fails or is
interrupted stops what it had started. What breaks it: SIGKILL of `up` in mid-start leaves components
running, which the next `up` or `down` finds by the tag that they carry.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.errors import Transient
from service.local import env_file, ports
from service.local.component import Component, ComponentProgress, OnProgress, silent
from service.local.folder_lock import folder_lock
from service.local.kafka import KafkaComponent
from service.local.nets import NetComponent
from service.local.postgres import PostgresComponent
from service.local.process import ProcessRecord, kill_tagged, memory_of, spawn, stop
from service.local.s3 import S3Component
from service.local.state import State

ALL_COMPONENTS: Final = ("kafka", "postgres", "s3", "net")
_TYPES: Final[dict[str, type[Component]]] = {
    each.name: each for each in (KafkaComponent, PostgresComponent, S3Component, NetComponent)
}
_TRIES: Final = 3
_HUNG_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One component as it is now. `state`: running, starting, died, stopped, or external.

    `rss` and `pss` are bytes of the component and its children (None: not running or not known).
    """

    name: str
    state: str
    endpoint: str
    pid: int | None = None
    port: int | None = None
    rss: int | None = None
    pss: int | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class StackInfo:
    """What `up` leaves: the settings it wrote, the file they are in, and what it had to start."""

    dir: Path
    env_file: Path
    env: dict[str, str]
    started: tuple[str, ...]


class _Cancelled(Exception):
    """Another component failed, or somebody pressed Ctrl-C."""


class Stack:
    """The stack that lives in `dir`. `data_root` holds the sites' data (default `<dir>/data`)."""

    def __init__(
        self,
        dir: Path,
        data_root: Path | None = None,
        *,
        components: Iterable[str] = ALL_COMPONENTS,
        environ: Mapping[str, str] | None = None,
        capacity: int = 1,
    ) -> None:
        self.dir = dir.absolute()
        self.data_root = (data_root or self.dir / "data").absolute()
        self.components = tuple(name for name in ALL_COMPONENTS if name in set(components))
        self._environ = os.environ if environ is None else environ
        self._capacity = capacity
        self._cancelled = threading.Event()

    @property
    def env_path(self) -> Path:
        return self.dir / "env"

    def log_path(self, name: str) -> Path:
        """Where a component's output goes."""
        return self.dir / "logs" / f"{name}.log"

    def up(self, progress: OnProgress = silent) -> StackInfo:
        """Start what isn't running, and write the settings. Raises MissingDependency or Transient."""
        waiting = ComponentProgress("stack", "waiting for another start or stop of this stack")
        with folder_lock(self.dir / "lock", lambda: progress(waiting)):
            self._cancelled.clear()
            state = self._state()
            external = self._external(state)
            own: list[str] = [name for name in self.components if name not in external]
            for name in own:
                self._build(name, state, external).check()
            started: list[str] = []
            try:
                self._start_all(own, state, external, started, progress)
                env = env_file.settings(self.dir, self.components, state, external, self._environ)
                state.remember(
                    env[key] for component, key in env_file.ADDRESS_OF.items() if component in own
                )
                env_file.write(self.env_path, env)
                if "net" in self.components:
                    env_file.write_registry(
                        state, self.dir, self._endpoint("net", state), self._capacity
                    )
                state.save()
            except BaseException:
                self._stop_all(started, state)
                raise
            return StackInfo(self.dir, self.env_path, env, tuple(started))

    def rollback(self, started: Iterable[str], progress: OnProgress = silent) -> None:
        """Stop what an `up` says to have started; the settings go with the last component."""
        with folder_lock(self.dir / "lock", lambda: None):
            state = self._state()
            self._stop_all(list(started), state, progress)
            if not any(self._pid_path(name).exists() for name in ALL_COMPONENTS):
                self.env_path.unlink(missing_ok=True)

    def applied_registry(self) -> str:
        """The SHA-256 (hex) of the registry file as it was last applied here; empty: never."""
        return self._state().registry_applied

    def note_applied_registry(self, sha256: str) -> None:
        """Remember it for the next `up`."""
        with folder_lock(self.dir / "lock", lambda: None):
            state = self._state()
            state.registry_applied = sha256
            state.save()

    def down(self, progress: OnProgress = silent, *, wipe: bool = False) -> list[str]:
        """Stop everything of this stack; with `wipe` delete its data too. Names what it stopped."""
        if not self.dir.exists():
            return []
        waiting = ComponentProgress("stack", "waiting for another start or stop of this stack")
        with folder_lock(self.dir / "lock", lambda: progress(waiting)):
            state = self._state()
            stopped = self._stop_all(list(ALL_COMPONENTS), state, progress)
            self.env_path.unlink(missing_ok=True)
            if wipe:
                for entry in self.dir.iterdir():
                    if entry.is_dir():
                        shutil.rmtree(entry)
                    else:
                        entry.unlink(missing_ok=True)
        if wipe:
            shutil.rmtree(self.dir, ignore_errors=True)
        return stopped

    def status(self) -> list[ComponentStatus]:
        """Each component as it is now. Changes nothing."""
        state = self._state()
        external = self._external(state)
        return [self._status_of(name, state, external) for name in self.components]

    # -- starting ---------------------------------------------------------------------------

    def _start_all(
        self,
        own: list[str],
        state: State,
        external: Mapping[str, str],
        started: list[str],
        progress: OnProgress,
    ) -> None:
        """Start side by side; the net follows the broker, which it reports to."""

        def report(step: ComponentProgress) -> None:
            if self._cancelled.is_set():
                raise _Cancelled
            progress(step)

        def one(name: str) -> None:
            self._start(name, state, external, report, started)

        first = [name for name in own if name != "net"]
        for group in (first, [name for name in own if name == "net"]):
            if group:
                self._side_by_side(one, group)

    def _side_by_side(self, work: Callable[[str], None], names: list[str]) -> None:
        """Work on all at once; the first failure makes the others give up, and is raised."""
        with ThreadPoolExecutor(len(names), thread_name_prefix="local") as pool:
            futures: list[Future[None]] = [pool.submit(work, name) for name in names]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException:
                self._cancelled.set()
                raise
            if any(f.done() and f.exception() for f in futures):
                self._cancelled.set()
        errors = [error for f in futures if (error := f.exception()) is not None]
        for error in errors:
            if not isinstance(error, _Cancelled):
                raise error

    def _start(
        self,
        name: str,
        state: State,
        external: Mapping[str, str],
        report: OnProgress,
        started: list[str],
    ) -> None:
        """Start a component unless it is running and well; `started` has its name before it runs."""
        if self._is_well(name, state, external):
            report(ComponentProgress(name, "already running", finished=True))
            return
        began = time.monotonic()
        started.append(name)
        for attempt in range(_TRIES):
            self._stop(name, state)
            state.ports_for(name, _TYPES[name].port_uses, fresh=attempt > 0)
            state.save()
            component = self._build(name, state, external)
            component.prepare(report)
            report(ComponentProgress(name, "starting"))
            if self._run(component, report):
                took = time.monotonic() - began
                report(ComponentProgress(name, f"ready in {took:.1f} s", finished=True))
                return
        raise Transient(f"{name} found no free port in {_TRIES} tries")

    def _run(self, component: Component, report: OnProgress) -> bool:
        """Spawn and wait until it works. False: its port was taken meanwhile. Raises Transient."""
        log = self.log_path(component.name)
        offset = log.stat().st_size if log.exists() else 0
        try:
            process = spawn(component.launch(), log=log, tag=self._tag(component.name))
        except OSError as exc:
            raise Transient(f"{component.name} can't be started: {exc}") from exc
        process.write(self._pid_path(component.name))
        until = time.monotonic() + component.start_seconds
        while time.monotonic() < until:
            if component.ready():
                component.complete()
                return True
            if not process.alive():
                output = _tail(log, offset)
                if "already in use" in output.lower() or "bindexception" in output.lower():
                    return False
                raise Transient(f"{component.name} ended while starting ({log}): {_last(output)}")
            report(ComponentProgress(component.name, "starting"))
            time.sleep(0.05)
        raise Transient(
            f"{component.name} was not ready within {component.start_seconds:.0f} s ({log}): "
            f"{_last(_tail(log, offset))}"
        )

    def _is_well(self, name: str, state: State, external: Mapping[str, str]) -> bool:
        process = ProcessRecord.read(self._pid_path(name))
        if process is None or not process.alive() or name not in state.ports:
            return False
        component = self._build(name, state, external)
        until = time.monotonic() + _HUNG_SECONDS
        while process.alive() and time.monotonic() < until:
            if component.ready():
                return True
            time.sleep(0.1)
        return False

    # -- stopping ---------------------------------------------------------------------------

    def _stop_all(self, names: list[str], state: State, progress: OnProgress = silent) -> list[str]:
        """The net first, since it reports to the broker; the others side by side."""
        stopped: list[str] = []

        def one(name: str) -> None:
            if self._stop(name, state):
                stopped.append(name)
                # Whoever is shown this may be gone, and the other components must still be stopped.
                with suppress(OSError):
                    progress(ComponentProgress(name, "stopped", finished=True))

        for group in ([n for n in names if n == "net"], [n for n in names if n != "net"]):
            if group:
                with ThreadPoolExecutor(len(group)) as pool:
                    list(pool.map(one, group))
        return stopped

    def _stop(self, name: str, state: State) -> bool:
        """True when anything of this component was running. Cleans up after it either way."""
        kind = _TYPES[name]
        process = ProcessRecord.read(self._pid_path(name))
        ran = process is not None and process.alive()
        if process is not None:
            stop(process, first=kind.stop_signal, seconds=kind.stop_seconds)
        strays = kill_tagged(self._tag(name))
        if name in state.ports:
            self._build(name, state, {}).clean()
        self._pid_path(name).unlink(missing_ok=True)
        return ran or strays > 0

    # -- what is where ----------------------------------------------------------------------

    def _state(self) -> State:
        return State.load(self.dir / "state.json")

    def _pid_path(self, name: str) -> Path:
        return self.dir / "run" / f"{name}.pid"

    def _tag(self, name: str) -> str:
        return f"{name}@{self.dir}"

    def _external(self, state: State) -> dict[str, str]:
        """Parts whose address stands in the environment and isn't the one that we gave out."""
        found = {}
        for name, key in env_file.ADDRESS_OF.items():
            value = self._environ.get(key, "")
            if value and value not in state.handed_out:
                found[name] = value
        return found

    def _endpoint(self, name: str, state: State) -> str:
        return env_file.endpoint_of(name, state.ports[name])

    def _build(self, name: str, state: State, external: Mapping[str, str]) -> Component:
        own_ports = state.ports.get(name) or dict.fromkeys(_TYPES[name].port_uses, 0)
        folder = self.dir / name
        if name == "kafka":
            return KafkaComponent(folder, own_ports)
        if name == "postgres":
            return PostgresComponent(folder, own_ports)
        if name == "s3":
            keys = {"access_key": state.access_key, "secret_key": state.secret_key}
            return S3Component(folder, own_ports, **keys)
        broker = external.get("kafka") or (
            self._endpoint("kafka", state) if "kafka" in state.ports else ""
        )
        return NetComponent(
            folder,
            own_ports,
            bootstrap=broker,
            topic_prefix=self._environ.get("FL_KAFKA__TOPIC_PREFIX", ""),
            data_root=self.data_root,
            capacity=self._capacity,
            bundle_origin=external.get("s3", ""),
        )

    def _status_of(self, name: str, state: State, external: Mapping[str, str]) -> ComponentStatus:
        if name in external:
            return ComponentStatus(name, "external", env_file.without_password(external[name]))
        process = ProcessRecord.read(self._pid_path(name))
        if name not in state.ports:
            return ComponentStatus(name, "stopped", "")
        endpoint = self._endpoint(name, state)
        log = self.log_path(name)
        if process is None:
            return ComponentStatus(name, "stopped", endpoint, log=log)
        port = state.ports[name][_TYPES[name].port_uses[0]]
        if not process.alive():
            return ComponentStatus(name, "died", endpoint, port=port, log=log)
        memory = memory_of(process.pid)
        return ComponentStatus(
            name,
            "running" if ports.answers(port) else "starting",
            endpoint,
            process.pid,
            port,
            memory.rss if memory else None,
            memory.pss if memory else None,
            log,
        )


def _tail(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset)
        return file.read()[-20_000:].decode("utf-8", "replace")


def _last(text: str) -> str:
    """The last line that is not empty, for a one-line error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it wrote nothing"
