"""What logins read and write, for many devices in one statement. Run in batches: see `batch`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import asyncpg

from provisioning.model.credential import Credential, DeviceCredential, ProductCredential
from provisioning.model.identity import Identity
from provisioning.store import devices, products
from provisioning.store.database import Tx
from provisioning.store.sealing import SealError

# OFFSET 0 has the planner look up each device by product and key. Left to itself, as long as it has no statistics of a
# table that is growing, it reads all devices of a product for each name.
LOOK_UP: Final = """
    SELECT p.id AS product_id, p.secret AS product_secret, p.dynamic_activation, p.auto_create, p.certificate_login,
           p.client_authority, d.id AS device_id, d.secret, d.epoch, d.asset, d.disabled,
           d.activated_at IS NOT NULL AS activated, coalesce(c.account, '') AS account
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY w (protocol, product, device, ord)
    LEFT JOIN product p ON p.protocol = w.protocol AND p.key = w.product
    LEFT JOIN LATERAL (
        SELECT * FROM device WHERE product_id = p.id AND key = w.device AND secret IS NOT NULL OFFSET 0
    ) d ON true
    LEFT JOIN claim c ON c.device_id = d.id
    ORDER BY w.ord
"""
STANDING: Final = "SELECT id, epoch, disabled FROM device WHERE id = ANY($1) AND secret IS NOT NULL"
# The database decides how many sessions are due: two processes may count at once. Rows are locked in one order, so that
# batches with common devices wait for each other instead of failing.
ISSUE: Final = """
    WITH due AS (
        SELECT d.id, least(w.wanted, $3 - d.activations) AS granted
        FROM unnest($1::bigint[], $2::integer[]) w (id, wanted) JOIN device d ON d.id = w.id
        WHERE d.activated_at IS NULL AND NOT d.activation_closed AND NOT d.disabled AND d.secret IS NOT NULL
              AND d.activations < $3
        ORDER BY d.id FOR UPDATE OF d
    )
    UPDATE device d SET activations = d.activations + due.granted FROM due WHERE d.id = due.id
    RETURNING d.id, due.granted
"""
CLOSE: Final = "UPDATE device SET activation_closed = true WHERE id = $1"
ACTIVATE: Final = """
    WITH due AS (SELECT id FROM device WHERE id = ANY($1) AND state = 'allocated' ORDER BY id FOR UPDATE)
    UPDATE device d SET state = 'activated', activated_at = now() FROM due WHERE d.id = due.id RETURNING d.id
"""
CREATE: Final = """
    INSERT INTO device (protocol, product_id, key, secret, asset, state) VALUES ($1, $2, $3, $4, $5, 'allocated')
    ON CONFLICT (product_id, key) DO NOTHING RETURNING id
"""


def credential(
    tx: Tx, identity: Identity, row: asyncpg.Record, opened: dict[int, ProductCredential] | None = None
) -> Credential:
    """From a row with the columns of LOOK_UP.

    `opened`: products by their ids, of other rows of the same statement; its secret is opened once for all.

    Raises:
        SealError.
    """
    if row["product_id"] is None:
        return Credential(identity)
    product = opened.get(row["product_id"]) if opened else None
    if product is None:
        product = ProductCredential(
            id=row["product_id"],
            secret=tx.sealer.open(row["product_secret"], products.context(identity.protocol, identity.product)),
            dynamic_activation=row["dynamic_activation"],
            auto_create=row["auto_create"],
            certificate_login=row["certificate_login"],
            client_authority=row["client_authority"],
        )
        if opened is not None:
            opened[product.id] = product
    if row["device_id"] is None:
        return Credential(identity, product)
    device = DeviceCredential(
        id=row["device_id"],
        secret=tx.sealer.open(row["secret"], devices.context(identity.protocol, identity.product, identity.device)),
        epoch=row["epoch"],
        asset=row["asset"],
        disabled=row["disabled"],
        activated=row["activated"],
        account=row.get("account") or "",
    )
    return Credential(identity, product, device)


async def look_up(tx: Tx, identities: Sequence[Identity]) -> list[Credential | SealError]:
    """What the registry knows of each identity, in their order; the error, where a secret does not open."""
    columns = zip(*((i.protocol, i.product, i.device) for i in identities), strict=True)
    rows = await tx.db.fetch(LOOK_UP, *columns)
    found: list[Credential | SealError] = []
    opened: dict[int, ProductCredential] = {}
    for identity, row in zip(identities, rows, strict=True):
        try:
            found.append(credential(tx, identity, row, opened))
        except SealError as error:  # one damaged row must not turn away the others
            found.append(error)
    return found


async def standing(tx: Tx, device_ids: Collection[int]) -> dict[int, tuple[int, bool]]:
    """Device id -> (epoch, disabled) of those that have a secret: what a live session depends on."""
    return {row["id"]: (row["epoch"], row["disabled"]) for row in await tx.db.fetch(STANDING, list(device_ids))}


async def issue(tx: Tx, wanted: Mapping[int, int], limit: int) -> dict[int, int]:
    """Count activation sessions: device id -> how many are asked for.

    Returns how many each may have, so that none gets more than `limit` in all.
    """
    rows = await tx.db.fetch(ISSUE, list(wanted.keys()), list(wanted.values()), limit)
    return {row["id"]: row["granted"] for row in rows}


async def close_activation(tx: Tx, device_id: int) -> None:
    """No further activation session for this device until it is reset."""
    await tx.db.execute(CLOSE, device_id)


async def activate(tx: Tx, device_ids: Collection[int]) -> set[int]:
    """Mark the first login with the device's own secret; returns those for which it was the first."""
    return {row["id"] for row in await tx.db.fetch(ACTIVATE, list(device_ids))}


async def create(tx: Tx, identity: Identity, product_id: int, secret: str, asset: str) -> int | None:
    """Add an allocated device; None: it has come to be in the meantime."""
    sealed = tx.sealer.seal(secret, devices.context(identity.protocol, identity.product, identity.device))
    device_id: int | None = await tx.db.fetchval(
        CREATE, identity.protocol, product_id, identity.device, sealed, asset
    )  # fmt: skip
    return device_id
