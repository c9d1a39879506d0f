"""Connections, limits and lost answers, on a server that does exactly what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid5

import pytest

from service.adapters.breaker import Breaker
from service.adapters.options import NetOptions
from service.adapters.transport import AdapterRequest, AdapterTransport, OnCall
from service.domain.enums import FLBackend
from service.domain.registry import Net
from service.errors import Ambiguous, Transient

NET = UUID(int=1)
Handler = Callable[[int, bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


class Raw:
    """A server whose handler gets (number of the connection, request head, reader, writer) and says
    whether the connection goes on."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.connections = 0
        self.heads: list[bytes] = []


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Raw]:
    raw = Raw()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw.connections += 1
        number = raw.connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                raw.heads.append(head)
                if not await handler(number, head, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    raw.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()
        await server.wait_closed()


def link(
    endpoint: str, options: NetOptions | None = None, on_call: OnCall | None = None
) -> AdapterTransport:
    net = Net("net-1", uuid5(NET, "n"), FLBackend.EMBEDDED, endpoint, {})
    return AdapterTransport(net, options or NetOptions(), breaker=Breaker("net-1"), on_call=on_call)


async def say(writer: asyncio.StreamWriter, body: bytes = b"[]", status: int = 200) -> bool:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    writer.write(head + body)
    await writer.drain()
    return True


async def answers(
    _: int, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    return await say(writer)


READ = AdapterRequest("list", "/list_jobs", 2.0)
POST = AdapterRequest("submit", "/submit_job/x", 2.0, method="POST")


async def test_reads_share_a_connection_and_changes_never_do() -> None:
    async with serving(answers) as raw:
        one = link(raw.endpoint)
        for _ in range(3):
            assert (await one.send(READ)).json() == []
        assert raw.connections == 1
        for _ in range(2):
            await one.send(POST)
        assert raw.connections == 3
        assert b"connection: close" in raw.heads[-1].lower()
        await one.close()


async def test_a_read_on_a_dead_connection_is_repeated_once() -> None:
    async def handler(
        number: int, _: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if number == 1 and len(raw.heads) == 2:
            writer.transport.abort()
            return False
        return await say(writer)

    async with serving(handler) as raw:
        one = link(raw.endpoint)
        await one.send(READ)
        assert (await one.send(READ)).ok
        assert raw.connections == 2
        await one.close()


@pytest.mark.parametrize("before", [b"", b'HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n"half'])
async def test_a_post_with_a_lost_answer_is_ambiguous_and_not_repeated(before: bytes) -> None:
    async def handler(
        _: int, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(before)
        await writer.drain()
        return False

    async with serving(handler) as raw:
        one = link(raw.endpoint)
        with pytest.raises(Ambiguous) as lost:
            await one.send(POST)
        assert lost.value.code == "adapter_unavailable"
        assert len(raw.heads) == 1
        await one.close()


async def test_a_post_that_was_never_sent_is_not_ambiguous() -> None:
    async with serving(answers) as raw:
        endpoint = raw.endpoint
    one = link(endpoint)
    with pytest.raises(Transient) as refused:
        await one.send(POST)
    assert not isinstance(refused.value, Ambiguous)
    await one.close()


async def test_silence_and_dribbling_end_at_the_limit() -> None:
    async def silent(*_: object) -> bool:
        await asyncio.sleep(3)
        return False

    async def dribbling(
        _: int, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _number in range(40):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)
        return False

    for handler in (silent, dribbling):
        async with serving(handler) as raw:
            one = link(raw.endpoint)
            began = asyncio.get_running_loop().time()
            with pytest.raises(Ambiguous, match=r"TooSlow|ReadTimeout"):
                await one.send(AdapterRequest("submit", "/", 0.3, method="POST"))
            assert asyncio.get_running_loop().time() - began < 1.0
            await one.close()


async def test_an_answer_beyond_its_cap_is_none() -> None:
    async def large(
        _: int, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        return await say(writer, b"x" * 100_000)

    async with serving(large) as raw:
        one = link(raw.endpoint)
        with pytest.raises(Transient, match="TooLarge"):
            await one.send(AdapterRequest("list", "/list_jobs", 2.0, max_bytes=1000))
        await one.close()


async def test_redirects_are_followed_for_the_health_slash_alone() -> None:
    async def redirecting(
        _: int, head: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        path = head.split()[1]
        if path == b"/health/":
            return await say(writer, b'{"status":"ok"}')
        where = b"/health/" if path == b"/health" else b"/elsewhere"
        writer.write(b"HTTP/1.1 307 X\r\nlocation: " + where + b"\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        return True

    async with serving(redirecting) as raw:
        one = link(raw.endpoint)
        assert (await one.send(AdapterRequest("health", "/health", 2.0))).status == 200
        assert (await one.send(READ)).status == 307
        assert not any(b"/elsewhere" in head for head in raw.heads)
        await one.close()


async def test_a_read_never_waits_for_a_change() -> None:
    release = asyncio.Event()

    async def slow_posts(
        _: int, head: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if head.startswith(b"POST"):
            await release.wait()
        return await say(writer)

    async with serving(slow_posts) as raw:
        one = link(raw.endpoint)
        posting = asyncio.ensure_future(one.send(POST))
        await asyncio.wait_for(one.send(READ), 1)
        assert not posting.done()
        release.set()
        await posting
        await one.close()


async def test_failures_open_the_breaker_and_health_closes_it() -> None:
    status = 503

    async def handler(
        _: int, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        return await say(writer, b"{}", status)

    async with serving(handler) as raw:
        seen: list[tuple[str, str, str]] = []
        one = link(raw.endpoint, on_call=lambda net, call, how, _: seen.append((net, call, how)))
        for _ in range(5):
            await one.send(READ)
        count = len(raw.heads)
        with pytest.raises(Transient) as refused:
            await one.send(POST)
        assert refused.value.retry_after
        assert len(raw.heads) == count
        status = 200
        await one.send(AdapterRequest("health", "/health", 2.0, always=True))
        assert (await one.send(READ)).ok
        assert seen[0] == ("net-1", "list", "failed")
        assert seen[-1] == ("net-1", "list", "ok")
        await one.close()


async def test_a_bearer_token_is_read_for_every_call(tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with serving(answers) as raw:
        one = link(raw.endpoint, NetOptions(token_file=token))
        with pytest.raises(Transient, match="token file"):
            await one.send(READ)
        for word in ("one", "two"):
            token.write_text(word + "\n")
            await one.send(READ)
            assert f"authorization: bearer {word}".encode() in raw.heads[-1].lower()
        await one.close()


async def test_a_stream_that_breaks_off_says_so() -> None:
    async def half(
        _: int, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        return False

    async with serving(half) as raw:
        one = link(raw.endpoint)

        async def read_all() -> None:
            async with one.stream(AdapterRequest("results", "/results/1", 2.0)) as (answer, chunks):
                assert answer.ok
                async for _ in chunks:
                    pass

        with pytest.raises(Transient):
            await read_all()
        await one.close()
