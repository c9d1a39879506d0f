"""Staging: a template and a researcher's files become one immutable bundle for one submission.

Promise: nothing is written before every name, required file, limit and setting was checked; every
object of a bundle is the one whose SHA-256 its record holds; staging the same submission again gives
the same bundle (a complete one is taken as it lies). What breaks it: two submissions sharing a path id.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import structlog

from service.bundles import model_config
from service.bundles.embedded import EmbeddedLayout
from service.bundles.frozen import Frozen, FrozenFile, freeze, thaw
from service.bundles.layout import FileOrigin, Layout, Placed
from service.bundles.names import Location, check_safe, source_from
from service.bundles.parallel import both, each
from service.bundles.s3 import Listed, ObjectStore
from service.bundles.s3_errors import NotThere
from service.bundles.templates import Template, Templates
from service.contracts.fl import JobRequiredFiles
from service.domain.enums import FLBackend, ReasonCode, WaitingCode
from service.domain.observed import Staged
from service.domain.registry import Net
from service.domain.values import Request
from service.errors import Permanent, Transient

_log = structlog.get_logger(__name__)

#: How each backend wants its bundles.
LAYOUTS: Final[Mapping[FLBackend, Layout]] = {FLBackend.EMBEDDED: EmbeddedLayout()}

_RECORD_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StagingLimits:
    """How much one model may have; sizes in bytes. Files up to `small_bytes` are read and written, larger
    ones copied by the store; a model of up to `eager_bytes` in all is read while it is being checked."""

    files: int = 10_000
    file_bytes: int = 5 * 1024**3
    total_bytes: int = 20 * 1024**3
    config_bytes: int = 1024 * 1024
    small_bytes: int = 1024 * 1024
    eager_bytes: int = 4 * 1024 * 1024
    at_once: int = 12


@dataclass(slots=True)
class _Model:
    """The researcher's files: where they lie, what was listed, and the contents read already."""

    location: Location
    files: dict[str, Listed]
    bodies: dict[str, bytes] = field(default_factory=dict)


