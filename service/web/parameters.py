"""What a request's query and path ask for, checked before anything is looked up.

Promise: whatever a query holds, a handler gets values that the database takes, or `Invalid` is raised with
the parameter's name and what it must be. A parameter that a route does not have, or that is given twice,
is an error too: a typo must not respond with all there is.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from starlette.requests import Request

from service.contracts.wire.fields import parse_time
from service.contracts.wire.problems import storable
from service.errors import Invalid

E = TypeVar("E", bound=StrEnum)

_TIME: str = (
    "must be an RFC 3339 time of the years 1970 to 9999 with an offset, such as 2026-01-02T03:04:05Z; "
    "write the + of an offset as %2B"
)
#: Longest number that is read, in digits.
_MOST_DIGITS = 19
_SHOWN = 64


class QueryParameters:
    """The query parameters of one request; `names` are those that its route has."""

    def __init__(self, request: Request, *names: str) -> None:
        self._given: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in names:
                known = f"the parameters here are {', '.join(names)}" if names else "there are none"
                raise Invalid(f"{_shown(name)}: unknown parameter; {known}")
            if name in self._given:
                raise Invalid(f"{name} is given twice; give it once")
            self._given[name] = value

    def text(self, name: str, longest: int) -> str | None:
        """Text as the database can hold it."""
        value = self._given.get(name)
        if value is None:
            return None
        if not 0 < len(value) <= longest or value != storable(value):
            raise Invalid(f"{name} must be text of 1 to {longest} characters without NUL")
        return value

    def one_of(self, name: str, words: type[E]) -> E | None:
        value = self._given.get(name)
        if value is None:
            return None
        try:
            return words(value)
        except ValueError as exc:
            raise Invalid(f"{name} must be one of {', '.join(words)}") from exc

    def uuid(self, name: str) -> UUID | None:
        value = self._given.get(name)
        return None if value is None else _uuid(name, value)

    def time(self, name: str) -> datetime | None:
        value = self._given.get(name)
        if value is None:
            return None
        try:
            return parse_time(value)
        except ValueError as exc:
            raise Invalid(f"{name} {_TIME}") from exc

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 0 to `most`."""
        value = self._given.get(name)
        if value is None:
            return default
        # Of what Python calls digits, not all make a number, nor do any thousands of them.
        plain = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
        if not plain or int(value) > most:
            raise Invalid(f"{name} must be a whole number from 0 to {most}")
        return int(value)


def job_id(request: Request) -> UUID:
    """The job that the path names."""
    return _uuid("job_id", request.path_params["job_id"])


def _uuid(name: str, value: str) -> UUID:
    try:
        if value.isascii():
            return UUID(value)
    except ValueError:
        pass
    raise Invalid(f"{name} must be a UUID, such as 0b9f4c1e-6a53-4d9b-9d0e-3c7a5f2e1d01")


def _shown(name: str) -> str:
    return storable(name)[:_SHOWN]
