"""The tables `node` and `presence`: which device is connected to which process.

A device has one session among all processes, the newest. What is newer, the row of the device decides, by one clock:
a process tells how long ago each login was, measured on a clock of its own that only runs forward, and the database
counts back from the moment at which it is told. Clocks of machines are never compared. Two logins that are nearer to
each other than the ways of two processes to the database differ (milliseconds) may be ordered either way; the row
still has one winner, and each process learns whether it is it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from provisioning.model.identity import Identity
from provisioning.store.database import Tx

BEAT: Final = "INSERT INTO node (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET seen = now()"
LEAVE: Final = "DELETE FROM node WHERE id = $1"
BURY: Final = "DELETE FROM node WHERE seen < now() - interval '1 hour'"
# Whoever loses against a newer session, or one that began and ended since, is returned. A row from the future was
# written before somebody set the clock of the database back, and stands in nobody's way.
NOTE: Final = """
    WITH told AS (
        SELECT w.device_id, w.login, w.online, statement_timestamp() - w.since * interval '1 second' AS since,
               statement_timestamp() - w.seen * interval '1 second' AS seen
        FROM unnest($2::bigint[], $3::bigint[], $4::boolean[], $5::float8[], $6::float8[])
             w (device_id, login, online, since, seen)
    ), written AS (
        INSERT INTO presence AS p (device_id, node, login, online, since, seen)
        SELECT t.device_id, $1, t.login, t.online, t.since, t.seen FROM told t
        WHERE EXISTS (SELECT FROM device d WHERE d.id = t.device_id)
        ORDER BY t.device_id
        ON CONFLICT (device_id) DO UPDATE SET node = EXCLUDED.node, login = EXCLUDED.login, online = EXCLUDED.online,
            since = EXCLUDED.since, seen = EXCLUDED.seen
        WHERE p.node = EXCLUDED.node OR p.since < EXCLUDED.since OR p.since > clock_timestamp()
        RETURNING p.device_id
    )
    SELECT t.device_id, t.login, d.protocol, p.key AS product, d.key AS device
    FROM told t JOIN device d ON d.id = t.device_id JOIN product p ON p.id = d.product_id
    WHERE t.online AND t.device_id NOT IN (SELECT device_id FROM written)
"""
# A session that once was written loses against any other, whatever the clocks say: only a newer one can have replaced
# it. (A virtual machine that was paused thinks that its logins are younger than they are.)
HOLD: Final = """
    INSERT INTO presence (device_id, node, login, online, since, seen)
    SELECT w.device_id, $1, w.login, true, statement_timestamp() - w.since * interval '1 second',
           statement_timestamp() - w.since * interval '1 second'
    FROM unnest($2::bigint[], $3::bigint[], $4::float8[]) w (device_id, login, since)
    WHERE EXISTS (SELECT FROM device d WHERE d.id = w.device_id)
    ORDER BY w.device_id
    ON CONFLICT (device_id) DO NOTHING
"""
REPLACED: Final = """
    SELECT w.device_id, w.login, d.protocol, p.key AS product, d.key AS device
    FROM unnest($2::bigint[], $3::bigint[]) w (device_id, login)
    JOIN presence s ON s.device_id = w.device_id AND (s.node, s.login) <> ($1, w.login)
    JOIN device d ON d.id = w.device_id JOIN product p ON p.id = d.product_id
"""


@dataclass(frozen=True, slots=True)
class Stay:
    """A session of a device at this process, or its end. Times are ns on a clock of the process that runs forward."""

    login: int
    """When it began; no two of a process are alike, so it names the session too."""
    online: bool
    seen: int
    """Since when it is online or not."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A session at this process that has a newer one elsewhere."""

    device_id: int
    login: int
    identity: Identity


async def beat(tx: Tx, node: UUID) -> None:
    """Say that this process lives."""
    await tx.db.execute(BEAT, node)
    await tx.db.execute(BURY)


async def leave(tx: Tx, node: UUID) -> None:
    await tx.db.execute(LEAVE, node)


async def note(tx: Tx, node: UUID, stays: Mapping[int, Stay], now: int) -> list[Lost]:
    """Record what became of devices, by their ids, at `now` (ns, as in `Stay`). Returns sessions that must end."""
    ids = sorted(stays)  # one order for all processes: no deadlock
    rows = [stays[i] for i in ids]
    found = await tx.db.fetch(
        NOTE, node, ids, [row.login for row in rows], [row.online for row in rows],
        [(now - row.login) / 1e9 for row in rows], [(now - row.seen) / 1e9 for row in rows],
    )  # fmt: skip
    return _lost(found)


async def hold(tx: Tx, node: UUID, logins: Mapping[int, int], now: int) -> list[Lost]:
    """Record again the sessions, device id -> login, that were recorded before, where the table has lost them.

    Returns those that have been replaced since and must end.
    """
    ids = sorted(logins)
    names = [logins[i] for i in ids]
    await tx.db.execute(HOLD, node, ids, names, [(now - login) / 1e9 for login in names])
    return _lost(await tx.db.fetch(REPLACED, node, ids, names))


def _lost(rows: list[asyncpg.Record]) -> list[Lost]:
    return [
        Lost(row["device_id"], row["login"], Identity(row["protocol"], row["product"], row["device"])) for row in rows
    ]
