"""Values that fit a JSON Schema of ours, or miss it by little: every bound from both sides.

`changed` takes data that fits and puts such values in the place of some of its members.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final
from uuid import UUID

from hypothesis import strategies as st

from service.contracts.package_data import data_path
from service.contracts.schemas.json_schema import without_titles

Schema = dict[str, Any]
Values = st.SearchStrategy[Any]

_ODD_NUMBERS: Final = (0, 1, 2, -1, 3.0, 1e2, 0.5, -0.0, 2**31, 2**63, 1e30, 10**400)
_ODD_TEXTS: Final = ("", "x", "1", " ", "\0", "x\n", "\u2028", "é", "😀")
_ODD_PARTS: Final[tuple[Any, ...]] = ([], [1], [None], {}, {"x": 1}, {"\0": 1})
_ODD: Final = st.sampled_from([None, True, False, *_ODD_NUMBERS, *_ODD_TEXTS, *_ODD_PARTS])
#: Longest text or list that is made whole; of a longer bound only the bound itself is tried.
_LONG: Final = 70


@cache
def schema_of(event_type: str) -> Schema:
    """The published schema of an event type's data."""
    path = data_path("schemas") / "events" / f"{event_type}.json"
    made: Schema = without_titles(json.loads(path.read_text()))
    return made


def changed(event_type: str, base: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """`base`, data of this type, with some members replaced, added or left out."""
    members = _members(event_type)
    names = st.sampled_from(sorted(members))
    new = st.lists(names, max_size=3, unique=True).flatmap(
        lambda some: st.fixed_dictionaries({name: members[name] for name in some})
    )
    gone = st.one_of(st.none(), st.none(), st.none(), names)

    def put(parts: tuple[dict[str, Any], str | None]) -> dict[str, Any]:
        return {name: value for name, value in (base | parts[0]).items() if name != parts[1]}

    return st.tuples(new, gone).map(put)


@cache
def _members(event_type: str) -> dict[str, Values]:
    schema = schema_of(event_type)
    known = {name: _near(one, schema) | _ODD for name, one in schema["properties"].items()}
    return known | {"unknwon": _ODD}


def _near(schema: Schema, root: Schema) -> Values:
    if "$ref" in schema:
        return _near(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], str(schema["enum"][0]).swapcase()])
    if "type" not in schema:
        return st.one_of([_near(one, root) for one in schema["anyOf"]])
    return _BY_TYPE[schema["type"]](schema, root)


def _integers(schema: Schema, _: Schema) -> Values:
    low, high = schema["minimum"], schema["maximum"]
    edges = [low - 1, low, low + 1, high - 1, high, high + 1]
    return st.sampled_from([*edges, *map(float, edges), low + 0.5]) | st.integers(low, high)


def _numbers(schema: Schema, _: Schema) -> Values:
    low, high = schema["minimum"], schema["maximum"]
    edges = st.sampled_from([low, high, 0, 1, -0.0, -1e-9, 1 + 1e-9, 2**70, -(2**63), 10**400])
    return edges | st.floats(allow_nan=False, allow_infinity=False)


def _texts(schema: Schema, _: Schema) -> Values:
    low, high = schema.get("minLength", 0), schema.get("maxLength", _LONG)
    sizes = st.sampled_from([max(0, low - 1), low, low + 1, high, high + 1])
    sized = st.tuples(sizes, st.sampled_from("aA0é😀\n \0")).map(lambda part: part[0] * part[1])
    if "pattern" not in schema:
        return sized
    pattern: str = schema["pattern"]
    lawful = st.from_regex(pattern)
    spoilt = st.sampled_from(_SPOILERS)
    return sized | lawful | st.tuples(spoilt, lawful).map(lambda part: part[0](part[1]))


def _line_feed(text: str) -> str:
    return f"{text.rstrip()}\n"


def _other_digits(text: str) -> str:
    """Digits of another script: `\\d` of some engines."""
    return text.replace("0", "\u0660").replace("1", "\u0661")


def _wider(text: str) -> str:
    return f" {text}"


def _cut(text: str) -> str:
    return text[:-1]


_SPOILERS: Final[tuple[Callable[[str], str], ...]] = (
    *(str.upper, str.lower),
    *(_line_feed, _other_digits, _wider, _cut),
)


def _lists(schema: Schema, root: Schema) -> Values:
    items, high = schema["items"], schema.get("maxItems", 3)
    short = st.lists(_near(items, root) | _ODD, max_size=3)
    if high <= _LONG:
        return short
    if items.get("format") == "uuid":
        sized = st.sampled_from([1, 2, high, high + 1]).map(lambda n: [_uuid(i) for i in range(n)])
        return short | sized | sized.map(_upper) | sized.map(_repeated) | sized.map(_mixed)
    repeats = st.tuples(st.sampled_from([1, high, high + 1]), _near(items, root))
    return short | repeats.map(lambda part: [part[1]] * part[0])


def _uuid(number: int) -> str:
    return str(UUID(int=0xABCDEF << 96 | number))


def _upper(ids: list[str]) -> list[str]:
    return [text.upper() for text in ids]


def _repeated(ids: list[str]) -> list[str]:
    return [*ids[:-1], ids[0], ids[0]]


def _mixed(ids: list[str]) -> list[str]:
    """In two letter cases: a repeat among them, or none."""
    return [*ids, ids[0].upper()] if len(ids) % 2 else [ids[0].upper(), *ids[1:]]


def _objects(schema: Schema, root: Schema) -> Values:
    if "properties" in schema:
        named = {name: _near(one, root) | _ODD for name, one in schema["properties"].items()}
        needed = {name: named.pop(name) for name in schema.get("required", ())}
        whole = st.fixed_dictionaries(needed, optional=named)
        return whole | whole.map(lambda made: dict(list(made.items())[1:])) | _ODD
    inner, high = schema["additionalProperties"], schema.get("maxProperties", _LONG)
    if "$ref" in inner:
        return _free_forms()
    names, values = _texts(schema["propertyNames"], root), _near(inner, root)
    sized = st.tuples(st.sampled_from([high, high + 1]), values).map(
        lambda part: {f"k{number}": part[1] for number in range(part[0])}
    )
    return st.dictionaries(names, values | _ODD, max_size=3) | sized


def _free_forms() -> Values:
    """Free objects, with the names that belong elsewhere, and long ones."""
    names = st.sampled_from(["LR", "LOCAL_ROUNDS", "AGGREGATOR", "a\n", "\0", "", "x" * 65_537])
    leaves = _ODD | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab\0é", max_size=3)
    inner = st.recursive(
        leaves,
        lambda more: st.lists(more, max_size=2) | st.dictionaries(names, more, max_size=2),
        max_leaves=4,
    )
    long = st.sampled_from([32_700, 65_530, 65_537]).map(lambda size: {"a": "x" * size})
    return st.dictionaries(names, inner, max_size=3) | long


_BY_TYPE: Final[dict[str, Callable[[Schema, Schema], Values]]] = {
    "integer": _integers,
    "number": _numbers,
    "string": _texts,
    "array": _lists,
    "object": _objects,
    "boolean": lambda _schema, _root: st.booleans(),
    "null": lambda _schema, _root: st.none(),
}
