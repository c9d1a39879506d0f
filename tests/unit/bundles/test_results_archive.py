"""What a net hands over as a model is looked at: only a whole archive with a file in it passes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import struct
import zipfile
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters import AdapterClients
from service.bundles import archive as room
from service.bundles.archive import whole_archive
from service.domain.enums import FLBackend, JobState, ReasonCode
from service.domain.registry import Net, Registry
from service.errors import Transient
from tests.unit.steps.sim.harness import Simulation
from tests.unit.steps.sim.virtual_time import run


def archive(
    files: dict[str, bytes] | None = None, comment: bytes = b"", method: int = zipfile.ZIP_STORED
) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as whole:
        for name, body in ({"model.npz": b"w" * 5000} if files is None else files).items():
            whole.writestr(name, body)
        whole.comment = comment
    return content.getvalue()


async def _pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def _passed(body: bytes, size: int = 1000) -> bytes:
    return b"".join([chunk async for chunk in whole_archive(_pieces(body, size))])


GOOD = {
    "one file": archive(),
    "many files": archive({f"round_{n}/model.npz": b"w" * n for n in range(500)}),
    "packed": archive({"a": b"x" * 100_000}, method=zipfile.ZIP_DEFLATED),
    "comment": archive(comment=b"PK\x05\x06" + b"c" * 60_000),
    "an archive in it": archive({"inner.zip": archive()}),
    "a folder beside": archive({"d/": b"", "d/x": b"1"}),
    "an empty file": archive({"x": b""}),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_whole_archive_passes_unchanged(name: str, size: int) -> None:
    body = GOOD[name][:] if size > 1 or len(GOOD[name]) < 100_000 else GOOD["one file"]
    assert await _passed(body, size) == body


async def test_an_archive_with_more_entries_than_the_old_format_counts_passes() -> None:
    await _passed(archive({str(n): b"" for n in range(70_000)}), 1_000_000)


async def test_a_directory_that_is_not_remembered_whole_is_judged_by_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "_KEPT", 70_000)
    body = archive({f"a-rather-long-name-of-a-file-{n}": b"" for n in range(3_000)})
    assert await _passed(body) == body
    with pytest.raises(Transient):
        await _passed(body[1:])


BAD = {
    "empty": b"",
    "a page": b"<!doctype html><html>sign in</html>",
    "an error": b'{"detail": "no such run"}',
    "a listing": b"model.npz\nlogs/\n",
    "short": b"PK",
    "no file": archive({}),
    "only a folder": archive({"d/": b""}),
    "only an end": b"PK\x05\x06" + bytes(18),
    "zeros": bytes(5000),
    "begins as one": b"PK\x03\x04" + bytes(5000),
    "no beginning": archive()[4:],
    "something before": b"x" + archive(),
    "something after": archive() + b"x" * 100,
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_archive_does_not_pass(name: str) -> None:
    with pytest.raises(Transient) as refused:
        await _passed(BAD[name])
    assert refused.value.code == ReasonCode.RESULTS_UPLOAD_FAILED


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD["many files"]) - 1))
def test_no_part_of_an_archive_passes_for_the_whole(length: int) -> None:
    with pytest.raises(Transient):
        asyncio.run(_passed(GOOD["many files"][:length]))


async def test_a_middle_that_is_missing_is_noticed() -> None:
    body = GOOD["many files"]
    with pytest.raises(Transient):
        await _passed(body[:2000] + body[3000:])


async def test_a_directory_that_names_another_number_of_files_is_noticed() -> None:
    body = bytearray(GOOD["many files"])
    struct.pack_into("<H", body, len(body) - 12, 499)
    with pytest.raises(Transient, match="of 499"):
        await _passed(bytes(body))


# --- what the adapter says of it -----------------------------------------------------------------


def _client(**answer: Any) -> Any:
    def answers(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            return httpx.Response(200, json={"extensions": ["results"]})
        return httpx.Response(**({"status_code": 200} | answer))

    nets = AdapterClients(http=httpx.MockTransport(answers))
    net = Net("n", uuid4(), FLBackend.EMBEDDED, "http://adapter", {uuid4(): "Trust_1"})
    nets.follow(Registry(nets={"n": net}))
    return nets.client("n")


async def _fetched(one: Any) -> bytes:
    async with one.results("r") as chunks:
        assert chunks is not None
        return b"".join([chunk async for chunk in chunks])


def _digest(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/zip"},
        {"content-type": "application/octet-stream"},
        {"content-digest": f"sha-256=:{_digest(b'PK')}:"},
        {"repr-digest": f"sha-512=:AAAA:, sha-256=:{_digest(b'PK')}:"},
        {"digest": f"SHA-256={_digest(b'PK')}"},
        {"digest": "md5=abc"},
    ],
)
async def test_results_that_are_what_they_are_announced_as_come_through(
    headers: dict[str, str],
) -> None:
    assert await _fetched(_client(content=b"PK", headers=headers)) == b"PK"


@pytest.mark.parametrize(
    "answer",
    [
        {"html": "<html>sign in</html>"},
        {"json": {"detail": "it went wrong"}},
        {
            "json": {"detail": "it went wrong"},
            "headers": {"content-type": "application/problem+json"},
        },
        {"status_code": 302, "headers": {"location": "http://elsewhere/"}},
        {"status_code": 204},
        {"status_code": 206, "content": b"PK"},
        {"status_code": 202, "json": {"status": "packing"}},
        {"content": b"PK", "headers": {"content-length": "3"}},
        {"content": b"PK", "headers": {"content-digest": f"sha-256=:{_digest(b'PX')}:"}},
    ],
)
async def test_results_that_are_announced_as_something_else_are_asked_for_again(
    answer: dict[str, Any],
) -> None:
    with pytest.raises(Transient):
        await _fetched(_client(**answer))


def damaged(body: bytes, find: bytes, at: int = 0) -> bytes:
    """With one byte changed, behind the first place of `find`."""
    place = body.index(find) + at
    return body[:place] + bytes([body[place] ^ 0x55]) + body[place + 1 :]


def piped(files: dict[str, bytes], method: int) -> bytes:
    """As a writer makes it that can't go back: lengths and checksums stand behind the files."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    content = Pipe()
    with zipfile.ZipFile(content, "w", method) as whole:
        for name, body in files.items():
            whole.writestr(name, body)
    return content.getvalue()


