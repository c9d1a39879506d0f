"""What every test may ask for, and the end of what a run has started."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from tests import stack as shared
from tests.stack import fresh_env, migrated_env, module_env, private_stack, stack

__all__ = ["fresh_env", "migrated_env", "module_env", "private_stack", "stack"]


@pytest.fixture
def kept_logging() -> Iterator[None]:
    """What a test sets up of logging goes with it: a captured stream is closed when the test ends."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {
        name: found.level
        for name, found in logging.root.manager.loggerDict.items()
        if isinstance(found, logging.Logger)
    }
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def _in_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


def pytest_configure(config: pytest.Config) -> None:
    """Name the run's folder before workers are started, so that they inherit it."""
    if not _in_worker():
        shared.claim_run_dir()
        atexit.register(shared.stop_run)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The process that began the run outlives its workers: it stops what they shared."""
    if not _in_worker():
        shared.stop_run()
