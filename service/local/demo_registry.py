"""The demo's registry: three hospitals, one embedded net that all are members of, one project.

Promises fixed trust ids, so that requests written for one stack fit every other.
"""

from __future__ import annotations

from typing import Final

from service.local.nets import NET, SLOTS

PROJECT: Final = "demo"
TRUSTS: Final = {
    "5b1c0f3e-0d6a-4c5f-9a37-2f6a1f0e7a01": ("North Hospital", "NH"),
    "5b1c0f3e-0d6a-4c5f-9a37-2f6a1f0e7a02": ("East Hospital", "EH"),
    "5b1c0f3e-0d6a-4c5f-9a37-2f6a1f0e7a03": ("South Hospital", "SH"),
}


def registry_yaml(endpoint: str, *, capacity: int = 1) -> str:
    """The registry file for a net at this endpoint."""
    trusts = "\n".join(
        f"  - {{id: {id}, name: {name}, code: {code}}}" for id, (name, code) in TRUSTS.items()
    )
    members = "\n".join(f"      {id}: {slot}" for id, slot in zip(TRUSTS, SLOTS, strict=True))
    return f"""\
# Written by `fl-jobs local up`. Once you change it, it is yours and is left alone.
trusts:
{trusts}
nets:
  - name: {NET}
    fl_backend: embedded
    endpoint: {endpoint}
    capacity: {capacity}
    members:
{members}
projects:
  - id: {PROJECT}
    approved_trusts:
{chr(10).join(f"      - {id}" for id in TRUSTS)}
unlisted_projects: reject
"""
