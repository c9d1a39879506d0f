"""Values that the type checker keeps frozen, and that cost nothing for it at run time.

At run time a frozen dataclass sets every field through `object.__setattr__`: a tenth of the processor time
of a request. So a `value` is frozen to the type checker, which refuses every assignment to a field, and to
Python an ordinary dataclass with slots, equality and a hash.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def value(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a value: keyword or positional construction, `==`, a hash, slots."""
    return dataclasses.dataclass(slots=True, unsafe_hash=True)(cls)
