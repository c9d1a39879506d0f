"""What an operator may set for the calls to one net: time limits, authentication, encryption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from service.domain.registry import Net
from service.errors import Invalid


@dataclass(frozen=True, slots=True)
class CallTimeouts:
    """Seconds that a call may take, by kind. `results` is the longest silence within the stream."""

    health: float = 5.0
    list: float = 60.0
    clients: float = 60.0
    upload: float = 900.0
    submit: float = 120.0
    abort: float = 60.0
    logs: float = 90.0
    results: float = 60.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A client certificate with its key, and the authority that signed the adapter's (None: the system's)."""

    cert_file: Path
    key_file: Path
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class NetOptions:
    """A net's `options`, read."""

    timeouts: CallTimeouts = CallTimeouts()
    token_file: Path | None = None
    tls: TlsFiles | None = None
    encrypt_cohort_query: bool = False


def read_options(net: Net) -> NetOptions:
    """The options of a net whose registry entry was validated.

    Raises:
        Invalid: naming the entry that can't be used.
    """
    given = net.options
    token_file, tls = _auth(net.name, given.get("auth") or {})
    return NetOptions(
        timeouts=_timeouts(net.name, given.get("timeouts") or {}),
        token_file=token_file,
        tls=tls,
        encrypt_cohort_query=bool(given.get("encrypt_cohort_query", False)),
    )


def _timeouts(name: str, given: Mapping[str, object]) -> CallTimeouts:
    limits: dict[str, float] = {}
    known = {field.name for field in fields(CallTimeouts)}
    for call, seconds in given.items():
        if call not in known:
            raise Invalid(f"net {name}: timeouts.{call} is not one of {', '.join(sorted(known))}")
        if seconds is None:
            continue
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds > 0:
            raise Invalid(f"net {name}: timeouts.{call} must be a number of seconds above 0")
        limits[call] = float(seconds)
    return CallTimeouts(**limits)


def _auth(name: str, given: Mapping[str, object]) -> tuple[Path | None, TlsFiles | None]:
    kind = given.get("kind")
    if kind is None:
        return None, None
    if kind == "bearer":
        return _path(name, given, "token_file"), None
    if kind == "mtls":
        ca = _path(name, given, "ca_file") if given.get("ca_file") else None
        cert, key = _path(name, given, "cert_file"), _path(name, given, "key_file")
        return None, TlsFiles(cert, key, ca)
    raise Invalid(f"net {name}: auth.kind must be bearer or mtls")


def _path(name: str, given: Mapping[str, object], field: str) -> Path:
    text = given.get(field)
    if not isinstance(text, str) or not text:
        raise Invalid(f"net {name}: auth.{field} must be the path of a file")
    return Path(text)
