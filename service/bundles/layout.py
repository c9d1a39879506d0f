"""How a backend's bundle is laid out: which file goes where. One file per backend implements it.

Promise: a layout decides from names and the effective config alone; it reads and writes nothing, so
that everything can be checked before the first object is written. Collisions are found by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from service.domain.values import JsonObject


class FileOrigin(Enum):
    """Where a file of the bundle comes from."""

    TEMPLATE = "base template"
    MODEL = "model files"
    MADE = "service"


@dataclass(frozen=True, slots=True)
class Placed:
    """One file of a bundle. `source` is its path in the template or among the model files; what the
    service makes itself has a `body`."""

    destination: str
    origin: FileOrigin
    source: str
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.source} of the {self.origin.value}"


class Layout(Protocol):
    """How one backend wants its bundles."""

    def arrange(
        self,
        *,
        job_type: str,
        template: Sequence[str],
        files: Sequence[str],
        config: JsonObject,
    ) -> list[Placed]:
        """Every file of the bundle. `template` and `files` are safe relative paths.

        Raises:
            errors.Permanent: the template can't be used for this backend.
        """
        ...

    def refused(self, config: JsonObject) -> list[str]:
        """What the runtime would refuse of settings that another backend leaves to the app."""
        ...


def as_json(config: JsonObject) -> bytes:
    """A config file's bytes: the same config gives the same bytes."""
    return (json.dumps(dict(config), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
