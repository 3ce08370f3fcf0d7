"""The tables `root_ca` and `certificate_order`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from provisioning.model.root import Expiring, Order, OrderKind, Provisioned, Root, Standing
from provisioning.store import certificates, lists, modules
from provisioning.store.database import Tx
from provisioning.store.lists import List, Page

SELECT: Final = """
    SELECT r.id, r.account_id, r.name, r.authority_id, r.ca_days, r.device_days, r.renew_before, r.created_at,
           r.deleted_at, a.certificate, a.not_after, t.certificates AS managed
    FROM root_ca r JOIN authority a ON a.id = r.authority_id JOIN account t ON t.product_id = r.account_id
"""
FIND: Final = f"{SELECT} WHERE r.account_id = $1 AND r.name = $2 AND r.deleted_at IS NULL"
KEEP: Final = f"{FIND} FOR KEY SHARE OF r"
LOCK: Final = f"{FIND} FOR UPDATE OF r"
BY_IDS: Final = f"{SELECT} WHERE r.id = ANY($1)"
OF_ACCOUNT: Final = f"""
    {SELECT} WHERE r.account_id = $1 AND r.deleted_at IS NULL AND ($2::text[] IS NULL OR r.name = ANY($2))
    ORDER BY r.id
"""
COUNT: Final = "SELECT count(*) FROM root_ca WHERE account_id = $1 AND deleted_at IS NULL"
NEXT_ID: Final = "SELECT nextval(pg_get_serial_sequence('root_ca', 'id'))"
ADD: Final = """
    INSERT INTO root_ca (id, account_id, name, authority_id, ca_days, device_days, renew_before, created_at)
    OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
SET_RENEWAL: Final = "UPDATE root_ca SET renew_before = $2 WHERE id = $1"
USES: Final = """
    SELECT EXISTS (SELECT FROM module WHERE desired_ca = $1) OR EXISTS (SELECT FROM module WHERE current_ca = $1)
           OR EXISTS (SELECT FROM certificate_order WHERE root_ca_id = $1 AND kind <> 'delete') AS by_module,
           EXISTS (SELECT FROM device_profile WHERE root_ca_id = $1) AS by_profile
"""
SET_DELETED: Final = "UPDATE root_ca SET deleted_at = $2 WHERE id = $1"
DELETE: Final = "DELETE FROM root_ca WHERE id = $1"
AUTHORITIES: Final = "SELECT DISTINCT authority_id FROM root_ca WHERE account_id = $1 ORDER BY authority_id"

LOCK_CRL: Final = "SELECT FROM root_ca WHERE id = $1 FOR NO KEY UPDATE"
SET_CRL: Final = "UPDATE root_ca SET crl = $2, crl_at = $3 WHERE id = $1"
# Whatever revoked a certificate: an application, an operator, the deletion of its module.
STALE_CRLS: Final = """
    SELECT r.id FROM root_ca r JOIN authority a ON a.id = r.authority_id
    WHERE r.deleted_at IS NULL AND a.not_after > $1 AND ($3::bigint[] IS NULL OR r.id = ANY($3))
          AND (r.crl IS NULL OR r.crl_at <= $2 OR EXISTS (
              SELECT FROM certificate c WHERE c.authority_id = r.authority_id AND c.status <> 'valid'
                     AND c.revoked_at > r.crl_at))
    ORDER BY r.id LIMIT $4 FOR NO KEY UPDATE OF r
"""
CRLS: Final = "SELECT id, crl FROM root_ca WHERE id = ANY($1)"

PROVISIONED: Final = """
    SELECT m.uid, c.serial, c.not_after,
           CASE WHEN c.status <> 'valid' THEN 'revoked'
                WHEN EXISTS (SELECT FROM command o WHERE o.device_id = m.device_id AND o.kind = $5) THEN 'pending'
                WHEN EXISTS (SELECT FROM certificate_order o WHERE o.device_id = m.device_id AND o.removed)
                THEN 'pending' ELSE 'valid' END AS standing
    FROM (
        SELECT device_id, uid, certificate_id FROM module WHERE issuer_id = $1 AND device_id >= $2
        ORDER BY device_id OFFSET $3 LIMIT $4
    ) m JOIN certificate c ON c.id = m.certificate_id ORDER BY m.device_id
"""
BY_SERIALS: Final = """
    SELECT c.serial, m.device_id FROM certificate c JOIN module m ON m.certificate_id = c.id
    WHERE c.authority_id = $1 AND c.serial = ANY($2) AND m.issuer_id = $3
"""
REVOKED: Final = """
    SELECT m.device_id FROM module m JOIN certificate c ON c.id = m.certificate_id
    WHERE m.device_id = ANY($1) AND c.status <> 'valid'
"""

