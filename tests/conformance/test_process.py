"""The embedded net as a process of its own: started by its command, killed, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from typer.testing import CliRunner

from service.cli.fl_server import app
from service.telemetry import logs
from tests.conformance.fl_server_fixtures import ADDING, Net, app_files, bundle_host, changed

ROOT = Path(__file__).resolve().parents[2]


class NetProcess:
    """`fl-jobs fl-server embedded` over one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self, *more: str) -> float:
        """Start it; seconds until it said its URL."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from service.cli.fl_server import app; app()", "embedded"),
                *("--dir", str(self.folder / "net"), "--data-root", str(self.folder / "data")),
                *("--slots", "Trust_1,Trust_2,Trust_3", *more),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]
        return time.monotonic() - began

    def end(self, how: signal.Signals) -> int:
        """End it; its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        assert rest == ""
        self.process.stdout.close()
        return self.process.wait(10)


@pytest.fixture
def net_process(tmp_path: Path) -> Iterator[NetProcess]:
    made = NetProcess(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end(signal.SIGKILL)


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def gone(pids: list[int]) -> bool:
    for _ in range(200):
        if not any(alive(pid) for pid in pids):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_killed_in_a_round_it_goes_on_after_a_restart(net_process: NetProcess) -> None:
    marker = net_process.folder / "go on"
    # Computes without ever giving the interpreter away for long, as a tight loop does.
    busy = changed(
        'time.sleep(config.get("FIT_SECONDS", 0))',
        f'while config["ROUND"] == 2 and not Path({str(marker)!r}).exists(): pass',
    )
    net_process.start()
    job = uuid4()
    key = {"Idempotency-Key": f"{job}:1", "FL-Job-Id": str(job), "FL-Attempt": "1"}
    async with bundle_host() as bundles:
        async with httpx.AsyncClient(base_url=net_process.url) as http:
            net = Net("embedded", http, bundles)
            run_id = await net.run(app_files(busy, {"GLOBAL_ROUNDS": 3}), headers=key)
            await net.until_logged(run_id, "round 2")
            assert net_process.process is not None
            sites = children(net_process.process.pid)
            assert len(sites) == 3
            assert net_process.end(signal.SIGKILL) == -signal.SIGKILL
            assert await gone(sites)
        marker.touch()
        net_process.start()
        async with httpx.AsyncClient(base_url=net_process.url) as http:
            net = Net("embedded", http, bundles)
            assert (await net.submit(uuid4(), key)).json() == run_id
            assert (await net.until(run_id, "FINISHED", "FAILED"))["status"] == "FINISHED"
            log = (await http.get(f"/run_logs/{run_id}")).json()["log"]
            assert "continuing after round 1" in log
            assert (await http.get(f"/results/{run_id}")).status_code == 200
    assert net_process.end(signal.SIGTERM) == 0


async def test_a_polite_stop_leaves_nothing_behind(net_process: NetProcess) -> None:
    net_process.start()
    assert net_process.process is not None
    async with (
        bundle_host() as bundles,
        httpx.AsyncClient(base_url=net_process.url) as http,
    ):
        net = Net("embedded", http, bundles)
        run_id = await net.run(app_files(config={"FIT_SECONDS": 60}))
        await net.until_logged(run_id, "round 1")
        sites = children(net_process.process.pid)
        assert len(sites) == 3
    assert net_process.end(signal.SIGTERM) == 0
    assert await gone(sites)


async def test_a_tight_loop_dies_with_an_abort(net_process: NetProcess) -> None:
    net_process.start()
    assert net_process.process is not None
    loop = changed("    time.sleep", "    while True: pass\n    time.sleep", ADDING)
    async with (
        bundle_host() as bundles,
        httpx.AsyncClient(base_url=net_process.url) as http,
    ):
        net = Net("embedded", http, bundles)
        run_id = await net.run(app_files(loop))
        await net.until_logged(run_id, "round 1")
        assert (await http.delete(f"/abort_job/{run_id}")).json()["status"] == "STOPPED"
        assert children(net_process.process.pid) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--slots", "a,a"], "each once"),
        (["--slots", "../a"], "folder's name"),
        (["--slots", "a", "--host", "192.0.2.1"], "can't listen on 192.0.2.1"),
        (["--slots", "a", "--bundle-origin", "ftp://x"], "http"),
    ],
)
def test_wrong_arguments_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    # In this process, whose log the command must leave as it is.
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    places = ["--dir", str(tmp_path / "net"), "--data-root", str(tmp_path / "data")]
    done = CliRunner().invoke(app, ["embedded", *places, *arguments])
    assert done.exit_code in (1, 2), done.stderr
    assert isinstance(done.exception, SystemExit)
    assert told in done.stderr
