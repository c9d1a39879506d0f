"""What is wrong with an input, listed completely and without quoting it.

Promise: every error has `loc` (path of member names and positions), `msg` (for people, in our words
or pydantic's) and `type` (stable, for machines); never an input value, at most 100 errors, each
short and storable. A message of pydantic's that quotes input is replaced here; a new quoting one in
a later pydantic breaks the promise, and `tests/unit/contracts/test_problems.py` looks for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from service.domain.values import Problem
from service.errors import Invalid

#: Most errors that are listed of one input.
MAX_PROBLEMS: Final = 100
#: The pattern of text without NUL; lone surrogates never reach a pattern.
NO_NUL: Final = r"^[^\x00]*$"
_PATTERN_WORDS: Final = {NO_NUL: "Text must not contain NUL"}
_MAX_MSG: Final = 300
_MAX_NAME: Final = 128

# Messages that would quote the input, by pydantic's error type.
_OUR_WORDS: Final = {
    "uuid_parsing": "Input should be a valid UUID",
    "uuid_type": "Input should be a valid UUID",
    "string_unicode": "Text must not contain lone surrogates",
    "extra_forbidden": "Unknown field",
}


class ContractViolation(Invalid):
    """Data that breaks its contract. `problems` lists all of it; `code` is `invalid_data`.

    `valid` holds the fields that are valid by themselves, where the contract works them out.
    """

    code = "invalid_data"

    def __init__(
        self, what: str, problems: Iterable[Problem], valid: Mapping[str, Any] | None = None
    ) -> None:
        self.problems = tuple(problems)[:MAX_PROBLEMS]
        self.valid: Mapping[str, Any] = valid or {}
        super().__init__(f"{what}: {summary(self.problems)}")


def with_message(pattern: str, words: str) -> str:
    """`pattern`, whose mismatch is reported in `words` from now on: nobody wants to read patterns."""
    _PATTERN_WORDS[pattern] = words
    return pattern


def problem(loc: Iterable[str | int], msg: str, kind: str) -> Problem:
    """A `Problem` whose parts are short and storable whatever they came from."""
    return Problem(tuple(map(_name, loc)), storable(msg)[:_MAX_MSG], kind)


def from_pydantic(exc: ValidationError, prefix: tuple[str | int, ...] = ()) -> list[Problem]:
    """Pydantic's errors in our form, in its order, at most 100."""
    errors = exc.errors(include_url=False, include_input=False)
    return [_problem_of(error, prefix) for error in errors[:MAX_PROBLEMS]]


def _problem_of(error: Any, prefix: tuple[str | int, ...]) -> Problem:
    kind: str = error["type"]
    msg: str = _OUR_WORDS.get(kind, error["msg"])
    if kind == "value_error":
        msg = msg.removeprefix("Value error, ")
    elif kind == "string_pattern_mismatch":
        msg = _PATTERN_WORDS.get(error["ctx"]["pattern"], msg)
    return problem((*prefix, *error["loc"]), msg, kind)


def summary(problems: Iterable[Problem]) -> str:
    """All problems in one line: `trust_ids.0: Input should be ...; min_trusts: ...`."""
    return "; ".join(f"{path(p.loc)}: {p.msg}" if p.loc else p.msg for p in problems)


def path(loc: Iterable[str | int]) -> str:
    """A location as dotted text."""
    return ".".join(map(str, loc))


def storable(text: str) -> str:
    """`text` without what a database or a header can't hold: NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _name(part: str | int) -> str | int:
    return part if isinstance(part, int) else storable(str(part))[:_MAX_NAME]
