"""The tables `software_update` and `update_offer`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from provisioning.model.update import Update
from provisioning.store.database import Tx

COLUMNS: Final = """
    u.id, p.protocol, p.key AS product, u.version, u.checksum, u.size, u.file, u.policy, u.percentage, u.max_devices,
    u.rate, u.rate_period, u.test, u.stopped_at, u.why_stopped, u.offered, u.succeeded, u.failed, u.created_at
"""
FROM: Final = "FROM software_update u JOIN product p ON p.id = u.product_id"
FIND: Final = f"SELECT {COLUMNS} {FROM} WHERE u.id = $1"
LOCK: Final = f"{FIND} FOR UPDATE OF u"
LIST: Final = f"""
    SELECT {COLUMNS} {FROM}
    WHERE u.id > $1 AND ($2::text IS NULL OR p.protocol = $2) AND ($3::text IS NULL OR p.key = $3)
    ORDER BY u.id LIMIT $4
"""
LIVE: Final = f"""
    SELECT {COLUMNS}, d.id AS device_id, o.update_id IS NOT NULL AS was_offered
    {FROM} JOIN device d ON d.product_id = p.id AND d.key = $3
    LEFT JOIN update_offer o ON o.update_id = u.id AND o.device_id = d.id
    WHERE p.protocol = $1 AND p.key = $2 AND u.stopped_at IS NULL AND (NOT u.test OR $4)
"""
INSERT: Final = """
    INSERT INTO software_update (product_id, version, checksum, size, file, policy, percentage, max_devices, rate,
                                 rate_period, test)
    SELECT id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM product WHERE protocol = $1 AND key = $2
    RETURNING id, created_at
"""
STOP: Final = "UPDATE software_update SET stopped_at = $2, why_stopped = $3 WHERE id = $1 AND stopped_at IS NULL"
DELETE: Final = "DELETE FROM software_update WHERE id = $1 RETURNING id"
SIZE: Final = "SELECT size FROM software_update WHERE checksum = $1 LIMIT 1"

# Offers of one update wait for each other here: each then counts what those before it have done.
SLOT: Final = """
    SELECT stopped_at IS NULL AS live, offered >= max_devices AS full, rate, rate_period
    FROM software_update WHERE id = $1 FOR UPDATE
"""
WAS_OFFERED: Final = "SELECT EXISTS (SELECT FROM update_offer WHERE update_id = $1 AND device_id = $2)"
RECENT: Final = """
    SELECT count(*) FROM update_offer WHERE update_id = $1 AND offered_at > $2::timestamptz - make_interval(secs => $3)
"""
GIVE: Final = """
    WITH given AS (INSERT INTO update_offer (update_id, device_id, offered_at) VALUES ($1, $2, $3))
    UPDATE software_update SET offered = offered + 1 WHERE id = $1
"""

REPORT: Final = """
    WITH before AS (
        SELECT o.device_id, o.success FROM update_offer o
        JOIN device d ON d.id = o.device_id JOIN software_update u ON u.id = o.update_id AND u.product_id = d.product_id
        WHERE o.update_id = $1 AND d.key = $2
    ), after AS (
        UPDATE update_offer o SET success = $3, reported_at = $4 FROM before b
        WHERE o.update_id = $1 AND o.device_id = b.device_id
    )
    UPDATE software_update u
    SET succeeded = succeeded + $3::boolean::int - (b.success IS TRUE)::int,
        failed = failed + (NOT $3::boolean)::int - (b.success IS FALSE)::int
    FROM before b WHERE u.id = $1
    RETURNING b.device_id, u.succeeded, u.failed
"""

# Whoever adds or takes away a use of an image holds this until the end of the transaction.
HOLD_IMAGE: Final = "SELECT pg_advisory_xact_lock(1668047218, hashtext($1))"
USED: Final = "SELECT EXISTS (SELECT FROM software_update WHERE checksum = $1)"
ALL_USED: Final = "SELECT DISTINCT checksum FROM software_update WHERE checksum = ANY($1)"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live update of the device's product."""

    update: Update
    device_id: int
    was_offered: bool
    """To this device, before."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What is left of an update's limits, held until the transaction ends."""

    live: bool
    full: bool
    waiting: bool
    """As many devices as `rate` allows were offered it within the last `rate_period`."""
    was_offered: bool


