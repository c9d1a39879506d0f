"""Consumer, store and relay as one program, to be killed by tests."""

from __future__ import annotations

import asyncio

from service.domain.enums import FLBackend
from service.domain.facts import JobLimits
from service.ingest.consumer import Consumer
from service.kafka.topics import Topics
from service.relay.relay import Relay
from service.relay.side_publisher import SidePublisher
from service.settings import Settings, load
from service.store.database import close_pool, open_pool
from service.store.facts import FactReader
from service.store.outbox import EventOutbox
from service.store.state_records import StateRecords
from service.store.store import PostgresStore

MANIFESTS = {FLBackend.EMBEDDED: {"standard": ("trainer.py",)}}


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Events in, effects, events out, until `stop`."""
    pool = await open_pool(settings.database)
    outbox = EventOutbox(pool)
    await outbox.open_stream(
        Topics(settings.kafka.topic_prefix).lifecycle, settings.kafka.partitions
    )
    store = PostgresStore(
        pool, FactReader(JobLimits(), lambda: MANIFESTS), partitions=settings.kafka.partitions
    )
    wake = asyncio.Event()
    store.listeners.append(lambda committed: wake.set())
    consumer = Consumer(store, outbox, settings.kafka, settings.ingest)
    relay = Relay(outbox, settings.kafka, StateRecords(pool), wake)
    lane = SidePublisher(outbox, settings.kafka)
    try:
        await asyncio.gather(consumer.run(stop), relay.run(stop), lane.run(stop))
    finally:
        await close_pool(pool)


if __name__ == "__main__":
    asyncio.run(run(load(), asyncio.Event()))
