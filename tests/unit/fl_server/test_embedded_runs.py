"""Runs of the embedded net with real site processes: rounds, failures, abort, restart, capacity."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from service.contracts.inbound import reports
from service.domain.enums import ClientStatus, FLJobStatus
from service.errors import Invalid
from service.fl_server.embedded.runtime import MAX_STARTS, EmbeddedRuntime
from service.fl_server.http_errors import BadApp
from service.fl_server.report_outbox import ReportEvent
from service.fl_server.runtime import RunView, StagedApp, SubmissionRef
from tests.conformance.fl_server_fixtures import ADDING, SLOTS, app_files, changed

JOB = uuid4()


class ReportLog:
    """Stands where the reporter stands and keeps what it is told, checked by the contract."""

    def __init__(self) -> None:
        self.all: dict[str, tuple[str, dict[str, Any]]] = {}

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def enqueue(self, report: ReportEvent, required: bool) -> None:
        data = json.loads(report.data)
        reports.report(report.type, data)
        assert data["job_id"] == report.subject == str(JOB)
        assert data["attempt"] == 1
        self.all.setdefault(report.id, (report.type.split(".")[2], data))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for told, data in self.all.values() if told == kind]

    @property
    def statuses(self) -> list[str]:
        return [data["status"] for data in self.of("status_reported")]

    @property
    def events(self) -> list[tuple[str, int, str | None]]:
        return [
            (data["event_type"], data["global_round"], data.get("fl_client_name"))
            for data in self.of("round_reported")
        ]


class RuntimeHarness:
    """An embedded runtime over a folder that outlives it."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.tmp = tmp_path
        self.report_log = ReportLog()
        self.options = options
        self.runtime = self.make()

    def make(self) -> EmbeddedRuntime:
        return EmbeddedRuntime(
            self.tmp / "net",
            SLOTS,
            self.tmp / "data",
            reporter=self.report_log,
            **self.options,
        )

    async def restart(self) -> None:
        await self.runtime.close()
        self.runtime = self.make()
        await self.runtime.start()

    async def submit(
        self,
        trainer: str = ADDING,
        config: Mapping[str, Any] | None = None,
        slots: tuple[str, ...] = SLOTS,
        key: str | None = None,
    ) -> str:
        path_id = uuid4()
        folder = self.tmp / "apps" / str(path_id)
        for name, raw in app_files(trainer, config).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(raw)
        app = StagedApp(path_id, folder, slots)
        await self.runtime.check(app)
        return await self.runtime.submit(app, SubmissionRef(path_id, key, JOB, 1))

    async def view(self, run_id: str) -> RunView:
        return next(run for run in await self.runtime.runs() if run.run_id == run_id)

    async def until(
        self, run_id: str, *statuses: FLJobStatus, when: Callable[[], bool] = lambda: True
    ) -> RunView:
        deadline = time.monotonic() + 20
        while True:
            run = await self.view(run_id)
            if run.status in statuses and when():
                return run
            assert time.monotonic() < deadline, run
            await asyncio.sleep(0.01)

    async def result(self, run_id: str) -> tuple[dict[str, np.ndarray], Any, Any]:
        raw = (await self.runtime.results(run_id)).read_bytes()
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            parameters = dict(np.load(io.BytesIO(archive.read("parameters.npz"))))
            read = {name: json.loads(archive.read(name)) for name in archive.namelist()[1:]}
        return parameters, read["metrics.json"]["rounds"], read["result.json"]


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[RuntimeHarness]:
    made = RuntimeHarness(tmp_path)
    await made.runtime.start()
    yield made
    await made.runtime.close()


OVER = (FLJobStatus.FINISHED, FLJobStatus.FAILED, FLJobStatus.STOPPED)