@dataclass(frozen=True, slots=True)
class Reported:
    device_id: int
    succeeded: int
    failed: int


async def find(tx: Tx, update_id: int) -> Update | None:
    row = await tx.db.fetchrow(FIND, update_id)
    return Update(**row) if row else None


async def lock(tx: Tx, update_id: int) -> Update | None:
    """The update as it stands now, held until the transaction ends."""
    row = await tx.db.fetchrow(LOCK, update_id)
    return Update(**row) if row else None


async def page(tx: Tx, protocol: str | None, product: str | None, after: int, limit: int) -> list[Update]:
    """Updates with an id above `after`, oldest first."""
    return [Update(**row) for row in await tx.db.fetch(LIST, after, protocol, product, limit)]


async def live(tx: Tx, protocol: str, product: str, device: str, *, test: bool) -> list[Candidate]:
    """What may be offered to the device, in no order; updates for tests only where `test`."""
    rows = [dict(row) for row in await tx.db.fetch(LIVE, protocol, product, device, test)]
    return [
        Candidate(device_id=row.pop("device_id"), was_offered=row.pop("was_offered"), update=Update(**row))
        for row in rows
    ]


async def add(tx: Tx, new: Update) -> Update | None:
    """None: there is no such product."""
    row = await tx.db.fetchrow(
        INSERT, new.protocol, new.product, new.version, new.checksum, new.size, new.file, new.policy, new.percentage,
        new.max_devices, new.rate, new.rate_period, new.test,
    )  # fmt: skip
    return replace(new, id=row["id"], created_at=row["created_at"]) if row else None


async def stop(tx: Tx, update_id: int, why: str, now: datetime) -> bool:
    """False: it is stopped already, or gone."""
    return bool((await tx.db.execute(STOP, update_id, now, why)).endswith(" 1"))


async def delete(tx: Tx, update_id: int) -> bool:
    return await tx.db.fetchval(DELETE, update_id) is not None


async def slot(tx: Tx, update_id: int, device_id: int, now: datetime) -> Slot:
    """Wait for those who are being offered the update at this moment, then look what is left."""
    row = await tx.db.fetchrow(SLOT, update_id)
    if row is None:
        return Slot(live=False, full=False, waiting=False, was_offered=False)
    rate, waiting = row["rate"], False
    if rate is not None:
        waiting = await tx.db.fetchval(RECENT, update_id, now, row["rate_period"]) >= rate
    was_offered = bool(await tx.db.fetchval(WAS_OFFERED, update_id, device_id))
    return Slot(live=row["live"], full=bool(row["full"]), waiting=waiting, was_offered=was_offered)


async def give(tx: Tx, update_id: int, device_id: int, now: datetime) -> None:
    """Count an offer. The caller holds the `slot`."""
    await tx.db.execute(GIVE, update_id, device_id, now)


async def report(tx: Tx, update_id: int, device: str, *, success: bool, now: datetime) -> Reported | None:
    """Note how it went; what the device reported before no longer counts. The caller holds the `lock`.

    None: the device was never offered this update.
    """
    row = await tx.db.fetchrow(REPORT, update_id, device, success, now)
    return Reported(**row) if row else None


async def size_of(tx: Tx, checksum: str) -> int | None:
    """Bytes of an image; None: no update has it."""
    size: int | None = await tx.db.fetchval(SIZE, checksum)
    return size


async def hold_image(tx: Tx, checksum: str) -> bool:
    """Nobody else begins or ends to use this image until the transaction ends. Returns whether an update uses it."""
    await tx.db.execute(HOLD_IMAGE, checksum)
    return bool(await tx.db.fetchval(USED, checksum))


async def used(tx: Tx, checksums: Sequence[str]) -> set[str]:
    """Those of the images that some update uses."""
    return {row["checksum"] for row in await tx.db.fetch(ALL_USED, checksums)}
