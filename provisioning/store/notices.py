"""The tables `notification`, `activity`, `clone_event` and `suspicion`: what devices have told and what was noticed."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from provisioning.store.database import Tx

ADD_NOTIFICATION: Final = "INSERT INTO notification (device_id, kind, at, payload) VALUES ($1, $2, $3, $4)"
ADD_ACTIVITY: Final = "INSERT INTO activity (device_id, at, command, result, details) VALUES ($1, $2, $3, $4, $5)"


async def add_notification(tx: Tx, device_id: int, kind: str, payload: Mapping[str, object], at: datetime) -> None:
    await tx.db.execute(ADD_NOTIFICATION, device_id, kind, at, json.dumps(payload))


async def add_activity(
    tx: Tx,
    device_id: int,
    command: str,
    at: datetime,
    *,
    result: str = "OK",
    details: Mapping[str, object] | None = None,
) -> None:
    await tx.db.execute(ADD_ACTIVITY, device_id, at, command, result, json.dumps(details or {}))
