"""What an adapter says of a file that it sends, held against what comes.

Promise: a stream that ends without an error had the length and the digest that its headers name, and was not
announced as a page or an error. Adapters that name neither are believed: what is in the file is judged by
whoever stores it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import Final

from service.domain.enums import ReasonCode
from service.errors import Transient

#: Kinds of content that announce a page or an error, never an archive.
_PAGES: Final = re.compile(
    r"^\s*(text/html|application/xhtml|application/(problem\+)?json)\b", re.I
)
#: RFC 9530 (`sha-256=:...:`), and RFC 3230 before it (`SHA-256=...`).
_DIGESTS: Final = ("content-digest", "repr-digest", "digest")
_SHA256: Final = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:?([A-Za-z0-9+/=]{43,44})", re.I)


def is_page(headers: Mapping[str, str]) -> bool:
    """Is a page or an error announced, whatever the status says?"""
    return _PAGES.match(headers.get("content-type", "")) is not None


async def as_announced(
    chunks: AsyncIterator[bytes], headers: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Pass the chunks on; after the last one, hold them against the headers.

    Raises:
        Transient: `results_upload_failed`, fewer or other bytes came than were announced.
        Whatever the stream raises.
    """
    length, digest = _length(headers), _digest(headers)
    total, hashed = 0, hashlib.sha256()
    async for chunk in chunks:
        total += len(chunk)
        if digest is not None:
            hashed.update(chunk)
        yield chunk
    if length is not None and total != length:
        raise _other(f"{total} of {length} bytes came")
    if digest is not None and hashed.digest() != digest:
        raise _other("the bytes that came have another digest than was announced")


def _other(problem: str) -> Transient:
    return Transient(f"the results broke off: {problem}", code=ReasonCode.RESULTS_UPLOAD_FAILED)


def _length(headers: Mapping[str, str]) -> int | None:
    """The announced length; none where the content was packed for the way."""
    text = headers.get("content-length", "").strip()
    packed = headers.get("content-encoding", "identity").strip().lower() != "identity"
    return int(text) if text.isascii() and text.isdigit() and not packed else None


def _digest(headers: Mapping[str, str]) -> bytes | None:
    for name in _DIGESTS:
        found = _SHA256.search(headers.get(name, ""))
        if found is not None:
            try:
                return base64.b64decode(found[1], validate=True)
            except binascii.Error:
                continue
    return None
