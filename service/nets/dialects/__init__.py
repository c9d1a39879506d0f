"""One file for each kind of adapter, and the choice between them by what its `/health` says."""

from __future__ import annotations

from collections.abc import Collection

from service.domain.vocabulary import FLBackend
from service.nets.calls import Calls
from service.nets.dialects.dialect import Dialect, Sleep, real_sleep
from service.nets.dialects.flower import FlowerDialect
from service.nets.dialects.nvflare import NvflareDialect
from service.nets.dialects.ours import OurDialect

__all__ = ["Dialect", "FlowerDialect", "NvflareDialect", "OurDialect", "choose"]


def choose(
    calls: Calls,
    *,
    names_extensions: bool,
    extensions: Collection[str],
    sleep: Sleep = real_sleep,
) -> Dialect:
    """The dialect of an adapter: one that names its extensions speaks ours, others that of their runtime."""
    if names_extensions or calls.net.backend is FLBackend.EMBEDDED:
        return OurDialect(calls, extensions, sleep=sleep)
    if calls.net.backend is FLBackend.FLOWER:
        return FlowerDialect(calls, sleep=sleep)
    return NvflareDialect(calls, sleep=sleep)
