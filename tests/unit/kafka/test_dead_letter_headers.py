"""However often a record goes round, its own headers are there once, and what its way left is there once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.kafka.dead_letter_headers import PREFIX, own_headers, redriven
from service.relay.dead_letters import dead_record
from service.store.outbox import DeadLetterRow, encode_headers

names = st.sampled_from(["ce_id", "ce_type", "x", "fl-redrives", "fl-truncated", f"{PREFIX}reason"])
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=4)), max_size=8)


def letter(found: list[tuple[str, bytes | None]], value: bytes) -> DeadLetterRow:
    return DeadLetterRow(
        "t", 0, 7, b"k", value, encode_headers(found), 1, "g", "Undecodable", "why"
    )


@given(found=headers, big=st.booleans())
def test_a_redrive_that_fails_again_leaves_the_same_set_of_headers(
    found: list[tuple[str, bytes | None]], big: bool
) -> None:
    row = letter(found, b"v" * (200_000 if big else 3))
    sets = []
    for _ in range(10):
        _, _, published = dead_record(row, 100_000)
        sets.append(sorted(name for name, _ in published))
        row = row._replace(headers=encode_headers(redriven(published)))
    assert sets[1:] == [sets[1]] * 9
    own = [pair for pair in own_headers(found) if pair[0] != "fl-redrives"]
    kept = redriven(published)
    assert kept[:-1] == own
    assert [name for name, _ in kept].count("fl-redrives") == 1


def test_redrives_are_counted_in_one_header() -> None:
    found: list[tuple[str, bytes | None]] = [("ce_id", b"1"), ("ce_id", b"2")]
    for n in range(1, 11):
        found = redriven(found)
        assert found == [("ce_id", b"1"), ("ce_id", b"2"), ("fl-redrives", b"%d" % n)]
    assert redriven([("fl-redrives", b"9" * 5000)])[-1] == ("fl-redrives", b"1")
