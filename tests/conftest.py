"""What every test may ask for, and the end of what a run has started."""

from __future__ import annotations

import atexit
import os

import pytest

from tests import stack as shared
from tests.stack import fresh_env, migrated_env, module_env, private_stack, stack

__all__ = ["fresh_env", "migrated_env", "module_env", "private_stack", "stack"]


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
