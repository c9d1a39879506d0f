"""One file for each kind of adapter, and the choice between them by what its `/health` says."""

from __future__ import annotations

from collections.abc import Collection

from service.adapters.dialects.dialect import Dialect, Sleep, real_sleep
from service.adapters.dialects.flower import FlowerDialect
from service.adapters.dialects.native import NativeDialect
from service.adapters.dialects.nvflare import NvflareDialect
from service.adapters.fl_api import FlApi
from service.domain.enums import FLBackend

__all__ = ["Dialect", "FlowerDialect", "NativeDialect", "NvflareDialect", "choose"]


def choose(
    fl_api: FlApi,
    *,
    names_extensions: bool,
    extensions: Collection[str],
    sleep: Sleep = real_sleep,
) -> Dialect:
    """The dialect of an adapter: one that names its extensions speaks the native one, others that of their
    runtime."""
    if names_extensions or fl_api.net.backend is FLBackend.EMBEDDED:
        return NativeDialect(fl_api, extensions, sleep=sleep)
    if fl_api.net.backend is FLBackend.FLOWER:
        return FlowerDialect(fl_api, sleep=sleep)
    return NvflareDialect(fl_api, sleep=sleep)
