"""A model's parameters: a list of arrays or a dict of named arrays, checked and carried.

Promise: what passes `from_trainer` is numbers in numpy arrays, can be carried as npz bytes without
pickle and comes back in the form it was given in; what passes `problem_with` has the names, shapes
and finite values that averaging needs, within the range of the model's types. Messages name the
very array. Needs numpy and nothing else: every site process imports this.
"""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np

from service.fl_server.embedded.guard import Reading, Unusable, kind_of

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_EXPECTED: Final = "a list of numpy arrays or a dict of named numpy arrays"
_WANTED: Final = f"return {_EXPECTED}"
_ARRAYS: Final = "return numpy arrays of one numeric type, such as tensor.detach().cpu().numpy()"
MAX_ARRAYS: Final = 100_000
_MAX_KEY: Final = 1_000
#: `dtype.isbuiltin` of types that other packages bring, such as bfloat16: no file keeps them.
_USER_DEFINED: Final = 2
#: What numpy and zipfile raise for bytes that are no npz, or not one of ours.
_UNREADABLE: Final = (
    *(ValueError, OSError, KeyError, EOFError, TypeError, MemoryError, OverflowError),
    *(RuntimeError, SyntaxError, tokenize.TokenError, UserWarning),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


class BadParameters(Unusable):
    """A value that is not parameters as we take them; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Arrays in a fixed order. `keys` are their names, or None for a plain list."""

    keys: tuple[str, ...] | None
    arrays: tuple[Array, ...]

    def name(self, index: int) -> str:
        """How a message calls the array at `index`."""
        return _name(self.keys, index)

    def for_trainer(self) -> list[Array] | dict[str, Array]:
        """The form the researcher's code works with; fresh copies that it may change."""
        if self.keys is None:
            return [array.copy() for array in self.arrays]
        return {key: a.copy() for key, a in zip(self.keys, self.arrays, strict=True)}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays in memory."""
        return sum(array.nbytes for array in self.arrays)


def from_trainer(value: Any) -> Parameters:
    """What a trainer returned, as parameters: exact copies of its numbers, in native byte order.

    Raises:
        BadParameters: another type, no arrays, or arrays whose numbers can't be kept exactly.
    """
    with Reading("parameters can't be read", _WANTED, BadParameters):
        keys, members = _members(value)
    if not members:
        raise BadParameters(f"parameters should be {_EXPECTED}; they are empty", _WANTED)
    if len(members) > MAX_ARRAYS:
        raise BadParameters(f"parameters have more than {MAX_ARRAYS} arrays", "join some of them")
    return Parameters(
        keys, tuple(_array(member, _name(keys, i)) for i, member in enumerate(members))
    )


def _members(value: Any) -> tuple[tuple[str, ...] | None, list[Any]]:
    """The names, if any, and the members; one more than is allowed at most."""
    if isinstance(value, Mapping):
        items = list(islice(iter(value.items()), MAX_ARRAYS + 1))
        keys = tuple(_key(key) for key, _ in items)
        if len(set(keys)) < len(keys):
            raise BadParameters("parameters name an array twice", _WANTED)
        return keys, [member for _, member in items]
    if isinstance(value, list | tuple):
        return None, list(islice(iter(value), MAX_ARRAYS + 1))
    advice = _WANTED
    if isinstance(value, np.ndarray):
        advice = "return [array] for a single array"
    elif isinstance(value, Iterable):
        advice = "return list(...) of it"
    raise BadParameters(f"parameters should be {_EXPECTED}, not {kind_of(value)}", advice)


def _key(key: Any) -> str:
    """An array's name; lone surrogates have no bytes, and a zip's names end at NUL."""
    if not issubclass(type(key), str):
        raise BadParameters(
            f"parameters should be {_EXPECTED}; a key of the dict is no text, but {kind_of(key)}",
            "name the arrays by text, such as str(key)",
        )
    text = str.__str__(key)
    if len(text) > _MAX_KEY:
        raise BadParameters(
            f"an array's name has {len(text)} characters; at most {_MAX_KEY}", "shorten it"
        )
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadParameters(
            f"{ascii(text)[:80]} can't be the name of an array in a file", "use plain text"
        )
    return text


def _name(keys: tuple[str, ...] | None, index: int) -> str:
    return f"parameters[{index if keys is None else repr(keys[index])[:80]}]"


def _array(member: Any, name: str) -> Array:
    """A copy in native byte order."""
    if type(member) is not np.ndarray:
        with Reading(f"{name} can't be made a numpy array", _ARRAYS, BadParameters):
            member = _as_array(member, name)
    dtype = member.dtype
    if dtype.kind not in "biufc" or dtype.isbuiltin == _USER_DEFINED:
        raise BadParameters(f"{name} holds {str(dtype)[:60]}, not numbers", _cure(member))
    # Of the type only what a file keeps: native order, and (by the view) no metadata.
    kept: np.dtype[Any] = np.dtype(dtype.type)
    return np.array(member, kept, subok=False).view(kept)


def _as_array(member: Any, name: str) -> Array:
    """Tensors give their values by `detach` and `cpu` where they offer these."""
    if callable(getattr(member, "__array__", None)) and not isinstance(member, np.ndarray):
        for step in ("detach", "cpu"):
            offered = getattr(member, step, None)
            if callable(offered):
                member = offered()
    array = np.asanyarray(member)
    masked = _masked(array, 0) or _masked(member, array.ndim)
    if masked:
        raise BadParameters(
            f"{name} is a masked array with {masked} masked values, and no mask can be averaged",
            "fill it first, such as array.filled(0), or return the model without a mask",
        )
    return np.asarray(array)


def _masked(member: Any, levels: int) -> int:
    """How many values are masked, in an array or in a list of some."""
    if isinstance(member, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(member)
        return 0 if mask.dtype.names else int(mask.sum())
    if isinstance(member, list | tuple) and levels:
        return sum(_masked(inner, levels - 1) for inner in member)
    return 0


def _cure(array: Array) -> str:
    """What to return in place of an array that holds no numbers."""
    if array.dtype.names:
        return "return one array a field"
    if array.dtype.kind in "mM":
        return "return numbers, such as array.astype('int64')"
    if array.dtype.kind == "O":
        kind = kind_of(array.flat[0]) if array.size else "nothing"
        return f"it is made of Python objects ({kind}); {_ARRAYS}"
    return "return array.astype(np.float32)"


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
        had, given = set(reference.keys), set(update.keys)
        missing = [key[:80] for key in reference.keys if key not in given]
        extra = [key[:80] for key in update.keys if key not in had]
        if missing or extra:
            return f"parameters lack {missing[:3]} and have {extra[:3]} that did not come in"
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
        forms: dict[bytes, _Form] = {}
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            arrays = tuple(
                _member(archive.read(f"a{i}.npy"), forms) for i in range(len(archive.namelist()))
            )
    except _UNREADABLE as exc:
        raise BadParameters(f"not a readable npz: {exc}") from exc
    if keys is not None and len(keys) != len(arrays):
        raise BadParameters(f"{len(arrays)} arrays for {len(keys)} names")
    return Parameters(None if keys is None else tuple(keys), arrays)


_Form: TypeAlias = tuple[tuple[int, ...], bool, np.dtype[Any]]


def _member(raw: bytes, forms: dict[bytes, _Form]) -> Array:
    """The array of one npy file. Many arrays have few forms, so each header is read once."""
    length = 10 + int.from_bytes(raw[8:10], "little")
    head = raw[:length]
    form = forms.get(head)
    if form is None:
        stream = io.BytesIO(head)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("another version of the npy format")
        form = forms[head] = np.lib.format.read_array_header_1_0(stream)
    shape, fortran, dtype = form
    if dtype.kind not in "biufc":
        raise ValueError(f"an array of {dtype}")
    values = np.frombuffer(raw, dtype, offset=length)
    return values.reshape(shape[::-1]).transpose() if fortran else values.reshape(shape)


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
