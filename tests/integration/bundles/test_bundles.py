"""Bundles on the real object store: staged, presigned, immutable; results stored; S3 away."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.bundles import S3Bundles, StagingLimits, ensure_buckets
from service.bundles.s3 import ObjectStore
from service.contracts.fl import ASSETS_DIR
from service.domain.enums import FLBackend, ReasonCode
from service.domain.observed import Staged
from service.domain.registry import Net
from service.domain.values import Origin, Request
from service.errors import Permanent, Transient
from tests.stack import RunningStack

TRUST = UUID(int=1)
NET = Net("net-1", uuid4(), FLBackend.EMBEDDED, "http://unused", {TRUST: "Trust_1"})
TRAINER = b"def fit(): ...\n"


def archive(content: bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as files:
        files.writestr("model.npz", content)
    return whole.getvalue()


FILES = {"config.json": b'{"GLOBAL_ROUNDS": 2, "lr": 0.1}', "trainer.py": TRAINER}


class BundlesHarness:
    """A set of buckets of this test's own, and the bundle store over them."""

    def __init__(self, endpoint: str) -> None:
        self.name = f"t{uuid4().hex[:10]}"
        self.endpoint = endpoint
        self.store = ObjectStore(endpoint_url=endpoint)
        self.bundles = self.make()

    def make(self, **changed: Any) -> S3Bundles:
        settings: dict[str, Any] = {
            "endpoint_url": self.endpoint,
            "region": "us-east-1",
            "model_files_bucket": f"{self.name}-models",
            "app_base_bucket": f"{self.name}-base",
            "app_destination_bucket": f"{self.name}-apps",
            "results_bucket": f"{self.name}-results",
            "assets_dir": ASSETS_DIR,
        }
        return S3Bundles(**(settings | changed))

    async def model(self, files: dict[str, bytes] = FILES) -> Request:
        request = Request(uuid4(), uuid4(), "p", "q", (TRUST,), 1, b"", Origin("e", "s"))
        for path, body in files.items():
            await self.store.put(f"{self.name}-models", f"{request.model_id}/{path}", body)
        return request

    async def stage(self, request: Request, **changed: Any) -> Staged:
        given: dict[str, Any] = {
            "net": NET,
            "attempt": 1,
            "path_id": uuid4(),
            "slots": {TRUST: "Trust_1"},
        }
        bundles = changed.pop("bundles", self.bundles)
        staged = await bundles.stage(request, **(given | changed))
        assert isinstance(staged, Staged)
        return staged

    async def apps(self) -> list[str]:
        return [item.key for item in await self.store.list(f"{self.name}-apps", "", 100_000)]

    async def refused(self, request: Request, **changed: Any) -> Permanent:
        """The refusal of a staging that must leave nothing behind."""
        with pytest.raises(Permanent) as refusal:
            await self.stage(request, **changed)
        assert not [key for key in await self.apps() if str(request.job_id) in key]
        return refusal.value


@pytest.fixture
async def harness(stack: RunningStack) -> AsyncIterator[BundlesHarness]:
    one = BundlesHarness(stack.env["FL_S3__ENDPOINT_URL"])
    names = [f"{one.name}-{use}" for use in ("models", "base", "apps", "results")]
    assert await ensure_buckets(names, endpoint_url=one.endpoint) == sorted(names)
    assert await ensure_buckets(names, endpoint_url=one.endpoint) == []
    await one.bundles.open()
    yield one
    await one.bundles.close()
    await one.store.close()


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body = answer.read()
    assert isinstance(body, bytes)
    return body


async def download(harness: BundlesHarness, staged: Staged, segment: UUID) -> dict[str, bytes]:
    """What an adapter gets: it takes the path after the segment as the relative path."""
    urls = await harness.bundles.presign(staged)
    return {
        url.split("?")[0].split(f"/{segment}/")[1]: await asyncio.to_thread(fetch, url)
        for url in urls
    }


