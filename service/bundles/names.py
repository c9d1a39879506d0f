"""Names that come from outside: S3 locations, and paths inside a bundle.

Promise: a location is used only below one that the settings name, and a path that passes can be
written below a folder on any adapter's disk without leaving it. What breaks it: joining a key or a
path anywhere without asking here first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from service.domain.enums import ReasonCode
from service.errors import Invalid, Permanent

_SCHEME: Final = "s3://"
#: Longest path inside a bundle and longest single name, in bytes of UTF-8 (S3 keys end at 1,024, and
#: the rest of the key needs some 150; names on common disks end at 255).
MAX_PATH: Final = 800
MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Location:
    """A location in the object store. `prefix` is empty or ends with a slash."""

    bucket: str
    prefix: str = ""

    @property
    def uri(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.prefix}"

    def key(self, path: str) -> str:
        """The key of `path` below this location."""
        return self.prefix + path

    def below(self, *segments: object) -> Location:
        """The location that many folders deeper."""
        return Location(self.bucket, self.prefix + "".join(f"{each}/" for each in segments))

    def holds(self, other: Location) -> bool:
        """Whether `other` is this location or lies below it."""
        return self.bucket == other.bucket and other.prefix.startswith(self.prefix)


def parse_setting(text: str) -> Location:
    """A location from the settings: `bucket`, `bucket/prefix` or `s3://bucket/prefix`.

    Raises:
        Invalid: it names no bucket.
    """
    bucket, _, prefix = text.removeprefix(_SCHEME).strip("/").partition("/")
    if not bucket:
        raise Invalid(
            f"{text!r} names no bucket: write bucket, bucket/prefix or s3://bucket/prefix"
        )
    return Location(bucket, f"{prefix}/" if prefix else "")


def source_from(uri: str, allowed: Sequence[Location]) -> Location:
    """The location that a request's `model_files.uri` means.

    Raises:
        Permanent: `unsafe_path`: no S3 URI, a whole bucket, a path that climbs, or none of `allowed`.
    """
    rest = uri.removeprefix(_SCHEME)
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.removesuffix("/")
    if rest == uri or not bucket or not prefix:
        raise _unsafe(f"model_files.uri {uri!r}: write s3://bucket/prefix/")
    problem = unsafe(prefix)
    if problem:
        raise _unsafe(f"model_files.uri {uri!r} {problem}")
    location = Location(bucket, f"{prefix}/")
    if not any(each.holds(location) for each in allowed):
        names = ", ".join(each.uri for each in allowed)
        raise _unsafe(f"model_files.uri {uri!r} is not below a location open to requests: {names}")
    return location


def unsafe(path: str) -> str | None:
    """What makes a relative path unusable, or None.

    Refused: empty and dot segments, a leading slash, backslashes, control characters and NUL, what is
    not UTF-8, and names that are too long.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if any(unicodedata.category(char) == "Cc" for char in path):
        return "has a control character"
    if "\\" in path:
        return "has a backslash"
    if path.startswith("/"):
        return "is absolute"
    segments = path.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        return "has an empty, '.' or '..' segment"
    if size > MAX_PATH or any(len(segment.encode()) > MAX_NAME for segment in segments):
        return f"is longer than {MAX_PATH} bytes, or a name in it than {MAX_NAME}"
    return None


def check_safe(paths: Iterable[str]) -> None:
    """Pass when every path is usable.

    Raises:
        Permanent: `unsafe_path`, naming the first ten with what is wrong.
    """
    problems = [f"{path!r} {problem}" for path in paths if (problem := unsafe(path))]
    if problems:
        more = f" (and {len(problems) - 10} more)" if len(problems) > 10 else ""
        raise _unsafe("unusable file names: " + "; ".join(problems[:10]) + more)


def _unsafe(message: str) -> Permanent:
    return Permanent(message, code=ReasonCode.UNSAFE_PATH)
