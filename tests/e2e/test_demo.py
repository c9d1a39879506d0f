"""The demo, as a user runs it: a model better than a coin, and everything stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.demo_process import DemoProcess, demo_folder, interrupt


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with demo_folder() as folder:
        yield folder


def test_it_trains_a_model_and_leaves_nothing_running(home: Path) -> None:
    demo = DemoProcess(home)
    began = time.monotonic()
    found = demo.document(demo.start("--json"))
    print(f"demo from an empty folder: {time.monotonic() - began:.1f} s, parts {found['seconds']}")
    demo.assert_nothing_left()

    assert found["state"] == "completed"
    assert [r["round"] for r in found["rounds"]] == list(range(1, 21))
    places = {"all", "Trust_1", "Trust_2", "Trust_3"}
    for one in found["rounds"]:
        assert set(one["scores"]) == places
        assert all(set(s) == {"loss", "accuracy", "auc"} for s in one["scores"].values())
    test = found["test"]
    assert test["federated"]["accuracy"] > 0.95
    assert test["federated"]["auc"] > 0.98
    alone = [test[place]["accuracy"] for place in places - {"all"}]
    assert test["federated"]["accuracy"] > sum(alone) / 3
    assert test["pooled"]["accuracy"] > 0.95
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert Path(found["results_file"]).stat().st_size == found["results"]["bytes"]
    assert [e["sequence"] for e in found["lifecycle"]] == list(
        range(1, len(found["lifecycle"]) + 1)
    )
    assert found["service_restarts"] == 0
    assert 0 < sum(found["memory"].values()) < 10**9


def test_an_interrupted_demo_stops_everything(home: Path) -> None:
    interrupt(DemoProcess(home), "running", signal.SIGINT)


def test_a_backend_that_it_has_not_is_a_usage_error(home: Path) -> None:
    done = DemoProcess(home).start("--backend", "abacus")
    done.communicate(timeout=30)
    assert done.returncode == 2