async def test_a_bundle_is_template_files_and_the_merged_config(harness: BundlesHarness) -> None:
    request = replace(
        await harness.model({**FILES, "lib/net.py": b"x = 1\n"}),
        config={"GLOBAL_ROUNDS": 5, "AGGREGATION_WEIGHTS": {str(TRUST): 0.5}},
        app_config={"lr": 0.5},
    )
    path_id = uuid4()
    staged = await harness.stage(request, path_id=path_id, attempt=3)
    assert staged.prefix == f"s3://{harness.name}-apps/{request.job_id}/3/{path_id}/"
    assert staged.job_type == "standard"
    got = await download(harness, staged, path_id)
    assert set(got) == {"engine.json", "app/trainer.py", "app/lib/net.py", "app/config.json"}
    assert got["app/trainer.py"] == TRAINER
    assert json.loads(got["engine.json"])["entrypoint"] == "app/trainer.py"
    config = {"GLOBAL_ROUNDS": 5, "lr": 0.5, "AGGREGATION_WEIGHTS": {"Trust_1": 0.5}}
    assert json.loads(got["app/config.json"]) == staged.config == config
    entries = [
        {"path": path, "sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
        for path, body in sorted(got.items())
    ]
    listed = json.dumps(entries, separators=(",", ":"), sort_keys=True).encode()
    assert staged.sha256 == hashlib.sha256(listed).hexdigest()


async def test_staging_again_gives_the_same_bundle_whatever_became_of_the_files(
    harness: BundlesHarness,
) -> None:
    request, path_id = await harness.model(), uuid4()
    first = await harness.stage(request, path_id=path_id)
    await harness.store.put(f"{harness.name}-models", f"{request.model_id}/trainer.py", b"changed")
    assert await harness.stage(request, path_id=path_id) == first
    assert (await download(harness, first, path_id))["app/trainer.py"] == TRAINER
    assert (await harness.stage(request)).sha256 != first.sha256


async def test_path_id_model_puts_the_model_s_id_before_the_relative_path(
    harness: BundlesHarness,
) -> None:
    request = await harness.model()
    net = replace(NET, path_id="model")
    one, two = [await harness.stage(request, net=net) for _ in range(2)]
    assert one.prefix != two.prefix
    assert "app/trainer.py" in await download(harness, one, request.model_id)


async def test_refusals_name_what_is_wrong_and_write_nothing(harness: BundlesHarness) -> None:
    missing = await harness.refused(replace(await harness.model(), model_id=uuid4()))
    assert missing.code == ReasonCode.MODEL_FILES_MISSING
    incomplete = await harness.refused(await harness.model({"readme.md": b"x"}))
    assert incomplete.code == ReasonCode.REQUIRED_FILE_MISSING
    assert "config.json, trainer.py" in incomplete.message
    bad = await harness.refused(await harness.model({**FILES, "config.json": b"[]"}))
    assert bad.code == ReasonCode.BAD_MODEL_CONFIG
    twice = await harness.refused(await harness.model({"config.json": b'{"GLOBAL_ROUNDS": 0}'}))
    assert twice.code == ReasonCode.REQUIRED_FILE_MISSING
    assert all(word in twice.message for word in ("trainer.py", "GLOBAL_ROUNDS"))
    unknown = await harness.refused(replace(await harness.model(), job_type="no-such"))
    assert unknown.code == ReasonCode.UNKNOWN_JOB_TYPE
    elsewhere = replace(await harness.model(), model_files_uri=f"s3://{harness.name}-results/x/")
    assert (await harness.refused(elsewhere)).code == ReasonCode.UNSAFE_PATH
    climbing = await harness.refused(await harness.model({**FILES, "a\x7fb.py": b"x"}))
    assert climbing.code == ReasonCode.UNSAFE_PATH


async def test_digests_of_the_request_are_checked(harness: BundlesHarness) -> None:
    request = await harness.model()
    right = hashlib.sha256(TRAINER).hexdigest()
    good = replace(request, model_files_sha256={"trainer.py": right.upper()})
    assert (await harness.stage(good)).keys
    wrong = await harness.refused(
        replace(
            request, job_id=uuid4(), model_files_sha256={"trainer.py": "0" * 64, "gone.py": right}
        )
    )
    assert wrong.code == ReasonCode.DIGEST_MISMATCH
    assert "trainer.py, gone.py (not there)" in wrong.message


async def test_limits_of_count_and_size(harness: BundlesHarness) -> None:
    many = await harness.model({**FILES, "a": b"x", "b": b"x"})
    few = harness.make(limits=StagingLimits(files=3))
    assert (await harness.refused(many, bundles=few)).code == ReasonCode.BUNDLE_TOO_LARGE
    small = harness.make(limits=StagingLimits(file_bytes=20))
    large = await harness.refused(many, bundles=small)
    assert large.code == ReasonCode.BUNDLE_TOO_LARGE
    assert "config.json" in large.message
    total = harness.make(limits=StagingLimits(total_bytes=40))
    assert (await harness.refused(many, bundles=total)).code == ReasonCode.BUNDLE_TOO_LARGE
    for bundles in (few, small, total):
        await bundles.close()


async def test_large_files_are_copied_by_the_store_and_hashed(harness: BundlesHarness) -> None:
    """StagingLimits so low that every way of writing is taken: read and put, and copied."""
    body = bytes(range(256)) * 2000
    request = await harness.model({**FILES, "weights.bin": body})
    digest = hashlib.sha256(body).hexdigest()
    request = replace(request, model_files_sha256={"weights.bin": digest})
    bundles = harness.make(limits=StagingLimits(small_bytes=1000, eager_bytes=0))
    path_id = uuid4()
    staged = await harness.stage(request, bundles=bundles, path_id=path_id)
    assert (await download(harness, staged, path_id))["app/weights.bin"] == body
    changed = replace(request, job_id=uuid4(), model_files_sha256={"weights.bin": "1" * 64})
    with pytest.raises(Permanent) as refused:
        await harness.stage(changed, bundles=bundles)
    assert refused.value.code == ReasonCode.DIGEST_MISMATCH
    await bundles.close()


async def test_more_than_a_page_of_objects(harness: BundlesHarness) -> None:
    request = await harness.model()
    keys = [f"{request.model_id}/data/{n:04}" for n in range(1005)]
    for start in range(0, len(keys), 50):
        await asyncio.gather(
            *(
                harness.store.put(f"{harness.name}-models", k, b"x")
                for k in keys[start : start + 50]
            )
        )
    listed = await harness.store.list(f"{harness.name}-models", f"{request.model_id}/", 10_000)
    assert len(listed) == 1007
    assert len(await harness.store.list(f"{harness.name}-models", f"{request.model_id}/", 3)) == 3
    assert (
        await harness.store.delete_prefix(f"{harness.name}-models", f"{request.model_id}/") == 1007
    )


async def test_the_bucket_s_template_rules_and_its_last_good_copy_is_kept(
    harness: BundlesHarness,
) -> None:
    base, key = f"{harness.name}-base", "embedded/standard/"
    await harness.store.put(base, key + "engine.json", b'{"format": 1, "of": "bucket"}')
    await harness.store.put(base, key + "__pycache__/x.pyc", b"left out")
    bundles = harness.make(template_refresh_seconds=0.0)
    request = await harness.model()

    async def engine() -> bytes:
        path_id = uuid4()
        staged = await harness.stage(request, bundles=bundles, path_id=path_id)
        return (await download(harness, staged, path_id))["engine.json"]

    assert b"bucket" in await engine()
    await harness.store.put(base, key + "engine.json", b'{"format": 1, "of": "newer"}')
    for _ in range(50):
        if b"newer" in await engine():
            break
    assert b"newer" in await engine()
    await harness.store.delete_prefix(base, "embedded/")
    await engine()
    assert b"newer" in await engine()
    await bundles.close()


async def test_results_are_stored_with_digest_and_size(harness: BundlesHarness) -> None:
    small, large = archive(b"x"), archive(b"0123456789abcdef" * 600_000)

    async def chunks(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1_000_000):
            yield body[start : start + 1_000_000]

    for body in (small, large):
        job_id = uuid4()
        results = await harness.bundles.store_results(job_id, 2, chunks(body))
        assert results.uri == f"s3://{harness.name}-results/{job_id}/2/results.zip"
        assert (results.sha256, results.bytes) == (hashlib.sha256(body).hexdigest(), len(body))
        key = f"{job_id}/2/results.zip"
        assert await harness.store.get(f"{harness.name}-results", key, limit=2**30) == body


@pytest.mark.parametrize("body", [b"", b"<html>sign in</html>", archive(b"x" * 9_000_000)[:-9]])
async def test_what_is_no_whole_archive_is_no_results(harness: BundlesHarness, body: bytes) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1_000_000):
            yield body[start : start + 1_000_000]

    job_id = uuid4()
    with pytest.raises(Transient) as refused:
        await harness.bundles.store_results(job_id, 1, chunks())
    assert refused.value.code == ReasonCode.RESULTS_UPLOAD_FAILED
    assert await harness.store.list(f"{harness.name}-results", f"{job_id}/", 10) == []


