"""The bundle store as the steps and the command line see it: staging, URLs, results, uploads.

Promise: one S3 client for the process's life; only the four configured locations are touched. What breaks
it: using it after `close`, or not opening it early (the first job then pays for loading the client).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from service.bundles.archive import whole_archive
from service.bundles.names import check_safe, parse_setting
from service.bundles.parallel import each
from service.bundles.s3 import ObjectStore
from service.bundles.s3_errors import Denied, StoreUnavailable
from service.bundles.staging import Staging, StagingLimits
from service.bundles.templates import Templates
from service.domain.enums import ReasonCode
from service.domain.observed import Staged
from service.domain.registry import Net
from service.domain.values import Request, Results
from service.errors import Invalid, Permanent, Transient

_PART_BYTES: Final = 8 * 1024 * 1024
_RESULTS_NAME: Final = "results.zip"
_AT_ONCE: Final = 8
_REACH: Final = "start the object store, or correct FL_S3__ENDPOINT_URL and FL_S3__REGION"
_KEYS: Final = (
    "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS's own chain), or their rights"
)


@dataclass(frozen=True, slots=True)
class BucketProblem:
    """What is wrong with the store, and what to do about it."""

    message: str
    fix: str


class S3Bundles:
    """See the module; the port `steps.ports.BundleStore` says what each call promises."""

    def __init__(
        self,
        *,
        endpoint_url: str | None,
        region: str,
        model_files_bucket: str,
        app_base_bucket: str,
        app_destination_bucket: str,
        results_bucket: str,
        assets_dir: Path,
        more_sources: Sequence[str] = (),
        presign_endpoint_url: str | None = None,
        presign_seconds: int = 1800,
        template_refresh_seconds: float = 30.0,
        max_results_bytes: int = 20 * 1024**3,
        limits: StagingLimits | None = None,
    ) -> None:
        """A bucket setting is `bucket`, `bucket/prefix` or `s3://bucket/prefix`; `more_sources` are further
        locations that a request's `model_files.uri` may name; `presign_endpoint_url` is where nets reach the
        store, when that is another address than ours. Raises errors.Invalid for an empty one."""
        self._store = ObjectStore(
            endpoint_url=endpoint_url, region=region, presign_endpoint_url=presign_endpoint_url
        )
        self._model_files = parse_setting(model_files_bucket)
        self._app_base = parse_setting(app_base_bucket)
        self._destination = parse_setting(app_destination_bucket)
        self._results = parse_setting(results_bucket)
        self._presign_seconds, self._max_results_bytes = presign_seconds, max_results_bytes
        self._templates = Templates(
            self._store, self._app_base, assets_dir, refresh_seconds=template_refresh_seconds
        )
        self._staging = Staging(
            self._store,
            self._templates,
            sources=[self._model_files, *map(parse_setting, more_sources)],
            destination=self._destination,
            limits=limits or StagingLimits(),
        )

    async def open(self) -> None:
        """Load the client and the shipped templates. A store that is unavailable is no error here."""
        await self._store.open()
        await self._templates.warm()

    async def close(self) -> None:
        """Give back connections and background work."""
        await self._templates.close()
        await self._store.close()

    async def stage(
        self,
        request: Request,
        *,
        net: Net,
        attempt: int,
        path_id: UUID,
        slots: Mapping[UUID, str],
    ) -> Staged:
        """Freeze the bundle of one submission (see `Staging.stage`)."""
        return await self._staging.stage(
            request, net=net, attempt=attempt, path_id=path_id, slots=slots
        )

    async def presign(self, staged: Staged) -> tuple[str, ...]:
        """A download URL for every object of the bundle, valid for `presign_seconds` from now on."""
        bucket = parse_setting(staged.prefix).bucket
        return await self._store.presign(bucket, staged.keys, self._presign_seconds)

    async def store_results(
        self, job_id: UUID, attempt: int, chunks: AsyncIterator[bytes]
    ) -> Results:
        """Stream to `<results bucket>/<job_id>/<attempt>/results.zip`, hashing on the way. Nothing stands
        there before the whole stream came and was a zip archive.

        Raises:
            Permanent: `results_upload_failed`, larger than `max_results_bytes`.
            Transient: the store is unavailable; `results_upload_failed`, what came is no archive; or whatever
            the
                stream raises.
        """
        location = self._results.below(job_id, attempt)
        try:
            digest, size = await self._store.put_stream(
                location.bucket,
                location.key(_RESULTS_NAME),
                whole_archive(chunks),
                part_bytes=_PART_BYTES,
                limit=self._max_results_bytes,
            )
        except Permanent as exc:
            raise Permanent(exc.message, code=ReasonCode.RESULTS_UPLOAD_FAILED) from exc
        return Results(uri=location.uri + _RESULTS_NAME, sha256=digest, bytes=size)

    async def upload_model_files(self, model_id: UUID, folder: Path) -> str:
        """Put a folder's files where a request of this model finds them; returns their `s3://` URI.

        Raises:
            Invalid: no such folder, an empty one, or a link in it.
            Permanent: `unsafe_path`, a name that no bundle may have.
            Transient: the store is unavailable.
        """
        files = await asyncio.to_thread(_files_of, folder)
        check_safe(files)
        location = self._model_files.below(model_id)

        async def upload(path: str) -> None:
            chunks = _read_file(files[path])
            await self._store.put_stream(
                location.bucket,
                location.key(path),
                chunks,
                part_bytes=_PART_BYTES,
                limit=StagingLimits().file_bytes,
            )

        await each(list(files), upload, at_once=_AT_ONCE)
        return location.uri

    async def remove(self, job_id: UUID) -> int:
        """Delete all bundles of a finished job (its results stay); returns how many objects went."""
        location = self._destination.below(job_id)
        return await self._store.delete_prefix(location.bucket, location.prefix)

    async def problems(self) -> list[BucketProblem]:
        """What is wrong with the store and its buckets; empty when all is well. A store that is unavailable
        or knows none of our keys is one problem, not four."""

        async def problem(setting: str) -> BucketProblem | None:
            bucket = self._buckets()[setting]
            try:
                if await self._store.has_bucket(bucket):
                    return None
            except StoreUnavailable as exc:
                return BucketProblem(exc.message, _REACH)
            except Denied as exc:
                return BucketProblem(f"{setting}: {exc.message}", _KEYS)
            except Transient as exc:
                return BucketProblem(f"{setting}: {exc.message}", _REACH)
            return BucketProblem(f"bucket {bucket} is not there", f"make it, or correct {setting}")

        found = await each(list(self._buckets()), problem, at_once=_AT_ONCE)
        problems = [one for one in found if one is not None]
        alike = {one.fix for one in problems}
        if len(problems) == len(found) and alike in ({_REACH}, {_KEYS}):
            return problems[:1]
        return problems

    def _buckets(self) -> dict[str, str]:
        return {
            "FL_S3__MODEL_FILES_BUCKET": self._model_files.bucket,
            "FL_S3__APP_BASE_BUCKET": self._app_base.bucket,
            "FL_S3__APP_DESTINATION_BUCKET": self._destination.bucket,
            "FL_S3__RESULTS_BUCKET": self._results.bucket,
        }


async def ensure_buckets(
    buckets: Iterable[str], *, endpoint_url: str | None, region: str = "us-east-1"
) -> list[str]:
    """Make the buckets of these settings where they are missing; the names of those that were made.

    Raises:
        Transient: the store is unavailable, or refuses.
    """
    store = ObjectStore(endpoint_url=endpoint_url, region=region)
    try:
        names = sorted({parse_setting(each).bucket for each in buckets})
        return [name for name in names if await store.ensure_bucket(name)]
    finally:
        await store.close()


def _files_of(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise Invalid(f"{folder} is not a folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_symlink():
            raise Invalid(f"{path} is a link: only regular files can be uploaded")
        if path.is_file() and "__pycache__" not in relative.parts:
            files[relative.as_posix()] = path
    if not files:
        raise Invalid(f"{folder} has no files")
    return files


async def _read_file(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, 1024 * 1024):
            yield chunk