ORDERS: Final = """
    SELECT device_id, kind, root_ca_id, days, removed, ordered_at FROM certificate_order WHERE device_id = ANY($1)
"""
ORDER: Final = """
    INSERT INTO certificate_order (device_id, kind, root_ca_id, days, ordered_at)
    SELECT i, k, r, d, o FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::integer[], $5::timestamptz[])
           AS new (i, k, r, d, o)
    ON CONFLICT (device_id) DO UPDATE SET kind = EXCLUDED.kind, root_ca_id = EXCLUDED.root_ca_id, days = EXCLUDED.days,
           removed = false, ordered_at = EXCLUDED.ordered_at
"""
SET_REMOVED: Final = "UPDATE certificate_order SET removed = true WHERE device_id = $1"
DROP_ORDER: Final = "DELETE FROM certificate_order WHERE device_id = $1"

DUE: Final = """
    SELECT m.device_id, m.certificate_id, r.name FROM module m JOIN root_ca r ON r.id = m.issuer_id
    WHERE m.warn_at <= $1 ORDER BY m.warn_at LIMIT $2 FOR NO KEY UPDATE OF m SKIP LOCKED
"""
SET_WARNING: Final = """
    UPDATE module m SET warn_at = next.at FROM unnest($1::bigint[], $2::timestamptz[]) next (id, at)
    WHERE m.device_id = next.id
"""
# The shortest threshold that is reached counts.
ROOTS_EXPIRING: Final = """
    WITH due AS (
        SELECT r.id, min(t.days) AS days
        FROM root_ca r JOIN authority a ON a.id = r.authority_id CROSS JOIN unnest($2::integer[]) t (days)
        WHERE r.deleted_at IS NULL AND a.not_after <= $1::timestamptz + make_interval(days => t.days)
        GROUP BY r.id
    ), held AS (
        SELECT r.id, due.days FROM root_ca r JOIN due USING (id)
        WHERE r.warned_days IS NULL OR r.warned_days > due.days
        ORDER BY r.id LIMIT $3 FOR NO KEY UPDATE OF r SKIP LOCKED
    )
    UPDATE root_ca r SET warned_days = held.days FROM held WHERE r.id = held.id RETURNING r.id
"""


@dataclass(frozen=True, slots=True)
class Uses:
    """Why a root CA may not go."""

    by_module: bool
    """Modules are, or are to be, provisioned with it."""
    by_profile: bool


def _root(row: asyncpg.Record) -> Root:
    return Root(**row)


# --- root CAs --------------------------------------------------------------------------------------------------------


async def find(tx: Tx, account_id: int, name: str) -> Root | None:
    row = await tx.db.fetchrow(FIND, account_id, name)
    return _root(row) if row else None


async def keep(tx: Tx, account_id: int, name: str) -> Root | None:
    """As `find`; nobody deletes it until the transaction ends. For whoever is about to refer to it."""
    row = await tx.db.fetchrow(KEEP, account_id, name)
    return _root(row) if row else None


async def lock(tx: Tx, account_id: int, name: str) -> Root | None:
    """As `find`; nobody changes it or comes to refer to it until the transaction ends."""
    row = await tx.db.fetchrow(LOCK, account_id, name)
    return _root(row) if row else None


async def by_ids(tx: Tx, ids: Sequence[int]) -> dict[int, Root]:
    """Those that there are, deleted ones too."""
    return {row["id"]: _root(row) for row in await tx.db.fetch(BY_IDS, ids)}


async def of_account(tx: Tx, account_id: int, names: Sequence[str] | None = None) -> list[Root]:
    """In the order of their ids. `names` None: all; unknown ones are left out."""
    return [_root(row) for row in await tx.db.fetch(OF_ACCOUNT, account_id, names)]


async def count(tx: Tx, account_id: int) -> int:
    return int(await tx.db.fetchval(COUNT, account_id))


async def next_id(tx: Tx) -> int:
    """For the next root CA: its authority, which comes first, is named by it."""
    return int(await tx.db.fetchval(NEXT_ID))


async def add(tx: Tx, root: Root) -> None:
    """Raises: Refusal DUPLICATE from the transaction, when the name is taken, by whomever."""
    await tx.db.execute(
        ADD, root.id, root.account_id, root.name, root.authority_id, root.ca_days, root.device_days, root.renew_before,
        root.created_at,
    )  # fmt: skip


async def set_renewal(tx: Tx, root: Root, days: int) -> None:
    await tx.db.execute(SET_RENEWAL, root.id, days)


async def uses(tx: Tx, root: Root) -> Uses:
    row = await tx.db.fetchrow(USES, root.id)
    assert row is not None
    return Uses(**row)


async def set_deleted(tx: Tx, root: Root, at: datetime) -> None:
    """Its name is free from now on."""
    await tx.db.execute(SET_DELETED, root.id, at)


