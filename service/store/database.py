"""The connection pool, and how the database's troubles become ours.

A lost connection shows as many classes of exception; all mean "repeat the whole transaction". Serialization
failures and deadlocks too. What the database refuses for its content (SQLSTATE 22, 23) is `BatchRefused`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from service.errors import Invalid, Transient
from service.settings import DatabaseSettings
from service.store.records import BatchRefused

log = structlog.get_logger(__name__)

if TYPE_CHECKING:
    Connection = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )
    Pool = asyncpg.Pool[asyncpg.Record]
else:  # asyncpg's classes take no parameters at run time
    Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
    Pool = asyncpg.Pool

#: What asyncpg and the system raise when the database is unavailable, restarting, or a connection died.
AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.InvalidCachedStatementError,
    asyncpg.exceptions.QueryCanceledError,
    OSError,
    TimeoutError,
)
REFUSED: Final = (
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    asyncpg.exceptions.InsufficientPrivilegeError,
)
_AGAIN: Final = (
    asyncpg.exceptions.SerializationError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.LockNotAvailableError,
)
CLOSE_SECONDS: Final = 5.0
#: Called with the name of every error after which a transaction is repeated, `DeadlockDetectedError` for
#: a deadlock.
on_retry: list[Callable[[str], None]] = []


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises errors.Transient (`database_away`, `database_refused`, `database_busy`, `net_in_doubt`),
    BatchRefused, or Invalid (`schema_missing`) before the first migration."""
    try:
        yield
    except asyncpg.DataError as exc:
        raise BatchRefused(f"not storable: {exc}", sqlstate=exc.sqlstate) from exc
    except asyncpg.IntegrityConstraintViolationError as exc:
        if exc.constraint_name == "reservation_doubt":
            raise Transient(
                "another submission to this net has no known outcome yet", code="net_in_doubt"
            ) from exc
        raise BatchRefused(f"refused by a constraint: {exc}", sqlstate=exc.sqlstate) from exc
    except _AGAIN as exc:
        if isinstance(exc, asyncpg.exceptions.DeadlockDetectedError):
            log.warning("deadlock")
        for listener in on_retry:
            listener(type(exc).__name__)
        raise Transient(f"the database asks to try again: {exc}", code="database_busy") from exc
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as exc:
        raise Invalid(
            "the database lacks this version's schema: run `fl-jobs migrate`", code="schema_missing"
        ) from exc
    except REFUSED as exc:
        # Transient: a password that is changed on both sides must not end a process that runs.
        raise Transient(
            f"the database refuses this user or has no such database: {exc}; correct FL_DATABASE__DSN, "
            "or make the role, the database or its rights",
            code="database_refused",
        ) from exc
    except AWAY as exc:
        raise Transient(f"the database is unavailable: {exc!r}", code="database_away") from exc


@contextlib.contextmanager
def connecting() -> Iterator[None]:
    """As `translated`, for what reads the DSN. Raises Invalid too, for one that can't be read."""
    with translated():
        try:
            yield
        except ValueError as exc:
            # A plain ValueError may quote a piece of the password.
            told = f": {exc}" if isinstance(exc, asyncpg.InterfaceError) else ""
            raise Invalid(
                f"FL_DATABASE__DSN can't be read{told}; write "
                "postgresql://user:password@host:port/database"
            ) from exc


async def open_pool(settings: DatabaseSettings) -> Pool:
    """A pool of connections that never sit in a transaction: a frozen writer would hold others back."""
    with connecting():
        return await asyncpg.create_pool(
            settings.dsn.get_secret_value(),
            min_size=1,
            max_size=settings.pool_size,
            command_timeout=settings.command_timeout_seconds,
            timeout=10,
            server_settings={
                "application_name": "fl-job-service",
                "idle_in_transaction_session_timeout": "1000",
                "timezone": "UTC",
            },
        )


async def close_pool(pool: Pool) -> None:
    """Close within a bound: a hung server must not hold up the end."""
    try:
        await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
    except (*AWAY, TimeoutError):
        pool.terminate()


@contextlib.asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One transaction, read committed; every trouble translated, the COMMIT's too."""
    with translated():
        async with pool.acquire(timeout=10) as connection, connection.transaction():
            yield connection


@contextlib.asynccontextmanager
async def reading(pool: Pool) -> AsyncIterator[Connection]:
    """A connection for single statements."""
    with translated():
        async with pool.acquire(timeout=10) as connection:
            yield connection