async def test_a_stream_that_breaks_off_leaves_no_results(harness: BundlesHarness) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"PK\x03\x04" + b"x" * 9_000_000
        raise Transient("the adapter went away")

    job_id = uuid4()
    with pytest.raises(Transient, match="went away"):
        await harness.bundles.store_results(job_id, 1, broken())
    assert await harness.store.list(f"{harness.name}-results", f"{job_id}/", 10) == []
    tight = harness.make(max_results_bytes=10)
    with pytest.raises(Permanent) as refused:
        await tight.store_results(job_id, 1, broken())
    assert refused.value.code == ReasonCode.RESULTS_UPLOAD_FAILED
    await tight.close()


async def test_an_uploaded_folder_is_what_a_request_finds(
    harness: BundlesHarness, tmp_path: Path
) -> None:
    for path, body in FILES.items():
        (tmp_path / path).write_bytes(body)
    request = await harness.model({})
    uri = await harness.bundles.upload_model_files(request.model_id, tmp_path)
    assert uri == f"s3://{harness.name}-models/{request.model_id}/"
    named = replace(request, model_files_uri=uri)
    staged = await harness.stage(named)
    assert len(staged.keys) == 3
    assert await harness.bundles.remove(request.job_id) == 4
    assert not await harness.apps()


async def test_presigned_urls_are_needed_and_expire(harness: BundlesHarness) -> None:
    staged = await harness.stage(await harness.model())
    brief = harness.make(presign_seconds=1)
    (url, *_) = await brief.presign(staged)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        await asyncio.to_thread(fetch, url.split("?")[0])
    await asyncio.sleep(2.1)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        await asyncio.to_thread(fetch, url)
    await brief.close()


