"""The embedded stack: what is up stays up, what died comes back, what is stopped leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.contracts import registry_file
from service.errors import MissingDependency
from service.local import env_file, jars, ports
from service.local.component import ComponentProgress, require
from service.local.demo_registry import registry_yaml
from service.local.kafka import KafkaComponent, brokers_known
from service.local.postgres import PostgresComponent
from service.local.process import ProcessRecord, tagged
from service.local.stack import Stack
from service.local.state import State
from tests.stack import RunningStack

Make = Callable[..., Stack]


def _pid(stack: Stack, part: str) -> int:
    record = ProcessRecord.read(stack.dir / "run" / f"{part}.pid")
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
    own = private_stack(components={"postgres", "s3"})
    first = own.up()
    assert set(first.started) == {"postgres", "s3"}
    before = (_pid(own, "postgres"), _pid(own, "s3"), first.env_file.stat().st_mtime_ns)
    second = own.up()
    assert second.started == ()
    assert second.env == first.env
    assert (_pid(own, "postgres"), _pid(own, "s3"), first.env_file.stat().st_mtime_ns) == before


def test_two_ups_at_once_start_one_stack(private_stack: Make) -> None:
    own = private_stack(components={"postgres"})
    other = Stack(own.dir, components={"postgres"}, environ={})
    results = []
    threads = [threading.Thread(target=lambda s=s: results.append(s.up())) for s in (own, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(r.started) for r in results) == [0, 1]
    assert len({r.env["FL_DATABASE__DSN"] for r in results}) == 1


def test_a_dead_part_comes_back_alone_on_its_port_with_its_data(private_stack: Make) -> None:
    own = private_stack(components={"kafka", "postgres", "s3"})
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
    own = private_stack(components={"kafka", "postgres", "s3"})
    own.up()
    pids = [_pid(own, part) for part in own.components]
    assert sorted(own.down()) == ["kafka", "postgres", "s3"]
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
    assert not any(tagged(f"{part}@{own.dir}") for part in own.components)
    assert not own.env_path.exists()
    mine = [p for p in set(Path(tempfile.gettempdir()).iterdir()) - before if _is_ours(p, own)]
    assert mine == []
    assert _states(own) == dict.fromkeys(own.components, "stopped")


@pytest.mark.parametrize("name", ["józef ładny", "one, two"])
def test_a_folder_may_have_any_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    home = tmp_path_factory.mktemp("names")
    for folder in (home, home.parent):
        folder.chmod(0o711)
    own = Stack(home / name, environ={})
    try:
        own.up()
        assert (own.dir / "kafka" / "data" / "meta.properties").exists()
        assert list((own.dir / "s3" / "data").iterdir()) != []
        assert [path.name for path in home.iterdir()] == [name]
    finally:
        own.down(wipe=True)
    assert list(home.iterdir()) == []


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
    own = private_stack(components={"postgres"})
    own.up()
    pid = _pid(own, "postgres")
    (own.dir / "run" / "postgres.pid").unlink()
    assert own.down() == ["postgres"]
    assert not Path(f"/proc/{pid}").exists()


def test_a_foreign_process_with_a_recorded_pid_is_not_touched(private_stack: Make) -> None:
    own = private_stack(components={"postgres"})
    ProcessRecord(os.getpid(), "another start time").write(own.dir / "run" / "postgres.pid")
    assert own.down() == []


def test_a_failed_start_says_why_and_leaves_nothing_running(
    private_stack: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = private_stack(components={"kafka", "postgres", "s3"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(own.dir / "cache"))
    monkeypatch.setattr(jars, "_context", _unreachable)
    with pytest.raises(MissingDependency) as caught:
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
    own = private_stack(components={"kafka", "postgres"})

    def interrupt(step: ComponentProgress) -> None:
        if step.component == "kafka" and step.message == "starting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own.up(interrupt)
    assert "running" not in _states(own).values()
    assert not any(tagged(f"{part}@{own.dir}") for part in own.components)


def test_a_part_named_in_the_environment_is_not_started(private_stack: Make) -> None:
    own = private_stack(components={"postgres"})
    env = own.up().env
    theirs = Stack(
        own.dir / "second",
        components={"postgres"},
        environ={"FL_DATABASE__DSN": env["FL_DATABASE__DSN"]},
    )
    info = theirs.up()
    assert info.started == ()
    assert info.env["FL_DATABASE__DSN"] == env["FL_DATABASE__DSN"]
    assert _states(theirs) == {"postgres": "external"}
    # The settings that `up` wrote, loaded into a shell, still mean a part of our own.
    same = Stack(own.dir, components={"postgres"}, environ=env)
    assert _states(same) == {"postgres": "running"}


def test_the_secret_is_for_its_owner_only(private_stack: Make) -> None:
    own = private_stack(components={"s3"})
    info = own.up()
    for path in (info.env_file, own.dir / "state.json", own.dir / "s3" / "identities.json"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(info.env["FL_S3__ENDPOINT_URL"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the database as another user")
def test_a_closed_folder_keeps_its_permissions_and_its_data(private_stack: Make) -> None:
    own = private_stack(components={"postgres"})
    own.dir.chmod(0o700)
    shelter = PostgresComponent(own.dir / "postgres", {"client": 1}).shelter
    env = own.up().env
    assert stat.S_IMODE(own.dir.stat().st_mode) == 0o700
    assert (shelter / "data" / "PG_VERSION").exists()
    running = RunningStack(own.dir, env)
    running.psql("CREATE TABLE kept AS SELECT 42 AS a")
    own.down()
    assert not shelter.exists()
    own.up()
    assert running.psql("SELECT a FROM kept") == "42"


def test_addresses_handed_out_before_are_still_ours(private_stack: Make) -> None:
    own = private_stack(components={"postgres"})
    before = own.up().env["FL_DATABASE__DSN"]
    own.down()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((ports.HOST, int(urlsplit(before).port or 0)))
        squatter.listen()
        again = Stack(own.dir, components={"postgres"}, environ={"FL_DATABASE__DSN": before}).up()
    assert again.started == ("postgres",)
    assert again.env["FL_DATABASE__DSN"] != before


def test_the_demo_registry_is_a_valid_registry_file() -> None:
    file = registry_file.load(registry_yaml("http://127.0.0.1:1"))
    registry = registry_file.to_registry(file, 1)
    assert [net.name for net in file.nets] == ["net-1"]
    assert len(file.trusts) == 3
    assert registry.version == 1


def test_a_registry_that_somebody_changed_is_left_alone(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json")
    env_file.write_registry(state, tmp_path, "http://127.0.0.1:1", 1)
    env_file.write_registry(state, tmp_path, "http://127.0.0.1:2", 1)
    path = tmp_path / "registry.yaml"
    assert "127.0.0.1:2" in path.read_text()
    path.write_text(path.read_text() + "# mine\n")
    env_file.write_registry(state, tmp_path, "http://127.0.0.1:3", 1)
    assert "127.0.0.1:2" in path.read_text()


def test_a_missing_extra_is_answered_with_the_install_line() -> None:
    with pytest.raises(MissingDependency, match=r"pip install 'fl-job-service\[local\]'"):
        require("no_such_module_anywhere", "Kafka")


def test_an_unpacked_kafka_is_used_when_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    part = KafkaComponent(tmp_path / "kafka", {"client": 1, "controller": 2})
    with pytest.raises(MissingDependency, match="KAFKA_HOME"):
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
