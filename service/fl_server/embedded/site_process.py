"""The process of one site: loads the trainer, then answers the server's calls one by one.

Started as `python -P -m service.fl_server.embedded.site_process <server pid>`, with frames on its
standard input and output. Promise: the process is gone when the server is, even while the trainer
computes; whatever the trainer prints goes to the run's log and never among the frames; a failing
call is answered, and the process continues. Imports numpy and the trainer and little else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Final

from service.fl_server.embedded import frames
from service.fl_server.embedded.parameters import Parameters, from_npz, to_npz
from service.fl_server.embedded.trainer import Trainer, TrainerFault

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


def _packed(parameters: Parameters) -> tuple[dict[str, Any], bytes]:
    return {"keys": parameters.keys}, to_npz(parameters)


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The frames' pipes; standard input becomes empty and standard output the log's pipe."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    return requests, answers


def _die_with(server: int) -> None:
    """Ask the kernel to end this process with its parent, where the kernel can."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(1)


def _read_on(requests: IO[bytes], queue: SimpleQueue[tuple[frames.Message, bytes]]) -> None:
    """Read while the trainer computes, so that the end of the pipe is seen at once."""
    try:
        while True:
            queue.put(frames.read(requests))
    except (frames.Closed, OSError, ValueError):
        # What the trainer may have started goes with its process group.
        os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(0)


def main() -> None:
    """Serve calls until the server closes the pipe."""
    requests, answers = _take_pipes()
    _die_with(int(sys.argv[1]))
    queue: SimpleQueue[tuple[frames.Message, bytes]] = SimpleQueue()
    threading.Thread(target=_read_on, args=(requests, queue), daemon=True).start()
    site = Site()
    while True:
        message, body = queue.get()
        try:
            answer, packed = site.operations[message["call"]](message, body)
        except TrainerFault as exc:
            fault = exc.fault
            print(fault.trace or f"{fault.function}: {fault.cause}", file=sys.stderr, flush=True)
            answer = {
                "error": {
                    "function": fault.function,
                    "cause": fault.cause,
                    "trace": fault.trace,
                }
            }
            packed = b""
        sys.stdout.flush()
        frames.write(answers, answer, packed)


if __name__ == "__main__":
    main()
