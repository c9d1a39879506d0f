"""The demo's own parts: a split without overlap, a lifecycle without gaps, results that are results."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from service.demo import baselines, dataset, environment, plot
from service.demo.lifecycle import LifecycleLog, LoggedEvent, read
from service.demo.runner import left_by_earlier
from service.domain.enums import Lifecycle
from service.errors import Permanent
from service.kafka.read import Record
from service.local import env_file
from service.local.nets import SLOTS
from service.local.stack import ALL_COMPONENTS, ComponentStatus
from service.local.state import State


def _rows(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def test_every_patient_is_at_one_site(tmp_path: Path) -> None:
    found = dataset.write(tmp_path / "sites", tmp_path / "test")
    sites = {slot: _rows(tmp_path / "sites" / slot / "patients.csv") for slot in SLOTS}
    sites["test"] = _rows(tmp_path / "test" / "patients.csv")
    everybody = [row for rows in sites.values() for row in rows]
    assert len(everybody) == len(set(everybody)) == 569
    for site, rows in sites.items():
        assert found[site].total == len(rows)
        assert found[site].malignant == sum(row[-1] == "1" for row in rows)
    sizes = [found[slot].total for slot in SLOTS]
    assert [round(100 * size / sum(sizes)) for size in sizes] == [60, 25, 15]
    shares = [found[slot].malignant / found[slot].total for slot in SLOTS]
    assert shares[1] < 0.2 < shares[0] < 0.7 < shares[2]


def test_the_split_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        dataset.write(tmp_path / name, tmp_path / name / "test")
    one, two = (sorted((tmp_path / n).rglob("*.csv")) for n in ("a", "b"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert len(one) == 4


def _event(sequence: int, event_name: Lifecycle = Lifecycle.RUNNING, **data: Any) -> LoggedEvent:
    return LoggedEvent(sequence, event_name, "2026-01-01T00:00:00Z", 0, sequence, data)


@pytest.mark.parametrize("second", [1, 3])
def test_a_gap_or_a_double_is_an_error(second: int) -> None:
    lifecycle = LifecycleLog()
    lifecycle.add(_event(1))
    with pytest.raises(Permanent, match="event 2 expected"):
        lifecycle.add(_event(second))


def test_scores_are_gathered_by_round_and_site() -> None:
    lifecycle = LifecycleLog()
    values = [("loss", 0.5, "Trust_1"), ("auc", None, "Trust_1"), ("train_loss", 0.1, None)]
    metrics = [
        {"label": label, "result": value, "global_round": 2, "fl_client_name": site}
        for label, value, site in [*values, ("accuracy", 0.9, None)]
    ]
    lifecycle.add(_event(1, Lifecycle.METRICS_RECORDED, metrics=metrics))
    assert {p: dict(s) for p, s in lifecycle.rounds[2].items()} == {
        "Trust_1": {"loss": 0.5},
        "all": {"accuracy": 0.9},
    }
    assert lifecycle.last.round == 2


def test_a_record_is_read_by_its_headers() -> None:
    headers = {"ce_type": "fl.job.queued.v1", "ce_sequence": "1", "ce_time": "t"}
    event = read(Record(3, 7, "job", b'{"state": "queued"}', headers))
    assert (event.event_name, event.sequence, event.data) == (
        Lifecycle.QUEUED,
        1,
        {"state": "queued"},
    )


@pytest.mark.parametrize("raw", [b"", b"no zip"])
def test_results_that_are_none_are_refused(raw: bytes) -> None:
    with pytest.raises(Permanent, match="hold no parameters"):
        baselines.parameters_of(raw)


def test_a_zip_without_parameters_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("result.json", "{}")
    with pytest.raises(Permanent, match="hold no parameters"):
        baselines.parameters_of(buffer.getvalue())


def test_parameters_come_back_under_their_names() -> None:
    inner, outer = io.BytesIO(), io.BytesIO()
    np.savez(inner, weights=np.arange(3.0))
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("parameters.npz", inner.getvalue())
    assert baselines.parameters_of(outer.getvalue())["weights"].tolist() == [0, 1, 2]


def test_a_site_that_missed_a_round_still_gives_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    rounds = {1: {"all": {"loss": 1.0, "accuracy": 0.5}}, 2: {"all": {"loss": 0.5}, "Trust_1": {}}}
    names = {"all": "Together", "Trust_1": "North"}
    plot.draw(tmp_path / "p.png", rounds, names, {"Federated": 0.9})
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_settings_of_another_stack_are_forgotten_and_named() -> None:
    others = {
        "FL_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9092",
        "fl_database__dsn": "postgresql://fl@127.0.0.1/fl",
        "FL_S3": "{}",
        "FL_HTTP__PORT": "8080",
        "FL_REGISTRY_FILE": "/srv/registry.yaml",
        "FL_SECRETS_DIR": "/run/secrets",
        "AWS_PROFILE": "work",
    }
    kept = {"PATH": "/bin", "KAFKA_HOME": "/opt/kafka", "FL_LOG__LEVEL": "debug"}
    environ = {**others, **kept}
    said = environment.forget(environ)
    assert environ == kept
    assert said is not None
    assert "and 4 more" in said
    assert "--use-environment" in said
    assert environment.forget(environ) is None


def test_what_a_stack_writes_for_its_users_is_all_forgotten(tmp_path: Path) -> None:
    state = State.load(tmp_path / "state.json")
    state.ports = {"kafka": {"client": 1}, "postgres": {"client": 2}, "s3": {"http": 3}}
    written = env_file.settings(tmp_path, ALL_COMPONENTS, state, {}, {})
    assert environment.of_a_stack(written) == sorted(written)


def test_what_an_earlier_demo_left_is_stopped_and_nothing_else() -> None:
    left, theirs = uuid4(), uuid4()
    jobs: list[dict[str, Any] | None] = [
        {"job_id": str(theirs), "requested_by": "someone"},
        {"job_id": str(left), "requested_by": "fl-jobs demo"},
        {"job_id": str(theirs), "requested_by": None},
        None,  # gone between two looks
    ]
    own = [ComponentStatus(name, "running", "") for name in ALL_COMPONENTS]
    assert left_by_earlier(jobs, own) == [left]
    shared = [*own[1:], ComponentStatus("kafka", "external", "")]
    assert left_by_earlier(jobs, shared) == []
