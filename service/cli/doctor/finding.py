"""What a check of `doctor` reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`state`: ok, warning or failed. `fix` is what to do about it."""

    part: str
    state: str
    message: str
    fix: str = ""


def ok(part: str, message: str) -> Finding:
    return Finding(part, "ok", message)


def failed(part: str, message: str, fix: str) -> Finding:
    return Finding(part, "failed", message, fix)


def warning(part: str, message: str, fix: str) -> Finding:
    return Finding(part, "warning", message, fix)
