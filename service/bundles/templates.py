"""Base templates: the app skeletons of (backend, job type), kept in memory.

Promise: a template is always one whole version: it is replaced only after every file of the new one
was read. The bucket rules; while it is unavailable or has nothing, the last good copy does, and before there
was one the copy that ships with the service. After the first use nothing waits for the bucket: a copy
older than `refresh_seconds` is used while a newer one is fetched. What breaks it: a template of more
than `max_bytes` is refused, since copies are kept in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import structlog

from service.bundles.names import Location, check_safe
from service.bundles.parallel import each
from service.bundles.s3 import Listed, ObjectStore
from service.domain.enums import FLBackend, ReasonCode
from service.errors import Permanent, ServiceError, Transient

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 8
_MAX_FILES: Final = 2000
_LEFT_OUT: Final = frozenset({"__pycache__", "uv.lock"})
_LEFT_OUT_ENDS: Final = (".pyc", ".pyo")


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """One file of a template; `sha256` is hex."""

    path: str
    body: bytes
    sha256: str


Template = dict[str, TemplateFile]  #: by path


@dataclass(slots=True)
class _Copy:
    files: Template
    objects: tuple[Listed, ...]  #: what the bucket listed for it; empty for the shipped copy
    checked_at: float


class Templates:
    """See the module. `location` is where the bucket keeps them, `data_path` the service's own folder."""

    def __init__(
        self,
        store: ObjectStore,
        location: Location,
        data_path: Path,
        *,
        refresh_seconds: float = 30.0,
        max_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._store, self._location, self._shipped = store, location, data_path
        self._refresh_seconds, self._max_bytes = refresh_seconds, max_bytes
        self._copies: dict[tuple[str, str], _Copy] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, backend: str, job_type: str) -> Template:
        """The template's files by path.

        Raises:
            Permanent: `unknown_job_type`, neither the bucket nor the service has one.
            Transient: the bucket is unavailable, and there is no copy.
        """
        name = (backend, job_type)
        copy = self._copies.get(name)
        if copy is None:
            async with self._locks.setdefault(name, asyncio.Lock()):
                copy = self._copies.get(name) or await self._first(name)
        elif time.monotonic() - copy.checked_at > self._refresh_seconds:
            copy.checked_at = time.monotonic()
            task = asyncio.get_running_loop().create_task(self._refresh(name, copy))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return copy.files

    async def warm(self) -> None:
        """Fetch what ships with the service, so that the first job finds it in memory."""
        for folder in await asyncio.to_thread(_template_folders, self._shipped):
            try:
                await self.get(folder.parent.name, folder.name)
            except ServiceError as exc:
                _log.warning("template_not_warmed", template=str(folder), error=exc.message)

    async def close(self) -> None:
        """End what is being fetched."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _first(self, name: tuple[str, str]) -> _Copy:
        away: Transient | None = None
        copy: _Copy | None = None
        try:
            copy = await self._fetch(name, ())
        except Transient as exc:
            away = exc
            _log.warning("template_bucket_away", template="/".join(name), error=exc.message)
        if copy is None:
            files = await asyncio.to_thread(_read_folder, self._shipped.joinpath(*name))
            copy = _Copy(files, (), time.monotonic()) if files else None
        if copy is None and away is not None:
            raise away
        if copy is None:
            raise Permanent(
                f"there is no base template for job type {name[1]!r} on {name[0]}: "
                f"put one at {self._location.below(*name).uri}",
                code=ReasonCode.UNKNOWN_JOB_TYPE,
            )
        self._copies[name] = copy
        return copy

    async def _refresh(self, name: tuple[str, str], copy: _Copy) -> None:
        try:
            newer = await self._fetch(name, copy.objects)
        except ServiceError as exc:
            _log.warning("template_kept", template="/".join(name), error=exc.message)
            return
        if newer is not None:
            self._copies[name] = newer
            _log.info("template_refreshed", template="/".join(name), files=len(newer.files))

    async def _fetch(self, name: tuple[str, str], known: tuple[Listed, ...]) -> _Copy | None:
        """The bucket's template, None when it has none or has what is `known`."""
        location = self._location.below(*name)
        listed = await self._store.list(location.bucket, location.prefix, _MAX_FILES + 1)
        objects = {
            item.key.removeprefix(location.prefix): item
            for item in listed
            if not item.key.endswith("/") and _is_kept(item.key.removeprefix(location.prefix))
        }
        if not objects or tuple(objects.values()) == known:
            return None
        check_safe(objects)
        if len(objects) > _MAX_FILES or sum(i.size for i in objects.values()) > self._max_bytes:
            raise Permanent(
                f"the base template at {location.uri} is larger than {_MAX_FILES} files or "
                f"{self._max_bytes} bytes",
                code=ReasonCode.BUNDLE_TOO_LARGE,
            )

        async def read(path: str) -> TemplateFile:
            item = objects[path]
            body = await self._store.get(
                location.bucket, item.key, limit=self._max_bytes, etag=item.etag
            )
            return _file(path, body)

        files = await each(list(objects), read, at_once=_AT_ONCE)
        return _Copy({f.path: f for f in files}, tuple(objects.values()), time.monotonic())


def _file(path: str, body: bytes) -> TemplateFile:
    return TemplateFile(path, body, hashlib.sha256(body).hexdigest())


def _is_kept(path: str) -> bool:
    """Not what tools leave behind: dot files, byte code, lock files."""
    parts = PurePosixPath(path).parts
    return not any(part.startswith(".") or part in _LEFT_OUT for part in parts) and not (
        path.endswith(_LEFT_OUT_ENDS)
    )


def _template_folders(data_path: Path) -> Iterable[Path]:
    """`<backend>/<job type>` below the shipped assets, which hold other things too."""
    backends = [data_path / backend for backend in sorted(FLBackend)]
    return [path for folder in backends for path in sorted(folder.glob("*")) if path.is_dir()]


def _read_folder(folder: Path) -> Template:
    """The regular files below a folder (no links); empty when there is no such folder."""
    files: Template = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and _is_kept(relative):
            files[relative] = _file(relative, path.read_bytes())
    return files
