"""The process of one site: loads the trainer, then answers the server's calls one by one.

Started as `python -P -m service.fl_server.embedded.site_process <server pid> <channel>`: the number of
the descriptor on which frames come and go. Promise: the process is gone when the server is, even
while the trainer computes; whatever the trainer prints goes to the run's log and never among the
frames; a failing call is answered, and the process continues. Imports numpy and the trainer and
little else.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from service.fl_server.embedded import frames
from service.fl_server.embedded.guard import Fault, Guard, TrainerFault
from service.fl_server.embedded.parameters import Parameters, from_npz, to_npz
from service.fl_server.embedded.site_channel import BROKEN, Channel
from service.fl_server.embedded.site_streams import Streams
from service.fl_server.embedded.trainer import Trainer

_PR_SET_PDEATHSIG: Final = 1


class Site:
    """What the calls act on. Each operation takes the message and its body, and returns both."""

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self.operations: dict[str, Callable[[frames.Message, bytes], tuple[Any, bytes]]] = {
            "load": self._load,
            "initial_parameters": self._initial_parameters,
            "fit": self._fit,
            "evaluate": self._evaluate,
        }

    def answer(self, request: frames.Stamp, message: frames.Message, body: bytes) -> Answer:
        """The frame that answers a request; a fault, if any, beside it."""
        call = str(message["call"])
        try:
            # The trainer's own faults come through; this is for memory that runs out beside it.
            with Guard(call, Path()):
                told, packed = self.operations[call](message, body)
                return Answer(frames.encode(_own(request), told, packed), None)
        except TrainerFault as exc:
            error = {
                "function": exc.fault.function,
                "cause": exc.fault.cause,
                "trace": exc.fault.trace,
            }
            return Answer(frames.encode(_own(request), {"error": error}), exc.fault)

    def _loaded(self) -> Trainer:
        if self._trainer is None:
            raise RuntimeError("the trainer is not loaded")
        return self._trainer

    def _load(self, message: frames.Message, _: bytes) -> tuple[Any, bytes]:
        self._trainer = Trainer(Path(message["app"]), message["entrypoint"], message["site"])
        self._trainer.load_data(message["data_dir"])
        return {}, b""

    def _initial_parameters(self, message: frames.Message, _: bytes) -> tuple[Any, bytes]:
        return _packed(self._loaded().initial_parameters(message["config"]))

    def _fit(self, message: frames.Message, body: bytes) -> tuple[Any, bytes]:
        given = from_npz(body, message["keys"])
        parameters, examples, metrics = self._loaded().fit(given, message["config"])
        answer, packed = _packed(parameters)
        return {**answer, "num_examples": examples, "metrics": metrics}, packed

    def _evaluate(self, message: frames.Message, body: bytes) -> tuple[Any, bytes]:
        given = from_npz(body, message["keys"])
        examples, metrics = self._loaded().evaluate(given, message["config"])
        return {"num_examples": examples, "metrics": metrics}, b""


class Answer:
    """An encoded answer, and the fault that it tells of."""

    def __init__(self, parts: tuple[bytes, bytes], fault: Fault | None) -> None:
        self.parts = parts
        self.fault = fault


class LastWord:
    """Writes what ends the process against our will to the run's log, whatever became of the
    trainer's standard error, and ends it."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(BaseException):
            self._streams.say("".join(traceback.format_exception(kind, error, trace)))
        os._exit(BROKEN)


def _own(request: frames.Stamp) -> frames.Stamp:
    """The stamp of the answer to a request: whoever makes it is its sender."""
    return request._replace(pid=os.getpid())


def _packed(parameters: Parameters) -> tuple[dict[str, Any], bytes]:
    return {"keys": parameters.keys}, to_npz(parameters)


def _die_with(server: int) -> None:
    """Ask the kernel to end this process with its parent, where the kernel can."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(1)


def _hide_our_path() -> None:
    """The first entry of PYTHONPATH, where this package lies, goes last: what a trainer imports is
    what is installed, and what it starts has its own path."""
    ours, _, theirs = os.environ.pop("PYTHONPATH", "").partition(os.pathsep)
    if theirs:
        os.environ["PYTHONPATH"] = theirs
    if ours in sys.path:
        sys.path.remove(ours)
        sys.path.append(ours)


def main() -> None:
    """Serve calls until the server closes the channel."""
    server, descriptor = int(sys.argv[1]), int(sys.argv[2])
    streams = Streams()
    with LastWord(streams):
        channel = Channel(descriptor)
        _die_with(server)
        _hide_our_path()
        site = Site()
        while True:
            request, message, body = channel.next()
            answer = site.answer(request, message, body)
            del body
            if not channel.here:
                streams.say("a process that the trainer forked came out of its function: ended")
                os._exit(0)
            if answer.fault is not None:
                fault = answer.fault
                streams.say(fault.trace or f"{fault.function}: {fault.cause}")
            streams.settle()
            channel.answer(answer.parts)


if __name__ == "__main__":
    main()
