"""One tree of errors, each with a stable code, and the points where a test may kill the process.

Three families say what a caller may do next:

- `Invalid`: the input is wrong; repeating it changes nothing; the message names the field and the fix.
- `Transient`: the world is in the way (broker, database, adapter, store); try again with backoff.
- `Permanent`: this piece of work can never succeed; end it with the code as its reason.

A room translates its driver's exceptions into these once, at its edge, with `raise ... from exc`.
"""

from __future__ import annotations

import os
from typing import Final


class ServiceError(Exception):
    """Root of the tree. `code` is stable text for machines, the message is for people."""

    code: str = "internal_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else self.code


class Invalid(ServiceError):
    """The input is wrong: a file, a setting, a record, an argument."""

    code = "invalid"


class Transient(ServiceError):
    """Try again later. `retry_after` is seconds where the other side named them."""

    code = "transient"

    def __init__(
        self, message: str, *, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class Ambiguous(Transient):
    """A call that may have been applied although no answer came: check before repeating it."""

    code = "ambiguous"


class Permanent(ServiceError):
    """This work can never succeed as it is."""

    code = "permanent"


class MissingDependency(ServiceError):
    """A part that an optional extra or a setting provides is not there."""

    code = "missing_part"


_FAULTPOINT: Final = os.environ.get("FL_FAULTPOINT", "")


def faultpoint(name: str) -> None:
    """Die here, as by SIGKILL, when FL_FAULTPOINT names this point. Costs one comparison otherwise."""
    if _FAULTPOINT and name == _FAULTPOINT:
        os._exit(137)
