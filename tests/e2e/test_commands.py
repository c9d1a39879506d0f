"""The command line on a running service, as producer and operator use it: every answer, every exit code."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.e2e.harness import TRAINER, TRUSTS, ServiceHarness, opened


class Console:
    """Runs commands with the harness's settings."""

    def __init__(self, harness: ServiceHarness) -> None:
        self.harness = harness

    async def run(self, *words: str, code: int = 0, stdin: str | None = None) -> str:
        """What a command printed. Fails when its exit code is another."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "service", *words],
            env=self.harness.env,
            cwd=self.harness.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if code and "--json" not in words else "")

    async def json(self, *words: str, code: int = 0, stdin: str | None = None) -> Any:
        """What a command printed with --json."""
        out = await self.run(*words, "--json", code=code, stdin=stdin)
        return json.loads(out)


def request(**more: Any) -> dict[str, Any]:
    """A request as somebody writes it, without ids."""
    return {
        "project_id": "demo",
        "cohort_query": "select secret_column from patients",
        "trust_ids": TRUSTS,
        "config": {"GLOBAL_ROUNDS": 2},
        **more,
    }


def trainer(folder: Path) -> Path:
    """A model's folder."""
    files = folder / "mine"
    files.mkdir()
    (files / "trainer.py").write_text(TRAINER)
    (files / "config.json").write_text("{}")
    return files


@pytest.mark.timeout(180)
async def test_a_producer_from_a_dry_run_to_a_model(
    migrated_env: dict[str, str], tmp_path: Path
) -> None:
    async with opened(migrated_env, tmp_path) as harness:
        say = Console(harness)
        wrong = request(project_id="nobody", priority=12, trust_ids=[TRUSTS[0], TRUSTS[0]], typo=1)
        told = await say.json("submit", "-", "--dry-run", code=1, stdin=json.dumps(wrong))
        places = {error["loc"][0] for error in told["errors"]}
        assert places == {"priority", "trust_ids", "typo", "project_id"}
        unlisted = json.dumps(request(project_id="nobody", priority=9))
        told = await say.json("submit", "-", "--dry-run", code=1, stdin=unlisted)
        assert [error["type"] for error in told["errors"]] == ["unknown_project"]

        file = tmp_path / "request.yaml"
        file.write_text(yaml.safe_dump(request()))
        told = await say.json("submit", str(file), "--dry-run")
        assert (told["valid"], told["waiting_for"]) == (True, "waiting_for_trusts")

        harness.start_service()
        files = trainer(tmp_path)
        watched = tmp_path / "watched"
        with watched.open("w") as lines:
            words = [sys.executable, "-m", "service", "jobs", "watch"]
            watching = await asyncio.create_subprocess_exec(
                *words, env=harness.env, cwd=harness.folder, stdout=lines
            )
        done = await say.json("submit", str(file), "--model-files", str(files), "--wait")
        assert (done["state"], done["progress"]["aggregated"]) == ("completed", 2)
        job_id = done["job_id"]
        for _ in range(100):
            if f"{job_id}  completed" in watched.read_text():
                break
            await asyncio.sleep(0.1)
        watching.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(watching.wait(), 10) == 130
        assert f"{job_id}  completed" in watched.read_text()
        assert {line.split("  ")[0] for line in watched.read_text().splitlines()} == {job_id}

        shown = await say.run("jobs", "show", job_id)
        for word in ("queued", "started", "submitted", "round_aggregated", "completed"):
            assert word in shown
        whole = await say.json("jobs", "show", job_id)
        numbers = [event["sequence"] for event in whole["events"]]
        assert numbers == list(range(1, len(numbers) + 1))
        listed = await say.json("jobs", "list", "--state", "completed")
        assert [job["job_id"] for job in listed] == [job_id]
        assert job_id in await say.run("jobs", "list", "--project", "demo")
        assert (await say.json("jobs", "watch", job_id))["state"] == "completed"

        await say.run("jobs", "show", str(uuid4()), code=1)
        again = json.dumps(request(job_id=job_id, model_id=done["model_id"], priority=1))
        told = await say.json("submit", "-", "--dry-run", code=1, stdin=again)
        assert [error["type"] for error in told["errors"]] == ["duplicate_conflict"]

        tailed = await say.run(
            "events", "tail", "--from-start", "--no-follow", "--job", job_id, "--json"
        )
        events = [json.loads(line) for line in tailed.splitlines()]
        assert [int(event["sequence"]) for event in events] == numbers
        for text in (shown, tailed, json.dumps(whole), json.dumps(listed)):
            assert "secret_column" not in text


