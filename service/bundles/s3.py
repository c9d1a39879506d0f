"""The S3 client: one for the process's life, with short time limits and our errors.

Promise: every call ends within its time limits; a listing is whole however long it is; what goes
wrong is `Transient` when the store is unavailable (also a refusal of our credentials, which an operator
puts right without touching the jobs), `NotThere` when an object is gone and `Changed` when it is not
the one that was listed. A URL for others is signed for the host under which they reach the store: the one
of the setting, else AWS's own of the bucket and region. What breaks it: opening a client per call, since
building one costs some hundred milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aioboto3
import structlog
from aiobotocore.config import AioConfig
from aiohttp import ClientError as HttpClientError
from botocore.exceptions import BotoCoreError, ClientError

from service.bundles.s3_errors import GONE, code_of, line_of, translated
from service.domain.enums import ReasonCode
from service.errors import Invalid, Permanent, Transient

_log = structlog.get_logger(__name__)

_HAS_ALREADY: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_CHUNK: Final = 256 * 1024
_COPY_PART: Final = 64 * 1024 * 1024
_MAX_DELETE: Final = 1000  #: the protocol's own limit for one call


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing: its key, its size in bytes and the store's tag of its content."""

    key: str
    size: int
    etag: str


class ObjectStore:
    """Objects in buckets. `open` may be called early to take the loading time out of the first job."""

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        region: str = "us-east-1",
        presign_endpoint_url: str | None = None,
        connect_seconds: float = 2.0,
        read_seconds: float = 15.0,
        attempts: int = 3,
        connections: int = 32,
    ) -> None:
        self._endpoint = endpoint_url
        self._presign_endpoint = presign_endpoint_url or endpoint_url
        self._region = region
        self._options: dict[str, Any] = {
            "signature_version": "s3v4",
            "connect_timeout": connect_seconds,
            "read_timeout": read_seconds,
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "max_pool_connections": connections,
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None
        self._presigner: Any = None

    async def open(self) -> None:
        """Load the clients; a second call does nothing. Sends nothing.

        Raises errors.Invalid when the endpoint is no address.
        """
        async with self._opening:
            if self._client is not None:
                return
            session = aioboto3.Session()
            with translated("open the S3 client"):
                client = await self._enter(session, self._endpoint)
                self._presigner = (
                    client
                    if self._presign_endpoint == self._endpoint
                    else await self._enter(session, self._presign_endpoint)
                )
            self._client = client

    async def _enter(self, session: Any, endpoint: str | None) -> Any:
        config = AioConfig(s3=_addressing(endpoint), **self._options)
        try:
            return await self._stack.enter_async_context(
                session.client("s3", endpoint_url=endpoint, region_name=self._region, config=config)
            )
        except ValueError as exc:
            setting = (
                "FL_S3__ENDPOINT_URL"
                if endpoint == self._endpoint
                else "FL_S3__PRESIGN_ENDPOINT_URL"
            )
            raise Invalid(f"{setting} or FL_S3__REGION makes no client: {line_of(exc)}") from exc

    async def close(self) -> None:
        """Give back all connections. The store can be opened again."""
        async with self._opening:
            self._client = self._presigner = None
            await self._stack.aclose()

    async def _s3(self) -> Any:
        if self._client is None:
            await self.open()
        return self._client

    async def ensure_bucket(self, bucket: str) -> bool:
        """Make the bucket unless it is there; whether it was made."""
        client = await self._s3()
        with translated(f"make bucket {bucket}"):
            if await self._has_bucket(client, bucket):
                return False
            location = (
                {}
                if self._region == "us-east-1"
                else {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
            )
            try:
                await client.create_bucket(Bucket=bucket, **location)
            except ClientError as exc:
                if code_of(exc) not in _HAS_ALREADY:
                    raise
                return False
            return True

    async def has_bucket(self, bucket: str) -> bool:
        """Whether the bucket exists and our credentials may read it."""
        client = await self._s3()
        with translated(f"check bucket {bucket}"):
            return await self._has_bucket(client, bucket)

    @staticmethod
    async def _has_bucket(client: Any, bucket: str) -> bool:
        try:
            await client.head_bucket(Bucket=bucket)
        except ClientError as exc:
            if code_of(exc) in GONE | {"NoSuchBucket"}:
                return False
            raise
        return True

    async def list(self, bucket: str, prefix: str, limit: int) -> list[Listed]:
        """Objects whose key begins with `prefix`, at most `limit` of them, in the store's order."""
        client = await self._s3()
        found: list[Listed] = []
        with translated(f"list s3://{bucket}/{prefix}"):
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": 1000}
            )
            async for page in pages:
                found += [
                    Listed(entry["Key"], int(entry["Size"]), str(entry.get("ETag", "")))
                    for entry in page.get("Contents", ())
                ]
                if len(found) >= limit:
                    break
        return found[:limit]

    async def get(self, bucket: str, key: str, *, limit: int, etag: str = "") -> bytes:
        """A whole object of at most `limit` bytes.

        Raises:
            NotThere, Changed: see the module.
            Permanent: `bundle_too_large`, it is longer than that.
        """
        parts: list[bytes] = []
        total = 0
        async with self.stream(bucket, key, etag=etag) as chunks:
            async for chunk in chunks:
                total += len(chunk)
                if total > limit:
                    raise Permanent(
                        f"s3://{bucket}/{key} is longer than {limit} bytes",
                        code=ReasonCode.BUNDLE_TOO_LARGE,
                    )
                parts.append(chunk)
        return b"".join(parts)

    @asynccontextmanager
    async def stream(
        self, bucket: str, key: str, *, etag: str = ""
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An object's content in chunks; with `etag` only while it is still that object."""
        client = await self._s3()
        what = f"read s3://{bucket}/{key}"
        only = {"IfMatch": etag} if etag else {}
        with translated(what):
            answer = await client.get_object(Bucket=bucket, Key=key, **only)
        body = answer["Body"]

        async def chunks() -> AsyncIterator[bytes]:
            with translated(what):
                while chunk := await body.read(_CHUNK):
                    yield chunk

        try:
            yield chunks()
        finally:
            body.close()

    async def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write a whole object; another content under the same key is replaced."""
        client = await self._s3()
        with translated(f"write s3://{bucket}/{key}"):
            await client.put_object(Bucket=bucket, Key=key, Body=body)

    async def copy(
        self, source: tuple[str, str], target: tuple[str, str], *, etag: str, size: int
    ) -> None:
        """Copy an object of `size` bytes within the store, only while it still has this tag.

        In parts, so that no single call takes long however large the object is.
        """
        client = await self._s3()
        given: dict[str, Any] = {"CopySource": {"Bucket": source[0], "Key": source[1]}}
        if etag:
            given["CopySourceIfMatch"] = etag
        if size <= _COPY_PART:
            with translated(f"copy s3://{source[0]}/{source[1]}"):
                await client.copy_object(Bucket=target[0], Key=target[1], **given)
            return
        upload = _Multipart(client, *target)
        try:
            for start in range(0, size, _COPY_PART):
                end = min(start + _COPY_PART, size) - 1
                await upload.copy_part({**given, "CopySourceRange": f"bytes={start}-{end}"})
            await upload.complete()
        except BaseException:
            await upload.abort()
            raise

    async def delete_prefix(self, bucket: str, prefix: str) -> int:
        """Delete every object below a prefix that is not empty; returns how many there were."""
        if not prefix.strip("/"):
            raise Permanent("a whole bucket is never deleted", code=ReasonCode.UNSAFE_PATH)
        client = await self._s3()
        total = 0
        while found := await self.list(bucket, prefix, _MAX_DELETE):
            with translated(f"delete s3://{bucket}/{prefix}"):
                answer = await client.delete_objects(
                    Bucket=bucket,
                    Delete={"Objects": [{"Key": each.key} for each in found], "Quiet": True},
                )
            if answer.get("Errors"):
                code = answer["Errors"][0].get("Code", "")
                raise Transient(f"the object store did not delete s3://{bucket}/{prefix}: {code}")
            total += len(found)
        return total

    async def presign(self, bucket: str, keys: Sequence[str], seconds: int) -> tuple[str, ...]:
        """A GET URL for each key, in order, valid for so many seconds. Asks nobody."""
        await self._s3()
        urls: list[str] = []
        with translated("presign"):
            for number, key in enumerate(keys, start=1):
                urls.append(
                    await self._presigner.generate_presigned_url(
                        "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
                    )
                )
                if number % 50 == 0:  # pure computing: let others run
                    await asyncio.sleep(0)
        return tuple(urls)

    async def put_stream(
        self, bucket: str, key: str, chunks: AsyncIterator[bytes], *, part_bytes: int, limit: int
    ) -> tuple[str, int]:
        """Write a stream of unknown length; its SHA-256 (hex) and length in bytes.

        At most two parts of `part_bytes` (>= 5 MiB, the protocol's rule) are in memory. Nothing is
        visible under the key before the whole stream came.

        Raises:
            Permanent: `bundle_too_large`, the stream is longer than `limit` bytes.
            Whatever the stream raises.
        """
        upload = _Multipart(await self._s3(), bucket, key)
        digest, total, buffer = hashlib.sha256(), 0, bytearray()
        try:
            async for chunk in chunks:
                digest.update(chunk)
                total += len(chunk)
                if total > limit:
                    raise Permanent(
                        f"the stream is longer than {limit} bytes", code=ReasonCode.BUNDLE_TOO_LARGE
                    )
                buffer += chunk
                while len(buffer) >= part_bytes:
                    await upload.part(bytes(buffer[:part_bytes]))
                    del buffer[:part_bytes]
            if upload.begun:
                if buffer:
                    await upload.part(bytes(buffer))
                await upload.complete()
            else:
                await self.put(bucket, key, bytes(buffer))
        except BaseException:
            await upload.abort()
            raise
        return digest.hexdigest(), total


def _addressing(endpoint: str | None) -> dict[str, str]:
    """Where the bucket stands in a URL. A host of one's own knows paths alone. AWS's is
    `<bucket>.s3.<region>.amazonaws.com` in every region, so that it can be on a list of allowed hosts."""
    if endpoint is not None:
        return {"addressing_style": "path"}
    return {"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"}


class _Multipart:
    """One upload in parts, begun with its first part."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client, self._at = client, {"Bucket": bucket, "Key": key}
        self._what = f"write s3://{bucket}/{key}"
        self._id: str | None = None
        self._parts: list[dict[str, Any]] = []

    @property
    def begun(self) -> bool:
        return self._id is not None

    async def part(self, body: bytes) -> None:
        with translated(self._what):
            at = await self._next()
            answer = await self._client.upload_part(**at, Body=body)
        self._parts.append({"PartNumber": at["PartNumber"], "ETag": answer["ETag"]})

    async def copy_part(self, source: dict[str, Any]) -> None:
        with translated(self._what):
            at = await self._next()
            answer = await self._client.upload_part_copy(**at, **source)
        etag = answer["CopyPartResult"]["ETag"]
        self._parts.append({"PartNumber": at["PartNumber"], "ETag": etag})

    async def _next(self) -> dict[str, Any]:
        """Where the next part goes; begins the upload before the first."""
        if self._id is None:
            begun = await self._client.create_multipart_upload(**self._at)
            self._id = str(begun["UploadId"])
        return {**self._at, "UploadId": self._id, "PartNumber": len(self._parts) + 1}

    async def complete(self) -> None:
        with translated(self._what):
            await self._client.complete_multipart_upload(
                **self._at, UploadId=self._id, MultipartUpload={"Parts": self._parts}
            )

    async def abort(self) -> None:
        """Throw the parts away; a store that is unavailable keeps them until its own clean-up."""
        if self._id is None:
            return
        try:
            await self._client.abort_multipart_upload(**self._at, UploadId=self._id)
        except (ClientError, BotoCoreError, HttpClientError, OSError) as exc:
            _log.warning("multipart_upload_left", error=type(exc).__name__, **self._at)
