"""The field types our contracts are made of.

Promise: whatever passes one of them can be stored and sent on: text has no NUL and no lone
surrogate and a maximum length, integers fit 32 bits, numbers are finite, times have an offset and
lie in the years 1970 to 9999, lists and objects are bounded. `Uuid` needs
`uuid_spelling` beside it. They are strict: "5" is no number, true is no 1, a Unix timestamp is no
time. The JSON Schemas say the same in patterns that every engine reads alike: no `\\d`, no lookahead,
and a line feed ruled out by a length or by `not` wherever an engine's `$` may stand before one.
What no JSON Schema can say is listed in `service.contracts.inbound.beyond_schema`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from typing_extensions import TypeAliasType

from service.contracts.wire import strict_json
from service.contracts.wire.problems import NO_NUL, with_message

MAX_INT: Final = 2**31 - 1
#: Whole numbers of a larger magnitude become doubles inside free-form objects.
_MAX_FREE_INT: Final = 2**63 - 1
_MAX_DOUBLE: Final = sys.float_info.max
#: As many digits as the least number beyond 64 bits has.
_LONG_NUMBER: Final = re.compile("[0-9]{19}")
#: Longest text inside free-form objects, in characters.
_MAX_FREE_TEXT: Final = 65_536

_UUID_TEXT: Final = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_UUID_LENGTH: Final = 36
_CLOCK: Final = (
    r"[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_TIME_RE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}" + _CLOCK)
#: The same with every date that exists in the years 1970 to 9999 and no other.
_TIME_TEXT: Final = (
    r"^((19[7-9][0-9]|[2-9][0-9]{3})-"
    r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))"
    r"|(19(7[26]|8[048]|9[26])|[2-9][0-9](0[48]|[2468][048]|[13579][26])"
    r"|([2468][048]|[3579][26])00)-02-29)" + _CLOCK + "$"
)
_FIRST_YEAR: Final = "1970"
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
#: Beside a pattern that could end before a last line feed.
ONE_LINE: Final[dict[str, Any]] = {"not": {"pattern": r"\n"}}


def uuid_spelling(data: Mapping[str, Any], *names: str) -> list[tuple[str | int, ...]]:
    """Where members of raw `data` hold a UUID in an unusual notation (no hyphens, braces, urn:).

    One UUID has one text, whatever language compares it. Of the notations that pydantic takes only
    the usual one is 36 characters long, so that a check of the length after validation is enough.
    """
    unusual: list[tuple[str | int, ...]] = []
    for name in names:
        value = data.get(name)
        if isinstance(value, str):
            if len(value) != _UUID_LENGTH:
                unusual.append((name,))
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, str) and len(entry) != _UUID_LENGTH:
                    unusual.append((name, index))
    return unusual


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with an offset, as UTC.

    A first or last day whose offset carries it out of the years 1970 to 9999 counts as their very
    beginning or end.

    Raises:
        ValueError: another notation, an impossible date, or a year outside 1970..9999.
    """
    if not _TIME_RE.fullmatch(text):
        raise ValueError("should be an RFC 3339 time with an offset")
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError as exc:
        raise ValueError("should be an existing date and time") from exc
    if text[:4] < _FIRST_YEAR:
        raise ValueError("should lie in the years 1970 to 9999")
    return time if time.tzinfo is UTC else _as_utc(time)


def _as_utc(time: datetime) -> datetime:
    try:
        return max(time.astimezone(UTC), _FIRST)
    except OverflowError:
        return _LAST


