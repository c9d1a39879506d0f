"""A site answers for itself alone, whatever its trainer forks, prints, closes or replaces."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from service.domain.enums import FLJobStatus
from service.fl_server.embedded import answers, frames
from tests.conformance.fl_server_fixtures import changed
from tests.unit.fl_server.test_embedded_runs import OVER, RuntimeHarness, harness, site_processes

__all__ = ["harness"]


def fits(code: str) -> str:
    """The adding trainer with more at the start of `fit`."""
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    return changed("    time.sleep", f"{lines}    time.sleep")


def top(code: str) -> str:
    """The adding trainer with more at its top."""
    return changed("import numpy as np", f"import numpy as np\n{code}")


STAMP = frames.Stamp(3, 77, 4_242)


async def _read(*parts: bytes) -> tuple[frames.Message, bytes]:
    stream = asyncio.StreamReader()
    for part in parts:
        stream.feed_data(part)
    stream.feed_eof()
    return await frames.read_async(stream, STAMP)


async def test_a_frame_travels_whole() -> None:
    message = {"keys": ["ä", "\ud800"], "num_examples": 2**53}
    assert await _read(*frames.encode(STAMP, message, b"body")) == (message, b"body")


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        (STAMP._replace(number=2), "an answer to call 2 came during call 3: it is stale"),
        (STAMP._replace(number=4), "an answer to call 4 came, which was not made"),
        (STAMP._replace(nonce=78), "does not carry that call's number drawn"),
        (STAMP._replace(pid=1), "came from process 1, not from the site's own 4242"),
        (STAMP._replace(pid=1, number=2), "came from process 1"),
    ],
)
async def test_another_calls_or_another_processes_answer_is_refused(
    stamp: frames.Stamp, told: str
) -> None:
    with pytest.raises(frames.Refused, match=told):
        await _read(*frames.encode(stamp, {}))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (frames.HEAD.pack(*STAMP, 2, 0) + b"{]", "no JSON"),
        (frames.HEAD.pack(*STAMP, 2, 0) + b"[]", "no JSON object"),
        (frames.HEAD.pack(*STAMP, 40_000, 0) + b"[" * 40_000, "no JSON"),
        (frames.HEAD.pack(*STAMP, frames.MAX_JSON + 1, 0), "larger than any"),
        (frames.HEAD.pack(*STAMP, 2, frames.MAX_BODY + 1), "larger than any"),
        (b"printed text that is longer than a head", "came from process"),
    ],
)
async def test_what_is_no_frame_is_refused(raw: bytes, told: str) -> None:
    with pytest.raises(frames.Refused, match=told):
        await _read(raw)


@pytest.mark.parametrize("cut", [0, 5, frames.HEAD.size, frames.HEAD.size + 1])
async def test_a_frame_cut_short_is_an_end(cut: int) -> None:
    head, body = frames.encode(STAMP, {"a": 1}, b"body")
    with pytest.raises(frames.Closed):
        await _read((head + body)[:cut])


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"num_examples": -1, "metrics": {}},
        {"num_examples": True, "metrics": {}},
        {"num_examples": 1.5, "metrics": {}},
        {"num_examples": 1, "metrics": []},
        {"num_examples": 1, "metrics": {"loss": "low"}},
        {"num_examples": 1, "metrics": {"loss": float("nan")}},
        {"num_examples": 1, "metrics": {}, "keys": "w"},
        {"num_examples": 1, "metrics": {}, "keys": [1]},
        {"num_examples": 1, "metrics": {}, "error": "x"},
    ],
)
def test_an_unlawful_answer_is_no_answer(answer: frames.Message) -> None:
    def read() -> None:
        answers.error(answer)
        answers.num_examples(answer)
        answers.metrics(answer)
        answers.keys(answer)

    with pytest.raises(answers.NotAnAnswer):
        read()


FORKS = {
    "child returns": "import os\nos.fork()",
    "child returns first": "import os\nif os.fork(): time.sleep(0.3)",
    "child raises": "import os\nif os.fork() == 0: raise ValueError('in the child')",
    "child exits": "import os, sys\nif os.fork() == 0: sys.exit(3)",
    "grandchild returns": "import os\nif os.fork() == 0: os.setsid(); os.fork()",
    "child writes everywhere": (
        "import os\n"
        "if os.fork() == 0:\n"
        "    for number in range(3, 5000):\n"
        "        try: os.write(number, b'x' * 100)\n"
        "        except OSError: pass\n"
        "    os._exit(0)"
    ),
    "pool": (
        "import multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    assert pool.map(abs, [-1, -2]) == [1, 2]"
    ),
    "spawned": (
        "import multiprocessing\n"
        "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "    assert pool.map(abs, [-1, -2]) == [1, 2]"
    ),
}


@pytest.mark.parametrize("name", FORKS)
async def test_only_the_sites_own_process_answers(harness: RuntimeHarness, name: str) -> None:
    # A child's answer would carry what only the child has set.
    code = FORKS[name]
    trainer = fits(
        f"import os\nbefore = os.getpid()\n{code}\ndata = data if os.getpid() == before else 90"
    )
    run_id = await harness.submit(trainer, {"GLOBAL_ROUNDS": 2})
    run = await harness.until(run_id, *OVER)
    assert (run.status, run.details) == (FLJobStatus.FINISHED, None)
    parameters, _, _ = await harness.result(run_id)
    assert parameters["w"][0, 0] == pytest.approx(2 * 140 / 60)
    assert site_processes(harness.tmp) == []


GOES_ON = {
    "closes stdout": fits("import sys\nprint('mark')\nsys.stdout.close()"),
    "closes both": fits("import sys\nprint('mark')\nsys.stdout.close()\nsys.stderr.close()"),
    "closes descriptors": fits("import os\nprint('mark')\nfor n in 0, 1, 2: os.close(n)"),
    "closes at import": top("import sys\nprint('mark')\nsys.stdout.close()"),
    "a tee without flush": top(
        "import sys\nclass Tee:\n    def __init__(self, to): self.to = to\n"
        "    def write(self, text): self.to.write(text)\n"
        "sys.stdout = Tee(sys.stdout)\nprint('mark')"
    ),
    "a stream that raises": top(
        "import sys\nprint('mark')\nclass Bad:\n    def __getattr__(self, name): raise OSError(name)\n"
        "sys.stdout = sys.stderr = Bad()"
    ),
    "no streams": top("import sys\nprint('mark')\nsys.stdout = sys.stderr = None"),
    "a file": fits("import sys\nprint('mark')\nsys.stdout = open('out.txt', 'w')"),
    "a file that is closed": fits(
        "import sys\nprint('mark')\nwith open('out.txt', 'w') as sys.stdout: print('x')"
    ),
    "a descriptor over it": fits(
        "import os\nprint('mark')\nfd = os.open('out.txt', os.O_CREAT | os.O_WRONLY)\n"
        "os.dup2(fd, 1)\nos.dup2(fd, 2)"
    ),
    "redirected": fits(
        "import contextlib, io\nprint('mark')\n"
        "with contextlib.redirect_stdout(io.StringIO()): print('hidden')"
    ),
    "logging": top(
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout, level=0, force=True)\n"
        "logging.info('mark')\nsys.stdout.close()\nlogging.info('lost')"
    ),
    "low descriptors": fits("import os\nprint('mark')\nos.closerange(3, 100)"),
    "all threads": fits(
        "import threading\nprint('mark')\nassert threading.active_count() == 1, threading.enumerate()"
    ),
    "a signal handler that raises": fits(
        "import signal\nprint('mark')\ndef ring(*_): raise OSError('alarm')\n"
        "signal.signal(signal.SIGALRM, ring)\nsignal.setitimer(signal.ITIMER_REAL, 0.15)"
    ),
    "an excepthook that exits": top(
        "import os, sys\nprint('mark')\nsys.excepthook = lambda *_: os._exit(9)"
    ),
}


@pytest.mark.parametrize("name", GOES_ON)
async def test_a_trainer_may_do_what_it_likes_with_its_streams(
    harness: RuntimeHarness, name: str
) -> None:
    slow = {"FIT_SECONDS": 0.0}
    run_id = await harness.submit(GOES_ON[name], {"GLOBAL_ROUNDS": 2, **slow})
    run = await harness.until(run_id, *OVER)
    log = (await harness.runtime.logs(run_id, 8_000)).text
    assert (run.status, run.details) == (FLJobStatus.FINISHED, None), log
    assert "Trust_2 | " in log
    assert "mark" in log


HIDES = {
    "closed": "import os, sys\nsys.stdout.close()\nsys.stderr.close()\nos.close(1)\nos.close(2)",
    "replaced": "import sys\nsys.stdout = sys.stderr = None",
    "raising": "import sys\nclass Bad:\n    def write(self, text): raise OSError\nsys.stderr = Bad()",
}


@pytest.mark.parametrize("name", HIDES)
async def test_no_stream_hides_the_cause(harness: RuntimeHarness, name: str) -> None:
    run_id = await harness.submit(fits(f"{HIDES[name]}\nraise ValueError('the cause')"))
    run = await harness.until(run_id, *OVER)
    assert "fit: ValueError: the cause (app/trainer.py line" in (run.details or "")
    log = (await harness.runtime.logs(run_id, 8_000)).text
    assert "Traceback" in log
    assert "| ValueError: the cause" in log


ENDS = {
    "closes everything": (
        "import os\nos.closerange(3, os.sysconf('SC_OPEN_MAX'))",
        "the trainer closed the engine's own channel",
    ),
    "leaves": ("import os\nos._exit(0)", "ended with exit code 0 (os._exit, or a fork whose"),
    "daemon": ("import os\nif os.fork(): os._exit(0)", "ended with exit code 0 (os._exit, or"),
    "crashes": (
        "import ctypes\nctypes.string_at(0)",
        "was ended by SIGSEGV (the run's log shows where)",
    ),
    "becomes another": (
        "import os, sys\nos.execv('/bin/sleep', ['sleep', '98765'])",
        "gave up its channel to the engine",
    ),
}


@pytest.mark.parametrize("name", ENDS)
async def test_an_end_is_told_by_its_kind(harness: RuntimeHarness, name: str) -> None:
    code, told = ENDS[name]
    run_id = await harness.submit(fits(code), slots=("Trust_1",))
    run = await harness.until(run_id, *OVER)
    assert run.status is FLJobStatus.FAILED
    assert "site Trust_1 failed in round 1, fit: " in (run.details or "")
    assert told in (run.details or "")
    if name == "crashes":
        log = (await harness.runtime.logs(run_id, 8_000)).text
        assert 'trainer.py", line' in log
    await harness.restart()
    assert site_processes(harness.tmp) == []


async def test_a_trainer_sees_a_scripts_world(harness: RuntimeHarness) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "assert sys.argv == [__file__], sys.argv\n"
        "assert sys.path[0] == str(Path(__file__).parent)\n"
        f"assert sys.path[1] != {str(Path(__file__).parents[2])!r}\n"
        "assert 'PYTHONPATH' not in os.environ\n"
        "assert not list(Path.cwd().iterdir()), 'an empty folder of its own'\n"
        "Path('mine.txt').write_text('x')\n"
        "assert sys.stdin.read() == ''\n"
    )
    assert "PYTHONPATH" not in os.environ
    run_id = await harness.submit(top(code))
    assert (await harness.until(run_id, *OVER)).details is None


async def test_initial_parameters_that_fail_name_site_and_field(harness: RuntimeHarness) -> None:
    masked = changed("np.zeros((2, 2))", "np.ma.masked_array([1.0, 2.0], mask=[0, 1])")
    run = await harness.until(await harness.submit(masked), *OVER)
    assert (run.details or "").startswith(
        "site Trust_1 failed, initial_parameters: parameters['w'] is a masked array"
    )
