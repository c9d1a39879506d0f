"""The last snapshot of each net in this process: its adapter's health, its clients, runs that nobody owns.

A memory, never the truth: what the scheduler relies on is in the database. It spares a submission the
questions that the poller asked a moment ago, and a slow adapter the same question from many at once. What
breaks it: treating an old snapshot as a new one, so every reader names the age that it accepts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from service.domain.enums import RUN_OVER
from service.domain.observed import Client, Health, Run
from service.errors import ServiceError
from service.steps.leases import clock
from service.steps.ports import NetClient

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class NetSnapshot:
    """One snapshot of a net. `answering`: adapter and runtime are up and listed their clients."""

    at: float  #: the loop's clock when the answers were there
    answering: bool
    seconds: float = 0.0  #: for how long they were waited for
    health: Health | None = None
    clients: tuple[Client, ...] = ()
    trouble: str | None = None  #: the first error, for people

    @property
    def extensions(self) -> frozenset[str]:
        return self.health.extensions if self.health is not None else frozenset()

    @property
    def online(self) -> frozenset[str]:
        """The slots whose client is online; none where the runtime is down, whatever the list says."""
        if not self.answering:
            return frozenset()
        return frozenset(client.slot for client in self.clients if client.online)


@dataclass(slots=True)
class _Net:
    snapshot: NetSnapshot | None = None
    looking: asyncio.Task[NetSnapshot] | None = None
    strays: tuple[str, ...] | None = None  #: None: never judged
    unknown_statuses: tuple[str, ...] | None = None  #: None: nobody has listed
    unwanted: set[str] = field(default_factory=set)
    ended: dict[str, float] = field(default_factory=dict)  #: run: when it was first seen over


class NetCache:
    """By net name. Follows no registry: a net that left is simply not asked about any more."""

    def __init__(self, settle_seconds: float) -> None:
        self._nets: dict[str, _Net] = {}
        self._settle_seconds = settle_seconds

    def _of(self, name: str) -> _Net:
        return self._nets.setdefault(name, _Net())

    async def refresh(self, client: NetClient) -> NetSnapshot:
        """Ask the adapter for everything at once, and remember it. Never raises a service error.

        Whoever asks while an earlier look is under way waits for its answer.
        """
        net = self._of(client.net.name)
        if net.looking is None or net.looking.done():
            net.looking = asyncio.create_task(self._look(client), name=f"look {client.net.name}")
        return await asyncio.shield(net.looking)

    async def _look(self, client: NetClient) -> NetSnapshot:
        began = clock()
        health, serving, clients = await asyncio.gather(
            _tried(client.health()), _tried(client.serving()), _tried(client.clients())
        )
        troubles = [each for each in (health, serving, clients) if isinstance(each, ServiceError)]
        detail = troubles[0].message if troubles else None
        if detail is None and serving is not True:
            detail = "the FL runtime behind the adapter is down"
        snapshot = NetSnapshot(
            at=clock(),
            answering=detail is None,
            seconds=clock() - began,
            health=health if isinstance(health, Health) else None,
            clients=clients if isinstance(clients, tuple) else (),
            trouble=detail,
        )
        self._of(client.net.name).snapshot = snapshot
        return snapshot

    def last(self, name: str, within: float) -> NetSnapshot | None:
        """The last look, where its answers came at most `within` seconds ago. The look after it takes its
        time too: as long as that may last the last one counts, so that nobody asks beside it."""
        snapshot = self._of(name).snapshot
        if snapshot is None or clock() - snapshot.at > within + 2 * snapshot.seconds:
            return None
        return snapshot

    def strays(self, name: str) -> tuple[str, ...] | None:
        """Live runs that belong to no attempt of ours; None: never checked."""
        return self._of(name).strays

    def keep_strays(self, name: str, runs: Iterable[str]) -> bool:
        """Remember them; did they change?"""
        runs = tuple(sorted(runs))
        changed = self._of(name).strays != runs
        self._of(name).strays = runs
        return changed

    def unknown_statuses(self, name: str) -> tuple[str, ...] | None:
        """Words of the net's last list that stand for no status; None: nobody has listed."""
        return self._of(name).unknown_statuses

    def keep_unknown_statuses(self, name: str, words: Iterable[str]) -> frozenset[str]:
        """Remember them, twenty at most; those that the list before did not have."""
        kept = tuple(sorted(words)[:20])
        before, self._of(name).unknown_statuses = self._of(name).unknown_statuses, kept
        return frozenset(kept) - frozenset(before or ())

    def unwanted(self, name: str) -> set[str]:
        """Further runs of submissions that have one already: aborted until they end. Change it freely."""
        return self._of(name).unwanted

    def settled(self, client: NetClient, run: Run) -> bool:
        """Is a run's end final? A runtime that may still start what it lists as aborted must show it over
        in two lists, `settle_seconds` apart, and not alive between them."""
        ended = self._of(client.net.name).ended
        if run.status is None or run.status not in RUN_OVER:
            ended.pop(run.run_id, None)
            return False
        if client.terminal_is_final(run.status):
            return True
        return clock() - ended.setdefault(run.run_id, clock()) >= self._settle_seconds

    def forget_ended(self, name: str, but: Collection[str]) -> None:
        """Drop what `settled` remembers of all runs but these."""
        net = self._of(name)
        net.ended = {run: at for run, at in net.ended.items() if run in but}


async def _tried(call: Awaitable[_T]) -> _T | ServiceError:
    try:
        return await call
    except ServiceError as exc:
        return exc
