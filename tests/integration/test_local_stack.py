"""The embedded stack: what is up stays up, what died comes back, what is stopped leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import stat
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import Missing
from service.local import jars, ports
from service.local.kafka import KafkaPart, brokers_known
from service.local.part import Progress
from service.local.process import Running, marked
from service.local.stack import Stack
from tests.stack import RunningStack

Make = Callable[..., Stack]


def _pid(stack: Stack, part: str) -> int:
    record = Running.read(stack.dir / "run" / f"{part}.pid")
    assert record is not None
    return record.pid


def _states(stack: Stack) -> dict[str, str]:
    return {part.name: part.state for part in stack.status()}


def test_the_broker_is_the_version_on_record() -> None:
    assert jars.KAFKA_VERSION == "4.3.1"
    versions = {
        j.coordinates.rpartition(":")[0]: j.coordinates.rpartition(":")[2] for j in jars.load_list()
    }
    assert len(versions) == 46
    assert versions["org.apache.kafka:kafka_2.13"] == "4.3.1"
    assert versions["org.apache.kafka:kafka-clients"] == "4.3.1"


def test_the_running_broker_says_its_version(stack: RunningStack) -> None:
    log = stack.dir / "logs" / "kafka.log"
    if not log.exists():
        pytest.skip("the broker is not one that this stack started")
    assert "Kafka version: 4.3.1" in log.read_text()
    clients = next(
        Path(entry)
        for entry in (stack.dir / "kafka" / "class_path").read_text().split(":")
        if "kafka-clients" in entry
    )
    with zipfile.ZipFile(clients) as archive:
        assert "version=4.3.1" in archive.read("kafka/kafka-version.properties").decode()


def test_a_second_up_changes_nothing(private_stack: Make) -> None:
    own = private_stack(parts={"postgres", "s3"})
    first = own.up()
    assert set(first.started) == {"postgres", "s3"}
    before = (_pid(own, "postgres"), _pid(own, "s3"), first.env_file.stat().st_mtime_ns)
    second = own.up()
    assert second.started == ()
    assert second.env == first.env
    assert (_pid(own, "postgres"), _pid(own, "s3"), first.env_file.stat().st_mtime_ns) == before


def test_two_ups_at_once_start_one_stack(private_stack: Make) -> None:
    own = private_stack(parts={"postgres"})
    other = Stack(own.dir, parts={"postgres"}, environ={})
    results = []
    threads = [threading.Thread(target=lambda s=s: results.append(s.up())) for s in (own, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(r.started) for r in results) == [0, 1]
    assert len({r.env["FL_DATABASE__DSN"] for r in results}) == 1


def test_a_dead_part_comes_back_alone_on_its_port_with_its_data(private_stack: Make) -> None:
    own = private_stack(parts={"kafka", "postgres", "s3"})
    env = own.up().env
    others = (_pid(own, "postgres"), _pid(own, "s3"))
    os.kill(_pid(own, "kafka"), signal.SIGKILL)
    _until(lambda: _states(own)["kafka"] == "died")
    again = own.up()
    assert again.started == ("kafka",)
    assert again.env == env
    assert (_pid(own, "postgres"), _pid(own, "s3")) == others
    assert brokers_known(int(env["FL_KAFKA__BOOTSTRAP_SERVERS"].rpartition(":")[2])) == 1


def test_down_leaves_no_process_and_nothing_in_the_temporary_folder(private_stack: Make) -> None:
    before = set(Path(tempfile.gettempdir()).iterdir())
    own = private_stack(parts={"kafka", "postgres", "s3"})
    own.up()
    pids = [_pid(own, part) for part in own.parts]
    assert sorted(own.down()) == ["kafka", "postgres", "s3"]
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
    assert not any(marked(f"{part}@{own.dir}") for part in own.parts)
    assert not own.env_path.exists()
    mine = [p for p in set(Path(tempfile.gettempdir()).iterdir()) - before if _is_ours(p, own)]
    assert mine == []
    assert _states(own) == dict.fromkeys(own.parts, "stopped")


def _is_ours(path: Path, own: Stack) -> bool:
    """Other programs use the same folder meanwhile: ours are those with our ports or our name."""
    numbers = {
        str(port + extra)
        for uses in json.loads((own.dir / "state.json").read_text())["ports"].values()
        for port in uses.values()
        for extra in (0, ports.GRPC_OFFSET)
    }
    return path != own.dir and any(number in path.name for number in numbers)


def test_what_a_killed_up_left_running_is_found(private_stack: Make) -> None:
    own = private_stack(parts={"postgres"})
    own.up()
    pid = _pid(own, "postgres")
    (own.dir / "run" / "postgres.pid").unlink()
    assert own.down() == ["postgres"]
    assert not Path(f"/proc/{pid}").exists()


def test_a_foreign_process_with_a_recorded_pid_is_not_touched(private_stack: Make) -> None:
    own = private_stack(parts={"postgres"})
    Running(os.getpid(), "another birth").write(own.dir / "run" / "postgres.pid")
    assert own.down() == []


def test_a_failed_start_says_why_and_leaves_nothing_running(
    private_stack: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = private_stack(parts={"kafka", "postgres", "s3"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(own.dir / "cache"))
    monkeypatch.setattr(jars, "_context", _unreachable)
    with pytest.raises(Missing) as caught:
        own.up()
    assert "FL_KAFKA__BOOTSTRAP_SERVERS" in str(caught.value)
    assert "KAFKA_HOME" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "running" not in _states(own).values()


def _unreachable(*_: object) -> object:
    class Nowhere:
        def project(self, *_: str) -> object:
            raise RuntimeError("no index")

    return Nowhere()


def test_an_interrupted_start_leaves_nothing_running(private_stack: Make) -> None:
    own = private_stack(parts={"kafka", "postgres"})

    def interrupt(step: Progress) -> None:
        if step.part == "kafka" and step.message == "starting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own.up(interrupt)
    assert "running" not in _states(own).values()
    assert not any(marked(f"{part}@{own.dir}") for part in own.parts)


def test_a_part_named_in_the_environment_is_not_started(private_stack: Make) -> None:
    own = private_stack(parts={"postgres"})
    env = own.up().env
    theirs = Stack(
        own.dir / "second",
        parts={"postgres"},
        environ={"FL_DATABASE__DSN": env["FL_DATABASE__DSN"]},
    )
    info = theirs.up()
    assert info.started == ()
    assert info.env["FL_DATABASE__DSN"] == env["FL_DATABASE__DSN"]
    assert _states(theirs) == {"postgres": "external"}
    # The settings that `up` wrote, loaded into a shell, still mean a part of our own.
    same = Stack(own.dir, parts={"postgres"}, environ=env)
    assert _states(same) == {"postgres": "running"}


def test_the_secret_is_for_its_owner_only(private_stack: Make) -> None:
    own = private_stack(parts={"s3"})
    info = own.up()
    for path in (info.env_file, own.dir / "state.json", own.dir / "s3" / "identities.json"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(info.env["FL_S3__ENDPOINT_URL"])


def test_an_unpacked_kafka_is_used_when_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    part = KafkaPart(tmp_path / "kafka", {"client": 1, "controller": 2})
    with pytest.raises(Missing, match="KAFKA_HOME"):
        part.prepare(lambda step: None)
    (tmp_path / "libs").mkdir()
    jar = tmp_path / "libs" / "kafka_2.13-4.3.1.jar"
    jar.touch()
    assert jars.class_path(lambda step: None) == [jar]


def _until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        pause.wait(0.05)
    raise AssertionError("it never came true")
