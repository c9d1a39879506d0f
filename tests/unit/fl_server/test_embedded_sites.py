"""What a site may do to its net: leave processes, die oddly, say what can't be stored or averaged."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from service.domain.enums import FLAggregators, FLJobStatus
from service.fl_server.database import Database
from service.fl_server.embedded.run_store import RunStore
from service.fl_server.http_errors import RuntimeFailed
from service.fl_server.report_outbox import ReportEvent
from service.fl_server.runtime import StagedApp, SubmissionRef
from tests.conformance.fl_server_fixtures import changed
from tests.unit.fl_server.test_embedded_runs import OVER, RuntimeHarness, harness, site_processes

__all__ = ["harness"]

BOTH = [kind.value for kind in FLAggregators]


def fits(code: str) -> str:
    """The adding trainer with more at the start of `fit`."""
    return changed("    time.sleep", f"    {code}\n    time.sleep")


def running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def test_text_that_can_not_be_stored_ends_its_run_and_nothing_else(
    harness: RuntimeHarness,
) -> None:
    run_id = await harness.submit(fits('raise ValueError("a\\ud800c\\0")'))
    run = await harness.until(run_id, *OVER)
    assert run.status is FLJobStatus.FAILED
    assert "ValueError: a?c" in (run.details or "")
    await harness.restart()
    assert await harness.view(run_id) == run
    after = await harness.submit()
    assert (await harness.until(after, *OVER)).status is FLJobStatus.FINISHED


async def test_a_name_that_can_not_be_stored_is_that_trainers_fault(
    harness: RuntimeHarness,
) -> None:
    run_id = await harness.submit(changed('"b": np', '"\\ud800": np'))
    run = await harness.until(run_id, *OVER)
    assert "initial_parameters: '\\ud800' can't be the name of an array" in (run.details or "")


def test_what_was_not_written_is_not_shown(tmp_path: Path) -> None:
    run_store = RunStore(tmp_path / "runs.db")
    run = run_store.new(
        StagedApp(uuid4(), tmp_path, ("Trust_1",)), SubmissionRef(uuid4(), None, None, None)
    )
    run_store.write(run)
    run_store.runs[run.run_id] = run
    run_store.begin(run)
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE UPDATE ON run BEGIN SELECT RAISE(FAIL, 'full'); END")
    with pytest.raises(sqlite3.Error):
        run_store.end(run, FLJobStatus.FAILED, "why")
    with pytest.raises(sqlite3.Error):
        run_store.begin(run)
    assert (run.status, run.details, run.starts) == (FLJobStatus.RUNNING, None, 1)
    other.execute("DROP TRIGGER full")
    other.execute("UPDATE run SET details = CAST(x'61eda08063' AS TEXT)")  # no UTF-8
    other.close()
    run_store.close()
    again = RunStore(tmp_path / "runs.db")
    details = again.runs[run.run_id].details
    assert details is not None
    assert details.encode().startswith(b"a")
    again.close()


async def test_a_run_whose_end_can_not_be_written_ends_later(
    harness: RuntimeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.fl_server.embedded.runtime._RETRY_SECONDS", 0.05)
    ends = RunStore.end
    left = [2]

    def fails_twice(self: RunStore, *given: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise sqlite3.OperationalError("database or disk is full")
        ends(self, *given)

    monkeypatch.setattr(RunStore, "end", fails_twice)
    run_id = await harness.submit()
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED


FULL = [
    sqlite3.OperationalError("database or disk is full"),
    OSError(errno.ENOSPC, "the disk is full"),
]


@pytest.mark.parametrize("error", FULL, ids=["sqlite", "os"])
async def test_a_stop_that_can_not_be_written_stops_the_run_all_the_same(
    harness: RuntimeHarness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("service.fl_server.embedded.runtime._RETRY_SECONDS", 0.05)
    noted = harness.tmp / "pids"
    code = f"import os, time; print(os.getpid(), file=open({str(noted)!r}, 'a'), flush=True)"
    run_id = await harness.submit(fits(code + "; time.sleep(60)"))
    await harness.until(run_id, FLJobStatus.RUNNING, when=noted.exists)
    execute, full = Database.execute, [True]

    def on_a_full_disk(self: Database, *given: Any, **more: Any) -> None:
        if full[0]:
            raise error
        execute(self, *given, **more)

    monkeypatch.setattr(Database, "execute", on_a_full_disk)
    for _ in range(2):
        with pytest.raises(RuntimeFailed, match=r"stop can't be stored: .*disk is full"):
            await harness.runtime.abort(run_id)
    with pytest.raises(RuntimeFailed, match=r"run can't be stored: .*disk is full"):
        await harness.submit()
    assert not any(running(int(pid)) for pid in noted.read_text().split())
    await asyncio.sleep(0.2)
    assert (await harness.until(run_id, FLJobStatus.RUNNING)).status is FLJobStatus.RUNNING
    full[0] = False
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.STOPPED
    assert len(noted.read_text().split()) <= 3, "it never began again"


@pytest.mark.parametrize("error", FULL, ids=["sqlite", "os"])
async def test_a_stop_that_can_not_be_told_is_told_later_and_the_next_run_begins(
    harness: RuntimeHarness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("service.fl_server.embedded.runtime._RETRY_SECONDS", 0.05)
    stopped = await harness.submit(fits("time.sleep(60)"))
    await harness.until(stopped, FLJobStatus.RUNNING)
    after = await harness.submit()
    keep, left = harness.report_log.enqueue, [2]

    def on_a_full_disk(report: ReportEvent, required: bool) -> None:
        if b"STOPPED" in report.data and left[0]:
            left[0] -= 1
            raise error
        keep(report, required)

    monkeypatch.setattr(harness.report_log, "enqueue", on_a_full_disk)
    view = await harness.runtime.abort(stopped)
    assert view.status is FLJobStatus.STOPPED
    ended = await harness.until(after, *OVER, when=lambda: "STOPPED" in harness.report_log.statuses)
    assert ended.status is FLJobStatus.FINISHED
    assert left == [0]


LEAVES = {
    "session": "subprocess.Popen(['sleep', '98765'], start_new_session=True).pid",
    "group": "subprocess.Popen(['sleep', '98765']).pid",
    "fork": "os.fork() or (os.setsid(), time.sleep(98765))",
}


@pytest.mark.parametrize("exits", [False, True])
@pytest.mark.parametrize("how", LEAVES)
async def test_what_a_trainer_left_running_goes_with_its_run(
    harness: RuntimeHarness, how: str, exits: bool
) -> None:
    noted = harness.tmp / "pids"
    code = (
        f"import os, subprocess; pid = {LEAVES[how]}"
        f"; print(pid, file=open({str(noted)!r}, 'a'), flush=True)"
    )
    run_id = await harness.submit(fits(code + ("; os._exit(7)" if exits else "")))
    run = await harness.until(run_id, *OVER)
    if exits:
        assert run.status is FLJobStatus.FAILED
        assert "exit code 7" in (run.details or "")
    else:
        assert run.status is FLJobStatus.FINISHED
        await harness.result(run_id)
        assert "left running" in (await harness.runtime.logs(run_id, 8000)).text or how == "group"
    pids = [int(pid) for pid in noted.read_text().split()]
    assert pids
    assert not any(map(running, pids))
    assert site_processes(harness.tmp) == []


async def test_a_leftover_out_of_reach_holds_no_run_up(harness: RuntimeHarness) -> None:
    noted = harness.tmp / "pids"
    run_id = await harness.submit(
        fits(
            "import subprocess; pid = subprocess.Popen(['sleep', '98765'], env={'PATH': '/usr/bin:/bin'},"
            f" start_new_session=True).pid; print(pid, file=open({str(noted)!r}, 'a'))"
        )
    )
    try:
        assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED
    finally:
        for pid in map(int, noted.read_text().split()):
            os.kill(pid, signal.SIGKILL)


async def test_what_a_killed_server_left_goes_when_its_run_goes_on(harness: RuntimeHarness) -> None:
    run_id = await harness.submit(config={"FIT_SECONDS": 60}, slots=("Trust_1",))
    await harness.until(
        run_id, FLJobStatus.RUNNING, when=lambda: "RUNNING" in harness.report_log.statuses
    )
    work = harness.tmp / "net" / "runs" / run_id / "work" / "Trust_1"
    await harness.runtime.close()
    left = await asyncio.create_subprocess_exec(
        "sleep", "98765", env={**os.environ, "FL_SITE_FOLDER": str(work)}
    )
    harness.runtime = harness.make()
    await harness.runtime.start()
    assert await asyncio.wait_for(left.wait(), 10) == -signal.SIGKILL


async def test_a_signal_without_a_name_is_told_by_its_number(harness: RuntimeHarness) -> None:
    run_id = await harness.submit(fits("import os; os.kill(os.getpid(), 40)"))
    run = await harness.until(run_id, *OVER)
    assert "the site's process was ended by signal 40" in (run.details or "")


MISFITS = {
    "complex": ('parameters["w"] * (1 + 1j)', "holds complex128, it came in as float64"),
    "longdouble": ('np.full((2, 2), np.longdouble("1e4000"))', "4 of 4 values beyond the range"),
}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", MISFITS)
async def test_a_misfit_is_its_sites_failure(harness: RuntimeHarness, name: str, kind: str) -> None:
    value, told = MISFITS[name]
    trainer = changed(
        '    return {"w": parameters["w"] + data',
        f"    if data == 2:\n        return {{'w': {value}, 'b': parameters['b']}}, 20, {{}}\n"
        '    return {"w": parameters["w"] + data',
    )
    config = {"IGNORE_RESULT_ERROR": True, "GLOBAL_ROUNDS": 2, "AGGREGATOR": kind}
    run_id = await harness.submit(trainer, config)
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED
    parameters, rounds, _ = await harness.result(run_id)
    np.testing.assert_allclose(parameters["w"], np.full((2, 2), 2 * (10 + 90) / 40))
    assert [sorted(r["sites"]) for r in rounds] == [["Trust_1", "Trust_3"]] * 2
    assert told in rounds[0]["failed"]["Trust_2"]
    strict = await harness.submit(trainer, {**config, "IGNORE_RESULT_ERROR": False})
    run = await harness.until(strict, *OVER)
    assert (run.details or "").startswith("site Trust_2 failed in round 1, fit: parameters['w']")


@pytest.mark.parametrize("kind", BOTH)
async def test_finite_values_average_to_finite_values(harness: RuntimeHarness, kind: str) -> None:
    trainer = changed('"w": parameters["w"] + data', '"w": np.full((2, 2), 1.7e308)')
    run_id = await harness.submit(trainer, {"AGGREGATOR": kind, "IGNORE_RESULT_ERROR": True})
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED
    parameters, rounds, _ = await harness.result(run_id)
    np.testing.assert_allclose(parameters["w"], np.full((2, 2), 1.7e308))
    assert sorted(rounds[0]["sites"]) == ["Trust_1", "Trust_2", "Trust_3"]


async def test_examples_beyond_whole_numbers_are_refused(harness: RuntimeHarness) -> None:
    run_id = await harness.submit(changed('10 * data, {"loss"', '10**300, {"loss"'))
    run = await harness.until(run_id, *OVER)
    assert "num_examples should be at most 9007199254740992" in (run.details or "")
