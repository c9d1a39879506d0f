"""No event and no state outgrows its topic: bounds where things come in, cuts below them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from service.contracts.outbound import job_columns, lifecycle, models, state
from service.contracts.outbound.truncate import BODY_BYTES, truncate_to
from service.contracts.wire.strict_json import write
from service.domain import events as e
from service.domain.enums import JobState
from service.domain.evolve import newest_metrics
from service.domain.job import Job
from service.domain.sizes import METRICS_BYTES, SITES_BYTES, portions, truncate_sites
from service.domain.values import Metric, Participant, Progress, SiteProgress
from tests.unit.domain.job_builder import job_in


def metrics(letter: str, count: int = 1_000) -> tuple[Metric, ...]:
    long = letter * 250
    return tuple(
        Metric(f"{n:04}{long}", -1.2345678901234567e-300, 2**31 - 1, long, -1.2345678901234567e-300, long)
        for n in range(count)
    )  # fmt: skip


def running() -> Job:
    job = job_in("running").job
    assert job is not None
    return job


def size(items: Any) -> int:
    return len(write(items).encode())


@pytest.mark.parametrize("letter", ["y", '"', "\\", "\x01", "\n", "\x7f", "é", "😀"])
def test_a_long_report_is_told_in_portions_and_kept_within_its_bound(letter: str) -> None:
    told = metrics(letter)
    parts = list(portions(told))
    assert [m for part in parts for m in part] == list(told)
    kept = newest_metrics((), told)
    assert 0 < len(kept) < 500
    assert kept == told[: len(kept)]
    for part in (*parts, kept):
        assert size([job_columns.metric_object(m) for m in part]) <= METRICS_BYTES


def test_a_plain_report_is_one_portion() -> None:
    told = tuple(Metric(f"LOSS_{n}", 0.5, 3, "Trust_1") for n in range(1_000))
    assert list(portions(told)) == [told]
    assert len(newest_metrics((), told)) == 500


def test_sites_lose_their_details_before_any_of_them_goes() -> None:
    sites = tuple(SiteProgress(f"Trust_{n:04}", 1, "failed", "x" * 500) for n in range(900))
    kept = truncate_sites(sites)
    assert kept == tuple(replace(site, detail=None) for site in sites)
    assert truncate_sites(sites[:3]) == sites[:3]
    endless = tuple(SiteProgress("é" * 250 + str(n), 1, "failed", "x") for n in range(10_000))
    progress = json.loads(job_columns.write_progress(Progress(sites=truncate_sites(endless))))
    assert 0 < size(progress["sites"]) <= SITES_BYTES


def test_what_fits_is_not_touched() -> None:
    body = write({"log": "x" * (BODY_BYTES - 10)})
    assert len(body) == BODY_BYTES
    assert truncate_to(body) is body


def test_an_event_loses_its_largest_part_and_says_so() -> None:
    job = running()
    body = {
        **json.loads(lifecycle.body(job, e.MetricsRecorded(job.created_at, metrics("y", 1)))),
        "metrics": [],
        "config": {"vocabulary": "y" * 1_040_000},
        "participants": [{"trust_id": str(uuid4()), "slot": "Trust_1"}],
    }
    told = json.loads(truncate_to(write(body)))
    assert told == body | {"config": {}, "truncated": ["config"]}
    models.JobModel.model_validate(told)


def test_a_state_loses_no_more_than_it_must_and_keeps_the_newest_attempt() -> None:
    job = running()
    attempt = job.attempts[-1]
    everybody = tuple(Participant(uuid4(), f"Trust_{n:04}") for n in range(1_000))
    attempts = tuple(replace(attempt, number=n, participants=everybody) for n in range(1, 16))
    job = replace(
        job, attempts=attempts, progress=Progress(metrics=newest_metrics((), metrics("y")))
    )
    told = json.loads(truncate_to(state.body(job)))
    assert told["truncated"] == ["attempts"]
    assert [a["number"] for a in told["attempts"]] == [15]
    assert len(told["attempts"][0]["participants"]) == 1_000
    assert told["progress"]["metrics"]
    assert told["state"] == JobState.RUNNING
    state.StateData.model_validate(told)


@pytest.mark.parametrize("limit", [2_000, 20_000, 200_000])
def test_a_small_topic_still_gets_every_common_field(limit: int) -> None:
    job = running()
    progress = Progress(round=3, metrics=newest_metrics((), metrics("é")))
    whole = state.body(replace(job, progress=progress))
    told = json.loads(truncate_to(whole, limit))
    assert size(told) <= limit
    state.StateData.model_validate(told)
    common = {
        name: value
        for name, value in json.loads(whole).items()
        if name in models.JobModel.model_fields
    }
    assert common.items() <= told.items()
