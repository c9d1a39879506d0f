"""HTTP to one adapter: connections, time limits, size caps, the breaker.

Promise: a call ends within about twice its time limit, by the client's own limits and never by cancelling
a task (a cancelled request can keep its connection in the pool permanently). Reads use kept connections and
are repeated once when one turns out to be dead: adapters close them after an unhandled error without saying
so. Whatever changes something goes over a connection of its own, closed after it, so that it neither
meets a dead one nor waits for another call. Redirects are not followed, the environment's proxies are not
used, and a response beyond its cap is no response.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx
import structlog

from service.adapters.breaker import Breaker
from service.adapters.download import is_page
from service.adapters.options import NetOptions, TlsFiles
from service.adapters.responses import AdapterResponse
from service.domain.enums import ReasonCode
from service.domain.registry import Net
from service.errors import Ambiguous, Transient

_log = structlog.get_logger(__name__)

#: Called after every call with net, call, outcome (ok, refused, failed) and seconds.
OnCall = Callable[[str, str, str, float], None]

_CONNECT_SECONDS: Final = 5.0
_KEPT: Final = httpx.Limits(max_connections=None, max_keepalive_connections=4, keepalive_expiry=4.0)
_NOT_KEPT: Final = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
_RESETS: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_MIB: Final = 1024 * 1024


class _TooSlow(httpx.ReadTimeout):
    """The response dribbled on beyond the call's limit."""


class _TooLarge(httpx.DecodingError):
    """The response is longer than its cap."""


@dataclass(frozen=True, slots=True)
class AdapterRequest:
    """One call. `seconds` limits it, `max_bytes` caps its response, `hidden` never shows in an error.
    `judged` False keeps its 5xx away from the breaker: they say nothing about the adapter's health."""

    call: str
    path: str
    seconds: float
    method: str = "GET"
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | None = None
    max_bytes: int = 8 * _MIB
    judged: bool = True
    always: bool = False
    hidden: tuple[str, ...] = ()

    @property
    def reads(self) -> bool:
        return self.method == "GET"


