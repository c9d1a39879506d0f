"""Both ways of averaging give the weighted mean, whatever the order, the types and the weights."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.enums import FLAggregators
from service.fl_server.embedded.aggregation import (
    Collect,
    InTime,
    NothingToAverage,
    average_metrics,
    make_aggregator,
)
from service.fl_server.embedded.parameters import Parameters, from_trainer

Make = Callable[[], InTime | Collect]
weights = st.lists(st.floats(0, 1e6), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3)


def parameters(*arrays: np.ndarray) -> Parameters:
    return from_trainer(list(arrays))


@given(weights, st.integers(0, 2**32 - 1), st.randoms())
def test_both_give_the_weighted_mean_in_any_order(w: list[float], seed: int, order: Random) -> None:
    rng = np.random.default_rng(seed)
    updates = [parameters(rng.normal(size=(3, 2)), rng.normal(size=4)) for _ in w]
    expected = [np.average([u.arrays[i] for u in updates], axis=0, weights=w) for i in range(2)]
    arrival = list(range(len(w)))
    order.shuffle(arrival)
    for folding in (InTime(), Collect()):
        for i in arrival:
            folding.add(f"Trust_{i}", updates[i], w[i])
        result = folding.result(updates[0])
        for got, wanted in zip(result.arrays, expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_collect_gives_the_same_bits_whatever_came_first() -> None:
    rng = np.random.default_rng(1)
    updates = [parameters(rng.normal(size=50)) for _ in range(5)]
    bits = set()
    for arrival in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        folding = Collect()
        for i in arrival:
            folding.add(f"Trust_{i}", updates[i], 0.1 + i)
        bits.add(folding.result(updates[0]).arrays[0].tobytes())
    assert len(bits) == 1


def test_the_two_are_different_algorithms() -> None:
    assert isinstance(make_aggregator(FLAggregators.InTimeAccumulateWeightedAggregator), InTime)
    assert isinstance(make_aggregator(FLAggregators.AccumulateWeightedAggregator), Collect)


@pytest.mark.parametrize("make", [InTime, Collect])
def test_types_and_names_are_the_references(make: Make) -> None:
    reference = from_trainer(
        {"f": np.zeros(2, np.float32), "i": np.zeros(1, np.int64), "c": np.zeros(1, complex)}
    )
    folding = make()
    for value in (1, 2):
        update = {
            "f": np.full(2, value, np.float32),
            "i": np.array([value + 1]),
            "c": np.array([value * 1j]),
        }
        folding.add(f"Trust_{value}", from_trainer(update), 1.0)
    result = folding.result(reference)
    assert result.keys == ("f", "i", "c")
    assert [a.dtype for a in result.arrays] == [np.float32, np.int64, np.complex128]
    assert result.arrays[0].tolist() == [1.5, 1.5]
    assert result.arrays[1].tolist() == [2]  # the mean 2.5, rounded to even
    assert result.arrays[2].tolist() == [1.5j]


@pytest.mark.parametrize("make", [InTime, Collect])
def test_no_weight_is_an_error(make: Make) -> None:
    folding = make()
    with pytest.raises(NothingToAverage):
        folding.result(parameters(np.zeros(1)))
    folding.add("Trust_1", parameters(np.ones(1)), 0.0)
    with pytest.raises(NothingToAverage, match="AGGREGATION_WEIGHTS"):
        folding.result(parameters(np.zeros(1)))


@pytest.mark.parametrize("make", [InTime, Collect])
def test_an_update_is_not_changed_by_averaging(make: Make) -> None:
    update = parameters(np.ones(3))
    folding = make()
    folding.add("Trust_1", update, 2.0)
    folding.add("Trust_2", parameters(np.zeros(3)), 2.0)
    assert folding.result(update).arrays[0].tolist() == [0.5] * 3
    assert update.arrays[0].tolist() == [1.0] * 3


def test_metrics_are_weighted_by_examples_and_skip_what_is_not_a_number() -> None:
    averaged = average_metrics(
        [(10, {"loss": 1.0, "auc": None}), (30, {"loss": 2.0, "auc": 0.5, "odd": None})]
    )
    assert averaged == {"loss": 1.75, "auc": 0.5, "odd": None}
    assert average_metrics([(0, {"a": 1.0}), (0, {"a": 3.0})]) == {"a": 2.0}
    assert average_metrics([]) == {}
    # What would overflow as a sum is averaged all the same.
    averaged = average_metrics([(3, {"a": 1.7e308}), (1, {"a": 1.5e308})])
    assert averaged == {"a": pytest.approx(1.65e308)}


@pytest.mark.parametrize("make", [InTime, Collect])
def test_finite_values_stay_finite_and_in_range(make: Make) -> None:
    big = np.array([1.7e308, -1.7e308])
    top = np.array([2**63 - 1, -(2**63)])
    folding = make()
    for slot, weight in (("a", 1e15), ("b", 3e15), ("c", 0.0)):
        folding.add(slot, parameters(big, top), weight)
    result = folding.result(parameters(big, top))
    np.testing.assert_allclose(result.arrays[0], big)
    np.testing.assert_allclose(result.arrays[1].astype(float), top.astype(float))


@pytest.mark.parametrize("make", [InTime, Collect])
def test_a_complex_model_may_come_back_real_from_a_site(make: Make) -> None:
    folding = make()
    folding.add("a", parameters(np.ones(1)), 1.0)
    folding.add("b", parameters(np.full(1, 1j)), 1.0)
    assert folding.result(parameters(np.zeros(1, complex))).arrays[0].tolist() == [0.5 + 0.5j]