class Staging:
    """See the module. `sources` are the locations that requests may name, the first is the usual one."""

    def __init__(
        self,
        store: ObjectStore,
        templates: Templates,
        *,
        sources: Sequence[Location],
        destination: Location,
        limits: StagingLimits,
    ) -> None:
        self._store, self._templates = store, templates
        self._sources, self._destination, self._limits = sources, destination, limits

    async def stage(
        self,
        request: Request,
        *,
        net: Net,
        attempt: int,
        path_id: UUID,
        slots: Mapping[UUID, str],
    ) -> Staged:
        """Freeze the bundle of one submission. `slots` are the participants' slot names by trust id.

        Raises:
            Permanent: with the staging code of `ReasonCode`.
            Transient: the store is unavailable, or the backend's manifest can't be read.
        """
        record = self._destination.key(f"{request.job_id}/{attempt}/{path_id}.bundle.json")
        location = self._location(request, net, attempt, path_id)
        found, model = await both(self._known(record), self._model(request))
        if found is not None:
            return found.staged(location)
        config, job_type = await self._config(request, net, model, slots)
        template = await self._templates.get(net.backend.value, job_type)
        plan = self._plan(net.backend, job_type, template, model, config)
        if model.bodies:
            self._check_digests(request, {p: _sha256(b) for p, b in model.bodies.items()})
        digests: dict[str, str] = {}

        async def write(placed: Placed) -> FrozenFile:
            entry = await self._write(placed, location, template, model)
            if placed.origin is FileOrigin.MODEL:
                digests[placed.source] = entry.sha256
            return entry

        entries = await each(plan, write, at_once=self._limits.at_once)
        if not model.bodies:
            self._check_digests(request, digests | await self._config_digest(model))
        frozen = freeze(entries, config, job_type)
        await self._store.put(self._destination.bucket, record, frozen.to_bytes())
        _log.info("bundle_staged", job_id=str(request.job_id), attempt=attempt, files=len(entries))
        return frozen.staged(location)

    def _location(self, request: Request, net: Net, attempt: int, path_id: UUID) -> Location:
        """The bundle's prefix. Its last segment stands as {model_id} in the adapter's paths: adapters take
        what follows it as the relative path."""
        location = self._destination.below(request.job_id, attempt, path_id)
        return location.below(request.model_id) if net.path_id == "model" else location

    async def _known(self, record: str) -> Frozen | None:
        """The record of a bundle that was staged completely before."""
        bucket = self._destination.bucket
        try:
            body = await self._store.get(bucket, record, limit=_RECORD_BYTES)
        except NotThere:
            return None
        return thaw(body, f"s3://{bucket}/{record}")

    async def _model(self, request: Request) -> _Model:
        """List and check the researcher's files; read them when they are few and small."""
        limits = self._limits
        if request.model_files_uri:
            location = source_from(request.model_files_uri, self._sources)
        else:
            location = self._sources[0].below(request.model_id)
        listed = await self._store.list(location.bucket, location.prefix, limits.files + 1)
        files = {
            item.key.removeprefix(location.prefix): item
            for item in listed
            if not (item.key.endswith("/") and item.size == 0)  # a folder's marker
        }
        if not files:
            raise Permanent(f"no files at {location.uri}", code=ReasonCode.MODEL_FILES_MISSING)
        check_safe(files)
        self._check_size(files, location)
        model = _Model(location, files)
        if sum(item.size for item in files.values()) <= limits.eager_bytes:
            bodies = await each(
                list(files), lambda path: self._read(model, path), at_once=limits.at_once
            )
            model.bodies = dict(zip(files, bodies, strict=True))
        return model

    def _check_size(self, files: Mapping[str, Listed], location: Location) -> None:
        limits = self._limits
        large = [path for path, item in files.items() if item.size > limits.file_bytes]
        problem = None
        if len(files) > limits.files:
            problem = f"more than {limits.files} files"
        elif large:
            problem = f"files larger than {limits.file_bytes} bytes: {', '.join(large[:10])}"
        elif sum(item.size for item in files.values()) > limits.total_bytes:
            problem = f"more than {limits.total_bytes} bytes in all"
        if problem:
            raise Permanent(f"{location.uri} has {problem}", code=ReasonCode.BUNDLE_TOO_LARGE)

    async def _read(self, model: _Model, path: str, limit: int | None = None) -> bytes:
        item = model.files[path]
        size = item.size if limit is None else limit
        return await self._store.get(model.location.bucket, item.key, limit=size, etag=item.etag)

    async def _config(
        self, request: Request, net: Net, model: _Model, slots: Mapping[UUID, str]
    ) -> tuple[dict[str, Any], str]:
        """The effective config and the job type, with the manifest's required files checked.

        Raises Permanent naming everything that is wrong, with the code of what came first.
        """
        layout = _layout(net.backend)
        faults: list[Permanent] = []
        own: dict[str, Any] = {}
        config: dict[str, Any] = {}
        try:
            own = await self._own_config(model)
        except Permanent as exc:
            faults.append(exc)
        job_type = model_config.job_type_of(request, own)
        try:
            if request.job_type or not faults:  # a file that can't be read may name another type
                check_required(net.backend, job_type, model.files)
        except Permanent as exc:
            faults.append(exc)
        try:
            config = model_config.effective(
                request,
                own,
                job_type=job_type,
                slots=slots,
                members=net.members,
                refused=layout.refused,
            )
        except Permanent as exc:
            faults.append(exc)
        if faults:
            raise Permanent("; ".join(f.message for f in faults), code=faults[0].code)
        return config, job_type

    async def _own_config(self, model: _Model) -> dict[str, Any]:
        """The model's config.json; empty without one. Raises Permanent: `bad_model_config`."""
        name = model_config.CONFIG_FILE
        if name not in model.files:
            return {}
        if model.files[name].size > self._limits.config_bytes:
            raise Permanent(
                f"{name} is larger than {self._limits.config_bytes} bytes",
                code=ReasonCode.BAD_MODEL_CONFIG,
            )
        body = model.bodies.get(name)
        return model_config.read(body if body is not None else await self._read(model, name))

    def _plan(
        self,
        backend: FLBackend,
        job_type: str,
        template: Template,
        model: _Model,
        config: dict[str, Any],
    ) -> list[Placed]:
        plan = _layout(backend).arrange(
            job_type=job_type, template=list(template), files=list(model.files), config=config
        )
        check_safe(placed.destination for placed in plan)
        check_collisions(plan)
        return plan

    async def _write(
        self, placed: Placed, location: Location, template: Template, model: _Model
    ) -> FrozenFile:
        """Put one file at its location; what its record says of it."""
        key = location.key(placed.destination)
        body: bytes | None
        if placed.origin is FileOrigin.MADE:
            body = placed.body
        elif placed.origin is FileOrigin.TEMPLATE:
            body = template[placed.source].body
        else:
            item = model.files[placed.source]
            body = model.bodies.get(placed.source)
            if body is None and item.size <= self._limits.small_bytes:
                body = await self._read(model, placed.source)
            if body is None:
                return await self._copy(placed, item, (location.bucket, key), model)
        await self._store.put(location.bucket, key, body)
        return FrozenFile(placed.destination, len(body), _sha256(body))

    async def _copy(
        self, placed: Placed, item: Listed, target: tuple[str, str], model: _Model
    ) -> FrozenFile:
        """Let the store copy a large file while we read it once, for its digest alone. Both are refused
        by the store when the object is not the listed one any more."""
        source = (model.location.bucket, item.key)
        copying = asyncio.ensure_future(
            self._store.copy(source, target, etag=item.etag, size=item.size)
        )
        try:
            digest = await self._digest(source, item.etag)
            await copying
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
        return FrozenFile(placed.destination, item.size, digest)

    async def _digest(self, source: tuple[str, str], etag: str) -> str:
        digest = hashlib.sha256()
        async with self._store.stream(*source, etag=etag) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
        return digest.hexdigest()

    async def _config_digest(self, model: _Model) -> dict[str, str]:
        """The digest of the researcher's own config.json, which the merged one replaces in the bundle."""
        name = model_config.CONFIG_FILE
        if name not in model.files:
            return {}
        return {name: _sha256(await self._read(model, name))}

    @staticmethod
    def _check_digests(request: Request, digests: Mapping[str, str]) -> None:
        """Compare with what the request promised; a promised file that is not there is a mismatch too."""
        wrong = [
            path if path in digests else f"{path} (not there)"
            for path, promised in request.model_files_sha256.items()
            if digests.get(path, "") != promised.lower()
        ]
        if wrong:
            raise Permanent(
                "the SHA-256 is not the one that the request gives: " + _names(wrong),
                code=ReasonCode.DIGEST_MISMATCH,
            )


