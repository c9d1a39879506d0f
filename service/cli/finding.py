"""What a check of `doctor` tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`state`: ok, warning or failed. `fix` is what to do about it."""

    part: str
    state: str
    told: str
    fix: str = ""


def ok(part: str, told: str) -> Finding:
    return Finding(part, "ok", told)


def failed(part: str, told: str, fix: str) -> Finding:
    return Finding(part, "failed", told, fix)


def warning(part: str, told: str, fix: str) -> Finding:
    return Finding(part, "warning", told, fix)
