"""A model's parameters: a list of arrays or a dict of named arrays, checked and carried.

Promise: what passes `from_trainer` is numbers in numpy arrays, can be carried as npz bytes without
pickle and comes back in the form it was given in; what passes `problem_with` has the names, shapes
and finite values that averaging needs, within the range of the model's types. Messages name the
very array. Needs numpy and nothing else: every site process imports this.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_EXPECTED: Final = "a list of numpy arrays or a dict of named numpy arrays"
MAX_ARRAYS: Final = 100_000


class BadParameters(ValueError):
    """A value that is not parameters as we take them; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Arrays in a fixed order. `keys` are their names, or None for a plain list."""

    keys: tuple[str, ...] | None
    arrays: tuple[Array, ...]

    def name(self, index: int) -> str:
        """How a message calls the array at `index`."""
        return f"parameters[{index if self.keys is None else repr(self.keys[index])}]"

    def for_trainer(self) -> list[Array] | dict[str, Array]:
        """The form the researcher's code works with; fresh copies that it may change."""
        if self.keys is None:
            return [array.copy() for array in self.arrays]
        return {key: a.copy() for key, a in zip(self.keys, self.arrays, strict=True)}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays in memory."""
        return sum(array.nbytes for array in self.arrays)


def from_trainer(value: object) -> Parameters:
    """What a trainer returned, as parameters.

    Raises:
        BadParameters: another type, no arrays, or arrays that hold no numbers.
    """
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise BadParameters(f"parameters should be {_EXPECTED}; a key of the dict is no text")
        keys, members = tuple(value), list(value.values())
        for key in keys:
            if not _is_name(key):
                raise BadParameters(f"{ascii(key)[:80]} can't be the name of an array in a file")
    elif isinstance(value, list | tuple):
        keys, members = None, list(value)
    else:
        raise BadParameters(f"parameters should be {_EXPECTED}, not {type(value).__name__}")
    if not members:
        raise BadParameters(f"parameters should be {_EXPECTED}; they are empty")
    if len(members) > MAX_ARRAYS:
        raise BadParameters(f"parameters have {len(members)} arrays; at most {MAX_ARRAYS}")
    made = Parameters(keys, tuple(_array(member, keys, i) for i, member in enumerate(members)))
    for index, array in enumerate(made.arrays):
        if array.dtype.kind not in "biufc":
            raise BadParameters(f"{made.name(index)} holds {array.dtype}, not numbers")
    return made


def _is_name(key: str) -> bool:
    """Lone surrogates have no bytes, and a zip's names end at NUL."""
    return "\0" not in key and not any("\ud800" <= letter <= "\udfff" for letter in key)


def _array(member: object, keys: tuple[str, ...] | None, index: int) -> Array:
    name = f"parameters[{index if keys is None else repr(keys[index])}]"
    try:
        return np.array(member)
    except (ValueError, TypeError) as exc:
        raise BadParameters(f"{name} can't be made a numpy array: {exc}") from exc


def problem_with(update: Parameters, reference: Parameters | None) -> str | None:
    """Why an update can't be averaged, or None when it can.

    `reference` gives the names, the order and the shapes that are expected; without one only the
    values are looked at.
    """
    if reference is not None:
        problem = _other_structure(update, reference)
        if problem is not None:
            return problem
        update = in_order(update, reference)
    for index, array in enumerate(update.arrays):
        dtype = array.dtype if reference is None else reference.arrays[index].dtype
        problem = _bad_values(array, dtype)
        if problem is not None:
            return f"{update.name(index)} {problem}"
    return None


def _bad_values(array: Array, dtype: np.dtype[Any]) -> str | None:
    """What keeps an array from being averaged into one of type `dtype`."""
    if array.dtype.kind == "c" and dtype.kind != "c":
        return f"holds {array.dtype}, it came in as {dtype}"
    if array.dtype.kind in "fc":
        finite = np.isfinite(array)
        if not finite.all():
            return (
                f"has {int(array.size - finite.sum())} of {array.size} values that are not finite"
                " (NaN or infinity): lower the learning rate or clean the data"
            )
    outside = _outside(array, dtype)
    if outside:
        return f"has {outside} of {array.size} values beyond the range of {dtype}"
    return None


