"""What the object store answers, as our errors: away, refused, gone, changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import ClientError as HttpClientError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from service.domain.enums import ReasonCode
from service.errors import Permanent, Transient

GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_DENIED: Final = frozenset(
    {
        "403",
        "AccessDenied",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)


class NotThere(Permanent):
    """The object does not exist (any more)."""

    code = ReasonCode.MODEL_FILES_MISSING


class StoreUnavailable(Transient):
    """The store does not answer."""


class Denied(Transient):
    """The store answers, and refuses our keys or what they want."""


class Changed(Permanent):
    """The object is another one than was listed a moment before."""

    code = ReasonCode.DIGEST_MISMATCH


def code_of(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the driver's exceptions into ours; `what` says what was tried (no credentials in it)."""
    try:
        yield
    except ClientError as exc:
        code = code_of(exc)
        if code in GONE:
            raise NotThere(f"could not {what}: there is no such object") from exc
        if code in {"PreconditionFailed", "412"}:
            raise Changed(f"could not {what}: the object was changed meanwhile") from exc
        if code == "KeyTooLongError":
            raise Permanent(
                f"could not {what}: the name is too long", code=ReasonCode.UNSAFE_PATH
            ) from exc
        if code in _DENIED:
            raise Denied(
                f"could not {what}: the object store says {code}; check the AWS credentials and "
                "their rights"
            ) from exc
        hint = ""
        if code == "NoSuchBucket":
            hint = "; make the bucket, or name another one in the FL_S3__*_BUCKET settings"
        raise Transient(f"could not {what}: the object store says {code or exc}{hint}") from exc
    except (NoCredentialsError, PartialCredentialsError) as exc:
        raise Denied(f"could not {what}: there are no AWS credentials: {line_of(exc)}") from exc
    except BotoCoreError as exc:
        kind = StoreUnavailable if isinstance(exc, HTTPClientError) else Transient
        raise kind(f"could not {what}: {type(exc).__name__}: {line_of(exc)}") from exc
    except (HttpClientError, TimeoutError, OSError) as exc:
        raise StoreUnavailable(f"could not {what}: {type(exc).__name__}") from exc


def line_of(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200]
