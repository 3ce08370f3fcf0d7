"""The table `keyset`: which keys protect what is sent to a module, and when they change. And whose keys they are.

A module's keys depend on an epoch, 6 random bytes, and on a counter of 2 bytes: no two calls get the same of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

import asyncpg

from provisioning.model.account import Account
from provisioning.store import devices
from provisioning.store.database import Tx

OWNER: Final = """
    SELECT m.device_id AS id, m.uid, d.disabled, d.protocol, d.secret
    FROM module m JOIN device d ON d.id = m.device_id WHERE m.account_id = $1
"""
OWNER_BY_UID: Final = f"{OWNER} AND m.uid = $2"
# Two are enough to see whether the bytes in the middle must decide.
OWNERS_BY_TAIL: Final = f"""
    {OWNER} AND right(m.uid, 8) = $2
    ORDER BY substr(m.uid, 5, 4) = $3 DESC, m.bootstrapped_at IS NULL, m.device_id LIMIT 2
"""
# The row settles it between calls at the same time: each takes the next one.
TAKE: Final = """
    INSERT INTO keyset AS k (device_id, epoch, epoch_at, counter) VALUES ($1, $2, $3, 1)
    ON CONFLICT (device_id) DO UPDATE SET (epoch, epoch_at, counter) = (
        SELECT CASE WHEN over THEN excluded.epoch ELSE k.epoch END,
               CASE WHEN over THEN excluded.epoch_at ELSE k.epoch_at END,
               CASE WHEN k.counter >= 65535 THEN 1 ELSE k.counter + 1 END
        FROM (SELECT coalesce(k.mode = 'CONTINUOUS' OR k.epoch_at + make_interval(hours => 24 * k.days) <= $3, false)
                     OR k.counter >= 65535) AS state (over)
    )
    RETURNING epoch, counter
"""
# The first 6 bytes of a UUID of version 4 are random, all of them (RFC 9562, 5.4).
ROTATE: Final = """
    INSERT INTO keyset AS k (device_id, mode, days, epoch, epoch_at)
    SELECT id, $2, $3, substring(uuid_send(gen_random_uuid()) FROM 1 FOR 6), $4
    FROM unnest($1::bigint[]) AS ids (id) ORDER BY id
    ON CONFLICT (device_id) DO UPDATE
    SET mode = excluded.mode, days = excluded.days, epoch = excluded.epoch, epoch_at = excluded.epoch_at, told_at = NULL
"""
SHORTEN: Final = """
    UPDATE module SET desired = desired || jsonb_build_object($2::text, jsonb_build_array($3::integer, $5::text))
    WHERE device_id = ANY($1) AND coalesce((desired -> $2 ->> 0)::integer, $4::integer) > $3::integer
"""
LOCK: Final = "SELECT FROM module WHERE device_id = ANY($1) ORDER BY device_id FOR NO KEY UPDATE"
DUE: Final = """
    SELECT mode, days FROM keyset
    WHERE device_id = $1 AND mode IS NOT NULL
          AND (told_at IS NULL OR told_at + make_interval(hours => 24 * days) <= $2)
"""
TOLD: Final = "UPDATE keyset SET told_at = $2 WHERE device_id = $1"


class Mode(StrEnum):
    CONTINUOUS = "CONTINUOUS"
    """A new epoch with each call."""
    AUTOMATIC = "AUTOMATIC"
    """A new epoch after some days."""


@dataclass(frozen=True, slots=True)
class Rotation:
    mode: Mode
    days: int | None = None
    """Of AUTOMATIC alone."""


@dataclass(frozen=True, slots=True)
class Taken:
    epoch: bytes
    """6 bytes."""
    counter: int
    """1 to 65,535."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A module, as far as its keys ask."""

    id: int
    uid: str
    disabled: bool
    secret: str = field(repr=False)
    """Root secret, 64 hex digits; empty: it has none."""


def _owner(tx: Tx, account: Account, row: asyncpg.Record) -> Owner:
    sealed = row["secret"]
    context = devices.context(row["protocol"], account.key, row["uid"])
    return Owner(row["id"], row["uid"], row["disabled"], tx.sealer.open(sealed, context) if sealed else "")


async def owner_by_uid(tx: Tx, account: Account, uid: str) -> Owner | None:
    """The account's module of that uid."""
    row = await tx.db.fetchrow(OWNER_BY_UID, account.id, uid)
    return _owner(tx, account, row) if row else None


async def owner_by_tail(tx: Tx, account: Account, tail: str, middle: str) -> Owner | None:
    """The account's module whose uid ends in `tail` (8 digits), if there is one alone.

    Of several the one with `middle` (digits 5 to 8 of the uid): it that has bootstrapped, or the first of all.
    """
    rows = await tx.db.fetch(OWNERS_BY_TAIL, account.id, tail, middle)
    if not rows or (len(rows) > 1 and rows[0]["uid"][4:8] != middle):
        return None
    return _owner(tx, account, rows[0])


async def take(tx: Tx, device_id: int, fresh: bytes, now: datetime) -> Taken:
    """The next pair of epoch and counter. `fresh`: 6 random bytes, the epoch where a new one is due.

    Others who ask for the same module wait until the transaction ends.
    """
    row = await tx.db.fetchrow(TAKE, device_id, fresh, now)
    assert row is not None
    return Taken(**row)


async def rotate(tx: Tx, ids: Sequence[int], rotation: Rotation, now: datetime) -> None:
    """From now on the modules' keys change in this way, beginning with a new epoch."""
    await tx.db.execute(LOCK, ids)
    await tx.db.execute(ROTATE, ids, rotation.mode, rotation.days, now)


async def shorten(tx: Tx, ids: Sequence[int], name: str, most: int, *, default: int, now: datetime) -> int:
    """Let no module want more than `most` of the property `name`, which is `default` where it is not set.

    Their rows must be locked. Returns of how many modules it was changed.
    """
    done = await tx.db.execute(SHORTEN, ids, name, most, default, now.isoformat())
    return int(done.rpartition(" ")[2])


async def due(tx: Tx, device_id: int, now: datetime) -> Rotation | None:
    """What the module must be told about its own keys now: at first, and each time that they change."""
    row = await tx.db.fetchrow(DUE, device_id, now)
    return Rotation(Mode(row["mode"]), row["days"]) if row else None


async def told(tx: Tx, device_id: int, now: datetime) -> None:
    await tx.db.execute(TOLD, device_id, now)
