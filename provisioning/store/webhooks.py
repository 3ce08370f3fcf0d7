"""The tables `webhook` and `delivery`: the outbox."""

from datetime import datetime
from typing import Final

from provisioning.store.database import Tx

ENQUEUE: Final = """
    INSERT INTO delivery (webhook_id, subject, kind, body, created_at, due_at)
    SELECT id, $3, $2, $4, $5, $5 FROM webhook WHERE account_id = $1 AND kind = $2 ORDER BY id
"""


async def enqueue(tx: Tx, account_id: int, *, kind: str, subject: str, body: str, now: datetime) -> None:
    """Write a delivery of `body` for each webhook of the account that wants this kind; it leaves after the commit.

    Deliveries about one subject keep their order.
    """
    await tx.db.execute(ENQUEUE, account_id, kind, subject, body, now)
