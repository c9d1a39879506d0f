"""The client of one net's adapter: the FL-API's calls, and the dialect in which its responses are read.

Promise: what the port `NetClient` says. The dialect is the one that the adapter's latest `/health` asks
for; before the first it is asked when it is needed, and what must be answered at once is answered as by
the runtime's own adapter, the more careful one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from service.adapters.dialects import Dialect, choose
from service.adapters.dialects.dialect import Sleep, real_sleep
from service.adapters.encryption import COHORT_QUERY, PROJECT_ID, Encryptor
from service.adapters.fl_api import FlApi, check_upload
from service.adapters.options import NetOptions
from service.adapters.transport import AdapterTransport
from service.contracts.fl import IStartTrainingBody
from service.domain.enums import FLJobStatus
from service.domain.observed import About, Client, Found, Handle, Health, RunList
from service.domain.registry import Net


class AdapterClient:
    """See the module."""

    def __init__(
        self,
        net: Net,
        options: NetOptions,
        transport: AdapterTransport,
        fl_api: FlApi,
        encryptor: Encryptor,
        *,
        sleep: Sleep = real_sleep,
    ) -> None:
        self.net = net
        self._options, self._transport, self._fl_api, self._encryptor = (
            options,
            transport,
            fl_api,
            encryptor,
        )
        self._sleep = sleep
        self._careful = choose(fl_api, names_extensions=False, extensions=(), sleep=sleep)
        self._known: Dialect | None = None

    @property
    def poll_seconds(self) -> float | None:
        return self.net.poll_seconds or (self._known or self._careful).poll_seconds

    async def health(self) -> Health:
        """Passes an open breaker: it is how a net that answers again is noticed."""
        health, names_extensions = await self._fl_api.health()
        self._known = choose(
            self._fl_api,
            names_extensions=names_extensions,
            extensions=health.extensions,
            sleep=self._sleep,
        )
        return health

    async def serving(self) -> bool:
        return await (await self._dialect()).serving()

    async def clients(self) -> tuple[Client, ...]:
        return tuple(
            Client(slot=client.name, status=client.status, online=client.online)
            for client in await self._fl_api.clients()
        )

    def turn(self) -> AbstractAsyncContextManager[None]:
        return self._fl_api.turn()

    async def upload(
        self,
        handle: Handle,
        *,
        project_id: str,
        cohort_query: str,
        slots: Sequence[str],
        urls: Sequence[str],
    ) -> None:
        """Hand the app over: `project_id` encrypted, `cohort_query` encrypted where the net wants it so."""
        check_upload(slots, urls)
        if self._options.encrypt_cohort_query:
            cohort_query = self._encryptor.encrypt(cohort_query, COHORT_QUERY)
        body = IStartTrainingBody(
            project_id=self._encryptor.encrypt(project_id, PROJECT_ID),
            cohort_query=cohort_query,
            trusts=list(slots),
            bundle_urls=list(urls),
        )
        await self._fl_api.upload(handle, body)

    async def submit(self, handle: Handle) -> str:
        return await self._fl_api.submit(handle)

    async def runs(self, about: About | None = None) -> RunList:
        return await (await self._dialect()).runs(about)

    async def find_run(self, handle: Handle, extensions: frozenset[str]) -> Found:
        return await (await self._dialect(extensions)).find_run(handle)

    async def fence(self, handle: Handle, extensions: frozenset[str]) -> None:
        await (await self._dialect(extensions)).fence(handle)

    async def abort(self, run_id: str, about: About | None = None) -> None:
        await self._fl_api.abort(run_id, about)

    async def logs(self, run_id: str) -> str | None:
        return await self._fl_api.logs(run_id)

    def results(
        self, run_id: str, about: About | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes] | None]:
        return self._fl_api.results(run_id, about)

    def is_lost(self, listed: RunList, run_id: str) -> bool:
        return (self._known or self._careful).is_lost(listed, run_id)

    def terminal_is_final(self, status: FLJobStatus) -> bool:
        return (self._known or self._careful).terminal_is_final(status)

    async def close(self) -> None:
        """Wait for the calls under way, then give the connections back."""
        await self._transport.close()

    async def _dialect(self, extensions: frozenset[str] = frozenset()) -> Dialect:
        """`extensions`, where a caller has them from the database, spare the first question."""
        if self._known is None and extensions:
            self._known = choose(
                self._fl_api, names_extensions=True, extensions=extensions, sleep=self._sleep
            )
        if self._known is None:
            await self.health()
        return self._known or self._careful
