"""The clients of all registered nets.

Promise: one client per net, kept as long as its registry entry stays the same; a net that changed gets a
new one, which still takes turns with the old one's uploads and submits. What breaks it: calling `follow`
outside the event loop.
"""

from __future__ import annotations

import asyncio

import httpx

from service.adapters.breaker import Breaker
from service.adapters.client import AdapterClient
from service.adapters.dialects.dialect import Sleep, real_sleep
from service.adapters.encryption import Encryptor
from service.adapters.fl_api import FlApi
from service.adapters.lane import Lane, LaneLease
from service.adapters.options import read_options
from service.adapters.transport import AdapterTransport, OnCall
from service.domain.enums import FLBackend, ReasonCode
from service.domain.registry import Net, Registry
from service.errors import Invalid, Transient


class AdapterClients:
    """See the module. Raises errors.Invalid for an unusable key. `lease_seconds` mirrors the setting of a
    job's lease; `on_call` is called after every call (net, call, outcome, seconds); `lane_lease` makes a
    net's lane one of all processes, without it this process has one of its own. `http` and `sleep` are
    replaced in tests."""

    def __init__(
        self,
        *,
        aes_key_base64: str | None = None,
        on_call: OnCall | None = None,
        lease_seconds: float = 10.0,
        lane_lease: LaneLease | None = None,
        http: httpx.AsyncBaseTransport | None = None,
        sleep: Sleep = real_sleep,
    ) -> None:
        self._encryptor = Encryptor(aes_key_base64)
        self._lease_seconds = lease_seconds
        self._on_call, self._http, self._sleep = on_call, http, sleep
        self._registered: dict[str, Net] = {}
        self._clients: dict[str, AdapterClient] = {}
        self._lanes: dict[str, Lane] = {}
        self._lane_lease = lane_lease
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def encrypts(self) -> bool:
        """Whether there is a key: without one project ids go out clear."""
        return self._encryptor.has_key

    def unencrypted_endpoints(self) -> list[str]:
        """The nets that get project ids unencrypted although they are no part of this machine's stack."""
        if self.encrypts:
            return []
        nets = self._registered.items()
        return sorted(name for name, net in nets if net.backend is not FLBackend.EMBEDDED)

    def client(self, name: str) -> AdapterClient:
        """The net's client.

        Raises:
            Transient: `adapter_unavailable`, the net left the registry or its options are unusable.
        """
        client = self._clients.get(name)
        if client is None:
            net = self._registered.get(name)
            if net is None:
                raise Transient(
                    f"net {name} is not in the registry", code=ReasonCode.ADAPTER_UNAVAILABLE
                )
            try:
                client = self._clients[name] = self._make(net)
            except Invalid as exc:
                raise Transient(exc.message, code=ReasonCode.ADAPTER_UNAVAILABLE) from exc
        return client

    def follow(self, registry: Registry) -> None:
        """Take over a registry; the clients of nets that changed or left end when they are idle."""
        for name, net in self._registered.items():
            if registry.nets.get(name) != net and (client := self._clients.pop(name, None)):
                task = asyncio.get_running_loop().create_task(client.close())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        self._registered = dict(registry.nets)

    async def close(self) -> None:
        """Wait for calls under way, then give all connections back."""
        clients = list(self._clients.values())
        self._clients.clear()
        await asyncio.gather(*(client.close() for client in clients), *self._leaving)

    def _lane(self, name: str) -> Lane:
        """Kept over registry changes: the client before may still be in a turn."""
        if name not in self._lanes:
            self._lanes[name] = Lane(name, self._lane_lease, seconds=self._lease_seconds)
        return self._lanes[name]

    def _make(self, net: Net) -> AdapterClient:
        options = read_options(net)
        transport = AdapterTransport(
            net,
            options,
            breaker=Breaker(net.name),
            on_call=self._on_call,
            http=self._http,
        )
        lane = self._lane(net.name)
        fl_api = FlApi(net, transport, options.timeouts, lane, lease_seconds=self._lease_seconds)
        return AdapterClient(net, options, transport, fl_api, self._encryptor, sleep=self._sleep)
