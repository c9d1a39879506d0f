"""What the parts of a process are given of the settings."""

from __future__ import annotations

import pytest

from service import app
from service.settings import load


def test_the_last_reports_are_waited_for_longer_than_a_session_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FL_KAFKA__SESSION_TIMEOUT_MS", "45000")
    assert app._step_options(load()).reports_seconds == 90.0


def test_a_lease_is_as_long_for_the_calls_to_nets_as_for_the_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FL_STEPS__LEASE_SECONDS", "33")
    settings = load()
    assert app.make_nets(settings)._lease_seconds == app._step_options(settings).lease_seconds == 33
