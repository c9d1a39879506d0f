"""The server's end of one site: its process, the calls to it, and its end.

Promise: a call gives an answer or `SiteFailed` with a cause that a person can act on, also when
the process is killed, prints without end or answers nonsense; after `close` the process and what
it started are gone, new sessions included (on Linux, while they keep their environment). The
process sees none of the server's settings or credentials.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.fl_server.embedded import answers, frames, processes
from service.fl_server.embedded.parameters import BadParameters, Parameters, from_npz
from service.fl_server.embedded.plan import Plan
from service.fl_server.embedded.returned import Metrics
from service.fl_server.embedded.run_log import LogFile
from service.fl_server.embedded.site_channel import CHANNEL_LOST
from service.fl_server.embedded.site_connection import SiteConnection

_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[3]
_INHERITED: Final = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
    *("SYSTEMROOT", "CUDA_VISIBLE_DEVICES"),
)
_ONE_THREAD: Final = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)
#: What a site's process and all it starts carry in their environment; the value is its folder.
_MARK: Final = "FL_SITE_FOLDER"
#: Bytes of a message below which it is packed and unpacked on the event loop itself.
SMALL: Final = 1 << 18

_SEE_LOG: Final = " (the run's log shows where)"
_HINTS: Final = {
    "SIGKILL": " (out of memory?)",
    **dict.fromkeys(("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"), _SEE_LOG),
}


class SiteFailed(Exception):
    """A site gave nothing usable. `alive` says whether its process can be asked again."""

    def __init__(
        self, slot: str, function: str, cause: str, *, trace: str = "", alive: bool
    ) -> None:
        super().__init__(f"site {slot}: {function}: {cause}")
        self.slot = slot
        self.function = function
        self.cause = cause
        self.trace = trace
        self.alive = alive


@dataclass(frozen=True, slots=True)
class Update:
    """A site's answer to `fit`."""

    parameters: Parameters
    num_examples: int
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Measured:
    """A site's answer to `evaluate`."""

    num_examples: int
    metrics: Metrics


