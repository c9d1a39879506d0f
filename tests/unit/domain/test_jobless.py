"""What is decided of records that no job decides."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from service.domain import commands as c
from service.domain import jobless
from service.domain.decision import Outcome
from service.domain.values import Problem
from tests.unit.domain.job_builder import JOB, ORIGIN

MODEL = UUID(int=7)
PROBLEM = Problem(("job",), "Unknown field", "extra_forbidden")


def test_a_stop_by_model_needs_an_unfinished_job() -> None:
    assert jobless.stop_model(True).outcome is Outcome.APPLIED
    refused = jobless.stop_model(False)
    assert refused.outcome is Outcome.REFUSED
    assert refused.reason is not None
    assert refused.reason.code == "unknown_job"


def test_a_stop_that_breaks_its_contract_is_answered_with_every_error() -> None:
    refused = jobless.refuse_stop(c.RefuseStop(JOB, MODEL, (PROBLEM,), ORIGIN))
    assert refused.outcome is Outcome.REFUSED
    assert refused.reason is not None
    assert (refused.reason.code, refused.reason.errors) == ("invalid_request", (PROBLEM,))


def test_an_event_id_seen_before_is_a_duplicate_or_a_dead_letter() -> None:
    assert jobless.repeated(True).outcome is Outcome.DUPLICATE
    conflict = jobless.repeated(False)
    assert conflict.outcome is Outcome.CONFLICT
    assert conflict.reason is not None
    assert conflict.reason.code == "IdempotencyConflict"


def test_what_waited_too_long_is_refused_when_a_stop_and_dead_when_a_report() -> None:
    stop = c.RequestStop(JOB, "enough", "me", ORIGIN)
    assert jobless.expired(stop).outcome is Outcome.REFUSED
    for command in (replace(stop, origin=None), c.ReportLog(JOB, 1, ORIGIN), None):
        dead = jobless.expired(command)
        assert dead.outcome is Outcome.EXPIRED
        assert dead.reason is not None
        assert dead.reason.code == "UnknownJob"
