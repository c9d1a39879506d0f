"""JSON as we take it, compare it and write it.

Promise of `parse`: every byte string gives a value or `NotJson`, never another exception. It is
stricter than the standard library where leniency would lose or smuggle something: UTF-8 only, no
member named twice, no NaN or Infinity (also not by overflow: 1e999), bounded depth and digits.
A byte order mark is passed over. Broken only by a subclass of `bytes` that lies about its content.

`canonical` gives equal bytes for equal values whatever their key order, white space, or way of
writing a number (1 or 1.0; beyond 64 bits the double nearest to it counts). `dump` writes any value;
`write` is its quick form for values that have passed a contract, in which every number is finite.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from typing import Any, Final, NoReturn
from uuid import UUID

import orjson
from pydantic_core import from_json

#: Deepest nesting of a value inside free-form objects, and of a record's data as a whole.
MAX_DEPTH: Final = 32
_INT64: Final = 2**63
#: Python converts no integer of more digits from text.
_MOST_DIGITS: Final = 4_300


class NotJson(ValueError):
    """The bytes are not JSON as we take it; the message never quotes them."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise NotJson("an object names the same member twice")
    return members


def _constant(_word: str) -> NoReturn:
    raise NotJson("NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0.0:
        raise NotJson("a number is too large")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite
)
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
)
_SORTING: Final = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True, check_circular=False
)


def parse(raw: bytes) -> Any:
    """The value that `raw` stands for.

    Raises:
        NotJson: invalid UTF-8 or JSON, a member named twice, a number that is not finite or has
            thousands of digits, nesting deeper than the interpreter or `MAX_DEPTH` allows.
    """
    if raw[:3] == BOM_UTF8:
        raw = raw[3:]
    if len(raw) < _MOST_DIGITS and raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        # Quick and as strict, but for members named twice and 1e999; each colon that is not in a text
        # belongs to a member, so where as many members are left as there are colons none was lost.
        try:
            value = from_json(raw, allow_inf_nan=False)
            if _members(value) == raw.count(b":"):
                return value
        except ValueError:
            pass  # `_DECODER` says what is wrong
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except NotJson:
        raise
    except UnicodeDecodeError as exc:
        raise NotJson(f"invalid UTF-8 at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise NotJson(f"invalid JSON: {exc.msg} at character {exc.pos}") from exc
    except RecursionError as exc:
        raise NotJson("nested too deeply") from exc
    except ValueError as exc:  # an integer with more digits than Python converts
        raise NotJson("a number has too many digits") from exc
    # Depth needs as many opening brackets: most records are cleared by counting them.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise NotJson(f"nested more than {MAX_DEPTH} levels deep")
    return value


def _members(value: Any) -> float:
    """How many members the objects in `value` have; NaN where a number is not finite."""
    if type(value) is dict:
        found: float = len(value)
        for member in value.values():
            if type(member) not in _PLAIN:
                found += _members(member)
        return found
    if type(value) is list:
        found = 0
        for member in value:
            if type(member) not in _PLAIN:
                found += _members(member)
        return found
    return (value - value) if type(value) is float else 0


#: What holds no members; a float may be infinite.
_PLAIN: Final = frozenset({str, int, bool, type(None)})


def _deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_deeper(member, levels - 1) for member in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_deeper(member, levels - 1) for member in value)
    return False


def dump_text(value: Any) -> str:
    """`value` as compact JSON, members in the order given.

    Raises:
        ValueError: it holds a number that is not finite.
    """
    return _ENCODER.encode(value)


def dump(value: Any) -> bytes:
    """`dump_text` as UTF-8.

    Raises:
        ValueError: it holds a number that is not finite, or text with lone surrogates.
    """
    return _ENCODER.encode(value).encode("utf-8")


def canonical(value: Any) -> bytes:
    """The same bytes for the same value, as ASCII JSON with sorted members (hash input)."""
    return _SORTING.encode(_plain(value)).encode("ascii")


def write(value: Any) -> str:
    """Checked `value` as compact JSON, members in the order given; a UUID as its text, a number that is
    not finite as null.

    Raises:
        TypeError: it holds what has no JSON form.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits, from a template's own settings
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_text)


def _text(value: Any) -> str:
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def canonical_checked(value: Any) -> bytes:
    """The same bytes for the same value that passed a request's contract and holds no float that is a
    whole number."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def plain_numbers(value: Any) -> Any:
    """`value` with whole floats written as integers, for `canonical_checked`."""
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _INT64 else value
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, int) and abs(value) >= _INT64:
        return _double(value)
    return value


def _double(whole: int) -> int | float:
    try:
        return float(whole)
    except OverflowError:
        return whole
