"""Weighted federated averaging: the two ways of folding the sites' updates into one model.

Promise: both give sum(w_i * p_i) / sum(w_i), where w_i is a site's aggregation weight times its
number of examples, and differ within float tolerance only: `InTime` keeps one running sum and adds
each update when it arrives (memory of one model, the order of arrival rounds differently);
`Collect` keeps all updates and averages them in the slots' order (the same bits whatever came
first). Sums are made in float64 (complex128), results have the reference's types; whole-number
arrays are rounded. Source: McMahan et al., federated averaging.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from service.domain.vocabulary import FLAggregators
from service.fl_api.embedded.parameters import Array, Parameters
from service.fl_api.embedded.trainer import Metrics


class NothingToAverage(ValueError):
    """The weights of the updates add up to nothing."""


class Aggregator(Protocol):
    """Takes the updates of one round. Updates have the reference's names and shapes already."""

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
        self._sums: list[Array] | None = None
        self._weight = 0.0

    def add(self, slot: str, update: Parameters, weight: float) -> None:
        self._weight += weight
        terms = [_wide(array) * weight for array in update.arrays]
        if self._sums is None:
            self._sums = terms
            return
        for total, term in zip(self._sums, terms, strict=True):
            total += term

    def result(self, reference: Parameters) -> Parameters:
        if self._sums is None or self._weight <= 0:
            raise NothingToAverage(_NOTHING)
        averages = [total / self._weight for total in self._sums]
        return _like(reference, averages)


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
            average = np.zeros_like(_wide(reference.arrays[index]))
            for (update, _), share in zip(updates, shares, strict=True):
                average += _wide(update.arrays[index]) * share
            averages.append(average)
        return _like(reference, averages)


_NOTHING = (
    "the weights of the sites that answered add up to 0: check AGGREGATION_WEIGHTS and that"
    " num_examples is above 0 somewhere"
)


def aggregator(kind: FLAggregators) -> Aggregator:
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
        return sum(value for _, value in known) / len(known)
    return sum(examples * value for examples, value in known) / weight


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


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
    return np.asarray(average).astype(dtype)
