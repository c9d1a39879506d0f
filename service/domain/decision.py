"""What `decide` answers: events to write, or why there are none."""

from __future__ import annotations

from enum import StrEnum

from service.domain.events import Event
from service.domain.frozen import dataclass
from service.domain.values import Why


class Outcome(StrEnum):
    """APPLIED wrote events. IGNORED is kept beside the event id and changes nothing. PARKED waits for its
    job. REFUSED is answered by `fl.training.request_refused.v1`. FENCED: the caller's lease is gone.
    DUPLICATE and CONFLICT are event ids seen before, with the same content and with another."""

    APPLIED = "applied"
    IGNORED = "ignored"
    PARKED = "parked"
    REFUSED = "refused"
    FENCED = "fenced"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Decision:
    events: tuple[Event, ...] = ()
    outcome: Outcome = Outcome.APPLIED
    why: Why | None = None


def happened(*events: Event) -> Decision:
    return Decision(events)


def ignored(code: str, message: str = "") -> Decision:
    return Decision(outcome=Outcome.IGNORED, why=Why(code, message))


FENCED = Decision(outcome=Outcome.FENCED)
PARKED = Decision(outcome=Outcome.PARKED)


def refused(why: Why) -> Decision:
    return Decision(outcome=Outcome.REFUSED, why=why)
