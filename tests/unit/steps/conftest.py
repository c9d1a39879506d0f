"""Tests marked `virtual_time` run on a clock that jumps to the next timer instead of waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.unit.steps.sim.virtual_time import VirtualLoop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The virtual loop for whoever asks for it, the usual one for the others."""
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualLoop}
    return {"usual": asyncio.new_event_loop}
