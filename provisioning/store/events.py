"""The table `event`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from provisioning.store.database import Tx

LIST: Final = """
    SELECT id, at, kind, device_id, protocol, product, device, serial FROM event
    WHERE id > $1 AND ($2::bigint IS NULL OR device_id = $2) ORDER BY id LIMIT $3
"""
PRUNE: Final = """
    WITH old AS (SELECT id FROM event WHERE at < now() - make_interval(days => $1) LIMIT $2)
    DELETE FROM event USING old WHERE event.id = old.id
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as the table has it."""

    id: int
    at: datetime
    kind: str
    device_id: int
    protocol: str
    product: str
    device: str
    serial: str


async def page(tx: Tx, after: int = 0, *, device_id: int | None = None, limit: int = 100) -> list[Stored]:
    """Events with an id above `after`, oldest first."""
    return [Stored(**row) for row in await tx.db.fetch(LIST, after, device_id, limit)]


async def prune(tx: Tx, keep_days: int, batch: int = 10_000) -> int:
    """Delete up to `batch` events older than `keep_days`; returns how many."""
    return int((await tx.db.execute(PRUNE, keep_days, batch)).rpartition(" ")[2])
