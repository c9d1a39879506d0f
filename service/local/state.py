"""What a stack remembers between one `up` and the next: ports, keys, and what it wrote.

Promises that a component that is started again does so on the port it had, as long as that port is free, so
that the settings handed out stay true. The file holds the secret key and is closed to others. What
breaks it: deleting the file while data remains; the object store then takes new keys.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from service.local import ports


@dataclass(slots=True)
class State:
    """Ports by component and use, the object store's key pair, the digests of the registry file as we wrote
    it and as it was last applied.

    `handed_out` has every address that was ever written as ours: one of them in the environment
    means that somebody loaded our settings, not that a component of theirs is to be used.
    """

    path: Path
    ports: dict[str, dict[str, int]] = field(default_factory=dict)
    access_key: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    registry_sha256: str = ""
    registry_applied: str = ""
    handed_out: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the file; a missing or damaged one is a fresh state."""
        try:
            raw = json.loads(path.read_text())
            return cls(
                path,
                ports={
                    str(k): {str(u): int(p) for u, p in v.items()} for k, v in raw["ports"].items()
                },
                access_key=str(raw["access_key"]),
                secret_key=str(raw["secret_key"]),
                registry_sha256=str(raw["registry_sha256"]),
                registry_applied=str(raw.get("registry_applied", "")),
                handed_out=[str(each) for each in raw.get("handed_out", [])],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path)

    def save(self) -> None:
        """Write the file whole, readable by its owner only."""
        with self._lock:
            kept = {
                "ports": self.ports,
                "access_key": self.access_key,
                "secret_key": self.secret_key,
                "registry_sha256": self.registry_sha256,
                "registry_applied": self.registry_applied,
                "handed_out": self.handed_out,
            }
            write_private(self.path, json.dumps(kept, indent=1))

    def remember(self, addresses: Iterable[str]) -> None:
        """Note addresses as ours."""
        self.handed_out += [each for each in addresses if each not in self.handed_out]

    def ports_for(
        self, component: str, uses: tuple[str, ...], *, fresh: bool = False
    ) -> dict[str, int]:
        """This component's ports: the remembered ones when all are free and `fresh` isn't asked."""
        with self._lock:
            kept = self.ports.get(component, {})
            usable = set(kept) == set(uses) and all(map(ports.is_free, kept.values()))
            if fresh or not usable:
                taken = {port for other in self.ports.values() for port in other.values()}
                self.ports[component] = {use: ports.pick(taken) for use in uses}
            return self.ports[component]


def write_private(path: Path, text: str) -> None:
    """Replace a file's content at once; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)
