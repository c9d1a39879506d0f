"""Asking each net's adapter how it is, each on its own: what does not answer is not claimable.

Promise: a dead net delays nobody; what is saved is one snapshot, health, runtime and clients together, so
that clients of a dead runtime never count as online. The topic receives changes, not every poll.
"""

from __future__ import annotations

import random

import structlog

from service.clock import Backoff
from service.contracts.outbound import net_status
from service.domain.registry import Net
from service.steps.context import StepContext
from service.steps.net_cache import NetSnapshot

log = structlog.get_logger(__name__)


class NetStatusStep:
    """The step of one net; see the module."""

    def __init__(self, context: StepContext, net: str) -> None:
        self._context = context
        self._net = net
        self._last_reported: tuple[bool, frozenset[str]] | None = None
        options = context.options
        self._away = Backoff(options.down_poll_seconds, options.idle_poll_seconds)

    async def step(self) -> float | None:
        """One poll. Raises errors.Transient when the net left the registry or the database is unavailable."""
        context = self._context
        client = await context.client(self._net)
        usual = context.usual_pause(client)
        if not await context.may_poll(self._net):
            return usual
        snapshot = await context.net_cache.refresh(client)
        await self._save(client.net, snapshot)
        if (snapshot.answering, snapshot.online) != self._last_reported:
            log.info(
                "net_seen",
                net=self._net,
                answering=snapshot.answering,
                online=sorted(snapshot.online),
                detail=snapshot.trouble,
            )
            self._last_reported = (snapshot.answering, snapshot.online)
            context.wakeups.claim.set()
            context.wakeups.poll_now(self._net)
        if snapshot.answering:
            self._away.reset()
            pause = usual
        else:  # looked for soon, and ever more seldom: hundreds may be away for long
            pause = min(usual, self._away.next())
        return pause * random.uniform(0.9, 1.1)

    async def _save(self, net: Net, snapshot: NetSnapshot) -> None:
        store = self._context.store
        registry, now = await store.registry(), (await store.net_now()).get(net.name)
        status = net_status.status(
            net,
            registry.trusts,
            snapshot.clients,
            answering=snapshot.answering,
            occupied=now.occupied if now is not None else 0,
        )
        await store.save_net(
            net.name,
            answering=snapshot.answering,
            online=frozenset(
                trust for trust, slot in net.members.items() if slot in snapshot.online
            ),
            extensions=self._extensions(
                snapshot, now.extensions if now is not None else frozenset()
            ),
            strays=self._context.net_cache.strays(net.name),
            unknown_statuses=self._context.net_cache.unknown_statuses(net.name),
            body=net_status.body(status).encode(),
        )

    @staticmethod
    def _extensions(snapshot: NetSnapshot, before: frozenset[str]) -> frozenset[str]:
        """An adapter that does not answer has not lost what it can do."""
        return snapshot.extensions if snapshot.health is not None else before
