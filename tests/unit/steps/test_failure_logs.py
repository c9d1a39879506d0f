"""A run that failed tells why: its log is asked for, and its end stands in the job's reason."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from service.domain.enums import FLBackend, JobState, ReasonCode
from service.steps.failure_logs import told
from service.steps.options import StepOptions
from tests.unit.adapters.test_dialects import Adapter, client
from tests.unit.steps.sim.fake_net import S
from tests.unit.steps.sim.harness import Simulation

TRACE = 'Traceback (most recent call last):\n  File "trainer.py", line 3\nValueError: 3 columns\n'


async def _failed(sim: Simulation) -> tuple[float, str]:
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.RUNNING)
    sim.net.real[0].ended, sim.net.real[0].how = sim.net.now(), S.FAILED
    took = await sim.until_state(job_id, JobState.FAILED, 60)
    reason = sim.job(job_id).reason
    assert reason is not None
    assert reason.code == ReasonCode.BACKEND_FAILED
    await sim.end()
    return took, reason.message


@pytest.mark.virtual_time
async def test_the_cause_of_a_failed_run_stands_in_the_reason() -> None:
    sim = Simulation()
    sim.net.log_of = TRACE
    took, message = await _failed(sim)
    assert "ValueError: 3 columns" in message
    assert took < 3
    assert sim.net.count("logs") == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize("fault", ["away", None])
async def test_a_run_without_a_log_fails_all_the_same(fault: str | None) -> None:
    sim = Simulation()
    if fault:
        sim.net.script["logs"] = [fault]
    took, message = await _failed(sim)
    assert message == "the backend shows the run as failed"
    assert took < 3


@pytest.mark.virtual_time
async def test_a_log_that_does_not_come_holds_the_end_up_for_its_time_and_no_other_job() -> None:
    sim = Simulation(capacity=2)
    sim.net.seconds_of_logs = 1_000.0
    other = sim.ask(2)
    took, _ = await _failed(sim)
    assert took < StepOptions().failure_log_seconds + 3
    assert sim.state(other) is not JobState.QUEUED


@pytest.mark.virtual_time
async def test_a_run_that_did_not_fail_is_not_asked_for_its_log() -> None:
    sim = Simulation()
    sim.start()
    job_id = sim.ask()
    await sim.until_state(job_id, JobState.COMPLETED)
    stopped = sim.ask(2)
    await sim.until_state(stopped, JobState.RUNNING)
    sim.stop_job(stopped)
    await sim.until_state(stopped, JobState.STOPPED)
    assert sim.net.count("logs") == 0
    await sim.end()


def test_a_failure_is_told_in_one_bounded_line() -> None:
    line = told("FINISHED:EXECUTION_EXCEPTION", TRACE + "cleaning up\x07\n" + "x" * 5_000)
    assert line is not None
    assert line.startswith("FINISHED:EXECUTION_EXCEPTION; ValueError: 3 columns; log: …")
    assert len(line) <= 1_500
    assert line.isprintable()
    assert told(None, None) is None
    assert told("why", " \n\n") == "why"
    assert len(told("d" * 500, "\n".join(["y" * 300] * 50)) or "") <= 1_500


@pytest.mark.virtual_time
async def test_a_log_has_no_terminal_s_colours_and_may_be_absent() -> None:
    answers: dict[str, httpx.Response] = {}

    class Logging(Adapter):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            found = answers.get(request.url.path)
            return found if found is not None else super().__call__(request)

    one = client(Logging(), FLBackend.FLOWER)
    coloured = "\x1b[92mINFO \x1b[0m: start\x1b]0;title\x07\n\x1b[1;31mValueError\x1b[0m: no\x1b"
    answers["/run_logs/1"] = httpx.Response(200, json={"run_id": "1", "log": coloured})
    assert await one.logs("1") == "INFO : start\nValueError: no"
    answers["/run_logs/1"] = httpx.Response(404)
    assert await one.logs("1") is None
    answers["/run_logs/1"] = httpx.Response(200, json={"log": "x" * 100_000})
    assert len(await one.logs("1") or "") == 8_000
    await asyncio.sleep(0)