MODEL = bytes(range(256)) * 40
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
DAMAGED = {
    "stored": damaged(archive({"a": b"1", "m": MODEL}), MODEL, 5000),
    "checksum": damaged(archive({"m": MODEL}), b"PK\x03\x04", 14),
    "deflated": damaged(archive({"a": b"1", "m": MODEL}, method=DEFLATED), b"PK\x03\x04", 80),
    "piped": damaged(piped({"m": MODEL, "n": b"2" * 99}, DEFLATED), b"PK\x07\x08", 5),
    "piped length": damaged(piped({"m": MODEL}, DEFLATED), b"PK\x07\x08", 12),
    "hole": archive({"m": MODEL}).replace(MODEL[1000:9000], bytes(8000)),
}


@pytest.mark.parametrize("size", [1, 33, 100_000])
@pytest.mark.parametrize("name", DAMAGED)
async def test_an_archive_with_a_damaged_file_does_not_pass(name: str, size: int) -> None:
    with pytest.raises(Transient, match=r"file [12] ") as raised:
        await _passed(DAMAGED[name], size)
    assert raised.value.code == ReasonCode.RESULTS_UPLOAD_FAILED


@pytest.mark.parametrize("method", [STORED, DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("size", [1, 33, 100_000])
async def test_an_archive_passes_however_it_was_written(method: int, size: int) -> None:
    files = {"a": b"", "d/": b"", "m": MODEL, "n": b"PK\x07\x08PK\x03\x04" * 300}
    for body in (archive(files, method=method), piped(files, method)):
        assert await _passed(body, size) == body


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=60)
def test_no_bytes_behind_a_beginning_raise_anything_but_a_refusal(tail: bytes, cut: int) -> None:
    body = archive({"m": MODEL}, method=DEFLATED)[:cut] + tail
    with contextlib.suppress(Transient):
        asyncio.run(_passed(body, 17))


async def test_a_large_file_may_have_its_lengths_in_a_field_of_its_own() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as whole, whole.open("m", "w", force_zip64=True) as file:
        file.write(MODEL)
    assert await _passed(content.getvalue()) == content.getvalue()
    with pytest.raises(Transient, match="checksum"):
        await _passed(damaged(content.getvalue(), MODEL, 7))


def test_a_job_whose_net_gives_no_archive_is_never_complete() -> None:
    async def story() -> None:
        world = Simulation()
        world.net.results_of = b"<html>sign in</html>"
        world.start()
        job_id = world.ask()
        await world.until_state(job_id, JobState.COLLECTING)
        await asyncio.sleep(100)
        assert world.state(job_id) is JobState.COLLECTING
        assert not world.bundles.stored
        world.net.results_of = archive()
        await world.until_state(job_id, JobState.COMPLETED, 1000)
        await world.end()

    run(story())
