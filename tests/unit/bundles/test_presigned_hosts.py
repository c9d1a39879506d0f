"""The host of a URL that a net gets is one that can be named beforehand."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from service.bundles.s3 import ObjectStore
from service.errors import Invalid


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")


async def signed(
    bucket: str = "apps",
    region: str = "us-east-1",
    ours: str | None = None,
    nets: str | None = None,
) -> str:
    """Where the URL of `a/b` leads, without its query."""
    store = ObjectStore(region=region, endpoint_url=ours, presign_endpoint_url=nets)
    try:
        (url,) = await store.presign(bucket, ["a/b"], 60)
    finally:
        await store.close()
    parts = urlsplit(url)
    assert "X-Amz-Signature=" in parts.query
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2", "us-gov-west-1"])
async def test_on_aws_it_is_the_buckets_own_host_in_its_region(region: str) -> None:
    assert await signed(region=region) == f"https://apps.s3.{region}.amazonaws.com/a/b"


async def test_a_bucket_that_no_certificate_covers_stays_in_the_path() -> None:
    assert await signed("my.apps") == "https://s3.us-east-1.amazonaws.com/my.apps/a/b"


async def test_with_an_endpoint_it_is_that_address() -> None:
    assert await signed(ours="http://s3:8333") == "http://s3:8333/apps/a/b"


@pytest.mark.parametrize("ours", [None, "http://127.0.0.1:8333"])
async def test_the_address_for_nets_takes_precedence(ours: str | None) -> None:
    found = await signed(nets="https://store.example:9443", ours=ours)
    assert found == "https://store.example:9443/apps/a/b"


async def test_an_address_that_makes_no_client_names_its_setting() -> None:
    with pytest.raises(Invalid, match="FL_S3__PRESIGN_ENDPOINT_URL"):
        await signed(ours="http://127.0.0.1:8333", nets="none")
