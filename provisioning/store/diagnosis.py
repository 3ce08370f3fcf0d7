"""What `gatehouse doctor` asks a database, whatever state it is in. Changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from provisioning.store.database import Tx
from provisioning.store.migrate import APPLIED, PROBE, READ_PROBE, migrations
from provisioning.store.sealing import Sealer, SealError

SERVER: Final = """
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
           pg_is_in_recovery() AS is_standby, clock_timestamp() AS clock, to_regclass('migration') IS NOT NULL AS ledger
"""
CHANNEL: Final = "gatehouse_doctor"
NOTIFY: Final = "SELECT pg_notify($1, $2)"
# A device counts by the certificate of its that lives longest. Those that accounts issue are theirs to look after.
DEVICES: Final = """
    WITH longest AS (
        SELECT max(c.not_after) AS until FROM certificate c JOIN authority a ON a.id = c.authority_id
        WHERE c.profile = 'device' AND c.status = 'valid' AND c.device_id IS NOT NULL AND NOT a.of_account
        GROUP BY c.device_id
    )
    SELECT count(*) AS devices, count(*) FILTER (WHERE until <= $1) AS expired,
           count(*) FILTER (WHERE until > $1 AND until <= $2) AS expiring
    FROM longest
"""
PREDECESSORS: Final = """
    SELECT count(*) AS waiting, count(*) FILTER (WHERE c.not_after <= $2) AS urgent
    FROM certificate c JOIN certificate n ON n.id = c.superseded_by
    WHERE c.status <> 'revoked' AND c.not_after > $1 AND n.last_seen_at IS NULL
"""
NEWEST: Final = """
    SELECT greatest((SELECT max(c.not_before) FROM certificate c JOIN authority a ON a.id = c.authority_id
                     WHERE a.key IS NOT NULL),
                    (SELECT max(not_before) FROM authority))
"""


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    number: int
    """As `server_version_num`: 160003 is 16.3."""
    is_standby: bool
    clock: datetime
    pending: tuple[str, ...]
    """Migrations of this release that are not applied."""
    unknown: tuple[int, ...]
    """Applied ones that this release does not have."""
    changed: tuple[int, ...]
    """Applied ones that read otherwise now."""
    key_fits: bool | None
    """Does the master key open what was sealed here? None: nothing was."""


@dataclass(frozen=True, slots=True)
class Inventory:
    devices: int
    """That have a valid certificate, or had one that was never revoked."""
    expired: int
    expiring: int
    waiting: int
    """Certificates whose successor has not been seen in use."""
    urgent: int
    """Those of them that expire within the same time."""


@asynccontextmanager
async def connected(url: str, seconds: float) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection of its own.

    Raises:
        OSError, TimeoutError, ValueError, asyncpg.PostgresError: it cannot be had.
    """
    connection = await asyncpg.connect(url, timeout=seconds, command_timeout=seconds)
    try:
        yield connection
    finally:
        connection.terminate()


async def server(connection: "asyncpg.Connection[asyncpg.Record]", sealer: Sealer | None) -> Server:
    """`sealer` None: there is no master key to try."""
    row = await connection.fetchrow(SERVER)
    assert row is not None
    known = {each.number: each for each in migrations()}
    applied = {each["number"]: each["digest"] for each in await connection.fetch(APPLIED)} if row["ledger"] else {}
    sealed = await connection.fetchval(READ_PROBE) if applied else None
    return Server(
        version=row["version"],
        number=row["number"],
        is_standby=row["is_standby"],
        clock=row["clock"],
        pending=tuple(f"{n:04} {each.name}" for n, each in sorted(known.items()) if n not in applied),
        unknown=tuple(sorted(applied.keys() - known.keys())),
        changed=tuple(sorted(n for n, digest in applied.items() if n in known and known[n].digest != digest)),
        key_fits=None if sealed is None or sealer is None else _opens(sealer, sealed),
    )


def _opens(sealer: Sealer, sealed: str) -> bool:
    try:
        sealer.open(bytes.fromhex(sealed), PROBE)
    except (SealError, ValueError):
        return False
    return True


async def hears(
    listener: "asyncpg.Connection[asyncpg.Record]", speaker: "asyncpg.Connection[asyncpg.Record]", seconds: float
) -> bool:
    """Does a notification of one connection reach the other? Not through some connection poolers."""
    heard = asyncio.Event()

    def notified(*_said: Any) -> None:
        heard.set()

    await listener.add_listener(CHANNEL, notified)
    try:
        await speaker.execute(NOTIFY, CHANNEL, "")
        async with asyncio.timeout(seconds):
            await heard.wait()
    except TimeoutError:
        return False
    finally:
        await listener.remove_listener(CHANNEL, notified)
    return True


async def inventory(tx: Tx, now: datetime, soon: datetime) -> Inventory:
    """`soon`: what expires until then is expiring."""
    of_devices = await tx.db.fetchrow(DEVICES, now, soon)
    predecessors = await tx.db.fetchrow(PREDECESSORS, now, soon)
    assert of_devices is not None
    assert predecessors is not None
    return Inventory(**of_devices, **predecessors)


async def newest(tx: Tx) -> datetime | None:
    """When the latest of what was made or taken in here began to be valid; None: nothing was."""
    found: datetime | None = await tx.db.fetchval(NEWEST)
    return found