@pytest.mark.timeout(180)
async def test_an_operator_and_what_waits_or_breaks(
    migrated_env: dict[str, str], tmp_path: Path
) -> None:
    async with opened(migrated_env, tmp_path) as harness:
        say = Console(harness)
        harness.start_service()
        await harness.ended(await harness.ask())
        assert json.loads(await say.run("nets", "list", "--json"))[0]["answering"] is True
        await say.run("nets", "pause", "net-1")
        first, second = await harness.ask(), await harness.ask(priority=9)
        for job_id in (first, second):
            await harness.until(job_id, lambda state: state == "queued")
        shown = await say.json("jobs", "show", str(first))
        assert shown["waits"]["code"] == "net_paused"
        assert shown["state"]["position"] == 2, "the other one has a higher priority"
        found = await asyncio.to_thread(fetch, harness, f"/api/v1/jobs/{first}")
        assert found["position"] == 2

        stopped = await say.json("stop", str(first), "--reason", "enough", "--wait")
        assert stopped["reason"]["code"] == "stopped_by_request"
        await say.run("nets", "resume", "net-1")
        assert await harness.ended(second) == "completed"
        await say.run("nets", "pause", "nowhere", code=1)
        await say.run("nets", "release", str(second), code=1)
        await dead_letters(say)

        registry = await say.json("registry", "show")
        (tmp_path / "again.json").write_text(json.dumps(registry))
        told = await say.json("registry", "apply", str(tmp_path / "again.json"))
        assert told["changed"] is False
        (tmp_path / "bad.yaml").write_text("trusts: [{id: 1}]\nnets: [{name: x}]\nextra: 1\n")
        told = await say.run("registry", "apply", str(tmp_path / "bad.yaml"), code=1)
        assert all(name in told for name in ("trusts.0", "nets.0", "extra"))

        findings = await say.json("doctor")
        states = {(f["part"], f["state"]) for f in findings}
        for part in ("broker", "topics", "object store", "database", "registry", "net net-1"):
            assert (part, "ok") in states
        assert ("dead letters", "warning") in states
        missing = {"FL_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "FL_REGISTRI_FILE": "typo"}
        broken = Console(elsewhere(harness, missing))
        findings = await broken.json("doctor", code=1)
        wrong = {f["part"]: f for f in findings if f["state"] != "ok"}
        assert wrong["broker"]["state"] == "failed"
        assert any("FL_REGISTRI_FILE" in f["message"] for f in findings if f["part"] == "settings")
        assert all(f["fix"] for f in wrong.values())


async def dead_letters(say: Console) -> None:
    """A record that can't be used is listed with its cause, and sent again as it came."""
    harness = say.harness
    await harness.send_raw("fl.training-requests.v1", b"no JSON \xff", [("ce_type", b"x")])
    letters: list[dict[str, Any]] = []
    for _ in range(10):
        letters = letters or await say.json("dead-letters", "list")
    letter = letters[0]
    where = f"{letter['topic']}/{letter['partition']}/{letter['offset']}"
    shown = await say.json("dead-letters", "show", where)
    assert (shown["kind"], shown["value"]) == ("Undecodable", "no JSON \\xff")
    assert shown["headers"] == {"ce_type": "x"}
    again = await say.json("dead-letters", "redrive", where)
    assert again["topic"] == letter["topic"]
    await say.run("dead-letters", "show", f"{letter['topic']}/0/999999", code=1)


def elsewhere(harness: ServiceHarness, more: Mapping[str, str]) -> ServiceHarness:
    """The same harness under other settings, for commands alone."""
    other = ServiceHarness({**harness.env}, harness.folder)
    other.env = {**harness.env, **more}
    return other


def fetch(harness: ServiceHarness, path: str) -> Any:
    """An answer of the service's own HTTP; its address is in its log."""
    lines = (harness.folder / "processes.log").read_text().splitlines()
    url = next(json.loads(line)["url"] for line in lines if '"web_listens"' in line)
    with urllib.request.urlopen(f"{url}{path}", timeout=5) as response:
        return json.load(response)
