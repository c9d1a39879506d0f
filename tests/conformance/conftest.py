"""The servers under test: every FL runtime's FL-API answers the same suite."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from service.fl_server.embedded.net import embedded_net
from service.fl_server.serving import serving
from tests.conformance.fl_server_fixtures import SLOTS, Net, bundle_host
from tests.scripted_net.net import scripted_net


@pytest.fixture(params=["scripted", "counted", "embedded"])
async def net(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        bundles = await stack.enter_async_context(bundle_host())
        scripted = None
        if request.param != "embedded":
            scripted = await stack.enter_async_context(scripted_net(SLOTS, fetch=True))
            if request.param == "counted":  # as Flower does
                numbers = itertools.count(2**63)
                scripted.runtime.new_run_id = lambda: str(next(numbers))
            url = scripted.url
        else:
            server = embedded_net(tmp_path / "net", SLOTS, tmp_path / "data", capacity=2)
            url = await stack.enter_async_context(serving(server.app))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        yield Net("embedded" if scripted is None else "scripted", http, bundles, scripted)