def site_processes(tmp_path: Path) -> list[int]:
    """Site processes of this test's net, by their working folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                cwd = str((entry / "cwd").readlink())
            except OSError:
                continue
            if cwd.startswith(str(tmp_path)) and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


async def test_a_run_trains_and_tells_its_story_in_order(harness: RuntimeHarness) -> None:
    run_id = await harness.submit(
        config={"GLOBAL_ROUNDS": 2, "AGGREGATION_WEIGHTS": {"Trust_3": 0}}
    )
    await harness.until(run_id, *OVER)
    parameters, rounds, summary = await harness.result(run_id)
    # Trust_1 adds 1 with 10 examples, Trust_2 adds 2 with 20; Trust_3 weighs nothing.
    np.testing.assert_allclose(parameters["w"], np.full((2, 2), 2 * 5 / 3))
    assert parameters["b"].dtype == np.float32
    assert [r["round"] for r in rounds] == [1, 2]
    assert rounds[1]["metrics"]["odd"] is None
    assert rounds[0]["metrics"]["train_loss"] == pytest.approx((10 + 20 / 2 + 30 / 3) / 60)
    assert rounds[0]["sites"]["Trust_2"]["metrics"]["train_loss"] == 0.5
    assert rounds[0]["num_examples"] == 60
    assert summary["rounds"] == 2
    assert summary["aggregation_weights"] == {"Trust_3": 0}
    assert harness.report_log.statuses == ["INITIATED", "PREPARED", "RUNNING"]
    events = harness.report_log.events
    for number, part in ((1, events[:5]), (2, events[5:])):
        assert part[0] == ("ROUND_STARTED", number, None)
        assert set(part[1:4]) == {("CLIENT_RESULT_RECEIVED", number, slot) for slot in SLOTS}
        assert part[4] == ("ROUND_AGGREGATED", number, None)
    metrics = [m for data in harness.report_log.of("metrics_reported") for m in data["metrics"]]
    assert {m["fl_client_name"] for m in metrics} == {None, *SLOTS}
    assert {m["label"] for m in metrics} == {"train_loss", "level", "odd"}
    assert {m["result"] for m in metrics if m["label"] == "odd"} == {None}
    assert site_processes(harness.tmp) == []


@pytest.mark.parametrize("kind", ["InTime", ""])
async def test_both_aggregators_end_alike(harness: RuntimeHarness, kind: str) -> None:
    run_id = await harness.submit(config={"AGGREGATOR": f"{kind}AccumulateWeightedAggregator"})
    await harness.until(run_id, *OVER)
    parameters, _, summary = await harness.result(run_id)
    np.testing.assert_allclose(parameters["w"], np.full((2, 2), (10 + 40 + 90) / 60))
    assert summary["aggregator"] == f"{kind}AccumulateWeightedAggregator"


FAILS_IN_2 = changed(
    "    time.sleep",
    '    if data == 2 and config["ROUND"] == 2:\n        raise ValueError("scanner broken")\n'
    "    time.sleep",
)


async def test_a_failed_site_fails_the_run_and_is_named(harness: RuntimeHarness) -> None:
    run_id = await harness.submit(FAILS_IN_2, {"GLOBAL_ROUNDS": 3})
    run = await harness.until(run_id, *OVER)
    assert run.status is FLJobStatus.FAILED
    cause = "ValueError: scanner broken (app/trainer.py line 19)"
    assert run.details == f"site Trust_2 failed in round 2, fit: {cause}"
    for _ in range(
        100
    ):  # the list may show the end a moment before the last report and the last exit
        if harness.report_log.statuses[-1:] == ["ERROR"] and not site_processes(harness.tmp):
            break
        await asyncio.sleep(0.02)
    [failed] = [
        d for d in harness.report_log.of("round_reported") if d["event_type"] == "CLIENT_FAILED"
    ]
    assert failed["fl_client_name"] == "Trust_2"
    assert failed["details"] == {"function": "fit", "cause": cause}
    [log] = harness.report_log.of("log_reported")
    assert log["success"] is False
    assert "Traceback" in log["log"]
    assert harness.report_log.statuses[-1] == "ERROR"
    assert cause in (await harness.runtime.logs(run_id, 8000)).text
    assert site_processes(harness.tmp) == []


async def test_ignore_result_error_goes_on_without_the_site(harness: RuntimeHarness) -> None:
    config = {"GLOBAL_ROUNDS": 3, "IGNORE_RESULT_ERROR": True}
    run_id = await harness.submit(FAILS_IN_2, config)
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED
    _, rounds, summary = await harness.result(run_id)
    assert [sorted(r["sites"]) for r in rounds] == [
        list(SLOTS),
        ["Trust_1", "Trust_3"],
        list(SLOTS),
    ]
    assert "scanner broken" in summary["failed_sites"]["2"]["Trust_2"]
    assert ("CLIENT_FAILED", 2, "Trust_2") in harness.report_log.events


async def test_a_killed_site_is_out_for_the_rest(harness: RuntimeHarness) -> None:
    dies = changed(
        "    time.sleep",
        "    import os, signal\n    data == 3 and os.kill(os.getpid(), signal.SIGKILL)\n    time.sleep",
    )
    run_id = await harness.submit(dies, {"GLOBAL_ROUNDS": 2, "IGNORE_RESULT_ERROR": True})
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED
    _, rounds, _ = await harness.result(run_id)
    assert [sorted(r["sites"]) for r in rounds] == [["Trust_1", "Trust_2"]] * 2
    assert "SIGKILL" in rounds[0]["failed"]["Trust_3"]


async def test_when_all_sites_fail_the_run_fails(harness: RuntimeHarness) -> None:
    nobody = changed("    return int(site", '    raise OSError("no disk")\n    return int(site')
    run_id = await harness.submit(nobody, {"IGNORE_RESULT_ERROR": True})
    run = await harness.until(run_id, *OVER)
    assert run.status is FLJobStatus.FAILED
    assert "no site is left" in (run.details or "")
    assert "Trust_1: load_data: OSError: no disk" in (run.details or "")


WRONG = {
    "no function": (changed("def evaluate", "def measure"), "has no function evaluate("),
    "shape": (changed('["w"] + data', '["w"][0]'), "has the shape (2,), it came in as (2, 2)"),
    "nan": (changed('["w"] + data', '["w"] * float("nan")'), "4 of 4 values that are not finite"),
    "start": (changed("np.zeros((2, 2))", "np.full(3, np.inf)"), "initial_parameters: parameters"),
    "no examples": (changed('10 * data, {"loss"', '0, {"loss"'), "add up to 0"),
    "exit": (
        changed("    time.sleep", "    import os; os._exit(7)\n    time.sleep"),
        "exit code 7",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_trainer_fails_with_what_to_do(harness: RuntimeHarness, name: str) -> None:
    trainer, told = WRONG[name]
    run_id = await harness.submit(trainer)
    run = await harness.until(run_id, *OVER)
    assert run.status is FLJobStatus.FAILED
    assert told in (run.details or "")
    assert told in (await harness.runtime.logs(run_id, 8000)).text
    assert harness.report_log.of("status_reported")[-1]["detail"] == run.details


async def test_prints_and_stdin_do_not_disturb_the_protocol(harness: RuntimeHarness) -> None:
    chatty = changed(
        "    time.sleep",
        '    import os, sys\n    print("mark", data)\n    os.write(1, b"raw\\n")\n'
        '    assert sys.stdin.read() == ""\n    time.sleep',
    )
    run_id = await harness.submit(chatty)
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED
    log = (await harness.runtime.logs(run_id, 8000)).text
    assert "Trust_2 | mark 2" in log
    assert "Trust_1 | raw" in log


async def test_a_site_sees_no_settings_of_the_net(
    harness: RuntimeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_KAFKA__SASL_PASSWORD", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    looks = changed(
        "    time.sleep",
        '    import os\n    assert "secret" not in os.environ.values()\n    time.sleep',
    )
    run_id = await harness.submit(looks)
    assert (await harness.until(run_id, *OVER)).details is None


async def test_an_abort_works_within_a_round(harness: RuntimeHarness) -> None:
    run_id = await harness.submit(config={"FIT_SECONDS": 60})
    await harness.until(
        run_id, FLJobStatus.RUNNING, when=lambda: "RUNNING" in harness.report_log.statuses
    )
    assert len(site_processes(harness.tmp)) == 3
    began = time.monotonic()
    stopped = await harness.runtime.abort(run_id)
    assert time.monotonic() - began < 2
    assert stopped.status is FLJobStatus.STOPPED
    assert site_processes(harness.tmp) == []
    assert harness.report_log.statuses[-1] == "STOPPED"
    await harness.restart()
    assert (await harness.view(run_id)).status is FLJobStatus.STOPPED
    assert harness.report_log.statuses.count("STOPPED") == 1


async def test_capacity_keeps_further_runs_waiting(harness: RuntimeHarness) -> None:
    first = await harness.submit(config={"FIT_SECONDS": 60}, slots=("Trust_1",))
    second = await harness.submit(slots=("Trust_2",))
    third = await harness.submit(slots=("Trust_3",))
    await harness.until(first, FLJobStatus.RUNNING)
    assert (await harness.view(second)).status is FLJobStatus.PENDING
    assert (await harness.runtime.logs(second, 100)).text == ""
    assert (await harness.runtime.abort(third)).status is FLJobStatus.STOPPED
    await harness.runtime.abort(first)
    assert (await harness.until(second, *OVER)).status is FLJobStatus.FINISHED


async def test_a_restart_resumes_after_the_last_aggregated_round(harness: RuntimeHarness) -> None:
    slow_third = changed(
        'config.get("FIT_SECONDS", 0)', '0 if config["ROUND"] < 3 or stopped(config) else 60'
    )
    marker = harness.tmp / "go on"
    slow_third += f"\n\ndef stopped(config):\n    return Path({str(marker)!r}).exists()\n"
    run_id = await harness.submit(slow_third, {"GLOBAL_ROUNDS": 4}, key="k:1")
    reached = ("ROUND_STARTED", 3, None)
    await harness.until(
        run_id, FLJobStatus.RUNNING, when=lambda: reached in harness.report_log.events
    )
    waiting = await harness.submit()
    before = dict(harness.report_log.all)
    marker.touch()
    await harness.restart()
    assert await harness.runtime.find(SubmissionRef(uuid4(), "k:1", JOB, 1)) == run_id
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED
    parameters, rounds, _ = await harness.result(run_id)
    assert [r["round"] for r in rounds] == [1, 2, 3, 4]
    np.testing.assert_allclose(parameters["w"], np.full((2, 2), 4 * 140 / 60))
    log = (await harness.runtime.logs(run_id, 8000)).text
    assert "continuing after round 2" in log
    assert log.count("round 1 of 4") == 1
    assert {i: harness.report_log.all[i] for i in before} == before
    assert harness.report_log.events.count(("ROUND_AGGREGATED", 4, None)) == 1
    assert (await harness.until(waiting, *OVER)).status is FLJobStatus.FINISHED
    await harness.restart()
    assert (await harness.view(run_id)).status is FLJobStatus.FINISHED
    assert (await harness.result(run_id))[2]["rounds"] == 4


async def test_a_run_is_not_resumed_for_ever(harness: RuntimeHarness) -> None:
    run_id = await harness.submit(config={"FIT_SECONDS": 60}, slots=("Trust_1",))
    await harness.until(run_id, FLJobStatus.RUNNING)
    for _ in range(MAX_STARTS):
        await harness.restart()
    run = await harness.until(run_id, *OVER)
    assert run.status is FLJobStatus.FAILED
    assert f"interrupted by {MAX_STARTS} restarts" in (run.details or "")


async def test_a_site_is_taken_out_by_a_file(harness: RuntimeHarness) -> None:
    flag = harness.tmp / "net" / "offline" / "Trust_2"
    flag.touch()
    words = {client.name: client.status for client in await harness.runtime.clients()}
    assert words["Trust_2"] == ClientStatus.DISCONNECTED
    assert words["Trust_1"] == ClientStatus.CONNECTED
    failed = await harness.submit()
    run = await harness.until(failed, *OVER)
    assert run.details == "site Trust_2 failed in round 1, start: the site is offline"
    assert site_processes(harness.tmp) == []
    await asyncio.sleep(0.3)
    assert site_processes(harness.tmp) == []
    ignored = await harness.submit(config={"IGNORE_RESULT_ERROR": True})
    assert (await harness.until(ignored, *OVER)).status is FLJobStatus.FINISHED
    flag.unlink()
    assert all(client.online for client in await harness.runtime.clients())


async def test_only_the_named_slots_take_part(harness: RuntimeHarness) -> None:
    run_id = await harness.submit(slots=("Trust_3", "Trust_1"))
    await harness.until(run_id, *OVER)
    _, rounds, summary = await harness.result(run_id)
    assert sorted(rounds[0]["sites"]) == ["Trust_1", "Trust_3"]
    assert summary["slots"] == ["Trust_3", "Trust_1"]
    with pytest.raises(BadApp, match="Trust_4"):
        await harness.submit(slots=("Trust_4",))


async def test_a_fit_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    harness = RuntimeHarness(tmp_path, call_seconds=0.3)
    await harness.runtime.start()
    run_id = await harness.submit(config={"FIT_SECONDS": 60}, slots=("Trust_1",))
    run = await harness.until(run_id, *OVER)
    assert "fit: took longer than 0.3 s" in (run.details or "")
    await harness.runtime.close()


async def test_old_runs_are_forgotten_and_their_files_removed(tmp_path: Path) -> None:
    harness = RuntimeHarness(tmp_path, keep_runs=2)
    await harness.runtime.start()
    run_ids = []
    for _ in range(4):
        run_ids.append(await harness.submit(slots=("Trust_1",)))
        await harness.until(run_ids[-1], *OVER)
    await asyncio.sleep(0.05)
    assert [run.run_id for run in await harness.runtime.runs()] == run_ids[2:]
    assert {f.name for f in (tmp_path / "net" / "runs").iterdir()} == set(run_ids[2:])
    await harness.runtime.close()


async def test_a_large_model_goes_the_same_way(harness: RuntimeHarness) -> None:
    large = changed("np.zeros((2, 2))", "np.zeros((500, 500))")
    run_id = await harness.submit(large, {"GLOBAL_ROUNDS": 2})
    assert (await harness.until(run_id, *OVER)).status is FLJobStatus.FINISHED
    parameters, _, _ = await harness.result(run_id)
    np.testing.assert_allclose(parameters["w"], np.full((500, 500), 2 * 140 / 60))


async def test_a_folder_belongs_to_one_server(harness: RuntimeHarness) -> None:
    with pytest.raises(Invalid, match="another running"):
        EmbeddedRuntime(harness.tmp / "net", SLOTS, harness.tmp / "data")
