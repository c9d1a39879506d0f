"""The record of a frozen bundle: every file with its size and SHA-256, and what was staged of it.

It lies beside the bundle's prefix, not in it, so that no adapter downloads it. It is written last: a
prefix with a record is complete and never changes again; what lies in a prefix without one was left by
a staging that did not end, and is written over. The bundle's digest is the SHA-256 of the canonical
JSON (no spaces, keys sorted, UTF-8) of its list of `{path, sha256, size}`, sorted by path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from service.bundles.names import Location
from service.domain.observed import Staged
from service.errors import Transient


@dataclass(frozen=True, slots=True)
class FrozenFile:
    """One file of a bundle: relative path, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Frozen:
    """A bundle as it was staged."""

    entries: tuple[FrozenFile, ...]
    config: dict[str, Any]
    job_type: str

    @property
    def sha256(self) -> str:
        """The bundle's digest (see the module)."""
        return hashlib.sha256(_canonical(_files(self.entries))).hexdigest()

    def to_bytes(self) -> bytes:
        return _canonical(
            {
                "format": 1,
                "sha256": self.sha256,
                "job_type": self.job_type,
                "config": self.config,
                "files": _files(self.entries),
            }
        )

    def staged(self, location: Location) -> Staged:
        """The bundle as the steps see it; `location` is its prefix."""
        return Staged(
            prefix=location.uri,
            sha256=self.sha256,
            keys=tuple(location.key(entry.path) for entry in self.entries),
            config=self.config,
            job_type=self.job_type,
        )


def freeze(entries: Iterable[FrozenFile], config: dict[str, Any], job_type: str) -> Frozen:
    """The record of these files, in whatever order they come."""
    return Frozen(tuple(sorted(entries, key=lambda e: e.path)), config, job_type)


def thaw(body: bytes, where: str) -> Frozen:
    """Read a record back.

    Raises:
        Transient: somebody wrote something else there; an operator removes it.
    """
    try:
        content = json.loads(body)
        entries = tuple(
            FrozenFile(str(e["path"]), int(e["size"]), str(e["sha256"])) for e in content["files"]
        )
        frozen = Frozen(entries, dict(content["config"]), str(content["job_type"]))
        intact = frozen.sha256 == content["sha256"]
    except (ValueError, KeyError, TypeError) as exc:
        raise _foreign(where) from exc
    if not intact:
        raise _foreign(where)
    return frozen


def _foreign(where: str) -> Transient:
    return Transient(
        f"{where} is not the record of a bundle: remove it, and the job is tried again"
    )


def _files(entries: Iterable[FrozenFile]) -> list[dict[str, object]]:
    return [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in entries]


def _canonical(content: object) -> bytes:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
