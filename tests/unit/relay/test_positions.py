"""What the log may say, and which contradictions stop the relay."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from service.relay.halted import RelayHalted
from service.relay.positions import PartitionLog
from service.store.outbox import RelayPosition

STREAM = uuid4()


def view(position: RelayPosition, *, low: int = 0, high: int, accept: bool = False) -> PartitionLog:
    return PartitionLog(0, position, STREAM, low, high, accept)


def headers(position: int, stream: UUID = STREAM) -> list[tuple[str, bytes]]:
    return [("fl_position", b"%d" % position), ("fl_stream", str(stream).encode())]


def test_nothing_is_in_doubt_when_the_hint_is_the_head_and_the_log_ends_there() -> None:
    assert not view(RelayPosition(5, 5, 10), high=12).in_doubt
    assert view(RelayPosition(6, 5, 10), high=12).in_doubt
    assert view(RelayPosition(5, 5, 10), high=13).in_doubt
    assert not view(RelayPosition(0, 0, -1), high=0).in_doubt


def test_it_starts_at_the_hints_own_record() -> None:
    assert view(RelayPosition(6, 5, 10), high=15).start == 10
    assert view(RelayPosition(6, 0, -1), high=15).start == 0


def test_records_above_the_hint_are_found_and_their_jobs_named() -> None:
    log = view(RelayPosition(8, 5, 10), high=20)
    log.see(10, b"a", headers(5))
    log.see(12, b"b", headers(6))
    log.see(13, b"c", headers(7))
    log.finish()
    assert (log.published, log.last_offset, log.subjects) == (7, 13, {"b", "c"})


def test_records_of_others_are_counted_and_passed_over() -> None:
    log = view(RelayPosition(5, 5, 10), high=20)
    log.see(12, b"x", [])
    log.see(13, b"x", [("fl_position", b"nine")])
    assert (log.unknown_records, log.published) == (2, 5)


def test_a_quiet_log_that_expired_is_no_error() -> None:
    log = view(RelayPosition(5, 5, 10), low=12, high=12)
    log.finish()
    assert log.published == 5
    log = view(RelayPosition(6, 5, 10), low=12, high=12)
    log.finish()


@pytest.mark.parametrize(
    ("position", "low", "high", "code"),
    [
        (RelayPosition(6, 5, 10), 13, 20, "relay_log_expired"),
        (RelayPosition(5, 5, 10), 0, 10, "relay_topic_recreated"),
    ],
)
def test_bounds_that_stop_it(position: RelayPosition, low: int, high: int, code: str) -> None:
    with pytest.raises(RelayHalted, match="--accept-log") as stopped:
        view(position, low=low, high=high)
    assert stopped.value.code == code
    view(position, low=low, high=high, accept=True)


@pytest.mark.parametrize("positions", [[7], [6, 8], [6, 6], [5], [6, 5]])
def test_a_gap_or_a_repetition_stops_it(positions: list[int]) -> None:
    log = view(RelayPosition(9, 5, 10), high=20)
    *fine, wrong = positions
    for offset, position in enumerate(fine, 11):
        log.see(offset, b"k", headers(position))
    with pytest.raises(RelayHalted) as stopped:
        log.see(15, b"k", headers(wrong))
    assert stopped.value.code == "relay_log_gap"


def test_a_foreign_stream_stops_it() -> None:
    log = view(RelayPosition(9, 0, -1), high=20)
    with pytest.raises(RelayHalted) as stopped:
        log.see(0, b"k", headers(1, uuid4()))
    assert stopped.value.code == "relay_foreign_stream"


def test_a_log_ahead_of_the_database_stops_it() -> None:
    log = view(RelayPosition(6, 5, 10), high=20)
    log.see(11, b"k", headers(6))
    log.see(12, b"k", headers(7))
    with pytest.raises(RelayHalted) as stopped:
        log.finish()
    assert stopped.value.code == "relay_older_database"


def test_by_the_operators_word_the_log_is_right() -> None:
    log = view(RelayPosition(6, 5, 10), high=20, accept=True)
    log.see(11, b"k", headers(9))
    log.see(12, b"k", headers(3, uuid4()))
    log.finish()
    assert (log.published, log.last_offset) == (9, 11)
