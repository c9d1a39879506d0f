"""The settings of a run that a request or a model's file may give, with FLIP's limits.

The rules for rounds, the aggregator and the weights stand here once. Whoever reads such a setting asks here:
the request's contract, the queue, the staged config, the embedded FL server. Where an error points, and what
else is wrong, is the reader's own matter. A setting that is None is not given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from service.domain.enums import FLAggregators

GLOBAL_ROUNDS: Final = "GLOBAL_ROUNDS"
LOCAL_ROUNDS: Final = "LOCAL_ROUNDS"
AGGREGATOR: Final = "AGGREGATOR"
AGGREGATION_WEIGHTS: Final = "AGGREGATION_WEIGHTS"

MIN_ROUNDS: Final = 1
MAX_ROUNDS: Final = 1_000
MIN_WEIGHT: Final = 0
MAX_WEIGHT: Final = 1
#: The weight of a participant that the weights do not name.
DEFAULT_WEIGHT: Final = 1.0
#: How the names of job types end that mean the one without it.
_ALIAS_END: Final = "_client_api"
AGGREGATORS: Final = tuple(known.value for known in FLAggregators)


def plain_job_type(name: str) -> str:
    """The job type that a name stands for: `standard_client_api` is `standard`."""
    return name.removesuffix(_ALIAS_END) or name


def rounds_problem(config: Mapping[str, Any], name: str) -> str | None:
    """What is wrong with a number of rounds; None where it is right, or not given."""
    rounds = config.get(name)
    whole = isinstance(rounds, int) and not isinstance(rounds, bool)
    if rounds is None or (whole and MIN_ROUNDS <= rounds <= MAX_ROUNDS):
        return None
    return f"{name} should be a whole number from {MIN_ROUNDS} to {MAX_ROUNDS}"


def is_aggregator(value: object) -> bool:
    """Is it the name of an aggregator of FLIP's?"""
    return value in AGGREGATORS


def is_weight(value: object) -> bool:
    """Is it a number within the limits of one participant's weight?"""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return MIN_WEIGHT <= value <= MAX_WEIGHT


class Weights:
    """The weights of a request, by trust id (in any letter case) or slot name. A lookup costs the same
    however many there are."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._by_key = {
            key: (place, float(weight)) for place, (key, weight) in enumerate(weights.items())
        }
        self._by_trust: dict[str, tuple[int, float]] = {}
        for key, placed in self._by_key.items():
            self._by_trust.setdefault(key.lower(), placed)
        self._default = (len(weights), DEFAULT_WEIGHT)

    def of(self, trust: object, slot: str | None) -> float:
        """A participant's weight: that of its trust's id or its slot's name, whichever stands first."""
        mine = self._by_trust.get(str(trust), self._default)
        named = self._default if slot is None else self._by_key.get(slot, self._default)
        return min(mine, named)[1]


def nobody_weighs(
    weights: Mapping[str, Any], participants: Iterable[tuple[object, str | None]]
) -> bool:
    """Has each of the participants (trust id, slot name where it is known) the weight 0? Nothing can be
    aggregated then. False where there are none."""
    known = Weights(weights)
    given = [known.of(trust, slot) for trust, slot in participants]
    return bool(given) and not any(given)
