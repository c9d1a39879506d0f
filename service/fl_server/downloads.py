"""Fetching the files of a bundle by presigned URLs, from allowed origins and into one folder.

Promise: a URL is fetched only when its origin is on the list or its host is the machine itself;
a redirect is refused; nothing is written outside the folder, over another file, or beyond the
limits of count and bytes. The part of a URL's path after `/<path id>/` is the file's relative
path, its query string is used for the request alone and never shown. Source of the rules: how
FLIP's adapters read bundle URLs. What breaks the promise: a listed origin that serves other bytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

import httpx

from service.fl_server.http_errors import BadApp, RuntimeFailed, TooLarge

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PART: Final = 255
_MAX_PATH: Final = 1_024


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """What one bundle may cost: files, bytes of one file and of all, seconds without a byte."""

    files: int = 10_000
    file_bytes: int = 5 * 2**30
    bundle_bytes: int = 10 * 2**30
    idle_seconds: float = 60.0
    at_once: int = 6


class Downloads:
    """A client for presigned URLs. `origins` are `scheme://host[:port]`, compared exactly."""

    def __init__(self, origins: Iterable[str] = (), limits: DownloadLimits | None = None) -> None:
        self._origins = frozenset(_origin(origin) for origin in origins)
        self._limits = limits or DownloadLimits()
        self._tls: ssl.SSLContext | None = None

    def _verify(self, urls: Iterable[str]) -> ssl.SSLContext | bool:
        """Certificates are read once, and only for https: reading them costs some 50 ms."""
        if not any(urlsplit(url).scheme == "https" for url in urls):
            return False
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        return self._tls

    async def fetch(self, urls: Sequence[str], path_id: UUID, folder: Path) -> int:
        """Fetch every URL into the empty `folder`; the bytes written.

        Raises:
            BadApp: a host that is not allowed, an unsafe or doubled name, a redirect.
            TooLarge: more files or bytes than the limits.
            RuntimeFailed: a download failed; the message names the file and the cause, not the URL.
        """
        if len(urls) > self._limits.files:
            raise TooLarge(f"{len(urls)} files in the bundle; at most {self._limits.files}")
        targets = plan(urls, path_id, self._origins)
        budget = _Budget(self._limits)
        gate = asyncio.Semaphore(self._limits.at_once)
        async with httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            verify=self._verify(urls),
            timeout=httpx.Timeout(self._limits.idle_seconds, connect=10.0),
        ) as client:
            tasks = [
                asyncio.create_task(_one(client, gate, url, name, folder, budget))
                for name, url in targets.items()
            ]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return budget.total


class _Budget:
    """Counts the bytes of a bundle against its limits."""

    def __init__(self, limits: DownloadLimits) -> None:
        self._limits = limits
        self.total = 0

    def take(self, name: str, file_bytes: int, more: int) -> None:
        self.total += more
        if file_bytes > self._limits.file_bytes:
            raise TooLarge(f"{name} is larger than {self._limits.file_bytes} bytes")
        if self.total > self._limits.bundle_bytes:
            raise TooLarge(f"the bundle is larger than {self._limits.bundle_bytes} bytes")


def plan(
    urls: Iterable[str], path_id: UUID, origins: frozenset[tuple[str, str, int]]
) -> dict[str, str]:
    """Relative path -> URL, with every rule about hosts and names checked.

    Raises:
        BadApp: the message names the host or the relative path, and the rule.
    """
    targets: dict[str, str] = {}
    for url in urls:
        name = _relative_path(_allowed(url, origins), path_id)
        if name in targets:
            raise BadApp(f"two bundle URLs have the same relative path {name}")
        targets[name] = url
    for name in targets:
        for parent in PurePosixPath(name).parents:
            if str(parent) in targets:
                raise BadApp(f"{parent} is a file and, because of {name}, a folder too")
    return targets


def _origin(text: str) -> tuple[str, str, int]:
    parts = urlsplit(text)
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError as exc:
        raise BadApp("a bundle URL has an impossible port") from exc
    if port is None or not parts.hostname:
        raise BadApp("a bundle URL should be http:// or https:// with a host")
    return parts.scheme, parts.hostname, port


def _allowed(url: str, origins: frozenset[tuple[str, str, int]]) -> str:
    """The URL's path when its origin may be asked."""
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise BadApp("a bundle URL can't be read") from exc
    origin = _origin(url)
    if parts.username is not None or parts.password is not None:
        raise BadApp("a bundle URL must not hold a user name")
    if origin not in origins and not _is_loopback(origin[1]):
        raise BadApp(
            f"bundle host {origin[1]}:{origin[2]} is not allowed; start the server with"
            f" --bundle-origin {origin[0]}://{origin[1]}:{origin[2]} to allow it"
        )
    return parts.path


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _relative_path(path: str, path_id: UUID) -> str:
    decoded = unquote(path, errors="surrogateescape")
    _, found, name = decoded.partition(f"/{path_id}/")
    if not found:
        raise BadApp(f"a bundle URL's path does not hold /{path_id}/")
    shown = name.encode("ascii", "backslashreplace").decode()[:120]
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts):
        raise BadApp(f"unsafe path in the bundle: {shown!r} (empty, '.' or '..' part)")
    if any(ch < " " or ch == "\x7f" or ch == "\\" or "\ud800" <= ch <= "\udfff" for ch in name):
        raise BadApp(f"unsafe path in the bundle: {shown!r} (control character or backslash)")
    if len(name.encode()) > _MAX_PATH or any(len(part.encode()) > _MAX_PART for part in parts):
        raise BadApp(f"unsafe path in the bundle: {shown!r} (too long)")
    return name


async def _one(
    client: httpx.AsyncClient,
    gate: asyncio.Semaphore,
    url: str,
    name: str,
    folder: Path,
    budget: _Budget,
) -> None:
    target = folder / name
    async with gate:
        try:
            await _stream(client, url, name, target, budget)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise RuntimeFailed(f"could not download {name}: {type(exc).__name__}") from exc
        except OSError as exc:
            raise RuntimeFailed(f"could not write {name}: {exc.strerror}") from exc


async def _stream(
    client: httpx.AsyncClient, url: str, name: str, target: Path, budget: _Budget
) -> None:
    async with client.stream("GET", url) as answer:
        if answer.is_redirect:
            raise BadApp(f"could not download {name}: redirects are not followed")
        if answer.status_code != 200:
            raise RuntimeFailed(f"could not download {name}: HTTP {answer.status_code}")
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with target.open("xb") as file:
            async for chunk in answer.aiter_bytes(1 << 18):
                written += len(chunk)
                budget.take(name, written, len(chunk))
                if len(chunk) < 1 << 16:
                    file.write(chunk)
                else:
                    await asyncio.to_thread(file.write, chunk)
