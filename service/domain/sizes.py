"""How much of a run's own statements is published at once and kept, in bytes of the JSON that is made of it.

A contract bounds every value of a report; these bound how many come together, so that no event and no state
outgrows what its topic takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, TypeVar

from service.domain.values import Metric, SiteProgress

T = TypeVar("T")

#: The metrics of one event, and those that a job remembers as its last.
METRICS_BYTES: Final = 256 * 1024
#: The sites of a job's progress.
SITES_BYTES: Final = 256 * 1024
#: An entry's member names, punctuation and longest numbers.
_FRAME: Final = 160


def portions(metrics: tuple[Metric, ...]) -> Iterator[tuple[Metric, ...]]:
    """`metrics` in their order, in parts of at most `METRICS_BYTES`."""
    while metrics:
        part = truncate_metrics(metrics)
        yield part
        metrics = metrics[len(part) :]


def truncate_metrics(metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """The first of `metrics`, as many as have room in `METRICS_BYTES`; at least one."""
    return _first(metrics, _metric_bytes, METRICS_BYTES)


def truncate_sites(sites: tuple[SiteProgress, ...]) -> tuple[SiteProgress, ...]:
    """`sites`; where they are too much for `SITES_BYTES`, the first of them, without their details."""
    kept = _first(sites, _site_bytes, SITES_BYTES)
    if len(kept) == len(sites):
        return sites
    bare = tuple(replace(site, detail=None) for site in sites)
    return _first(bare, _site_bytes, SITES_BYTES)


def _first(items: tuple[T, ...], size: Callable[[T], int], limit: int) -> tuple[T, ...]:
    used = 0
    for count, item in enumerate(items):
        used += size(item)
        if used > limit and count:
            return items[:count]
    return items


def _metric_bytes(metric: Metric) -> int:
    return (
        _FRAME
        + _text_bytes(metric.label)
        + _text_bytes(metric.fl_client_name)
        + _text_bytes(metric.x_label)
    )


def _site_bytes(site: SiteProgress) -> int:
    return _FRAME + _text_bytes(site.slot) + _text_bytes(site.detail)


def _text_bytes(text: str | None) -> int:
    if text is None:
        return 0
    if text.isascii() and text.isprintable():
        return len(text) + text.count('"') + text.count("\\")
    return len(json.dumps(text, ensure_ascii=False).encode())