async def test_presigned_urls_lead_to_the_address_that_nets_use(harness: BundlesHarness) -> None:
    staged = await harness.stage(await harness.model())
    theirs = harness.endpoint.replace("127.0.0.1", "localhost")
    assert theirs != harness.endpoint
    bundles = harness.make(presign_endpoint_url=theirs)
    urls = await bundles.presign(staged)
    assert all(url.startswith(f"{theirs}/{harness.name}-apps/") for url in urls)
    contents = [await asyncio.to_thread(fetch, url) for url in urls]
    assert TRAINER in contents
    with pytest.raises(urllib.error.HTTPError, match="403"):  # signed for that host alone
        await asyncio.to_thread(fetch, urls[0].replace(theirs, harness.endpoint))
    await bundles.close()


async def test_a_store_that_is_away_is_transient_and_quick(harness: BundlesHarness) -> None:
    away = harness.make(endpoint_url="http://127.0.0.1:9")
    began = time.monotonic()
    await away.open()
    with pytest.raises(Transient, match="could not"):
        await away.stage(
            await harness.model(), net=NET, attempt=1, path_id=uuid4(), slots={TRUST: "Trust_1"}
        )
    assert time.monotonic() - began < 15
    (problem,) = await away.problems()
    assert "FL_S3__ENDPOINT_URL" in problem.fix
    assert "bucket" not in problem.fix
    await away.close()
    assert await harness.bundles.problems() == []
    other = harness.make(results_bucket="no-such-bucket-here")
    (problem,) = await other.problems()
    assert "no-such-bucket-here" in problem.message
    assert "FL_S3__RESULTS_BUCKET" in problem.fix
    await other.close()


async def test_keys_that_the_store_refuses_are_told_as_such(
    harness: BundlesHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    other = harness.make()
    (problem,) = await other.problems()
    assert "AWS_SECRET_ACCESS_KEY" in problem.fix
    await other.close()


async def test_a_missing_bucket_is_for_the_operator_not_the_job(harness: BundlesHarness) -> None:
    other = harness.make(app_destination_bucket="no-such-bucket-here")
    with pytest.raises((Transient, Permanent)) as refused:
        await harness.stage(await harness.model(), bundles=other)
    assert isinstance(refused.value, Transient)
    assert "make the bucket" in refused.value.message
    await other.close()
