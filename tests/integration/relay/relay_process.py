"""A relay as a program, to be killed and stopped by tests."""

from __future__ import annotations

import asyncio

import asyncpg

from service.relay.options import RelayOptions
from service.relay.relay import Relay
from service.settings import load
from service.store.outbox import EventOutbox
from tests.integration.relay.harness import some_states


async def main() -> None:
    settings = load()
    pool = await asyncpg.create_pool(
        settings.database.dsn.get_secret_value(), min_size=1, max_size=6
    )
    relay = Relay(
        EventOutbox(pool),
        settings.kafka,
        some_states,
        asyncio.Event(),
        RelayOptions(batch_events=40),
    )
    await relay.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main())
