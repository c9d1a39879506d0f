"""Messages between the server and a site process: a JSON object and, when needed, npz bytes.

Promise: a frame is read whole or `Closed` is raised; nothing that a trainer prints can get between
two frames, since they travel on a pipe of their own. A frame is 4 bytes length of the JSON,
8 bytes length of the rest, both big-endian, then the two. Needs the standard library alone.
"""

from __future__ import annotations

import json
from struct import Struct
from typing import IO, Any, Final, Protocol

HEAD: Final = Struct("!IQ")
MAX_JSON: Final = 64 * 2**20
MAX_BODY: Final = 16 * 2**30

Message = dict[str, Any]


class Closed(EOFError):
    """The other end is gone, in the middle of a frame or between two."""


class FrameStream(Protocol):
    """What `read_async` reads from: asyncio's stream reader."""

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes."""


def encode(message: Message, body: bytes = b"") -> tuple[bytes, bytes]:
    """A frame in two parts, so that a large body is not copied."""
    text = json.dumps(message, separators=(",", ":")).encode()
    return HEAD.pack(len(text), len(body)) + text, body


def write(pipe: IO[bytes], message: Message, body: bytes = b"") -> None:
    """Write one frame and flush it."""
    head, rest = encode(message, body)
    pipe.write(head)
    if rest:
        pipe.write(rest)
    pipe.flush()


def read(pipe: IO[bytes]) -> tuple[Message, bytes]:
    """Read one frame; blocks.

    Raises:
        Closed: the pipe ended.
    """
    text_bytes, body_bytes = _lengths(_exactly(pipe, HEAD.size))
    text = _exactly(pipe, text_bytes)
    return json.loads(text), _exactly(pipe, body_bytes)


async def read_async(stream: FrameStream) -> tuple[Message, bytes]:
    """Read one frame.

    Raises:
        Closed: the pipe ended, or what came is no frame.
    """
    try:
        text_bytes, body_bytes = _lengths(await stream.readexactly(HEAD.size))
        text = await stream.readexactly(text_bytes)
        body = await stream.readexactly(body_bytes) if body_bytes else b""
        return json.loads(text), body
    except (EOFError, ConnectionError) as exc:
        raise Closed("the site's pipe ended") from exc
    except ValueError as exc:
        raise Closed("the site sent something that is no message") from exc


def _lengths(head: bytes) -> tuple[int, int]:
    text_bytes, body_bytes = HEAD.unpack(head)
    if text_bytes > MAX_JSON or body_bytes > MAX_BODY:
        raise Closed("a message is too large")
    return text_bytes, body_bytes


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = pipe.read(min(count, 1 << 24))
        if not part:
            raise Closed("the server's pipe ended")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
