"""Asking each net's adapter how it is, each on its own: what does not answer is not claimable.

Promise: a dead net delays nobody; what is saved is one look, health, runtime and clients together, so that
clients of a dead runtime never count as online. The topic hears of a change, not of every look.
"""

from __future__ import annotations

import random

import structlog

from service.contracts import net_status
from service.domain.registry import Net
from service.steps.kit import Kit
from service.steps.seen import Look

log = structlog.get_logger(__name__)


class NetStatus:
    """The step of one net; see the module."""

    def __init__(self, kit: Kit, net: str) -> None:
        self._kit = kit
        self._net = net
        self._told: tuple[bool, frozenset[str]] | None = None

    async def step(self) -> float | None:
        """One look. Raises errors.Transient when the net left the registry or the database is away."""
        kit, pace = self._kit, self._kit.pace
        client = await kit.client(self._net)
        usual = client.net.poll_seconds or pace.idle_poll_seconds
        if not await kit.may_poll(self._net):
            return usual
        look = await kit.seen.look(client)
        await self._save(client.net, look)
        if (look.answering, look.online) != self._told:
            log.info(
                "net_seen",
                net=self._net,
                answering=look.answering,
                online=sorted(look.online),
                told=look.trouble,
            )
            self._told = (look.answering, look.online)
            kit.bells.claim.set()
            kit.bells.nudge(self._net)
        pause = usual if look.answering else min(usual, pace.down_poll_seconds)
        return pause * random.uniform(0.9, 1.1)

    async def _save(self, net: Net, look: Look) -> None:
        store = self._kit.store
        registry, now = await store.registry(), (await store.net_now()).get(net.name)
        told = net_status.status(
            net,
            registry.trusts,
            look.clients,
            answering=look.answering,
            occupied=now.occupied if now is not None else 0,
        )
        await store.save_net(
            net.name,
            answering=look.answering,
            online=frozenset(trust for trust, slot in net.members.items() if slot in look.online),
            extensions=self._extensions(look, now.extensions if now is not None else frozenset()),
            strays=self._kit.seen.strays(net.name),
            body=net_status.body(told).encode(),
        )

    @staticmethod
    def _extensions(look: Look, before: frozenset[str]) -> frozenset[str]:
        """An adapter that does not answer has not lost what it can do."""
        return look.extensions if look.health is not None else before
