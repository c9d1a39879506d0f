"""Is anything consuming the inbound topics? The consumer group, and how far behind the database's offsets
are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Final

from service.cli.doctor.finding import Finding, failed, ok, warning
from service.errors import Transient
from service.ingest.gaps import find_gap
from service.ingest.progress import lag
from service.kafka import PartitionId
from service.kafka.groups import log_ends, members, what_lies_at
from service.kafka.topics import Topics
from service.settings import Settings
from service.store.queries import Queries

#: A service that reads moves its offsets, over markers too, well within this.
_STALL_SECONDS: Final = 8.0
_POLLS: Final = 8


async def consumer_findings(
    settings: Settings, queries: Queries, partitions: Mapping[str, int]
) -> AsyncIterator[Finding]:
    """Members of the group, lag by topic, and partitions that stand still below the end of their log.

    `partitions` is how many each topic has.
    """
    inbound = {topic: partitions[topic] for topic in Topics(settings.kafka.topic_prefix).inbound}
    group = settings.kafka.group_id
    try:
        count = await members(settings.kafka)
        ends = await log_ends(settings.kafka, inbound)
    except Transient as exc:
        fix = "give this service's user the right to describe and read its group and topics"
        yield failed("consumer group", exc.message, fix)
        return
    letters = bool(await queries.dead_letters(limit=1))
    look = "check /readyz and the log of `fl-jobs run`"
    look += "; `fl-jobs dead-letters list` shows what could not be used" if letters else ""
    stored = await queries.offsets(group)
    for partition_id, (start, end) in sorted(ends.items()):
        gap = find_gap(partition_id, stored.get(partition_id, start), start, end)
        if gap is not None:
            yield failed("consumer group", gap.cause, gap.remedy)
    behind = lag(stored, ends)
    if count == 0:
        message = f"nobody reads: group {group} has no members; {_by_topic(behind, inbound)}"
        fix = f"`fl-jobs run`, or `fl-jobs run --role ingest`; if one is up, {look}"
        yield warning("consumer group", message, fix)
        return
    stalled = await _stalled(queries, group, ends) if behind else {}
    async for finding in _why(settings, queries, stalled, ends, look):
        yield finding
    if not stalled:
        yield ok("consumer group", f"{count} member(s) in {group}; {_by_topic(behind, inbound)}")


async def _why(
    settings: Settings,
    queries: Queries,
    stalled: Mapping[PartitionId, int],
    ends: Mapping[PartitionId, tuple[int, int]],
    look: str,
) -> AsyncIterator[Finding]:
    """Each partition that stands still, with its offset and what lies there."""
    if not stalled:
        return
    stored = await queries.offsets(settings.kafka.group_id)
    at = {place: stored.get(place, ends[place][0]) for place in stalled}
    try:
        causes = await what_lies_at(settings.kafka, at)
    except Transient as exc:
        causes = dict.fromkeys(at, exc.message)
    for place, waiting in sorted(stalled.items()):
        message = f"{place[0]}/{place[1]} stands still: {waiting} records wait, and its offset does not move"
        cause = causes.get(place, "the records there can be read")
        fix = look if place not in causes else f"repair the log on the broker; {look}"
        yield warning("consumer group", f"{message} from {at[place]}: {cause}", fix)


async def _stalled(
    queries: Queries, group: str, ends: Mapping[PartitionId, tuple[int, int]]
) -> dict[PartitionId, int]:
    """Of the partitions that are behind, those whose offset does not move for some seconds."""
    first = await queries.offsets(group)
    stalled = lag(first, ends)
    for _ in range(_POLLS):
        await asyncio.sleep(_STALL_SECONDS / _POLLS)
        now = await queries.offsets(group)
        stalled = {at: n for at, n in stalled.items() if now.get(at) == first.get(at)}
        if not stalled:
            break
    return stalled


def _by_topic(behind: Mapping[PartitionId, int], topics: Mapping[str, int]) -> str:
    counts: Counter[str] = Counter()
    for (topic, _), count in behind.items():
        counts[topic] += count
    return "lag: " + ", ".join(f"{topic} {counts[topic]}" for topic in sorted(topics))
