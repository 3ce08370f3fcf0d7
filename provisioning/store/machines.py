"""What modules' own calls read and write, besides their row of `module`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from provisioning.store import devices
from provisioning.store.database import Tx

FIND: Final = """
    SELECT m.device_id, m.account_id, p.key AS account, d.protocol, d.secret, d.disabled
    FROM module m JOIN device d ON d.id = m.device_id JOIN product p ON p.id = m.account_id WHERE m.uid = $1
"""
ACTIVATE: Final = "UPDATE device SET state = 'activated', activated_at = $2 WHERE id = $1 AND state = 'allocated'"
DUE: Final = "SELECT device_id FROM module WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED"
CLEAR_DUE: Final = "UPDATE module SET due_at = NULL WHERE device_id = ANY($1)"


@dataclass(frozen=True, slots=True)
class Known:
    """A module as far as its proof needs."""

    id: int
    account_id: int
    account: str
    """Its key."""
    disabled: bool
    secret: str = field(repr=False)
    """Root secret, 64 hex digits; empty: it has none."""


async def find(tx: Tx, uid: str) -> Known | None:
    """Whatever its account."""
    row = await tx.db.fetchrow(FIND, uid)
    if row is None:
        return None
    sealed = row["secret"]
    secret = tx.sealer.open(sealed, devices.context(row["protocol"], row["account"], uid)) if sealed else ""
    return Known(row["device_id"], row["account_id"], row["account"], row["disabled"], secret)


async def activate(tx: Tx, device_id: int, now: datetime) -> None:
    await tx.db.execute(ACTIVATE, device_id, now)


async def due(tx: Tx, now: datetime, limit: int) -> list[int]:
    """Ids of modules that should have been heard of by now, locked; those that somebody is about are left out."""
    return [row["device_id"] for row in await tx.db.fetch(DUE, now, limit)]


async def clear_due(tx: Tx, ids: Sequence[int]) -> None:
    await tx.db.execute(CLEAR_DUE, ids)
