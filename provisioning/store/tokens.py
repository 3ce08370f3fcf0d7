"""The table `token`: what devices show. Their hashes alone are kept."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from provisioning.model.claim import TokenEnd
from provisioning.store.database import Tx

FIND: Final = "SELECT device_id, used_at, reason FROM token WHERE hash = $1"
ADD: Final = "INSERT INTO token (hash, device_id, issued_at) VALUES ($1, $2, $3)"
LIVE: Final = """
    SELECT count(*) AS live, count(used_at) AS used,
           count(*) FILTER (WHERE used_at IS NULL AND issued_at > $2) AS recent
    FROM token WHERE device_id = $1 AND revoked_at IS NULL
"""
# Tokens are told apart by when they were issued; what was issued at the same moment stays.
MARK_USED: Final = "UPDATE token SET used_at = $2 WHERE hash = $1 RETURNING device_id, issued_at"
REPLACE: Final = """
    UPDATE token SET revoked_at = $3, reason = 'replaced'
    WHERE device_id = $1 AND issued_at < $2 AND revoked_at IS NULL
"""
# The newest unused ones, and all that were used: an answer that was lost must not end the token that is in use.
TRIM: Final = """
    UPDATE token SET revoked_at = $3, reason = 'replaced' WHERE hash IN (
        SELECT hash FROM token WHERE device_id = $1 AND revoked_at IS NULL AND used_at IS NULL
        ORDER BY issued_at DESC OFFSET $2
    )
"""
FORGET: Final = """
    DELETE FROM token WHERE device_id = $1 AND used_at IS NULL AND reason = 'replaced' AND revoked_at < $2
"""
REVOKE_ALL: Final = "UPDATE token SET revoked_at = $2, reason = $3 WHERE device_id = $1 AND revoked_at IS NULL"


@dataclass(frozen=True, slots=True)
class Known:
    """A token as the table has it."""

    device_id: int | None
    used_at: datetime | None
    end: TokenEnd | None
    """None: it is good."""


@dataclass(frozen=True, slots=True)
class Live:
    """How many good tokens a device has."""

    live: int
    used: int
    """That it has shown."""
    recent: int
    """That were issued a moment ago, and that it has not shown."""


def digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


async def find(tx: Tx, token: str) -> Known | None:
    row = await tx.db.fetchrow(FIND, digest(token))
    return Known(row["device_id"], row["used_at"], TokenEnd(row["reason"]) if row["reason"] else None) if row else None


async def add(tx: Tx, token: str, device_id: int, now: datetime) -> None:
    await tx.db.execute(ADD, digest(token), device_id, now)


async def live(tx: Tx, device_id: int, since: datetime) -> Live:
    """The good tokens of a device. `since`: which of them are recent."""
    row = await tx.db.fetchrow(LIVE, device_id, since)
    assert row is not None
    return Live(**row)


async def mark_used(tx: Tx, token: str, now: datetime) -> None:
    """The device has shown it: those that were issued before it end."""
    row = await tx.db.fetchrow(MARK_USED, digest(token), now)
    if row is not None:
        await tx.db.execute(REPLACE, row["device_id"], row["issued_at"], now)


async def trim(tx: Tx, device_id: int, most: int, now: datetime) -> None:
    """End the oldest of the good tokens that were never shown, beyond the newest `most`."""
    await tx.db.execute(TRIM, device_id, most, now)


async def forget(tx: Tx, device_id: int, before: datetime) -> None:
    """Delete what was never shown and was replaced before then."""
    await tx.db.execute(FORGET, device_id, before)


async def revoke_all(tx: Tx, device_id: int, end: TokenEnd, now: datetime) -> None:
    await tx.db.execute(REVOKE_ALL, device_id, now, str(end))
