"""Decisions about records that no job decides: a stop by model, a stop that breaks its contract, a record
whose job never came, an event id used twice.

The reason of a CONFLICT or an EXPIRED decision is its dead letter's: `code` is the kind.
"""

from __future__ import annotations

from typing import Final

from service.domain import commands as c
from service.domain.decision import Decision, Outcome, refused
from service.domain.enums import ReasonCode
from service.domain.values import Reason

_NO_JOB: Final = Reason(ReasonCode.UNKNOWN_JOB, "this model has no unfinished job")
_NO_REQUEST: Final = Reason(ReasonCode.UNKNOWN_JOB, "no request with this job_id came in time")
_NO_RUN: Final = Reason("UnknownJob", "its job, or its job's run, did not become known in time")
_ID_USED: Final = Reason(
    "IdempotencyConflict", "this event id was used before with other content; choose a new one"
)
_DUPLICATE: Final = Decision(outcome=Outcome.DUPLICATE)
_CONFLICT: Final = Decision(outcome=Outcome.CONFLICT, reason=_ID_USED)


def stop_model(has_unfinished: bool) -> Decision:
    """A stop by model is kept where the model has an unfinished job, and refused where it has none."""
    return Decision() if has_unfinished else refused(_NO_JOB)


def refuse_stop(command: c.RefuseStop) -> Decision:
    """A stop that breaks its contract: answered with everything that is wrong with it, never obeyed."""
    text = "the stop breaks its contract"
    return refused(Reason(ReasonCode.INVALID_REQUEST, text, command.errors))


def repeated(same_content: bool) -> Decision:
    """An event id seen before: a duplicate changes nothing, other content under it is a dead letter."""
    return _DUPLICATE if same_content else _CONFLICT


def expired(command: object) -> Decision:
    """A parked record whose time ran out: a stop is refused, a report becomes a dead letter."""
    if isinstance(command, c.RequestStop) and command.origin is not None:
        return refused(_NO_REQUEST)
    return Decision(outcome=Outcome.EXPIRED, reason=_NO_RUN)