class AdapterTransport:
    """See the module. `http` replaces the network in tests."""

    def __init__(
        self,
        net: Net,
        options: NetOptions,
        *,
        breaker: Breaker,
        on_call: OnCall | None = None,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._net, self._options, self.breaker = net, options, breaker
        self._endpoint = net.endpoint.rstrip("/")
        self._on_call, self._http = on_call, http
        self._clients: tuple[httpx.AsyncClient, httpx.AsyncClient] | None = None
        self._outdated: list[httpx.AsyncClient] = []
        self._files_seen: tuple[float, ...] = ()
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def send(self, request: AdapterRequest) -> AdapterResponse:
        """The adapter's response, whatever its status.

        Raises:
            Transient: no response, and nothing can have been done.
            Ambiguous: no response to a POST that may have been done all the same.
        """
        self.breaker.admit(always=request.always)
        worked: bool | None = None
        began = time.monotonic()
        self._enter()
        try:
            try:
                response = await self._exchange(request)
            except _RESETS:
                if not request.reads:
                    raise
                response = await self._exchange(request)
            worked = self._judge(request, response)
        except httpx.HTTPError as exc:
            worked = False
            await self._renew_after(exc)
            raise self._no_answer(request, exc) from exc
        finally:
            self.breaker.settle(worked)
            self._leave(request, worked, began)
        return response

    @asynccontextmanager
    async def stream(
        self, request: AdapterRequest
    ) -> AsyncIterator[tuple[AdapterResponse, AsyncIterator[bytes]]]:
        """A response whose body comes in chunks when it is 200 and no page; `seconds` limits each silence.

        Raises:
            Transient: at the start, or from the chunks when the stream breaks off.
        """
        self.breaker.admit()
        worked: bool | None = None
        began = time.monotonic()
        self._enter()
        try:
            async with self._send(request) as http_response:
                headers = dict(http_response.headers)
                whole = http_response.status_code != 200 or is_page(headers)
                body = await self._read(request, http_response) if whole else b""
                wait = http_response.headers.get("retry-after")
                response = AdapterResponse(http_response.status_code, body, wait, headers=headers)
                worked = self._judge(request, response)
                yield response, self._chunks(request, http_response)
        except httpx.HTTPError as exc:
            worked = False
            raise self._no_answer(request, exc) from exc
        finally:
            self.breaker.settle(worked)
            self._leave(request, worked, began)

    async def close(self) -> None:
        """Wait for calls under way, then give the connections back."""
        await self._idle.wait()
        clients, self._clients = self._clients or (), None
        for client in (*clients, *self._outdated):
            await client.aclose()
        self._outdated.clear()

    # --- one exchange ----------------------------------------------------------------------------

    async def _exchange(self, request: AdapterRequest) -> AdapterResponse:
        async with self._send(request) as http_response:
            body = await self._read(request, http_response)
            return AdapterResponse(
                http_response.status_code,
                body,
                http_response.headers.get("retry-after"),
                request.hidden,
            )

    @asynccontextmanager
    async def _send(self, request: AdapterRequest) -> AsyncIterator[httpx.Response]:
        kept, fresh = self._current()
        client = kept if request.reads and request.call != "results" else fresh
        limit = request.seconds
        http_request = client.build_request(
            request.method,
            self._endpoint + request.path,
            params=request.params,
            headers=self._headers(request, client is fresh),
            content=request.body,
            timeout=httpx.Timeout(limit, connect=min(_CONNECT_SECONDS, limit)),
        )
        http_response = await client.send(http_request, stream=True)
        try:
            if request.path == "/health" and _only_adds_a_slash(http_response, http_request):
                await http_response.aclose()
                http_request.url = http_request.url.copy_with(path=http_request.url.path + "/")
                http_response = await client.send(http_request, stream=True)
            yield http_response
        finally:
            await http_response.aclose()

    async def _read(self, request: AdapterRequest, http_response: httpx.Response) -> bytes:
        deadline = time.monotonic() + request.seconds
        parts: list[bytes] = []
        size = 0
        async for chunk in http_response.aiter_bytes():
            size += len(chunk)
            if size > request.max_bytes:
                raise _TooLarge(f"the response is longer than {request.max_bytes} bytes")
            if time.monotonic() > deadline:
                raise _TooSlow(f"the response took longer than {request.seconds:g} s")
            parts.append(chunk)
        return b"".join(parts)

    async def _chunks(
        self, request: AdapterRequest, http_response: httpx.Response
    ) -> AsyncIterator[bytes]:
        try:
            async for chunk in http_response.aiter_bytes(256 * 1024):
                yield chunk
        except httpx.HTTPError as exc:
            raise self._no_answer(request, exc) from exc

    def _headers(self, request: AdapterRequest, fresh: bool) -> dict[str, str]:
        headers = {"accept": "application/json", "user-agent": "fl-job-service"}
        if request.body is not None:
            headers["content-type"] = "application/json"
        if fresh:
            headers["connection"] = "close"
        if self._options.token_file is not None:
            try:
                # Read for every call: a rotated token is used at once.
                token = self._options.token_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise self._transient(
                    f"the token file {self._options.token_file} can't be read"
                ) from exc
            headers["authorization"] = f"Bearer {token}"
        return headers | dict(request.headers or {})

    # --- connections -----------------------------------------------------------------------------

    def _current(self) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
        """The client that keeps connections and the one that does not; new ones when the certificate
        files were replaced."""
        seen = _ages(self._options.tls)
        if self._clients is None or seen != self._files_seen:
            self._outdated += self._clients or ()
            context = self._context()
            self._clients = (self._client(context, _KEPT), self._client(context, _NOT_KEPT))
            self._files_seen = seen
        return self._clients

    def _client(self, context: ssl.SSLContext, limits: httpx.Limits) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=context,
            limits=limits,
            follow_redirects=False,
            trust_env=False,
            transport=self._http,
        )

    def _context(self) -> ssl.SSLContext:
        tls = self._options.tls
        if tls is None:
            return _system_context()
        try:
            context = ssl.create_default_context(cafile=tls.ca_file)
            context.load_cert_chain(tls.cert_file, tls.key_file)
        except (OSError, ssl.SSLError) as exc:
            raise self._transient(f"the certificate files can't be used: {exc}") from exc
        return context

    async def _renew_after(self, exc: httpx.HTTPError) -> None:
        """A pool that had no connection left may have lost some permanently: start with a new one."""
        if isinstance(exc, httpx.PoolTimeout) and self._clients is not None:
            self._outdated += self._clients
            self._clients = None

    # --- accounts --------------------------------------------------------------------------------

    @staticmethod
    def _judge(request: AdapterRequest, response: AdapterResponse) -> bool | None:
        """Does this response speak for the adapter's health? A refusal does, too: it is there."""
        if response.status < 500 or response.says_bad_app:
            return True
        return False if request.judged else None

    def _enter(self) -> None:
        self._active += 1
        self._idle.clear()

    def _leave(self, request: AdapterRequest, worked: bool | None, began: float) -> None:
        self._active -= 1
        if self._active == 0:
            self._idle.set()
        if self._on_call is not None:
            outcome = {True: "ok", False: "failed", None: "refused"}[worked]
            self._on_call(self._net.name, request.call, outcome, time.monotonic() - began)

    def _no_answer(self, request: AdapterRequest, exc: httpx.HTTPError) -> Transient:
        message = f"net {self._net.name} gave no response to {request.call}: {type(exc).__name__.strip('_')}"
        _log.info("adapter_gave_no_answer", net=self._net.name, call=request.call, error=message)
        if request.method == "POST" and not isinstance(exc, _NEVER_SENT):
            return Ambiguous(message, code=ReasonCode.ADAPTER_UNAVAILABLE)
        return self._transient(message)

    def _transient(self, message: str) -> Transient:
        return Transient(message, code=ReasonCode.ADAPTER_UNAVAILABLE)


def _only_adds_a_slash(http_response: httpx.Response, http_request: httpx.Request) -> bool:
    """FLIP's NVFLARE adapter sends `/health` on to `/health/`; nobody else is followed anywhere."""
    if http_response.status_code not in (301, 302, 307, 308):
        return False
    try:
        target = http_request.url.join(http_response.headers.get("location", ""))
    except httpx.InvalidURL:
        return False
    wanted = http_request.url.copy_with(path=http_request.url.path + "/")
    return (target.host, target.port, target.path) == (wanted.host, wanted.port, wanted.path)


def _ages(tls: TlsFiles | None) -> tuple[float, ...]:
    if tls is None:
        return ()
    ages = []
    for path in (tls.cert_file, tls.key_file, tls.ca_file):
        try:
            ages.append(path.stat().st_mtime if path else 0.0)
        except OSError:
            ages.append(-1.0)
    return tuple(ages)


@functools.cache
def _system_context() -> ssl.SSLContext:
    """Loading the authorities takes some 20 ms: once for all nets."""
    return ssl.create_default_context()
