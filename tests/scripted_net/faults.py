"""Spoiled answers: delays, errors, lost and cut answers, before or after the call took effect.

Promise: every call is recorded with its headers and the time it came; a fault hits the next calls
of its name, as often as it says, in the order the faults were given. A lost answer is lost on the
wire: the connection is closed or reset without a byte. It needs uvicorn's h11 protocol, whose
transport it reaches through the `send` callable.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LostResponse(StrEnum):
    """How an answer is lost. BEFORE: the call never happened. The others: it did, then the
    connection is closed (CLOSE), reset (RESET), closed in mid-answer (CUT), or left open (HANG)."""

    BEFORE = "before"
    CLOSE = "close"
    RESET = "reset"
    CUT = "cut"
    HANG = "hang"


@dataclass(slots=True)
class InjectedFault:
    """What happens to calls of `call` (the first part of the path, such as `submit_job`, or `*`).

    `times` counts down, -1 is for ever; `skip` lets so many calls through first; `delay` is seconds
    before the call takes effect, `late` seconds between effect and answer. With `status` the answer
    is that and `body` (JSON, or text), and the call takes effect only when `applied`.
    """

    call: str
    times: int = 1
    skip: int = 0
    delay: float = 0.0
    late: float = 0.0
    status: int | None = None
    body: Any = None
    applied: bool = False
    lose: LostResponse | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that came in. `at` is seconds on the monotonic clock, `wall` since 1970."""

    call: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    at: float
    wall: float


class FaultInjector:
    """ASGI middleware around an FL-API server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.faults: list[InjectedFault] = []
        self.calls: list[Call] = []
        self.in_flight = 0

    def take(self, call: str) -> InjectedFault | None:
        """The fault for this call, counted down."""
        for fault in self.faults:
            if fault.times == 0 or fault.call not in (call, "*"):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= fault.times > 0
            return fault
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, spoiled when a fault says so."""
        if scope["type"] != "http" or scope["path"].startswith("/_script"):
            await self._app(scope, receive, send)
            return
        call = scope["path"].strip("/").split("/")[0]
        self.calls.append(_call(call, scope))
        fault = self.take(call)
        self.in_flight += 1
        try:
            if fault is None:
                await self._app(scope, receive, send)
            else:
                await self._spoil(fault, scope, receive, send)
        finally:
            self.in_flight -= 1

    async def _spoil(
        self, fault: InjectedFault, scope: Scope, receive: Receive, send: Send
    ) -> None:
        await asyncio.sleep(fault.delay)
        if fault.lose is LostResponse.BEFORE:
            await _break_off(send, reset=False)
            return
        answer: list[Message] = []

        async def hold(message: Message) -> None:
            answer.append(message)

        if fault.status is None or fault.applied:
            await self._app(scope, receive, hold)
        if fault.status is not None:
            answer = _made_up(fault)
        await asyncio.sleep(fault.late)
        await _deliver(fault, answer, send)


async def _deliver(fault: InjectedFault, answer: list[Message], send: Send) -> None:
    if fault.lose in (LostResponse.CLOSE, LostResponse.RESET):
        await _break_off(send, reset=fault.lose is LostResponse.RESET)
    elif fault.lose is LostResponse.HANG:
        await asyncio.sleep(_FOR_EVER)
    elif fault.lose is LostResponse.CUT:
        body = b"".join(message.get("body", b"") for message in answer)
        await send(answer[0])
        await send(
            {
                "type": "http.response.body",
                "body": body[: max(1, len(body) // 2)],
                "more_body": True,
            }
        )
        await _break_off(send, reset=False)
    else:
        for message in answer:
            await send(message)


_FOR_EVER: Final = 3_600.0


def _call(call: str, scope: Scope) -> Call:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"].decode("latin-1")
    return Call(call, scope["method"], scope["path"], query, headers, time.monotonic(), time.time())


def _made_up(fault: InjectedFault) -> list[Message]:
    is_text = isinstance(fault.body, str)
    raw = fault.body.encode() if is_text else json.dumps(fault.body).encode()
    kind = b"text/plain" if is_text else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(raw)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in fault.headers.items()]
    return [
        {"type": "http.response.start", "status": fault.status, "headers": headers},
        {"type": "http.response.body", "body": raw},
    ]


async def _break_off(send: Send, *, reset: bool) -> None:
    """Close the connection under the answer; with `reset` by RST."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if not isinstance(transport, asyncio.Transport):
        raise TypeError("the server's transport can't be reached: it should be uvicorn's h11")
    if reset:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()  # what was written goes out first
    await asyncio.sleep(0.01)  # let the protocol learn that the connection is gone
