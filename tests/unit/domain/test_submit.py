"""What `submit --dry-run` tells of a request: all of it, whatever else is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner

from service.cli import submit
from service.domain.commands import RejectRequest
from service.domain.enums import FLBackend, WaitingCode
from service.domain.facts import Facts
from service.domain.job import Job
from service.errors import Transient
from tests.unit.domain.job_builder import BEGIN, JOB, NET, NOW_OF_NET, REGISTRY, TRUSTS, job_in

FACTS = Facts(BEGIN, REGISTRY, {NET.name: NOW_OF_NET}, {FLBackend.EMBEDDED: {"standard": ()}})
DATA: dict[str, Any] = {
    "job_id": str(JOB),
    "model_id": str(uuid4()),
    "project_id": "p1",
    "cohort_query": "select 1",
    "trust_ids": [str(trust) for trust in TRUSTS],
}
EVERYTHING: dict[str, Any] = {
    "project_id": "nope",
    "trust_ids": [str(uuid4()), "x"],
    "priority": 99,
}
TOLD = {
    ("priority", "less_than_equal"),
    ("trust_ids.1", "uuid_parsing"),
    ("project_id", "unknown_project"),
    ("trust_ids.0", "unknown_trust"),
}


def _told(
    job: Job | None = None, facts: Facts = FACTS, **change: Any
) -> tuple[list[tuple[str, str]], str | None]:
    problems, waiting = submit.verdict(job, submit._command(DATA | change), facts)
    return [(".".join(map(str, p.loc)), str(p.type)) for p in problems], waiting


def test_contract_and_registry_at_once() -> None:
    told, waiting = _told(**EVERYTHING)
    assert sorted(told) == sorted(TOLD)
    assert waiting is None


def test_an_unusable_job_id_hides_nothing() -> None:
    told, _ = _told(job_id="job-17", **EVERYTHING)
    assert sorted(told) == sorted(TOLD | {("job_id", "uuid_parsing")})


def test_a_job_id_in_use_hides_nothing() -> None:
    job = job_in("queued").there
    conflict = ("job_id", "duplicate_conflict")
    assert _told(job)[0] == [conflict]
    assert _told(job, project_id="nope")[0] == [conflict, ("project_id", "unknown_project")]
    assert sorted(_told(job, **EVERYTHING)[0]) == sorted(TOLD | {conflict})
    cleaned = replace(FACTS, retired={JOB: b"y" * 32})
    assert _told(facts=cleaned)[0] == [conflict]


def test_what_was_rejected_before_is_not_valid_now() -> None:
    broken = submit._command(DATA | EVERYTHING)
    assert isinstance(broken, RejectRequest)
    job = job_in("rejected").there
    known = replace(job, request=replace(job.request, content_hash=broken.content_hash))
    assert sorted(_told(known, **EVERYTHING)[0]) == sorted(TOLD)


def test_a_valid_one_says_what_it_waits_for() -> None:
    assert _told() == ([], None)
    assert _told(facts=replace(FACTS, nets={})) == ([], WaitingCode.TRUSTS)


def test_without_a_database_the_contract_s_errors_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing invalid is sent because the registry can't be asked."""
    app = typer.Typer()
    app.command()(submit.submit)

    async def away(*_: object) -> None:
        raise Transient("no database")

    monkeypatch.setattr(submit, "_judge", away)
    monkeypatch.setattr(submit, "settings_of", lambda _: None)
    monkeypatch.setattr(submit, "_send", lambda *_: pytest.fail("sent"))
    file = tmp_path / "request.yaml"
    file.write_text(json.dumps(DATA | {"priority": 99}))
    for more in ([], ["--dry-run"]):
        ended = CliRunner().invoke(app, [str(file), "--json", *more])
        assert ended.exit_code == 1
        assert "less_than_equal" in ended.output
