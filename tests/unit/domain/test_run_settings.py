"""The rules for rounds, aggregator and weights: one place, whoever asks."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from service.contracts.fl import AggregationWeights
from service.domain import run_settings as rules
from service.domain.enums import FLAggregators

TRUST = UUID(int=0xABC)


@pytest.mark.parametrize("rounds", [None, 1, 1_000])
def test_rounds_within_the_limits_pass(rounds: int | None) -> None:
    assert rules.rounds_problem({"GLOBAL_ROUNDS": rounds}, "GLOBAL_ROUNDS") is None


@pytest.mark.parametrize("rounds", [0, 1_001, -1, 2.0, True, "3", []])
def test_everything_else_is_no_number_of_rounds(rounds: Any) -> None:
    found = rules.rounds_problem({"LOCAL_ROUNDS": rounds}, "LOCAL_ROUNDS")
    assert found == "LOCAL_ROUNDS should be a whole number from 1 to 1000"


def test_an_aggregator_is_one_of_the_known_ones() -> None:
    assert all(rules.is_aggregator(known.value) for known in FLAggregators)
    others: tuple[Any, ...] = ("Median", None, 1, [])
    assert not any(rules.is_aggregator(other) for other in others)


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        *((right, True) for right in (0, 1, 0.5)),
        *((wrong, False) for wrong in (-0.1, 1.1, True, "1", float("nan"), None)),
    ],
)
def test_a_weight_is_a_number_from_0_to_1(value: object, is_one: bool) -> None:
    assert rules.is_weight(value) is is_one
    assert AggregationWeights.MinimumAggregationWeight == rules.MIN_WEIGHT
    assert AggregationWeights.MaximumAggregationWeight == rules.MAX_WEIGHT


def test_a_participant_is_named_by_its_trust_or_its_slot_and_weighs_1_otherwise() -> None:
    assert rules.Weights({str(TRUST).upper(): 0.25}).of(TRUST, "Trust_1") == 0.25
    assert rules.Weights({"Trust_1": 0.5}).of(TRUST, "Trust_1") == 0.5
    assert rules.Weights({"Trust_2": 0.5}).of(TRUST, "Trust_1") == rules.DEFAULT_WEIGHT


def test_nobody_weighs_when_every_participant_has_weight_0() -> None:
    both = [(TRUST, "Trust_1"), (UUID(int=2), "Trust_2")]
    assert rules.nobody_weighs({"Trust_1": 0, "Trust_2": 0}, both)
    assert not rules.nobody_weighs({"Trust_1": 0}, both)
    assert not rules.nobody_weighs({"Trust_1": 0}, [])
