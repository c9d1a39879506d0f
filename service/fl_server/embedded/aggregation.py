"""Weighted federated averaging: the two ways of combining the sites' updates into one model.

Promise: both give sum(w_i * p_i) / sum(w_i), where w_i is a site's aggregation weight times its
number of examples, and differ within float tolerance only: `InTime` keeps one running mean and
folds each update in when it arrives (memory of one model, the order of arrival rounds differently);
`Collect` keeps all updates and averages them in the slots' order (the same bits whatever came
first). Weights are normalised before they meet a value, so that finite values stay finite. Sums
are made in float64 (complex128), results have the reference's types; whole-number arrays are
rounded. Source: McMahan et al., federated averaging.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from service.domain.enums import FLAggregators
from service.fl_server.embedded.parameters import Array, Parameters, whole_range, wide
from service.fl_server.embedded.returned import Metrics


class NothingToAverage(ValueError):
    """The weights of the updates add up to nothing."""


class Aggregator(Protocol):
    """Takes the updates of one round. `problem_with` found nothing in its updates."""

    def add(self, slot: str, update: Parameters, weight: float) -> None:
        """Take one site's update; `weight` is finite and at least 0."""

    def result(self, reference: Parameters) -> Parameters:
        """The average, with the names and types of `reference`.

        Raises:
            NothingToAverage: no weight above 0 was added.
        """


class InTime:
    """Accumulates each update as it arrives."""

    def __init__(self) -> None:
        self._means: list[Array] | None = None
        self._weight = 0.0

    def add(self, slot: str, update: Parameters, weight: float) -> None:
        if weight <= 0:
            return
        before, self._weight = self._weight, self._weight + weight
        if self._means is None:
            self._means = [wide(array) for array in update.arrays]
            return
        keep, share = before / self._weight, weight / self._weight
        for index, array in enumerate(update.arrays):
            # Not in place: a complex model may come back real from one site and not from another.
            self._means[index] = self._means[index] * keep + wide(array) * share

    def result(self, reference: Parameters) -> Parameters:
        if self._means is None:
            raise NothingToAverage(_NOTHING)
        return _like(reference, self._means)


class Collect:
    """Collects all updates, then averages them with weights that add up to 1."""

    def __init__(self) -> None:
        self._updates: dict[str, tuple[Parameters, float]] = {}

    def add(self, slot: str, update: Parameters, weight: float) -> None:
        self._updates[slot] = (update, weight)

    def result(self, reference: Parameters) -> Parameters:
        updates = [self._updates[slot] for slot in sorted(self._updates)]
        total = sum(weight for _, weight in updates)
        if total <= 0:
            raise NothingToAverage(_NOTHING)
        shares = [weight / total for _, weight in updates]
        averages = []
        for index in range(len(reference.arrays)):
            average = np.zeros_like(wide(reference.arrays[index]))
            for (update, _), share in zip(updates, shares, strict=True):
                average += wide(update.arrays[index]) * share
            averages.append(average)
        return _like(reference, averages)


_NOTHING = (
    "the weights of the sites that answered add up to 0: check AGGREGATION_WEIGHTS and that"
    " num_examples is above 0 somewhere"
)


def make_aggregator(kind: FLAggregators) -> Aggregator:
    """A fresh aggregator for one round."""
    return InTime() if kind is FLAggregators.InTimeAccumulateWeightedAggregator else Collect()


def average_metrics(reports: Iterable[tuple[int, Mapping[str, float | None]]]) -> Metrics:
    """Each metric averaged over the sites that gave a number, weighted by their examples.

    A metric that no site gave a number for is None; where the weights are all 0, sites count alike.
    """
    values: dict[str, list[tuple[int, float]]] = {}
    for examples, metrics in reports:
        for label, value in metrics.items():
            known = values.setdefault(label, [])
            if value is not None:
                known.append((examples, value))
    return {label: _mean(known) for label, known in values.items()}


def _mean(known: list[tuple[int, float]]) -> float | None:
    if not known:
        return None
    weight = sum(examples for examples, _ in known)
    if weight == 0:
        known, weight = [(1, value) for _, value in known], len(known)
    total = sum(examples * value for examples, value in known)
    if math.isfinite(total):
        return total / weight
    return sum(examples / weight * value for examples, value in known)


def _like(reference: Parameters, averages: list[Array]) -> Parameters:
    return Parameters(
        reference.keys,
        tuple(
            _narrow(average, array.dtype)
            for average, array in zip(averages, reference.arrays, strict=True)
        ),
    )


def _narrow(average: Array, dtype: np.dtype[np.generic]) -> Array:
    if dtype.kind in "biu":
        average = np.rint(average)
    if dtype.kind in "iu":
        average = np.clip(average, *whole_range(dtype))
    return np.asarray(average).astype(dtype)
