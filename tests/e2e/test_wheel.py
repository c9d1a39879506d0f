"""What is installed from the wheel works from any folder, with nothing of the checkout in reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from service.errors import MissingDependency
from service.local.kafka import KafkaComponent
from service.local.process import kill_tagged
from service.local.stack import ALL_COMPONENTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, *build], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content as an installer lays it out."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for part in (*ALL_COMPONENTS, "service"):
        kill_tagged(f"{part}@{tmp_path / 'fl-demo'}")


def run(
    installed: Path,
    folder: Path,
    *words: str,
    settings: Mapping[str, str] | None = None,
    code: int = 0,
) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FL_", "AWS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "service", *words],
        env={**kept, "PYTHONPATH": str(installed), **(settings or {})},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def test_it_holds_what_the_code_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in (
        "service/schemas/sql/migrations/0001_initial.sql",
        "service/schemas/asyncapi.yaml",
        "service/assets/demo/trainer.py",
        "service/assets/job_types_and_required_files.flower.json",
        "service/store/sql/jobs.sql",
        "service/local/kafka_jars.txt",
    ):
        assert name in names, f"the wheel lacks {name}"
    outside = [
        name for name in names if not name.startswith("service/") and ".dist-info/" not in name
    ]
    assert outside == []
    assert not any(name.startswith("service/bench/") for name in names)


def test_it_migrates_and_checks_its_schemas(
    installed: Path, empty: Path, fresh_env: dict[str, str]
) -> None:
    where = "import service; print(service.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=empty,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(installed)), "the checkout was used instead"
    settings = {k: v for k, v in fresh_env.items() if k.startswith(("FL_", "AWS_"))}
    assert "0001" in run(installed, empty, "migrate", settings=settings)
    assert "up to date" in run(installed, empty, "migrate", settings=settings)
    assert json.loads(run(installed, empty, "schemas", "check", "--json"))["drifts"] == []


def test_its_bench_command_names_the_checkout_wherever_it_is_called(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "bench").symlink_to(ROOT / "bench")
    said = run(installed, tmp_path, "bench", "ingest", code=1)
    assert said.startswith("error: the measurements are part of a checkout")
    assert len(said.splitlines()) == 1


@pytest.mark.timeout(180)
def test_its_demo_runs_from_an_empty_folder(installed: Path, empty: Path) -> None:
    try:
        KafkaComponent(empty, {"client": 0, "controller": 0}).check()
    except MissingDependency as exc:
        pytest.skip(str(exc))
    document = json.loads(run(installed, empty, "demo", "--rounds", "3", "--json"))
    assert (document["state"], len(document["rounds"])) == ("completed", 3)
    assert [entry.name for entry in empty.iterdir()] == ["fl-demo"]
