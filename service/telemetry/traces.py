"""The W3C trace context that travels with an event: made here when a producer of ours starts one.

Promise: what is made is a valid `traceparent` of version 00 with fresh random ids, so that whoever reads
the events can join everything that one request caused.
"""

from __future__ import annotations

import secrets


def new_traceparent() -> str:
    """A trace of its own, marked as sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