def _outside(array: Array, dtype: np.dtype[Any]) -> int:
    """How many finite values become another thing in `dtype`, or in the type that sums are made
    in."""
    with np.errstate(over="ignore"):
        if dtype.kind in "iu" and array.dtype != dtype:
            low, high = whole_range(dtype)
            whole = np.rint(wide(array))
            return int(((whole < low) | (whole > high)).sum())
        if dtype.kind in "fc" and array.dtype != dtype:
            return int((~np.isfinite(wide(array).astype(dtype))).sum())
        if array.dtype.itemsize > wide_type(array.dtype).itemsize:
            return int((~np.isfinite(wide(array))).sum())
    return 0


def wide_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that sums over arrays of `dtype` are made in."""
    return np.dtype(np.complex128 if dtype.kind == "c" else np.float64)


def wide(array: Array) -> Array:
    """A copy of the array in its `wide_type`."""
    return array.astype(wide_type(array.dtype))


def whole_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and the greatest float64 that a whole-number type holds."""
    limits = np.iinfo(dtype)
    high = float(limits.max)
    return float(limits.min), high if int(high) <= limits.max else float(np.nextafter(high, 0))


def _other_structure(update: Parameters, reference: Parameters) -> str | None:
    if (update.keys is None) != (reference.keys is None):
        said, got = ("a dict", "a list") if update.keys is None else ("a list", "a dict")
        return f"parameters came in as {said} and went out as {got}"
    if update.keys is not None and reference.keys is not None:
        missing = [key for key in reference.keys if key not in set(update.keys)]
        extra = [key for key in update.keys if key not in set(reference.keys)]
        if missing or extra:
            return f"parameters lack {missing[:5]} and have {extra[:5]} that did not come in"
    elif len(update.arrays) != len(reference.arrays):
        return f"parameters are {len(update.arrays)} arrays, {len(reference.arrays)} came in"
    ordered = in_order(update, reference)
    for index, (array, expected) in enumerate(zip(ordered.arrays, reference.arrays, strict=True)):
        if array.shape != expected.shape:
            return (
                f"{ordered.name(index)} has the shape {array.shape}, it came in as {expected.shape}"
            )
    return None


def in_order(update: Parameters, reference: Parameters) -> Parameters:
    """The same parameters with the names in the reference's order."""
    if update.keys == reference.keys or update.keys is None or reference.keys is None:
        return update
    by_key = dict(zip(update.keys, update.arrays, strict=True))
    return Parameters(reference.keys, tuple(by_key[key] for key in reference.keys))


def to_npz(parameters: Parameters) -> bytes:
    """The arrays as an uncompressed npz, `a0`, `a1`, ...; the names travel beside it."""
    return _npz([f"a{i}" for i in range(len(parameters.arrays))], parameters.arrays)


def from_npz(raw: bytes, keys: list[str] | None) -> Parameters:
    """The inverse of `to_npz`.

    Raises:
        BadParameters: the bytes are no such npz.
    """
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            arrays = tuple(file[f"a{i}"] for i in range(len(file.files)))
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise BadParameters(f"not a readable npz: {exc}") from exc
    if keys is not None and len(keys) != len(arrays):
        raise BadParameters(f"{len(arrays)} arrays for {len(keys)} names")
    return Parameters(None if keys is None else tuple(keys), arrays)


def names_of(parameters: Parameters) -> tuple[str, ...]:
    """The arrays' names for people; a list's are `arr_0`, `arr_1`, ..."""
    return parameters.keys or tuple(f"arr_{i}" for i in range(len(parameters.arrays)))


def named_npz(parameters: Parameters) -> bytes:
    """The arrays as an npz for people, under `names_of`."""
    return _npz(names_of(parameters), parameters.arrays)


def _npz(names: Iterable[str], arrays: Iterable[Array]) -> bytes:
    """Entry by entry, since `numpy.savez` takes some names for its own arguments."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in zip(names, arrays, strict=True):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()