def _time(value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if not isinstance(value, str):
        raise PydanticCustomError("time_type", "Time should be RFC 3339 text with an offset")
    try:
        return parse_time(value)
    except ValueError as exc:
        reason = str(exc)
    raise PydanticCustomError("time_parsing", "Time {reason}", {"reason": reason})


def free_form_problem(value: Any) -> tuple[tuple[str | int, ...], str] | None:
    """Where and why a parsed JSON value can't be stored; None when it can."""
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return None
    if isinstance(value, int):
        return None if abs(value) <= _MAX_DOUBLE else ((), "a number is too large")
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in members:
        found = (_text_problem(key) if isinstance(key, str) else None) or free_form_problem(member)
        if found is not None:
            return (key, *found[0]), found[1]
    return None


def _in_64_bits(value: Any) -> Any:
    """`value` with whole numbers beyond 64 bits as doubles, as most readers of JSON take them."""
    if isinstance(value, dict):
        return {name: _in_64_bits(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_in_64_bits(member) for member in value]
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and abs(value) > _MAX_FREE_INT else value


def _text_problem(text: str) -> tuple[tuple[str | int, ...], str] | None:
    if len(text) > _MAX_FREE_TEXT:
        return (), f"a text is longer than {_MAX_FREE_TEXT} characters"
    if text.isascii():
        return ((), "a text contains NUL") if "\0" in text else None
    if "\0" in text:
        return (), "a text contains NUL"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return (), "a text contains a lone surrogate"
    return None


def _free_form(max_bytes: int) -> AfterValidator:
    def check(value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            return value
        found = free_form_problem(value)
        if found is not None:
            raise PydanticCustomError(
                "free_form", "Object can't be stored: {reason}", {"reason": found[1]}
            )
        written = strict_json.write(value)
        if _LONG_NUMBER.search(written):
            value = _in_64_bits(value)
            written = strict_json.write(value)
        if len(written.encode()) > max_bytes:
            raise PydanticCustomError(
                "too_large",
                "Object should have at most {limit} bytes as JSON",
                {"limit": max_bytes},
            )
        return value

    return AfterValidator(check)


class NullIs:
    """Beside a type whose field has a default: null means what leaving the field out means."""

    def __init__(self, default: Callable[[], Any]) -> None:
        self._default = default

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        nullable = core_schema.nullable_schema(handler(source))
        return core_schema.no_info_after_validator_function(self._filled, nullable)

    def _filled(self, value: Any) -> Any:
        return self._default() if value is None else value


class _FreeFormSchema:
    """Says in the JSON Schema what `free_form_problem` holds: the value's shape, but not its size."""

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(TypeAdapter(dict[_FreeText, JsonValue]).core_schema)


_FreeText = Annotated[str, Field(max_length=_MAX_FREE_TEXT, pattern=NO_NUL)]
#: Any JSON value that can be stored: only its JSON Schema is used.
JsonValue = TypeAliasType(
    "JsonValue",
    "bool | Number | _FreeText | list[JsonValue] | dict[_FreeText, JsonValue] | None",
)

Uuid = Annotated[
    UUID,
    WithJsonSchema(
        {
            "type": "string",
            "format": "uuid",
            "pattern": _UUID_TEXT,
            "maxLength": _UUID_LENGTH,
        }
    ),
]
Time = Annotated[
    datetime,
    BeforeValidator(_time),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _TIME_TEXT, **ONE_LINE}),
]
Int32 = Annotated[int, Field(strict=True, ge=-MAX_INT - 1, le=MAX_INT)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-_MAX_DOUBLE, le=_MAX_DOUBLE)]


def text(longest: int, shortest: int = 1) -> Any:
    """A text type of `shortest`..`longest` characters without NUL."""
    return Field(strict=True, min_length=shortest, max_length=longest, pattern=NO_NUL)


def line(pattern: str, longest: int, shortest: int = 1) -> WithJsonSchema:
    """The JSON Schema of a text that keeps a pattern with both anchors."""
    bounds = {"minLength": shortest, "maxLength": longest}
    return WithJsonSchema({"type": "string", **bounds, "pattern": pattern, **ONE_LINE})


Text128 = Annotated[str, text(128)]
Text256 = Annotated[str, text(256)]
Text500 = Annotated[str, text(500, 0)]
_SHA256: Final = with_message(r"^[0-9a-fA-F]{64}$", "Should be 64 hexadecimal digits")
#: A hash as 64 hexadecimal digits.
Sha256 = Annotated[str, Field(strict=True, pattern=_SHA256), line(_SHA256, 64, 64)]
#: The app's own settings: at most 64 KiB as JSON.
AppObject = Annotated[dict[str, Any], _free_form(65_536), _FreeFormSchema()]
#: Details of a report: at most 32 KiB as JSON.
DetailsObject = Annotated[dict[str, Any], _free_form(32_768), _FreeFormSchema()]
