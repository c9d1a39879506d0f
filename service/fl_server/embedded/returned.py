"""What a trainer returned, taken over as plain Python numbers and texts.

Promise: the results are exact `int`, `float`, `str`, `dict`, whatever subclass came in; a number
that would lose something (a mask, an imaginary part, its size) is refused with a text that names
the field and says what to return. Every touch of a returned object may raise: callers hold a
`Guard`. Needs numpy and the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import numpy as np

from service.fl_server.embedded.guard import Reading, Unusable, kind_of

_MAX_METRICS: Final = 200
_MAX_LABEL: Final = 128
#: What every reader of JSON takes as a whole number.
MAX_EXAMPLES: Final = 2**53

Metrics = dict[str, float | None]

_GENERATORS: Final = {
    "generator": "use `return` in place of `yield`",
    "coroutine": "write `def` in place of `async def`",
    "async_generator": "write `def` in place of `async def`, and `return` in place of `yield`",
}


def members(value: Any, wanted: str, count: int) -> list[Any]:
    """The `count` members of the tuple or list that a function returned."""
    with Reading("what it returned can't be read", f"it should return {wanted}"):
        if isinstance(value, tuple | list):
            found = list(islice(iter(value), count + 1))
            if len(found) == count:
                return found
            got = f"{kind_of(value)} of {len(value)}"
        else:
            got = kind_of(value)
            if got == "coroutine":
                value.close()
    raise Unusable(f"it should return {wanted}, not {got}", _GENERATORS.get(got, ""))


def examples(value: Any) -> int:
    """`num_examples` as a whole number from 0 to `MAX_EXAMPLES`."""
    advice = "return a whole number, such as len(data)"
    field = "num_examples"
    with Reading(f"{field} can't be read", advice):
        number = None if _is_bool(value) else _number(field, value, advice)
    if number is None:
        raise Unusable(
            f"{field} should be a whole number of 0 or more, not {kind_of(value)}", advice
        )
    if isinstance(number, float) and not math.isfinite(number):
        raise Unusable(f"{field} should be a whole number of 0 or more, not {number}", advice)
    if number > MAX_EXAMPLES:
        raise Unusable(f"{field} should be at most {MAX_EXAMPLES}", advice)
    if number < 0 or number != int(number):
        shown = number if number > -MAX_EXAMPLES else "a large negative number"
        raise Unusable(f"{field} should be a whole number of 0 or more, not {shown}", advice)
    return int(number)


def metrics(value: Any) -> Metrics:
    """Metrics by name; numbers that are not finite are None."""
    advice = "return a dict of plain numbers by name, such as {'loss': 0.5}"
    with Reading("metrics can't be read", advice):
        if not isinstance(value, Mapping):
            raise Unusable(
                f"metrics should be a dict of numbers by name, not {kind_of(value)}", advice
            )
        found = list(islice(iter(value.items()), _MAX_METRICS + 1))
        if len(found) > _MAX_METRICS:
            raise Unusable(f"more than {_MAX_METRICS} metrics", f"at most {_MAX_METRICS} are kept")
        pairs = [(key, member) for key, member in found]  # each may be another thing than a pair
    return {_label(key): _metric(_label(key), member) for key, member in pairs}


def _label(key: Any) -> str:
    advice = f"name each metric by a text of 1 to {_MAX_LABEL} characters"
    if not issubclass(type(key), str):
        raise Unusable(
            f"a metric's name should be a short text, not {kind_of(key)}:"
            " a metric is a number under a short name",
            advice,
        )
    label = str.__str__(key)
    if not 0 < len(label.strip()) <= _MAX_LABEL:
        raise Unusable(f"metric {label[:60]!r} should be a number under a short name", advice)
    return label


def _metric(label: str, value: Any) -> float | None:
    field = f"metric {label[:60]!r}"
    advice = "return a plain number, such as float(value)"
    with Reading(f"{field} can't be read", advice):
        number = _number(field, value, advice)
        if number is None:
            raise Unusable(
                f"{field} should be a number under a short name, not {kind_of(value)}",
                "leave it out, or return float('nan')" if value is None else advice,
            )
        try:
            number = float(number)
        except OverflowError:
            raise _too_large(field, number) from None
        return number if math.isfinite(number) else None


def _number(field: str, value: Any, advice: str) -> int | float | None:
    """A plain number, or None for what is none. What offers `item()`, as numpy's and torch's values
    do, is asked for it; what offers `float()` is asked for that."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        raise Unusable(f"{field} is masked", "fill it first, or leave it out")
    if not isinstance(value, int | float) and callable(getattr(value, "item", None)):
        value = value.item()
    kind = type(value)
    if issubclass(kind, int):
        return int.__int__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, complex | np.complexfloating):
        shown = complex.__complex__(complex(value))
        raise Unusable(f"{field} is complex ({shown})", "return its real part, or abs(value)")
    if not hasattr(kind, "__float__"):
        return None
    try:
        number = float.__float__(float(value))
    except OverflowError:
        raise _too_large(field, value) from None
    if math.isinf(number) and bool(value != number):
        raise _too_large(field, value)
    return number


def _too_large(field: str, value: Any) -> Unusable:
    digits = ""
    if type(value) is int:
        digits = f" of {int(value.bit_length() * math.log10(2)) + 1} digits"
    return Unusable(
        f"{field} is a number{digits} beyond the range of a float (about 1.8e308)",
        "return it in a smaller unit, or its logarithm",
    )


def _is_bool(value: Any) -> bool:
    return issubclass(type(value), bool | np.bool_)
