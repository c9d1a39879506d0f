"""What `decide` answers: events to write, or why there are none."""

from __future__ import annotations

from enum import StrEnum

from service.domain.events import Event
from service.domain.frozen import value
from service.domain.values import Reason


class Outcome(StrEnum):
    """APPLIED wrote events. IGNORED is kept beside the event id and changes nothing. PARKED waits for its
    job. REFUSED is answered by `fl.training.request_refused.v1`. LEASE_LOST: the caller's lease is gone.
    DUPLICATE and CONFLICT are event ids seen before, with the same content and with another. EXPIRED: it was
    parked, and what it waited for did not come."""

    APPLIED = "applied"
    IGNORED = "ignored"
    PARKED = "parked"
    REFUSED = "refused"
    LEASE_LOST = "fenced"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    EXPIRED = "expired"


@value
class Decision:
    events: tuple[Event, ...] = ()
    outcome: Outcome = Outcome.APPLIED
    reason: Reason | None = None


def applied(*events: Event) -> Decision:
    return Decision(events)


def ignored(code: str, message: str = "") -> Decision:
    return Decision(outcome=Outcome.IGNORED, reason=Reason(code, message))


LEASE_LOST = Decision(outcome=Outcome.LEASE_LOST)
PARKED = Decision(outcome=Outcome.PARKED)


def refused(reason: Reason) -> Decision:
    return Decision(outcome=Outcome.REFUSED, reason=reason)
