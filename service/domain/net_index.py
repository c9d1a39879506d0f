"""What a registry's nets have in common, worked out once for each version of it.

A set of nets is an integer here: bit `n` stands for the n-th net by name. So "which nets have all of these
members" is one AND for each member, whatever the number of nets, and a request costs what it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from service.domain.enums import FLBackend
from service.domain.registry import Net, Registry

_MOST_LISTS: Final = 4_096


class NetIndex:
    """See the module. `nets` is sorted by name; every mask speaks of that order."""

    def __init__(self, registry: Registry) -> None:
        self.nets: Final = tuple(sorted(registry.nets.values(), key=lambda n: n.name))
        self.every: Final = (1 << len(self.nets)) - 1
        self.trust_texts: Final = frozenset(str(t) for t in registry.trusts)
        self.backends: Final[dict[FLBackend, int]] = {}
        self.members: Final[dict[UUID, int]] = {}
        #: By trust, and by client name: the other one, and the nets where the two belong together.
        self.slots_of: Final[dict[UUID, dict[str, int]]] = {}
        self.trusts_of: Final[dict[str, dict[UUID, int]]] = {}
        self._bits: Final = {net.name: 1 << n for n, net in enumerate(self.nets)}
        self._lists: Final[dict[int, tuple[Net, ...]]] = {self.every: self.nets}
        for net in self.nets:
            bit = self._bits[net.name]
            self.backends[net.backend] = self.backends.get(net.backend, 0) | bit
            for trust, slot in net.members.items():
                self.members[trust] = self.members.get(trust, 0) | bit
                slots = self.slots_of.setdefault(trust, {})
                slots[slot] = slots.get(slot, 0) | bit
                trusts = self.trusts_of.setdefault(slot, {})
                trusts[trust] = trusts.get(trust, 0) | bit

    def having(self, backend: FLBackend | None, trusts: Iterable[UUID | None]) -> int:
        """The nets of this backend (None: of any) that have all of these members."""
        mask = self.every if backend is None else self.backends.get(backend, 0)
        for trust in trusts:
            mask &= 0 if trust is None else self.members.get(trust, 0)
            if not mask:
                break
        return mask

    def listed(self, mask: int) -> tuple[Net, ...]:
        """The nets of a mask, by name."""
        found = self._lists.get(mask)
        if found is None:
            if len(self._lists) >= _MOST_LISTS:
                self._lists.clear()
            found = self._lists[mask] = tuple(
                net for n, net in enumerate(self.nets) if mask >> n & 1
            )
        return found

    def mask(self, nets: Iterable[Net]) -> int:
        """The mask of these nets."""
        found = 0
        for net in nets:
            found |= self._bits[net.name]
        return found

    def knows_client(self, slot: str, mask: int) -> bool:
        """Does one of these nets have a client of this name?"""
        return any(nets & mask for nets in self.trusts_of.get(slot, {}).values())

    def names_one(self, slot: str, trusts: frozenset[UUID], mask: int) -> bool:
        """Is this the name of one of the trusts' clients on one of these nets?"""
        found = self.trusts_of.get(slot)
        return found is not None and any(n & mask and t in trusts for t, n in found.items())


def net_index(registry: Registry) -> NetIndex:
    """The registry's index; made when it is first asked for."""
    found = registry.memo.get("net_index")
    if not isinstance(found, NetIndex):
        found = registry.memo["net_index"] = NetIndex(registry)
    return found
