"""The field types our contracts are made of.

Promise: whatever passes one of them can be stored and sent on: text has no NUL and no lone
surrogate and a maximum length, integers fit 32 bits, numbers are finite, times have an offset and
lie in the years 1970 to 9999, lists and objects are bounded. `Uuid` needs
`uuid_spelling` beside it. They are strict: "5" is no number,
true is no 1, a Unix timestamp is no time. The JSON Schemas say the same as far as they can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.contracts.wire import strict_json
from service.contracts.wire.problems import NO_NUL, with_message

MAX_INT: Final = 2**31 - 1
#: Largest magnitude of a whole number inside free-form objects.
_MAX_FREE_INT: Final = 2**63 - 1
#: Longest text inside free-form objects, in characters.
_MAX_FREE_TEXT: Final = 65_536

_UUID_TEXT: Final = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_UUID_LENGTH: Final = 36
_TIME_TEXT: Final = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$"
_TIME_RE: Final = re.compile(_TIME_TEXT, re.ASCII)
_FIRST_YEAR: Final = 1970


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

    Raises:
        ValueError: another notation, an impossible date, or a year outside 1970..9999.
    """
    if not _TIME_RE.match(text):
        raise ValueError("should be an RFC 3339 time with an offset")
    try:
        time = datetime.fromisoformat(text.upper())
        if time.tzinfo is not UTC:
            time = time.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("should be an existing date and time") from exc
    if time.year < _FIRST_YEAR:
        raise ValueError("should lie in the years 1970 to 9999")
    return time


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
        return None if abs(value) <= _MAX_FREE_INT else ((), "a whole number needs over 64 bits")
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in members:
        found = (_text_problem(key) if isinstance(key, str) else None) or free_form_problem(member)
        if found is not None:
            return (key, *found[0]), found[1]
    return None


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
        if len(strict_json.write(value).encode()) > max_bytes:
            raise PydanticCustomError(
                "too_large",
                "Object should have at most {limit} bytes as JSON",
                {"limit": max_bytes},
            )
        return value

    return AfterValidator(check)


Uuid = Annotated[
    UUID,
    WithJsonSchema({"type": "string", "format": "uuid", "pattern": _UUID_TEXT}),
]
Time = Annotated[
    datetime,
    BeforeValidator(_time),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _TIME_TEXT}),
]
Int32 = Annotated[int, Field(strict=True, ge=-MAX_INT - 1, le=MAX_INT)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def text(longest: int, shortest: int = 1) -> Any:
    """A text type of `shortest`..`longest` characters without NUL."""
    return Field(strict=True, min_length=shortest, max_length=longest, pattern=NO_NUL)


Text128 = Annotated[str, text(128)]
Text256 = Annotated[str, text(256)]
Text500 = Annotated[str, text(500, 0)]
#: A hash as 64 hexadecimal digits.
Sha256 = Annotated[
    str,
    Field(
        strict=True, pattern=with_message(r"^[0-9a-fA-F]{64}$", "Should be 64 hexadecimal digits")
    ),
]
#: The app's own settings: at most 64 KiB as JSON.
AppObject = Annotated[dict[str, Any], _free_form(65_536)]
#: Details of a report: at most 32 KiB as JSON.
DetailsObject = Annotated[dict[str, Any], _free_form(32_768)]
