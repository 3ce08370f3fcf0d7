"""The tables `node` and `presence`: which device is connected to which process."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from provisioning.store.database import Tx

BEAT: Final = "INSERT INTO node (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET seen = now()"
LEAVE: Final = "DELETE FROM node WHERE id = $1"
BURY: Final = "DELETE FROM node WHERE seen < now() - interval '1 hour'"
# A session that ended here must not hide one that has begun elsewhere since.
NOTE: Final = """
    INSERT INTO presence (device_id, node, online, seen)
    SELECT n.device_id, $1, n.online, n.seen
    FROM unnest($2::bigint[], $3::boolean[], $4::timestamptz[]) n (device_id, online, seen)
    WHERE EXISTS (SELECT FROM device d WHERE d.id = n.device_id)
    ON CONFLICT (device_id) DO UPDATE SET node = EXCLUDED.node, online = EXCLUDED.online, seen = EXCLUDED.seen
    WHERE EXCLUDED.online OR presence.node = EXCLUDED.node OR NOT presence.online
"""


async def beat(tx: Tx, node: UUID) -> None:
    """Say that this process lives."""
    await tx.db.execute(BEAT, node)
    await tx.db.execute(BURY)


async def leave(tx: Tx, node: UUID) -> None:
    await tx.db.execute(LEAVE, node)


async def note(tx: Tx, node: UUID, changes: Mapping[int, tuple[bool, datetime]]) -> None:
    """Record device id -> (online, since when)."""
    ids = sorted(changes)  # one order for all processes: no deadlock
    await tx.db.execute(NOTE, node, ids, [changes[i][0] for i in ids], [changes[i][1] for i in ids])
