"""JSON is parsed strictly, compared by value, and written as it is read."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contracts.wire import strict_json

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(_JSON)
def test_what_the_standard_library_writes_is_read(value: Any) -> None:
    assert strict_json.parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=100))
def test_any_bytes_give_a_value_or_not_json(raw: bytes) -> None:
    try:
        value = strict_json.parse(raw)
    except strict_json.NotJson:
        return
    assert json.loads(raw) == value


@given(_JSON)
def test_canonical_ignores_key_order_and_number_spelling(value: Any) -> None:
    assert strict_json.canonical(_other(value)) == strict_json.canonical(value)


def _other(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _other(member) for key, member in reversed(value.items())}
    if isinstance(value, list):
        return [_other(member) for member in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


def test_canonical_tells_values_apart() -> None:
    values = [1, "1", True, None, 1.5, [1], {"a": 1}, {"a": None}, {}, [], "", 0, False, -1]
    assert len({strict_json.canonical(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    "raw",
    [
        b"NaN",
        b"[Infinity]",
        b"1e400",
        b"-1e400",
        b'{"a":1,"a":2}',
        b"[" * 33 + b"]" * 33,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 5_000,
        b"\xff",
        b"",
        b"{}x",
    ],
)
def test_refused(raw: bytes) -> None:
    with pytest.raises(strict_json.NotJson) as caught:
        strict_json.parse(raw)
    assert len(str(caught.value)) < 100


def test_depth_that_is_allowed_and_brackets_in_text() -> None:
    deep = b"[" * 32 + b"]" * 32
    assert strict_json.parse(deep)
    assert strict_json.parse(b'"' + b"[" * 500 + b'"') == "[" * 500
    assert len(strict_json.parse(b"[" + b"[]," * 100 + b"[]]")) == 101


def test_dump_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="float"):
        strict_json.dump({"a": float("nan")})
    assert strict_json.dump({"b": "é", "a": 1}) == '{"b":"é","a":1}'.encode()


_WRITTEN = st.recursive(
    st.sampled_from(
        ["1", "-0.5", "1e999", "-1e400", "true", "null", '":"', r'"\":1"', '"a:b"', "2"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda of: f"[{','.join(of)}]")
        | st.lists(
            st.tuples(st.sampled_from(['"a"', '"b" ', '":"', r'"\"a\":"', r'"\u0061"']), inner),
            max_size=3,
        ).map(lambda pairs: "{" + ", ".join(f"{name}:{value}" for name, value in pairs) + "}")
    ),
    max_leaves=8,
)


@given(_WRITTEN)
def test_members_named_twice_and_numbers_too_large_are_found_anywhere(text: str) -> None:
    doubled = False

    def pairs(of: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal doubled
        doubled = doubled or len(dict(of)) < len(of)
        return dict(of)

    value = json.loads(text, object_pairs_hook=pairs)
    if doubled or "inf" in repr(value):
        with pytest.raises(strict_json.NotJson):
            strict_json.parse(text.encode())
    else:
        assert strict_json.parse(text.encode()) == value


def test_write_takes_ids_and_large_numbers() -> None:
    own = UUID(int=1)
    assert strict_json.write({"id": own, "é": (1,)}) == f'{{"id":"{own}","é":[1]}}'
    assert strict_json.write({"id": own, "n": 2**70}) == f'{{"id":"{own}","n":{2**70}}}'
    with pytest.raises(TypeError):
        strict_json.write({"n": 2**70, "x": object()})
