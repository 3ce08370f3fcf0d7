"""The table `suspicion`, as it is written: several modules of one account have what only one should have."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from provisioning.store.database import Tx

# One after the other where the values are the same: of two that come at once, neither would see the other.
LOCK: Final = """
    SELECT pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT hashtextextended(concat_ws('|', 'suspicion', account_id, $1::text, value), 0) AS key
        FROM unnest($2::bigint[], $3::text[]) AS new (account_id, value) ORDER BY key
    ) AS keys
"""
# All but the newest are suspicious already: any other one is enough to find whether there are several.
ADD: Final = """
    WITH new AS (
        SELECT * FROM unnest($2::bigint[], $3::bigint[], $4::text[]) AS new (account_id, device_id, value)
    ), pair AS (
        SELECT new.account_id, new.device_id, other.device_id AS other, new.value FROM new CROSS JOIN LATERAL (
            SELECT device_id FROM module m
            WHERE m.account_id = new.account_id AND m.device_id <> new.device_id AND {condition} LIMIT 1
        ) AS other
    )
    INSERT INTO suspicion (device_id, reason, account_id, value, detected_at)
    SELECT DISTINCT ON (device_id) device_id, $1, account_id, value, $5::timestamptz FROM (
        SELECT device_id, account_id, value FROM pair UNION ALL SELECT other, account_id, value FROM pair
    ) AS found ORDER BY device_id
    ON CONFLICT (device_id, reason) DO UPDATE SET value = excluded.value, detected_at = excluded.detected_at
    WHERE suspicion.value <> excluded.value
"""
SEALED: Final = "m.device_serial = new.value AND m.bootstrapped_at IS NOT NULL"
TOLD: Final = "m.serial = new.value AND m.bootstrapped_at IS NOT NULL"
PRODUCED: Final = "m.production_serial = new.value"
CONDITIONS: Final[Mapping[str, str]] = MappingProxyType({
    "DUPLICATED_DEV_SERIAL_NUM_SEALING": SEALED,
    "DUPLICATED_SCL_SERIAL_NUM_SEALED_INFO": TOLD,
    "DUPLICATED_DEV_SERIAL_NUM_PROD_LOG": PRODUCED,
})  # fmt: skip


async def add(tx: Tx, reason: str, modules: Sequence[tuple[int, int, str]], now: datetime) -> None:
    """Account id, device id and value of each; `reason`: one of `CONDITIONS`.

    Those whose value another of the account's has too become suspicious, and so does the other.
    """
    if modules:
        accounts, ids, values = (list(column) for column in zip(*modules, strict=True))
        await tx.db.execute(LOCK, reason, accounts, values)
        await tx.db.execute(ADD.format(condition=CONDITIONS[reason]), reason, accounts, ids, values, now)
