"""Records of every event type, valid and invalid, from one place: the files of `schemas/examples/`.

Promise: every event type has at least one of either kind, the valid ones are what producers may
copy, and each invalid one breaks exactly what its `about` says. What is published is not made up
but written by the code that publishes.
"""

from __future__ import annotations

from functools import cache

from service.contracts.examples import envelopes, published, reports, requests, stops
from service.contracts.examples.record import Example, ExampleOutcome, Expected, from_record

__all__ = ["Example", "ExampleOutcome", "Expected", "examples", "from_record"]


@cache
def examples() -> tuple[Example, ...]:
    """All examples, in the order of their files."""
    sources = (requests, stops, reports, envelopes, published)
    return tuple(example for source in sources for example in source.examples())
