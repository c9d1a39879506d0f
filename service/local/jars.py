"""Kafka's jars: which ones, where they lie, and how they are fetched.

Promises the files whose coordinates and SHA-256 stand in `kafka_jars.txt`, and no others: each is
checked before use, a damaged one is fetched again. They are downloaded side by side through jgo,
whose own settings name the index (no address is written here), into the user's cache directory,
and moved into place only once whole, so that two programs may fetch at the same time.
`KAFKA_HOME` names an unpacked Kafka to use instead. What breaks it: no index within reach and an
empty cache; then the error names both ways out.

`python -m service.local.jars` resolves the list anew and prints it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from service.errors import MissingDependency
from service.local.component import ComponentProgress, OnProgress, require
from service.telemetry.terminal import say

KAFKA_VERSION: Final = "4.3.1"
# The second coordinate keeps log4j's parent from pulling kafka-clients down to an older line,
# with which the broker dies; the third makes the broker's log visible.
_ENDPOINT: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.kafka:kafka-clients:{KAFKA_VERSION}"
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.25.3"
)
_LIST: Final = "kafka_jars.txt"
_AT_ONCE: Final = 8
WAYS_OUT: Final = (
    "name a running broker in FL_KAFKA__BOOTSTRAP_SERVERS, or an unpacked Kafka in KAFKA_HOME"
)


@dataclass(frozen=True, slots=True)
class Jar:
    """One file by its Maven coordinates (group:artifact:version), its digest and size in bytes."""

    coordinates: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def load_list() -> list[Jar]:
    """The jars that make up the broker, as kept in the package."""
    text = files("service.local").joinpath(_LIST).read_text("utf-8")
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return [Jar(coordinates, digest, int(size)) for digest, size, coordinates in rows]


def cache_dir() -> Path:
    """Where downloads are kept between stacks: the user's cache directory."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fl-job-service"


def class_path(report: OnProgress) -> list[Path]:
    """The broker's jars, fetched first where needed. Raises MissingDependency when they can't be had."""
    home = os.environ.get("KAFKA_HOME")
    if home:
        return unpacked(Path(home))
    wanted = load_list()
    folder = cache_dir() / f"kafka-{KAFKA_VERSION}"
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        whole = list(pool.map(lambda jar: _is_whole(folder / jar.filename, jar), wanted))
    absent = [jar for jar, good in zip(wanted, whole, strict=True) if not good]
    if absent:
        _fetch(absent, folder, report)
    return [folder / jar.filename for jar in wanted]


def unpacked(home: Path) -> list[Path]:
    """The jars of an unpacked distribution. Raises MissingDependency when it isn't one."""
    jars = sorted((home / "libs").glob("*.jar"))
    if not any(jar.name.startswith("kafka_2.13-") for jar in jars):
        raise MissingDependency(
            f"KAFKA_HOME={home} holds no libs/kafka_2.13-*.jar: point it at an unpacked Kafka "
            "distribution, or unset it"
        )
    return jars


def _is_whole(path: Path, jar: Jar) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except OSError:
        return False


class _Meter:
    """Adds up what all downloads have received."""

    def __init__(self, report: OnProgress, jars: list[Jar]) -> None:
        self._report = report
        self._total = sum(jar.size for jar in jars)
        self._text = f"downloading Kafka {KAFKA_VERSION} ({len(jars)} jars)"
        self._done = 0
        self._lock = threading.Lock()
        self.add(0)

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._report(ComponentProgress("kafka", self._text, self._done, self._total))

    @contextmanager
    def watch(self, _name: str, _size: int) -> Iterator[Any]:
        """The shape in which jgo announces a download: a context that takes byte counts."""
        yield self.add


def _fetch(jars: list[Jar], folder: Path, report: OnProgress) -> None:
    require("jgo", "Kafka")
    import requests

    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="partial-", dir=folder))
    context = _context(staging, _Meter(report, jars))
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda jar: _fetch_one(jar, context, folder), jars))
    except (requests.RequestException, RuntimeError, OSError) as exc:
        raise MissingDependency(
            f"Kafka's jars can't be downloaded ({type(exc).__name__}): {WAYS_OUT}"
        ) from exc
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _context(repo_cache: Path, meter: _Meter | None = None) -> Any:
    """A jgo context that asks the user's own repositories first, then jgo's default."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext, PythonResolver

    usual = MavenContext(repo_cache=repo_cache)
    own = dict(GlobalSettings.load().repositories)
    return MavenContext(
        repo_cache=repo_cache,
        remote_repos=own | {k: v for k, v in usual.remote_repos.items() if k not in own},
        resolver=PythonResolver(progress_callback=meter.watch if meter else None),
        timeout=30,
    )


def _fetch_one(jar: Jar, context: Any, folder: Path) -> None:
    group, artifact, version = jar.coordinates.split(":")
    path = Path(context.project(group, artifact).at_version(version).artifact().resolve())
    if not _is_whole(path, jar):
        raise MissingDependency(
            f"{jar.coordinates} came with another SHA-256 than the one on record: the index in "
            f"use doesn't serve the original; {WAYS_OUT}"
        )
    path.replace(folder / jar.filename)


def resolve_list() -> list[Jar]:
    """Resolve the broker's dependencies anew, downloading every jar to a scratch folder."""
    import jgo

    with tempfile.TemporaryDirectory() as scratch:
        context = _context(Path(scratch))

        def measure(found: Any) -> Jar:
            component = context.project(found.groupId, found.artifactId).at_version(found.version)
            path = Path(component.artifact().resolve())
            coordinates = f"{found.groupId}:{found.artifactId}:{found.version}"
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            return Jar(coordinates, digest, path.stat().st_size)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(measure, jgo.resolve(_ENDPOINT)))


def _print_list() -> None:
    say(f"# Apache Kafka {KAFKA_VERSION} and what it needs: SHA-256, bytes, Maven coordinates.")
    say("# Written by: python -m service.local.jars")
    for jar in resolve_list():
        say(f"{jar.sha256} {jar.size} {jar.coordinates}")


if __name__ == "__main__":
    _print_list()
