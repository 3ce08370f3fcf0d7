"""The table `command`: what modules are told with each answer until they have said what became of it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from provisioning.model.command import Command
from provisioning.store.database import Tx

ADD: Final = "INSERT INTO command (device_id, kind, body, created_at) VALUES ($1, $2, $3, $4) RETURNING id"
LIST: Final = "SELECT id, kind, body FROM command WHERE device_id = $1 ORDER BY id"
DROP: Final = "DELETE FROM command WHERE device_id = $1 AND id = ANY($2)"


async def add(tx: Tx, device_id: int, kind: str, body: Mapping[str, object], now: datetime) -> Command:
    return Command(await tx.db.fetchval(ADD, device_id, kind, json.dumps(body), now), kind, body)


async def outstanding(tx: Tx, device_id: int) -> list[Command]:
    """In the order in which they were given."""
    rows = await tx.db.fetch(LIST, device_id)
    return [Command(row["id"], row["kind"], json.loads(row["body"])) for row in rows]


async def drop(tx: Tx, device_id: int, ids: Sequence[int]) -> None:
    if ids:
        await tx.db.execute(DROP, device_id, ids)
