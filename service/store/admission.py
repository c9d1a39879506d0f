"""The lock between those who judge jobs and those who change what jobs are judged by.

Whoever makes, claims, submits or reviews jobs holds it shared until the commit; a new registry, a stop by
model and a change of what a net can serve hold it alone. So there is no job that was judged by the old rule
and is committed after the new one: whoever comes after a change finds all that came before it.

It is the first lock of its transaction, before any row, so that nobody holds rows while waiting for it. An
advisory lock costs no write, and a shared one hinders no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from service.domain import commands as c
from service.store.database import Connection
from service.store.statements import QUERIES

_JUDGED: Final = (c.RequestTraining, c.Claim, c.OpenSubmission, c.Review)


async def share(connection: Connection) -> None:
    """Let nobody change the rules before this transaction has ended."""
    await connection.execute(QUERIES["admission_share"])


async def lock(connection: Connection) -> None:
    """Wait for all that was judged by the old rules, and hold up whatever would be judged by them."""
    await connection.execute(QUERIES["admission_lock"])


async def admit(connection: Connection, commands: Iterable[object]) -> None:
    """What a transaction with these commands needs of it."""
    wanted = list(commands)
    if any(isinstance(command, c.StopModel) for command in wanted):
        await lock(connection)
    elif any(isinstance(command, _JUDGED) for command in wanted):
        await share(connection)