def _layout(backend: FLBackend) -> Layout:
    layout = LAYOUTS.get(backend)
    if layout is None:
        raise Permanent(
            f"bundles for {backend.value} nets can't be staged by this version",
            code=ReasonCode.NO_SUCH_NET,
        )
    return layout


def check_required(backend: FLBackend, job_type: str, files: Mapping[str, object]) -> None:
    """Pass when the backend's manifest knows the job type, and all files it needs are there.

    Raises:
        Permanent: `unknown_job_type`, or `required_file_missing` naming all that are missing.
        Transient: the manifest can't be read.
    """
    manifest = JobRequiredFiles.get_all_job_types_with_files(backend)
    if not manifest:
        raise Transient(
            f"the manifest of {backend.value} can't be read", code=WaitingCode.MANIFEST_UNAVAILABLE
        )
    if job_type not in manifest:
        raise Permanent(
            f"job type {job_type[:64]!r} is not one of {', '.join(sorted(manifest))}",
            code=ReasonCode.UNKNOWN_JOB_TYPE,
        )
    missing = [name for name in manifest[job_type] if name not in files]
    if missing:
        raise Permanent(
            f"job type {job_type!r} needs these files at the root of the model files: "
            + _names(missing),
            code=ReasonCode.REQUIRED_FILE_MISSING,
        )


def check_collisions(plan: Sequence[Placed]) -> None:
    """Pass when no two files want one path, nor one the path of another's folder.

    Raises:
        Permanent: `file_collision`, naming both.
    """
    wanted: dict[str, list[Placed]] = defaultdict(list)
    for placed in plan:
        wanted[placed.destination].append(placed)
    clashes = [
        f"{path}: {' and '.join(map(str, them))}" for path, them in wanted.items() if them[1:]
    ]
    for path, them in wanted.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            file = wanted.get("/".join(parts[:depth]))
            if file:
                clashes.append(
                    f"{file[0].destination} is a file ({file[0]}) and a folder ({them[0]})"
                )
    if clashes:
        raise Permanent(
            "files collide in the bundle: " + "; ".join(clashes[:10]),
            code=ReasonCode.FILE_COLLISION,
        )


def _names(names: Sequence[str]) -> str:
    more = f" (and {len(names) - 50} more)" if len(names) > 50 else ""
    return ", ".join(names[:50]) + more


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