class SiteLink:
    """One site of one run. Calls are made one after another."""

    def __init__(self, slot: str, plan: Plan, data_dir: Path, work: Path, log: LogFile) -> None:
        self.slot = slot
        self._plan = plan
        self._data_dir = data_dir
        self._work = work
        self._mark = str(work.resolve())
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._connection: SiteConnection | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, let it import the trainer and load the site's data.

        Raises:
            SiteFailed: any of it failed.
        """
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            self._work.mkdir(parents=True, exist_ok=True)
            # A server that was killed may have left some of this run's.
            await self._end_leftovers()
            self._connection = SiteConnection()
            channel = self._connection.theirs.fileno()
            self._process = await processes.start(
                (
                    *(sys.executable, "-P", "-m", "service.fl_server.embedded.site_process"),
                    *(str(os.getpid()), str(channel)),
                ),
                cwd=self._work,
                env={**_environment(), _MARK: self._mark},
                inherited=(channel,),
            )
        except OSError as exc:
            raise SiteFailed(
                self.slot, "start", f"the process can't be started: {exc}", alive=False
            ) from exc
        assert self._process.stdout is not None
        self._following = asyncio.create_task(self._log.follow(self._process.stdout, self.slot))
        await self._connection.open(self._process)
        await self._call(
            "load",
            {
                "app": str(self._plan.app),
                "entrypoint": self._plan.entrypoint,
                "site": self.slot,
                "data_dir": str(self._data_dir),
            },
        )

    async def initial_parameters(self, config: Mapping[str, Any]) -> Parameters:
        """The parameters before the first round.

        Raises:
            SiteFailed: the trainer failed.
        """
        answer, body = await self._call("initial_parameters", {"config": config})
        return await self._unpacked("initial_parameters", answer, body)

    async def fit(
        self,
        packed: bytes,
        keys: tuple[str, ...] | None,
        config: Mapping[str, Any],
        limit: float | None,
    ) -> Update:
        """Train from the packed parameters, for at most `limit` seconds.

        Raises:
            SiteFailed: the trainer failed, or the time ran out (then the process is killed).
        """
        answer, body = await self._call("fit", {"keys": keys, "config": config}, packed, limit)
        parameters = await self._unpacked("fit", answer, body)
        return Update(parameters, *self._numbers("fit", answer))

    async def evaluate(
        self,
        packed: bytes,
        keys: tuple[str, ...] | None,
        config: Mapping[str, Any],
        limit: float | None,
    ) -> Measured:
        """Measure the packed parameters.

        Raises:
            SiteFailed: as `fit`.
        """
        call = {"keys": keys, "config": config}
        answer, _ = await self._call("evaluate", call, packed, limit)
        return Measured(*self._numbers("evaluate", answer))

    async def close(self) -> None:
        """End the process and what it started; returns when it is gone."""
        process, connection = self._process, self._connection
        if process is None:
            if connection is not None:
                await connection.close()
            return
        self._kill()
        assert connection is not None
        left = await self._end_leftovers()
        await process.wait()
        await connection.close()
        if left:
            self._log.line(f"ended {left} processes that the trainer had left running", self.slot)
        if self._following is not None:
            await self._following

    async def _end_leftovers(self) -> int:
        return await asyncio.to_thread(processes.end_marked, _MARK, self._mark)

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                process.kill()

    async def _call(
        self,
        call: str,
        message: Mapping[str, Any],
        body: bytes = b"",
        limit: float | None = None,
    ) -> tuple[frames.Message, bytes]:
        assert self._connection is not None
        try:
            async with asyncio.timeout(limit):
                answer, packed = await self._connection.exchange({"call": call, **message}, body)
            error = answers.error(answer)
        except TimeoutError as exc:
            self._kill()
            raise self._failed(call, f"took longer than {limit:g} s", alive=False) from exc
        except (frames.Closed, ConnectionError) as exc:
            raise self._failed(call, await self._how_it_ended(), alive=False) from exc
        except (frames.Refused, frames.FrameTooLarge, answers.NotAnAnswer) as exc:
            self._kill()
            raise self._failed(call, str(exc), alive=False) from exc
        if error is not None:
            function, cause, trace = error
            raise SiteFailed(self.slot, function, cause, trace=trace, alive=call != "load")
        return answer, packed

    async def _how_it_ended(self) -> str:
        process = self._process
        assert process is not None
        try:
            code = await asyncio.wait_for(process.wait(), processes.GRACE_SECONDS + 1)
        except TimeoutError:
            self._kill()
            return "the site's process gave up its channel to the engine (did it start another?)"
        if code < 0:
            name = _signal_name(-code)
            hint = _HINTS.get(name, "")
            return f"the site's process was ended by {name}{hint}"
        if code == CHANNEL_LOST:
            return "the trainer closed the engine's own channel: close only what it opened itself"
        hint = " (os._exit, or a fork whose parent left?)" if code == 0 else ""
        return f"the site's process ended with exit code {code}{hint}"

    async def _unpacked(self, function: str, answer: frames.Message, body: bytes) -> Parameters:
        try:
            keys = answers.keys(answer)
            if len(body) < SMALL:
                return from_npz(body, keys)
            return await asyncio.to_thread(from_npz, body, keys)
        except (BadParameters, answers.NotAnAnswer) as exc:
            raise self._failed(function, str(exc), alive=True) from exc

    def _numbers(self, function: str, answer: frames.Message) -> tuple[int, Metrics]:
        try:
            return answers.num_examples(answer), answers.metrics(answer)
        except answers.NotAnAnswer as exc:
            raise self._failed(function, str(exc), alive=True) from exc

    def _failed(self, function: str, cause: str, *, alive: bool) -> SiteFailed:
        return SiteFailed(self.slot, function, cause, alive=alive)


def _signal_name(number: int) -> str:
    """Real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment() -> dict[str, str]:
    """What a site may see: where programs and libraries are, one thread for its arithmetic."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.environ.get("PYTHONPATH")
    return {
        **kept,
        **dict.fromkeys(_ONE_THREAD, "1"),
        "PYTHONPATH": os.pathsep.join([str(_PACKAGE_ROOT), *([path] if path else [])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",
    }
