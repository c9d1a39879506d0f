"""The net-status topic: `fl.net.status.v1`, a net's `INetStatus` whenever it changes, keyed by name.

Clients are shown as trusts, as FLIP's hub shows them: name and code of the trust, the slot beside
them; a member that the adapter does not list is `no_reply`. A net that does not answer, or has no
clients, is offline with none registered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from service.contracts.fl import IClientStatus, INetStatus
from service.contracts.wire.strict_json import dump_text
from service.domain.enums import ClientStatus
from service.domain.observed import Client
from service.domain.registry import Net, Trust

STATUS: Final = "fl.net.status.v1"


def status(
    net: Net,
    trusts: Mapping[UUID, Trust],
    clients: Iterable[Client],
    *,
    answering: bool,
    occupied: int,
) -> INetStatus:
    """What is known of a net now; `occupied` counts the jobs that hold a place on it."""
    seen = {client.slot: client.status for client in clients}
    online = answering and bool(seen)
    members = [
        IClientStatus(
            name=trusts[trust].name if trust in trusts else slot,
            code=trusts[trust].code if trust in trusts else None,
            status=seen.get(slot, ClientStatus.NO_REPLY.value) if online else ClientStatus.NO_REPLY,
            fl_kit_slot=slot,
        )
        for trust, slot in sorted(net.members.items(), key=lambda member: member[1])
    ]
    return INetStatus(
        name=net.name,
        fl_backend=net.backend,
        online=online,
        registered_clients=len(members) if online else 0,
        net_in_use=online and occupied > 0,
        clients=members,
    )


def body(net: INetStatus) -> str:
    """The data of a net-status record as JSON."""
    return dump_text(net.model_dump(mode="json"))
