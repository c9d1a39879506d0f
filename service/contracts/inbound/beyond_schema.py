"""The rules of inbound events that a JSON Schema can't say, in one list.

Promise: data that its published schema accepts breaks no other rule than one listed here; each stands in
the `$comment` of its schema, and the tests know no exception but these. A registry's rules (projects,
trusts, nets, slots) are not among them: they are no part of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.contracts.inbound import reports, stop, training


@dataclass(frozen=True, slots=True)
class Rule:
    """`loc` is where the decoder reports a breach and `type` the kind of its error."""

    loc: str
    type: str
    about: str


_COMPARISONS: Final = (
    Rule("min_trusts", "value_error", "min_trusts is at most the number of trust_ids"),
    Rule("deadline", "value_error", "deadline is later than not_before"),
    Rule(
        "config.AGGREGATION_WEIGHTS",
        "value_error",
        "where AGGREGATION_WEIGHTS names every one of trust_ids, one weight is above 0",
    ),
)
_SIZE: Final = "as compact JSON in UTF-8 it needs at most"
_APP_SIZE: Final = Rule("app_config", "too_large", f"app_config: {_SIZE} 65,536 bytes")
_DETAILS_SIZE: Final = Rule("details", "too_large", f"details: {_SIZE} 32,768 bytes")

#: By event type. Types that are not here have none.
RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    training.REQUESTED: (*_COMPARISONS, _APP_SIZE),
    reports.ROUND_REPORTED: (_DETAILS_SIZE,),
}

#: What holds for the JSON text of every inbound record, before any schema is asked.
TEXT: Final = (
    "The value is JSON in UTF-8, nested at most 32 levels deep; no object names a member twice, no text "
    "or name has a lone surrogate, every number is finite and of at most 4,300 digits"
)
_LENIENT: Final = (
    "A whole number may be written as a float; null means that an optional field is left out"
)


#: What is taken although the schema says less.
_TAKEN_TOO: Final[Mapping[str, str]] = {
    training.REQUESTED: " Different trust_ids may also be written in two letter cases.",
    stop.STOP_REQUESTED: " A reason of over 500 characters is cut.",
}


def comment(event_type: str) -> str:
    """The `$comment` of an inbound type's schema."""
    closing = [rule.about for rule in RULES.get(event_type, ())]
    beyond = f" Beyond this schema: {'; '.join(closing)}." if closing else ""
    return f"{TEXT}. {_LENIENT}.{_TAKEN_TOO.get(event_type, '')}{beyond}"
