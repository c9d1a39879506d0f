"""The embedded Kafka: only the jars on record are used, and its id is one that its own tool takes."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from service.errors import MissingDependency
from service.local import jars
from service.local.component import ComponentProgress
from service.local.jars import Jar
from service.local.kafka import cluster_id

GOOD = b"what was recorded"
JAR = Jar("org.example:thing:1.0", hashlib.sha256(GOOD).hexdigest(), len(GOOD))


class Index:
    """Stands in for the downloader: serves one file's bytes and counts how often."""

    def __init__(self, served: bytes) -> None:
        self.served = served
        self.asked = 0

    def context(self, staging: Path, meter: Any) -> Any:
        index = self

        class Artifact:
            def project(self, *_: str) -> Artifact:
                return self

            def at_version(self, _: str) -> Artifact:
                return self

            def artifact(self) -> Artifact:
                return self

            def resolve(self) -> Path:
                index.asked += 1
                path = staging / "thing.jar"
                path.write_bytes(index.served)
                with meter.watch("thing.jar", len(index.served)) as add:
                    add(len(index.served))
                return path

        return Artifact()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    monkeypatch.setattr(jars, "load_list", lambda: [JAR])
    monkeypatch.setattr(jars, "cache_dir", lambda: tmp_path)
    return tmp_path / f"kafka-{jars.KAFKA_VERSION}"


def _serve(monkeypatch: pytest.MonkeyPatch, content: bytes) -> Index:
    index = Index(content)
    monkeypatch.setattr(jars, "_context", index.context)
    return index


def test_a_jar_is_fetched_once_and_the_bytes_are_counted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = _serve(monkeypatch, GOOD)
    steps: list[ComponentProgress] = []
    assert jars.class_path(steps.append) == [cache / "thing-1.0.jar"]
    assert (steps[-1].done, steps[-1].total) == (len(GOOD), len(GOOD))
    jars.class_path(steps.append)
    assert index.asked == 1
    assert [path.name for path in cache.iterdir()] == ["thing-1.0.jar"]


def test_a_damaged_jar_in_the_cache_is_fetched_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = _serve(monkeypatch, GOOD)
    cache.mkdir()
    (cache / "thing-1.0.jar").write_bytes(GOOD[:3])
    jars.class_path(lambda step: None)
    assert index.asked == 1
    assert (cache / "thing-1.0.jar").read_bytes() == GOOD


def test_another_file_under_the_same_name_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve(monkeypatch, b"something else")
    with pytest.raises(MissingDependency, match="SHA-256"):
        jars.class_path(lambda step: None)
    assert list(cache.iterdir()) == []


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    made = {cluster_id() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(own[0].isalpha() and len(own) == 22 for own in made)
    assert len(base64.urlsafe_b64decode(f"{made.pop()}==")) == 16
