"""Values that the type checker keeps frozen, and that cost nothing for it at work.

At run time a frozen dataclass sets every field through `object.__setattr__`: a tenth of the processor time
of a request. So `dataclass(frozen=True, slots=True)` from here is `dataclasses.dataclass` to mypy, which
refuses every assignment to a value, and an ordinary one with equality and hash to Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    import dataclasses

    T = TypeVar("T")

    def dataclass(*, frozen: bool, slots: bool) -> Callable[[type[T]], type[T]]:
        return dataclasses.dataclass(slots=slots, unsafe_hash=frozen)
