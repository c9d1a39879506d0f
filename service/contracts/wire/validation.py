"""Validation that lists every error: pydantic's first pass, then the rules between fields.

Pydantic skips a model's own validators once a field has failed, and gives them no `loc`. Promise
here: the rules between fields run in any case, over the fields that are valid by themselves, and
every error of both passes is in the one list, each mistake once. A rule is a generator over `Valid`;
it must look up fields with `get`, since a field that failed is not there. A whole number may be
written as a float (3.0, 1e2), as JSON Schema's `integer` may: it is taken as the integer that it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from service.contracts.wire.fields import uuid_spelling
from service.contracts.wire.problems import ContractViolation, from_pydantic, problem, storable
from service.domain.values import Problem

#: Valid values by field name; a field that failed is missing, one that was left out has its default.
Valid = Mapping[str, Any]
#: The rules between fields: (valid values, raw data) -> problems.
Rules = Callable[[Valid, Mapping[str, Any]], Iterator[Problem]]

M = TypeVar("M", bound=BaseModel)

_SPELLING: Final = "uuid_parsing"


def validate(what: str, model: type[M], data: Mapping[str, Any], rules: Rules) -> M:
    """`data` as a `model` that also keeps `rules`.

    Raises:
        BadData: with every error of both passes.
    """
    try:
        made = model.__pydantic_validator__.validate_python(data)
    except ValidationError as exc:
        whole = _with_whole_numbers(data, exc)
        if whole is not None:
            return validate(what, model, whole, rules)
        raise ContractViolation(what, *_all_of(exc, model, data, rules)) from exc
    found = list(rules(made.__dict__, data))
    if found:
        raise ContractViolation(what, found, made.__dict__)
    assert isinstance(made, model)
    return made


def _with_whole_numbers(data: Mapping[str, Any], exc: ValidationError) -> dict[str, Any] | None:
    """`data` with integers where only a whole float stood for one; None where that is nowhere.

    Looked for only after a failure, since hardly anybody writes them so.
    """
    errors = exc.errors(include_url=False, include_context=False)
    found = [e["loc"] for e in errors if e["type"] == "int_type" and _is_whole(e["input"])]
    if not found:
        return None
    changed: dict[str, Any] = copy.deepcopy(dict(data))
    for loc in found:
        holder: Any = changed
        for part in loc[:-1]:
            holder = holder[part]
        holder[loc[-1]] = int(holder[loc[-1]])
    return changed


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _all_of(
    exc: ValidationError, model: type[BaseModel], data: Mapping[str, Any], rules: Rules
) -> tuple[list[Problem], Valid]:
    """Every problem of data that failed the first pass, and its valid fields."""
    unreadable = list(_unreadable_names(data))
    failure: ValidationError | None = exc
    if unreadable:
        # Pydantic gives up on an object at a name that is no Unicode: look again without them.
        data, failure = _looked_again(model, _with_readable_names(data))
    found = [] if failure is None else from_pydantic(failure)
    failed = set() if failure is None else _failed_fields(failure)
    valid = _valid_part(model, data, failed)
    return [*unreadable, *found, *_new(rules(valid, data), found)], valid


def _looked_again(
    model: type[BaseModel], data: Mapping[str, Any]
) -> tuple[Mapping[str, Any], ValidationError | None]:
    failure = _failure(model, data)
    whole = None if failure is None else _with_whole_numbers(data, failure)
    return (data, failure) if whole is None else (whole, _failure(model, whole))


def _new(more: Iterator[Problem], first: list[Problem]) -> Iterator[Problem]:
    """The rules' problems without what the first pass said of the same location.

    How a UUID is written matters only where it is one; a location with any error is left alone.
    """
    locations = {p.loc for p in first}
    kinds = {(p.loc, p.type) for p in first}
    for p in more:
        if (p.loc, p.type) not in kinds and not (p.type == _SPELLING and p.loc in locations):
            yield p


def _failure(model: type[BaseModel], data: Mapping[str, Any]) -> ValidationError | None:
    try:
        model.__pydantic_validator__.validate_python(data)
    except ValidationError as exc:
        return exc
    return None


def _failed_fields(exc: ValidationError) -> set[int | str]:
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    return {error["loc"][0] for error in errors if error["loc"]}


def _unreadable_names(value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for name, member in members:
        if isinstance(name, str) and not _is_readable(name):
            msg = "A member's name must not contain lone surrogates"
            yield problem((*loc, name), msg, "string_unicode")
        if isinstance(member, dict | list):
            yield from _unreadable_names(member, (*loc, name))


def _is_readable(name: str) -> bool:
    return name.isascii() or storable(name) == name.replace("\0", "")


def _with_readable_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _with_readable_names(member)
            for name, member in value.items()
            if _is_readable(name)
        }
    if isinstance(value, list):
        return [_with_readable_names(member) for member in value]
    return value


def uuid_spelling_problems(data: Mapping[str, Any], *names: str) -> list[Problem]:
    """Problems for UUIDs in members of `data` that are valid but written in an unusual way."""
    text = "A UUID should be written as 8-4-4-4-12 hexadecimal digits"
    return [problem(loc, text, _SPELLING) for loc in uuid_spelling(data, *names)]


def _valid_part(
    model: type[BaseModel], data: Mapping[str, Any], failed: set[int | str]
) -> dict[str, Any]:
    valid: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name in failed:
            continue
        if name in data:
            with suppress(ValidationError):
                valid[name] = _adapter(model, name).validate_python(data[name])
        elif not field.is_required():
            valid[name] = field.get_default(call_default_factory=True)
    return valid


@lru_cache(maxsize=256)
def _adapter(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    field = model.model_fields[name]
    kind: Any = field.annotation
    for constraint in field.metadata:
        kind = Annotated[kind, constraint]
    return TypeAdapter(kind)
