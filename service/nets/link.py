"""HTTP to one adapter: connections, time limits, size caps, the breaker.

Promise: a call ends within about twice its time limit, by the client's own limits and never by cancelling
a task (a cancelled request can keep its place in the pool for good). Reads use kept connections and are
repeated once when one turns out to be dead: adapters close them after an unhandled error without saying
so. Whatever changes something goes over a connection of its own, closed after it, so that it neither
meets a dead one nor waits for another call. Redirects are not followed, the environment's proxies are not
used, and an answer beyond its cap is no answer.
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

from service.domain.registry import Net
from service.domain.vocabulary import Reason
from service.errors import Ambiguous, Transient
from service.nets.answers import Answer
from service.nets.breaker import Breaker
from service.nets.options import Options, TlsFiles

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
    """The answer dribbled on beyond the call's limit."""


class _TooLarge(httpx.DecodingError):
    """The answer is longer than its cap."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One call. `seconds` limits it, `max_bytes` caps its answer, `hidden` never shows in an error.
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


class Link:
    """See the module. `transport` replaces the network in tests."""

    def __init__(
        self,
        net: Net,
        options: Options,
        *,
        breaker: Breaker,
        on_call: OnCall | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._net, self._options, self.breaker = net, options, breaker
        self._endpoint = net.endpoint.rstrip("/")
        self._on_call, self._transport = on_call, transport
        self._clients: tuple[httpx.AsyncClient, httpx.AsyncClient] | None = None
        self._outdated: list[httpx.AsyncClient] = []
        self._files_seen: tuple[float, ...] = ()
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def ask(self, ask: Ask) -> Answer:
        """The adapter's answer, whatever its status.

        Raises:
            Transient: no answer, and nothing can have been done.
            Ambiguous: no answer to a POST that may have been done all the same.
        """
        self.breaker.admit(always=ask.always)
        worked: bool | None = None
        began = time.monotonic()
        self._enter()
        try:
            try:
                answer = await self._exchange(ask)
            except _RESETS:
                if not ask.reads:
                    raise
                answer = await self._exchange(ask)
            worked = self._judge(ask, answer)
        except httpx.HTTPError as exc:
            worked = False
            await self._renew_after(exc)
            raise self._no_answer(ask, exc) from exc
        finally:
            self.breaker.settle(worked)
            self._leave(ask, worked, began)
        return answer

    @asynccontextmanager
    async def stream(self, ask: Ask) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """An answer whose body, when it is 200, comes in chunks; `seconds` limits each silence.

        Raises:
            Transient: at the start, or from the chunks when the stream breaks off.
        """
        self.breaker.admit()
        worked: bool | None = None
        began = time.monotonic()
        self._enter()
        try:
            async with self._send(ask) as response:
                answer = Answer(response.status_code, b"", response.headers.get("retry-after"))
                if not answer.ok:
                    body = await self._read(ask, response)
                    answer = Answer(answer.status, body, answer.retry_after)
                worked = self._judge(ask, answer)
                yield answer, self._chunks(ask, response)
        except httpx.HTTPError as exc:
            worked = False
            raise self._no_answer(ask, exc) from exc
        finally:
            self.breaker.settle(worked)
            self._leave(ask, worked, began)

    async def close(self) -> None:
        """Wait for calls under way, then give the connections back."""
        await self._idle.wait()
        clients, self._clients = self._clients or (), None
        for client in (*clients, *self._outdated):
            await client.aclose()
        self._outdated.clear()

    # --- one exchange ----------------------------------------------------------------------------

    async def _exchange(self, ask: Ask) -> Answer:
        async with self._send(ask) as response:
            body = await self._read(ask, response)
            return Answer(
                response.status_code, body, response.headers.get("retry-after"), ask.hidden
            )

    @asynccontextmanager
    async def _send(self, ask: Ask) -> AsyncIterator[httpx.Response]:
        kept, fresh = self._current()
        client = kept if ask.reads and ask.call != "results" else fresh
        limit = ask.seconds
        request = client.build_request(
            ask.method,
            self._endpoint + ask.path,
            params=ask.params,
            headers=self._headers(ask, client is fresh),
            content=ask.body,
            timeout=httpx.Timeout(limit, connect=min(_CONNECT_SECONDS, limit)),
        )
        response = await client.send(request, stream=True)
        try:
            if ask.path == "/health" and _only_adds_a_slash(response, request):
                await response.aclose()
                request.url = request.url.copy_with(path=request.url.path + "/")
                response = await client.send(request, stream=True)
            yield response
        finally:
            await response.aclose()

    async def _read(self, ask: Ask, response: httpx.Response) -> bytes:
        deadline = time.monotonic() + ask.seconds
        parts: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > ask.max_bytes:
                raise _TooLarge(f"the answer is longer than {ask.max_bytes} bytes")
            if time.monotonic() > deadline:
                raise _TooSlow(f"the answer took longer than {ask.seconds:g} s")
            parts.append(chunk)
        return b"".join(parts)

    async def _chunks(self, ask: Ask, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_bytes(256 * 1024):
                yield chunk
        except httpx.HTTPError as exc:
            raise self._no_answer(ask, exc) from exc

    def _headers(self, ask: Ask, fresh: bool) -> dict[str, str]:
        headers = {"accept": "application/json", "user-agent": "fl-job-service"}
        if ask.body is not None:
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
        return headers | dict(ask.headers or {})

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
            transport=self._transport,
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
        """A pool that had no place left may have lost places for good: start with a new one."""
        if isinstance(exc, httpx.PoolTimeout) and self._clients is not None:
            self._outdated += self._clients
            self._clients = None

    # --- accounts --------------------------------------------------------------------------------

    @staticmethod
    def _judge(ask: Ask, answer: Answer) -> bool | None:
        """Does this answer speak for the adapter's health? A refusal does, too: it is there."""
        if answer.status < 500 or answer.says_bad_app:
            return True
        return False if ask.judged else None

    def _enter(self) -> None:
        self._active += 1
        self._idle.clear()

    def _leave(self, ask: Ask, worked: bool | None, began: float) -> None:
        self._active -= 1
        if self._active == 0:
            self._idle.set()
        if self._on_call is not None:
            outcome = {True: "ok", False: "failed", None: "refused"}[worked]
            self._on_call(self._net.name, ask.call, outcome, time.monotonic() - began)

    def _no_answer(self, ask: Ask, exc: httpx.HTTPError) -> Transient:
        told = f"net {self._net.name} gave no answer to {ask.call}: {type(exc).__name__.strip('_')}"
        _log.info("adapter_gave_no_answer", net=self._net.name, call=ask.call, error=told)
        if ask.method == "POST" and not isinstance(exc, _NEVER_SENT):
            return Ambiguous(told, code=Reason.ADAPTER_UNAVAILABLE)
        return self._transient(told)

    def _transient(self, message: str) -> Transient:
        return Transient(message, code=Reason.ADAPTER_UNAVAILABLE)


def _only_adds_a_slash(response: httpx.Response, request: httpx.Request) -> bool:
    """FLIP's NVFLARE adapter sends `/health` on to `/health/`; nobody else is followed anywhere."""
    if response.status_code not in (301, 302, 307, 308):
        return False
    try:
        target = request.url.join(response.headers.get("location", ""))
    except httpx.InvalidURL:
        return False
    wanted = request.url.copy_with(path=request.url.path + "/")
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
