"""A broker's log on disk, to be damaged: a broker checks what it is sent, so bad bytes are put behind it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from aiokafka.record.util import calc_crc32c

#: Changes a batch in place; its length stays.
Damage = Callable[[bytearray], None]
_CHECKSUM_AT, _CHECKED_FROM, _CODEC_AT, _COUNT_AT, _BODY_AT = 17, 21, 22, 57, 61


def damage_batch(data: Path, topic: str, partition: int, nth: int, damage: Damage) -> None:
    """Change the `nth` batch (0 first) of a partition whose log has one segment."""
    path = data / f"{topic}-{partition}" / f"{0:020}.log"
    raw = path.read_bytes()
    at = 0
    for _ in range(nth):
        at += 12 + struct.unpack_from(">i", raw, at + 8)[0]
    size = 12 + struct.unpack_from(">i", raw, at + 8)[0]
    assert size > 12, "no such batch"
    batch = bytearray(raw[at : at + size])
    there = len(batch)
    damage(batch)
    assert len(batch) == there
    with path.open("r+b") as file:
        file.seek(at)
        file.write(batch)


def sealed(damage: Damage) -> Damage:
    """The damage with a checksum that fits it: as a producer would have sent it."""

    def change(batch: bytearray) -> None:
        damage(batch)
        batch[_CHECKSUM_AT:_CHECKED_FROM] = struct.pack(
            ">I", calc_crc32c(bytes(batch[_CHECKED_FROM:]))
        )

    return change


def checksum(batch: bytearray) -> None:
    batch[_CHECKSUM_AT] ^= 0xFF


def codec(number: int) -> Damage:
    """Say that the batch is compressed so, which it is not."""

    def change(batch: bytearray) -> None:
        batch[_CODEC_AT] = batch[_CODEC_AT] & ~0x07 | number

    return sealed(change)


def record_length(batch: bytearray) -> None:
    batch[_BODY_AT] = 0x02


def count(number: int) -> Damage:
    def change(batch: bytearray) -> None:
        batch[_COUNT_AT:_BODY_AT] = struct.pack(">i", number)

    return sealed(change)


def format_number(number: int) -> Damage:
    def change(batch: bytearray) -> None:
        batch[16] = number

    return change


def length(more: int) -> Damage:
    """The batch says that it is longer, or shorter, than it is."""

    def change(batch: bytearray) -> None:
        batch[8:12] = struct.pack(">i", struct.unpack_from(">i", batch, 8)[0] + more)

    return change


def text(old: bytes, new: bytes) -> Damage:
    assert len(old) == len(new)

    def change(batch: bytearray) -> None:
        at = batch.index(old)
        batch[at : at + len(old)] = new

    return sealed(change)
