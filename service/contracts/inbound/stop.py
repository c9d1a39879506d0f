"""What a producer asks for with `fl.training.stop_requested.v1`, and the command it becomes.

A stop must stop: wherever its target can be read and nothing else is wrong it is taken, its reason
cut to 500 characters and cleaned of what can't be stored, never refused for that. The shape is
closed, so that a misspelt `job_id` is answered instead of doing nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from service.contracts.inbound.training import origin, usable_uuid
from service.contracts.wire.envelope import Envelope
from service.contracts.wire.fields import Text256, Uuid
from service.contracts.wire.problems import ContractViolation, problem, storable
from service.contracts.wire.validation import Valid, uuid_spelling_problems, validate
from service.domain import commands
from service.domain.values import Problem

STOP_REQUESTED: Final = "fl.training.stop_requested.v1"

#: Longest reason of a stop that is kept, in characters.
MAX_REASON: Final = 500


def _kept(reason: Any) -> Any:
    return storable(reason)[:MAX_REASON] if isinstance(reason, str) else reason


class StopRequestModel(BaseModel):
    """Data of `fl.training.stop_requested.v1`: stop one job, or a model's unfinished jobs.

    With both ids the job is meant.
    """

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("job_id", "model_id")
            ]
        },
    )

    job_id: Uuid | None = None
    """The job to stop. With both ids the job is meant."""
    model_id: Uuid | None = None
    """Stop every unfinished job that this model has at the moment."""
    reason: Annotated[str, BeforeValidator(_kept)] | None = None
    """Why, for people; cut to 500 characters. Null: none."""
    requested_by: Text256 | None = None
    """Who asks, for people; null: not told."""


def stop(data: Mapping[str, Any]) -> StopRequestModel:
    """`data` as a stop.

    Raises:
        BadData: with every error of the fields and of the rules between them.
    """
    return validate("stop request", StopRequestModel, data, _rules)


def _rules(valid: Valid, data: Mapping[str, Any]) -> Iterator[Problem]:
    yield from uuid_spelling_problems(data, "job_id", "model_id")
    named = "job_id" in valid and "model_id" in valid
    if named and valid["job_id"] is None and valid["model_id"] is None:
        yield problem(("job_id",), "Either 'job_id' or 'model_id' is required", "missing")


def to_command(
    model: StopRequestModel, envelope: Envelope
) -> commands.RequestStop | commands.StopModel:
    """The domain's command for an accepted stop."""
    if model.job_id is not None:
        return commands.RequestStop(
            model.job_id, model.reason or None, model.requested_by, origin(envelope)
        )
    assert model.model_id is not None
    return commands.StopModel(
        model.model_id, model.reason or None, model.requested_by, origin(envelope)
    )


def refusal(
    data: Mapping[str, Any], bad: ContractViolation, envelope: Envelope
) -> commands.RefuseStop | None:
    """The domain's command for a refused stop; None when it names neither a job nor a model."""
    job_id, model_id = usable_uuid(data.get("job_id")), usable_uuid(data.get("model_id"))
    if job_id is None and model_id is None:
        return None
    return commands.RefuseStop(job_id, model_id, bad.problems, origin(envelope))
