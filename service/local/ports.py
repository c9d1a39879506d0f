"""Ports on 127.0.0.1 that nobody listens on.

Promises a port that was free a moment ago and lies below the range from which systems take ports
for outgoing connections, so that no client can take it before the server binds it. What breaks it:
another server that binds in the same moment; whoever starts a component tries again with other ports.
"""

from __future__ import annotations

import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"
_LOWEST: Final = 12_000
_HIGHEST: Final = 21_900
GRPC_OFFSET: Final = 10_000


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now (one that just closed counts as free)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def pick(taken: set[int]) -> int:
    """A free port not in `taken`, whose twin 10,000 above is free too; both are added to `taken`."""
    while True:
        port = random.randint(_LOWEST, _HIGHEST)
        pair = {port, port + GRPC_OFFSET}
        if not pair & taken and all(is_free(each) for each in pair):
            taken |= pair
            return port


def answers(port: int, seconds: float = 0.5) -> bool:
    """Whether anything accepts a connection on this port."""
    try:
        with socket.create_connection((HOST, port), timeout=seconds):
            return True
    except OSError:
        return False
