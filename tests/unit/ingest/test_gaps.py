"""Where stored offset and log no longer meet, in words that name the command to give."""

from __future__ import annotations

import pytest

from service.cli import COMMANDS
from service.ingest.assignment import OffsetsLost, check_bounds
from service.ingest.gaps import find_gap

HERE = ("fl.training-requests.v1", 3)


@pytest.mark.parametrize("stored", [10, 15, 20])
def test_an_offset_within_the_log_is_no_gap(stored: int) -> None:
    assert find_gap(HERE, stored, 10, 20) is None
    check_bounds(HERE, stored, 10, 20)


@pytest.mark.parametrize(
    ("stored", "start", "end", "lost", "words"),
    [
        (4, 10, 20, 6, "records 4 to 9 expired before they were read"),
        (21, 0, 20, 0, "read up to 21, but the log ends at 20"),
        (500, 0, 0, 0, "made anew or lost records"),
    ],
)
def test_a_gap_says_what_happened_and_which_command_accepts_it(
    stored: int, start: int, end: int, lost: int, words: str
) -> None:
    with pytest.raises(OffsetsLost, match=words) as caught:
        check_bounds(HERE, stored, start, end)
    message = caught.value.message
    assert "`fl-jobs offsets accept fl.training-requests.v1/3`" in message
    assert "offsets" in COMMANDS
    assert "UPDATE" not in message
    gap = find_gap(HERE, stored, start, end)
    assert gap is not None
    assert gap.lost == lost
