"""The table `usage`: how often what was used, by the minute while it is young, by the day later."""

from datetime import datetime
from typing import Final

from provisioning.store.database import Tx

COUNT: Final = """
    INSERT INTO usage AS u (device_id, kind, at, account_id, n)
    VALUES ($1, $2, date_trunc('minute', $3::timestamptz, 'UTC'), $4, 1)
    ON CONFLICT (device_id, kind, at) DO UPDATE SET n = u.n + 1
"""


async def count(tx: Tx, account_id: int, device_id: int, kind: str, now: datetime) -> None:
    """Once more."""
    await tx.db.execute(COUNT, device_id, kind, now, account_id)
