"""Sorting of answers by code and by body; an adapter's text is bounded and never trusted."""

from __future__ import annotations

import json
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from service.adapters.responses import (
    AdapterResponse,
    change_error,
    detail_of,
    read_error,
    retry_after,
)
from service.errors import Ambiguous, Permanent, Transient


def answer(status: int, detail: object = None, **more: Any) -> AdapterResponse:
    body = b"" if detail is None else json.dumps({"detail": detail}).encode()
    return AdapterResponse(status, body, **more)


@pytest.mark.parametrize(
    ("status", "detail", "kind"),
    [
        (400, "bad config", Permanent),
        (401, None, Permanent),
        (404, "no folder", Permanent),
        (422, [{"loc": ["body", "trusts"], "msg": "Field required"}], Permanent),
        (408, None, Transient),
        (409, "Another Flower submission is in progress.", Transient),
        (429, None, Transient),
        (307, None, Transient),
        (500, "boom", Ambiguous),
        (500, "invalid job definition: no meta", Permanent),
        (500, "Flower run failed: exit code 2", Permanent),
        (500, "Flower run failed: StatusCode.UNAVAILABLE connection refused", Ambiguous),
        (502, "Flower run failed", Ambiguous),
        (503, None, Ambiguous),
    ],
)
def test_a_submit_is_sorted_by_code_and_body(
    status: int, detail: object, kind: type[Exception]
) -> None:
    error = change_error("submit", answer(status, detail))
    assert type(error) is kind
    assert error.code == ("adapter_rejected" if kind is Permanent else "adapter_unavailable")
    assert str(status) in error.message


@pytest.mark.parametrize("status", [400, 401, 404, 409, 500, 503])
def test_a_failing_read_never_ends_a_job(status: int) -> None:
    assert type(read_error("list", answer(status))) is Transient


def test_retry_after_is_handed_on() -> None:
    error = change_error("upload", answer(429, None, retry_after="7"))
    assert isinstance(error, Transient)
    assert error.retry_after == 7.0
    assert retry_after("99999999999") == 3600.0
    assert retry_after("soon") is None
    assert retry_after(None) is None
    assert 25 <= (retry_after(formatdate(time() + 30, usegmt=True)) or 0) <= 31
    assert retry_after(formatdate(time() - 30, usegmt=True)) == 0.0


def test_detail_is_text_or_list_or_absent() -> None:
    assert detail_of(b'{"detail": "why"}') == "why"
    entries = [{"loc": ["body", "project_id"], "msg": "missing", "input": "SELECT secret"}, "more"]
    assert detail_of(json.dumps({"detail": entries}).encode()) == "body.project_id: missing; more"
    assert detail_of(b'{"other": 1}') == ""
    assert detail_of(b"Internal Server Error") == "Internal Server Error"
    assert detail_of(b"") == ""
    assert detail_of(b"[" * 50_000) != ""


def test_detail_is_bounded_and_on_one_line() -> None:
    text = detail_of(json.dumps({"detail": "a\x00b\x1b[31m\nc" + "x" * 5000}).encode())
    assert text.startswith("a b [31m c")
    assert len(text) == 300


def test_detail_hides_credentials_and_secrets() -> None:
    url = "https://s3/b/k?X-Amz-Signature=abc&X-Amz-Credential=def"
    body = json.dumps({"detail": f"could not get {url} for SELECT 1 of p1"}).encode()
    told = detail_of(body, hidden=("SELECT 1", "p1"))
    assert "Signature" not in told
    assert "https://s3/b/k" in told
    assert "SELECT" not in told


def test_what_is_not_json_is_no_answer() -> None:
    with pytest.raises(Transient, match="not JSON"):
        AdapterResponse(200, b"<html>").json()
