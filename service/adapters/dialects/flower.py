"""FLIP's adapter of Flower: runs carry no name, the list shows the newest twenty, one submit at a time.

A run is found by difference to what was listed before. While a submit is in flight the adapter answers
another with 409, so a submit of an empty app under an id of its own shows whether anything may still come.
"""

from __future__ import annotations

from typing import Final
from uuid import uuid5

from service.adapters.dialects.dialect import (
    Sleep,
    absent,
    by_difference,
    observed_run,
    real_sleep,
)
from service.adapters.fl_api import FlApi
from service.domain.enums import FLJobStatus, ReasonCode
from service.domain.observed import About, Found, Handle, RunList
from service.errors import Transient

_PAGE: Final = 20  #: runs that the adapter lists at most
_PROBE_SECONDS: Final = 2.0
_IN_FLIGHT: Final = "a submit is still in flight at the adapter"


class FlowerDialect:
    """See the module."""

    poll_seconds: float | None = 10.0  #: each list starts a program that takes 1.5 CPU seconds

    def __init__(self, fl_api: FlApi, *, sleep: Sleep = real_sleep) -> None:
        self._fl_api, self._sleep = fl_api, sleep

    async def serving(self) -> bool:
        """It says `STOPPED`, with 200, when its runtime is down."""
        return (await self._fl_api.server_status() or "").upper() == "RUNNING"

    async def runs(self, about: About | None = None) -> RunList:
        listed = await self._fl_api.runs(about)
        whole = listed.entries < _PAGE and not listed.unreadable
        return RunList(tuple(map(observed_run, listed.runs)), complete=whole)

    async def find_run(self, handle: Handle) -> Found:
        """List once nothing is in flight any more."""
        if await self._in_flight(handle):
            return Found(None, doubt=_IN_FLIGHT)
        return by_difference(await self._fl_api.runs(handle.about), handle)

    async def fence(self, handle: Handle) -> None:
        """Empty the app, and wait until nothing is in flight. An adapter that was restarted meanwhile forgot
        what was: whoever concludes from lists afterwards takes two, some seconds apart.

        Raises:
            Transient: a submit is in flight longer than one may take.
        """
        await self._fl_api.upload_empty(handle, self._fl_api.segment(handle))
        waited = 0.0
        while await self._in_flight(handle):
            if waited > self._fl_api.late_submit_seconds:
                raise Transient(_IN_FLIGHT, code=ReasonCode.ADAPTER_UNAVAILABLE)
            await self._sleep(_PROBE_SECONDS)
            waited += _PROBE_SECONDS

    async def _in_flight(self, handle: Handle) -> bool:
        scratch = uuid5(handle.path_id, "probe")
        await self._fl_api.upload_empty(handle, scratch)
        response = await self._fl_api.probe_submit(handle, scratch)
        if response.ok:  # against all experience it ran an app without files
            raise Transient(
                "the adapter took a submit of an empty app: its runs can't be told apart",
                code=ReasonCode.ADAPTER_UNAVAILABLE,
            )
        if response.status in (408, 429, 502, 503, 504):
            raise Transient(response.describe("submit"), code=ReasonCode.ADAPTER_UNAVAILABLE)
        return response.status == 409

    def is_lost(self, listed: RunList, run_id: str) -> bool:
        """A run beyond a full page is not lost, only old."""
        return absent(listed, run_id)

    def terminal_is_final(self, status: FLJobStatus) -> bool:
        return True
