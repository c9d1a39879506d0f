"""Kafka's default placement of a keyed record: Java's murmur2 of the key, modulo the partitions.

The promise is that every client of the Kafka world that hashes the same key comes to the same partition.
A signed shift, another seed or another partition count breaks it; the tests compare with aiokafka's own.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

_SEED: Final = 0x9747B28C
_MIX: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF


@lru_cache(maxsize=64)
def _words(count: int) -> Struct:
    return Struct(f"<{count}I")


def murmur2(data: bytes) -> int:
    """MurmurHash2 of `data` with Kafka's seed, as an unsigned 32-bit number."""
    length = len(data)
    count = length >> 2
    h = _SEED ^ length
    for k in _words(count).unpack_from(data):
        k = k * _MIX & _WORD
        h = (h * _MIX & _WORD) ^ ((k ^ k >> 24) * _MIX & _WORD)
    rest = length & 3
    if rest:
        tail = int.from_bytes(data[count << 2 :], "little")
        h = (h ^ tail) * _MIX & _WORD
    h = (h ^ h >> 13) * _MIX & _WORD
    return h ^ h >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """The partition (0 to `partitions` - 1) in which a record with this key belongs."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