async def delete(tx: Tx, root: Root) -> None:
    await tx.db.execute(DELETE, root.id)


async def authorities_of(tx: Tx, account_id: int) -> list[int]:
    """Ids of the authorities of all root CAs that the account has and has had."""
    return [row["authority_id"] for row in await tx.db.fetch(AUTHORITIES, account_id)]


# --- CRLs ------------------------------------------------------------------------------------------------------------


async def lock_crl(tx: Tx, root_id: int) -> None:
    """One transaction at a time makes its CRL."""
    await tx.db.execute(LOCK_CRL, root_id)


async def set_crl(tx: Tx, root_id: int, der: bytes, at: datetime) -> None:
    await tx.db.execute(SET_CRL, root_id, der, at)


async def stale_crls(
    tx: Tx, *, now: datetime, most_age: timedelta, limit: int, among: Sequence[int] | None = None
) -> list[int]:
    """Root CAs whose CRL is older than that, or than the last revocation, as `lock_crl`. `among`: of these alone."""
    return [row["id"] for row in await tx.db.fetch(STALE_CRLS, now, now - most_age, among, limit)]


async def crls(tx: Tx, ids: Sequence[int]) -> dict[int, bytes]:
    """By root CA, in DER; those that have one."""
    return {row["id"]: row["crl"] for row in await tx.db.fetch(CRLS, ids) if row["crl"]}


# --- certificates of modules -----------------------------------------------------------------------------------------


async def provisioned(tx: Tx, root: Root, number: int, *, install: str) -> Page[Provisioned]:
    """A page of the modules that have a certificate of the root CA, in the order of their ids.

    `install`: the kind of the command by which a certificate comes to a module.
    """
    place = await lists.locate(tx, List.ISSUED, root.id, number)
    if place.first is None:
        return Page([], number, place.total)
    rows = await tx.db.fetch(PROVISIONED, root.id, place.first, place.skip, lists.PAGE_SIZE, install)
    found = [Provisioned(row["uid"], row["serial"], row["not_after"], Standing(row["standing"])) for row in rows]
    return Page(found, number, place.total)


async def by_serials(tx: Tx, root: Root, serials: Sequence[str]) -> dict[str, int]:
    """Ids of the modules that have these certificates of the root CA now, by serial number."""
    rows = await tx.db.fetch(BY_SERIALS, root.authority_id, serials, root.id)
    return {row["serial"]: row["device_id"] for row in rows}


async def with_revoked(tx: Tx, device_ids: Sequence[int]) -> set[int]:
    """Those of the modules whose certificate is revoked or on hold."""
    return {row["device_id"] for row in await tx.db.fetch(REVOKED, device_ids)}


async def due_for_warning(tx: Tx, now: datetime, limit: int) -> list[Expiring]:
    """Modules of whose certificates the account is to be told now, locked, longest due first: see `set_warnings`."""
    rows = await tx.db.fetch(DUE, now, limit)
    known = {each.id: each for each in await modules.by_ids(tx, [row["device_id"] for row in rows])}
    found = {each.id: each for each in await certificates.by_ids(tx, [row["certificate_id"] for row in rows])}
    return [Expiring(known[row["device_id"]], found[row["certificate_id"]], row["name"]) for row in rows]


async def set_warnings(tx: Tx, at: Mapping[int, datetime | None]) -> None:
    """When the account is told next, by module; None: never again of this certificate."""
    await tx.db.execute(SET_WARNING, list(at), list(at.values()))


async def take_expiring_roots(tx: Tx, now: datetime, thresholds: Sequence[int], limit: int) -> list[Root]:
    """Root CAs that have reached one more threshold (days before expiry), marked as told; at most `limit`."""
    ids = [row["id"] for row in await tx.db.fetch(ROOTS_EXPIRING, now, list(thresholds), limit)]
    return sorted((await by_ids(tx, ids)).values(), key=lambda root: root.id)


# --- orders ----------------------------------------------------------------------------------------------------------


async def orders(tx: Tx, device_ids: Sequence[int]) -> dict[int, Order]:
    """By module; those that there are."""
    rows = await tx.db.fetch(ORDERS, device_ids)
    return {row["device_id"]: Order(**{**row, "kind": OrderKind(row["kind"])}) for row in rows}


async def add_orders(tx: Tx, new: Sequence[Order]) -> None:
    """Each takes the place of the one that its module had."""
    if new:
        columns = zip(
            *((each.device_id, str(each.kind), each.root_ca_id, each.days, each.ordered_at) for each in new),
            strict=True,
        )
        await tx.db.execute(ORDER, *columns)


async def set_removed(tx: Tx, order: Order) -> None:
    await tx.db.execute(SET_REMOVED, order.device_id)


async def drop_order(tx: Tx, device_id: int) -> None:
    await tx.db.execute(DROP_ORDER, device_id)
