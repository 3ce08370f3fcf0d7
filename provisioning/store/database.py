"""Pool and transaction; errors of the database become Refusals here and nowhere else.

The edge opens the transaction (`async with database.begin() as tx`); verbs take `tx` first and never commit.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

from provisioning.model.events import Event
from provisioning.model.refusal import Reason, Refusal
from provisioning.store.sealing import Sealer

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

# What the names of constraints tell a person: the field that clashes.
DUPLICATES: Final = {
    "product_protocol_key": "product",
    "enrolment_group_protocol_key": "group",
    "device_product_key": "device",
    "identifier_pkey": "serial",
    "authority_name_key": "authority",
    "authority_one_current": "authority",
    "authority_one_default": "authority",
    "authority_certificate_key": "authority",
    "certificate_serial_key": "certificate",
    "certificate_fingerprint_key": "certificate",
    "module_uid_key": "device",
    "module_twin_key": "device",
    "root_ca_name_key": "CAName",
    "tag_name_key": "TagName",
    "webhook_url_key": "NotificationURL",
}

AWAY: Final = (
    OSError,  # refused, reset, no such socket
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server has said goodbye on this connection a moment ago
    asyncpg.OperatorInterventionError,  # shutting down, starting up
    asyncpg.InsufficientResourcesError,  # out of connections, disk or memory
    asyncpg.TransactionRollbackError,  # deadlock
    asyncpg.ReadOnlySQLTransactionError,  # failed over to a standby
    ssl.SSLError,
)

INSERT_EVENTS: Final = """
    INSERT INTO event (kind, device_id, protocol, product, device, serial)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
"""


def refusal_of(error: Exception) -> Refusal | None:
    """What an error of the database means to whoever asked; None: it is a mistake of ours."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return Refusal(Reason.DUPLICATE, field=DUPLICATES.get(error.constraint_name or "", error.constraint_name))
    if isinstance(error, asyncpg.ForeignKeyViolationError):
        return Refusal(Reason.IN_USE, table=error.table_name)
    if isinstance(error, AWAY):
        return _unavailable(error)
    return None


def _unavailable(error: Exception) -> Refusal:
    return Refusal(Reason.UNAVAILABLE, error=f"{type(error).__name__}: {error}"[:200])


@dataclass(slots=True)
class Tx:
    """A transaction under way: its connection, the sealer, and the events that it will write before it commits."""

    db: "Connection"
    sealer: Sealer
    events: list[Event] = field(default_factory=list)

    def emit(self, *events: Event) -> None:
        self.events.extend(events)

    async def flush(self) -> None:
        """Write the events that were emitted."""
        if self.events:
            rows = [
                (e.kind, e.device_id, e.identity.protocol, e.identity.product, e.identity.device, e.serial)
                for e in self.events
            ]
            await self.db.execute(INSERT_EVENTS, *zip(*rows, strict=True))


class Database:
    """One PostgreSQL, by its pool.

    `on_commit` hears of the events of each transaction when they are durable.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        url: str,
        sealer: Sealer,
        *,
        timeout: float,
        on_commit: Callable[[Sequence[Event]], None] | None = None,
    ) -> None:
        self.pool = pool
        self.url = url
        self.sealer = sealer
        self.on_commit = on_commit
        self._timeout = timeout

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["Connection"]:
        try:
            connection = await self.pool.acquire(timeout=self._timeout)
        except (*AWAY, asyncpg.PostgresError) as error:  # whatever it is that keeps us out, the database is away
            raise _unavailable(error) from error
        try:
            yield connection
        finally:
            await self.pool.release(connection)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        """A transaction: commits when the block ends, rolls back when it raises.

        Raises:
            Refusal: UNAVAILABLE when the database is away, DUPLICATE or IN_USE when a constraint says no.
        """
        try:
            async with self._connection() as connection, connection.transaction():
                tx = Tx(connection, self.sealer)
                yield tx
                await tx.flush()
        except Exception as error:
            if refusal := refusal_of(error):
                raise refusal from error
            raise
        if self.on_commit and tx.events:
            self.on_commit(tx.events)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """Single statements that change nothing, without a transaction around them.

        Raises:
            Refusal: UNAVAILABLE when the database is away.
        """
        try:
            async with self._connection() as connection:
                yield Tx(connection, self.sealer)
        except Exception as error:
            if refusal := refusal_of(error):
                raise refusal from error
            raise

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Tx]:
        """One state of the database for all statements, which change nothing: what one refers to, another finds.

        Raises:
            Refusal: UNAVAILABLE when the database is away.
        """
        try:
            async with (
                self._connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield Tx(connection, self.sealer)
        except Exception as error:
            if refusal := refusal_of(error):
                raise refusal from error
            raise

    async def answers(self) -> bool:
        """Is the database there? For readiness checks."""
        try:
            async with self.read() as tx:
                return bool(await tx.db.fetchval("SELECT true"))
        except Refusal:
            return False


async def _reset(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Between two uses nothing is left to undo: no setting, cursor, lock or channel of ours outlives its transaction.

    To have the server undo it nevertheless, as asyncpg does, is a round trip for each use.
    """


@asynccontextmanager
async def open_database(
    url: str,
    sealer: Sealer,
    *,
    pool_min: int = 2,
    pool_max: int = 10,
    timeout: float = 10.0,  # noqa: ASYNC109 - a setting of the pool, not of this call
    on_commit: Callable[[Sequence[Event]], None] | None = None,
) -> AsyncIterator[Database]:
    """The database at `url`, as long as the block runs. `timeout` (s) bounds each statement and each wait for the pool.

    Raises:
        Refusal: UNAVAILABLE, when it cannot be reached.
    """
    try:
        pool = await asyncpg.create_pool(
            url, min_size=pool_min, max_size=pool_max, command_timeout=timeout, timeout=timeout, reset=_reset
        )
    except Exception as error:
        if isinstance(error, (*AWAY, asyncpg.PostgresError, ValueError)):
            raise _unavailable(error) from error
        raise
    try:
        yield Database(pool, url, sealer, timeout=timeout, on_commit=on_commit)
    finally:
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except TimeoutError:
            pool.terminate()
