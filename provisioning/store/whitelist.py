"""The table `whitelist`, and the columns of `module` that follow it: `whitelisted`, `blacklisted`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from provisioning.store import lists
from provisioning.store.database import Tx
from provisioning.store.lists import Page

# Whoever writes an entry and whoever makes a module known by a new IMEI must see each other.
HOLD: Final = "SELECT pg_advisory_xact_lock(hashtextextended('whitelist ' || $1::bigint, 0))"
KEEP: Final = "SELECT pg_advisory_xact_lock_shared(hashtextextended('whitelist ' || $1::bigint, 0))"
FOREIGN: Final = "SELECT EXISTS (SELECT FROM module WHERE uid = ANY($2) AND account_id <> $1)"
ADD: Final = """
    INSERT INTO whitelist (account_id, kind, value, created_at)
    SELECT $1, $2, value, $4 FROM (SELECT DISTINCT unnest($3::text[]) AS value ORDER BY 1) AS new
    ON CONFLICT DO NOTHING
"""
DROP: Final = "DELETE FROM whitelist WHERE account_id = $1 AND kind = $2 AND value = ANY($3)"
STANDS: Final = """
    SELECT EXISTS (SELECT FROM whitelist WHERE account_id = $1 AND kind = 'uid' AND value = $2)
        OR EXISTS (SELECT FROM whitelist WHERE account_id = $1 AND kind = 'imei' AND value = $3)
"""
LOCK: Final = """
    SELECT m.device_id FROM module m WHERE m.device_id IN (
        SELECT device_id FROM module WHERE account_id = $1 AND uid = ANY($2)
        UNION SELECT device_id FROM module WHERE account_id = $1 AND imei = ANY($3)
    ) ORDER BY m.device_id FOR NO KEY UPDATE
"""
SETTLE: Final = """
    UPDATE module m SET whitelisted = told.stands, blacklisted = told.shut_out
    FROM (
        SELECT device_id, stands, CASE
                   WHEN stands THEN false
                   WHEN bootstrapped_at IS NOT NULL AND NOT activated THEN true
                   ELSE blacklisted END AS shut_out
        FROM (
            SELECT m.device_id, m.bootstrapped_at, m.blacklisted, d.state = 'activated' AS activated,
                   u.id IS NOT NULL OR i.id IS NOT NULL AS stands
            FROM module m JOIN device d ON d.id = m.device_id
            LEFT JOIN whitelist u ON (u.account_id, u.kind, u.value) = (m.account_id, 'uid', m.uid)
            LEFT JOIN whitelist i ON (i.account_id, i.kind, i.value) = (m.account_id, 'imei', m.imei)
            WHERE m.device_id = ANY($1)
        ) each
    ) told
    WHERE m.device_id = told.device_id AND (m.whitelisted, m.blacklisted) <> (told.stands, told.shut_out)
"""
# An IMEI that several modules state is the one's that came first.
PAGE: Final = """
    SELECT w.kind, w.value, w.created_at, g.key AS profile
    FROM (
        SELECT * FROM whitelist WHERE account_id = $1 AND id >= $2 ORDER BY id OFFSET $3 LIMIT $4
    ) w
    LEFT JOIN LATERAL (
        SELECT profile_id FROM module m WHERE w.kind = 'uid' AND m.uid = w.value AND m.account_id = $1
        UNION ALL
        SELECT profile_id FROM (
            SELECT profile_id FROM module m WHERE w.kind = 'imei' AND m.account_id = $1 AND m.imei = w.value
            ORDER BY device_id LIMIT 1
        ) first
    ) m ON true
    LEFT JOIN enrolment_group g ON g.id = m.profile_id
    ORDER BY w.id
"""


class Kind(StrEnum):
    """What an entry names a module by."""

    UID = "uid"
    IMEI = "imei"


@dataclass(frozen=True, slots=True)
class Entry:
    kind: Kind
    value: str
    created_at: datetime
    profile: str | None
    """Uid of the device profile of the module that it names; None: there is no such module yet, or it has none."""


async def hold(tx: Tx, account_id: int) -> None:
    """Let nobody else write the account's list until the transaction ends. Comes before any lock of a row."""
    await tx.db.execute(HOLD, account_id)


async def keep(tx: Tx, account_id: int) -> None:
    """Let nobody write the list until the transaction ends: for whoever reads it and writes modules by it.

    Comes before any lock of a row. Many may do so at once.
    """
    await tx.db.execute(KEEP, account_id)


async def has_foreign(tx: Tx, account_id: int, uids: Sequence[str]) -> bool:
    """Is one of them a module of another account?"""
    return bool(await tx.db.fetchval(FOREIGN, account_id, uids))


async def stands(tx: Tx, account_id: int, uid: str, imei: str | None) -> bool:
    """Does the account's list name this module, by uid or by IMEI?"""
    return bool(await tx.db.fetchval(STANDS, account_id, uid, imei))


async def add(tx: Tx, account_id: int, kind: Kind, values: Sequence[str], *, now: datetime) -> None:
    """Entries that are there stay as they are. `settle` must follow."""
    if values:
        await tx.db.execute(ADD, account_id, kind, values, now)


async def drop(tx: Tx, account_id: int, kind: Kind, values: Sequence[str]) -> None:
    """Those that are there. `settle` must follow."""
    if values:
        await tx.db.execute(DROP, account_id, kind, values)


async def settle(tx: Tx, account_id: int, uids: Sequence[str], imeis: Sequence[str]) -> None:
    """Bring the account's modules with one of these in step with the list.

    One that has bootstrapped and is not activated is blacklisted just when the list does not name it.
    """
    ids = [row["device_id"] for row in await tx.db.fetch(LOCK, account_id, uids, imeis)]
    await settle_modules(tx, ids)


async def settle_modules(tx: Tx, ids: Sequence[int]) -> None:
    """As `settle`, for modules that nobody else can change: they are locked, or new."""
    await tx.db.execute(SETTLE, ids)


async def page(tx: Tx, account_id: int, number: int) -> Page[Entry]:
    """The oldest first."""
    place = await lists.locate(tx, lists.List.WHITELIST, account_id, number)
    if place.first is None:
        return Page([], number, place.total)
    rows = await tx.db.fetch(PAGE, account_id, place.first, place.skip, lists.PAGE_SIZE)
    found = [Entry(Kind(row["kind"]), row["value"], row["created_at"], row["profile"]) for row in rows]
    return Page(found, number, place.total)
