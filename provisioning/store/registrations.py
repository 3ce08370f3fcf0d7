"""Devices that register themselves, many in one statement; the table `registration`. Run in batches: see `batch`.

Order of locks, here as everywhere: device rows, then rows of `registration`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from provisioning.model.credential import Credential, ProductCredential
from provisioning.model.identity import Identity
from provisioning.store import devices, logins
from provisioning.store.database import Tx
from provisioning.store.sealing import SealError

# OFFSET 0 has the planner look up each device by product and key. Left to itself, as long as it has no statistics of a
# table that is growing, it reads all devices of a product for each name.
LOOK_UP: Final = """
    SELECT p.id AS product_id, p.secret AS product_secret, p.dynamic_activation, p.auto_create, p.certificate_login,
           p.client_authority, d.id AS device_id, d.secret, d.epoch, d.asset, d.disabled,
           d.activated_at IS NOT NULL AS activated, coalesce(r.devices >= p.register_limit, false) AS full
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY w (protocol, product, device, ord)
    LEFT JOIN product p ON p.protocol = w.protocol AND p.key = w.product
    LEFT JOIN LATERAL (
        SELECT * FROM device WHERE product_id = p.id AND key = w.device AND secret IS NOT NULL OFFSET 0
    ) d ON true
    LEFT JOIN registration r ON r.product_id = p.id
    ORDER BY w.ord
"""
HOLD: Final = """
    SELECT w.id FROM unnest($1::bigint[]) w (id)
    WHERE pg_try_advisory_xact_lock_shared(hashtextextended('product ' || w.id, 0))
"""
# The index settles who of several is the first. Rows go in one order, so that batches with common devices wait for each
# other instead of failing; a product that is gone, or was closed a moment ago, gets none.
CREATE: Final = """
    INSERT INTO device (protocol, product_id, key, secret, state, self_registered)
    SELECT w.protocol, p.id, w.key, w.secret, 'allocated', true
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[]) w (protocol, product_id, key, secret)
    JOIN product p ON p.id = w.product_id AND p.dynamic_activation AND p.auto_create
    ORDER BY w.product_id, w.key
    ON CONFLICT (product_id, key) DO NOTHING RETURNING id, product_id, key
"""
COUNT: Final = """
    INSERT INTO registration (product_id, devices)
    SELECT * FROM unnest($1::bigint[], $2::integer[]) w (product_id, devices) ORDER BY 1
    ON CONFLICT (product_id) DO UPDATE SET devices = registration.devices + excluded.devices
    RETURNING product_id,
              devices - (SELECT p.register_limit FROM product p WHERE p.id = registration.product_id) AS above
"""
TAKE_BACK: Final = "DELETE FROM device WHERE id = ANY($1)"
LOCK: Final = """
    SELECT p.protocol, p.key AS product, d.key AS device, p.id AS product_id, p.secret AS product_secret,
           p.dynamic_activation, p.auto_create, p.certificate_login, p.client_authority, d.id AS device_id, d.secret,
           d.epoch, d.asset, d.disabled, d.activated_at IS NOT NULL AS activated
    FROM device d JOIN product p ON p.id = d.product_id
    WHERE d.id = ANY($1) AND d.secret IS NOT NULL ORDER BY d.id FOR NO KEY UPDATE OF d
"""
ROTATE: Final = """
    UPDATE device d SET secret = w.secret FROM unnest($1::bigint[], $2::bytea[]) w (id, secret) WHERE d.id = w.id
"""
DEVICES: Final = "SELECT devices FROM registration WHERE product_id = $1"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the registry knows of somebody who would register."""

    credential: Credential
    is_full: bool
    """As many devices as its product allows have registered themselves."""


async def look_up(tx: Tx, identities: Sequence[Identity]) -> list[Standing | SealError]:
    """In their order; the error, where a secret does not open."""
    columns = zip(*((i.protocol, i.product, i.device) for i in identities), strict=True)
    found: list[Standing | SealError] = []
    opened: dict[int, ProductCredential] = {}
    for identity, row in zip(identities, await tx.db.fetch(LOOK_UP, *columns), strict=True):
        try:
            found.append(Standing(logins.credential(tx, identity, row, opened), row["full"]))
        except SealError as error:  # one damaged row must not turn away the others
            found.append(error)
    return found


async def hold(tx: Tx, product_ids: Collection[int]) -> set[int]:
    """Keep products from being deleted until the transaction ends; returns all but those whose deletion is under way.

    That may take long (`products.lock_for_deletion`): nobody waits for it, and nobody fails with it but whoever asks
    for that product.
    """
    return {row["id"] for row in await tx.db.fetch(HOLD, list(product_ids))}


async def create(tx: Tx, wanted: Sequence[tuple[Identity, int, str]]) -> dict[Identity, int]:
    """Add allocated devices, each once: identity, product id, secret. Returns the ids of those that this call added."""
    names = {(product_id, identity.device): identity for identity, product_id, _ in wanted}
    rows = [
        (i.protocol, product_id, i.device, tx.sealer.seal(secret, devices.context(i.protocol, i.product, i.device)))
        for i, product_id, secret in wanted
    ]
    added = await tx.db.fetch(CREATE, *zip(*rows, strict=True))
    return {names[row["product_id"], row["key"]]: row["id"] for row in added}


async def count(tx: Tx, added: Mapping[int, int]) -> dict[int, int]:
    """Count devices that were created: product id -> how many. Returns how many of each are above its limit."""
    rows = await tx.db.fetch(COUNT, list(added.keys()), list(added.values()))
    return {row["product_id"]: row["above"] for row in rows if row["above"] is not None and row["above"] > 0}


async def take_back(tx: Tx, device_ids: Collection[int]) -> None:
    """Undo `create` for some; the count follows by itself."""
    await tx.db.execute(TAKE_BACK, list(device_ids))


async def lock(tx: Tx, device_ids: Collection[int]) -> dict[int, Credential | SealError]:
    """The devices as they stand now, held until the transaction ends.

    Those that are gone, or were reset, are absent.
    """
    found: dict[int, Credential | SealError] = {}
    for row in await tx.db.fetch(LOCK, list(device_ids)):
        try:
            identity = Identity(row["protocol"], row["product"], row["device"])
            found[row["device_id"]] = logins.credential(tx, identity, row)
        except SealError as error:
            found[row["device_id"]] = error
    return found


async def rotate(tx: Tx, secrets: Mapping[int, tuple[Identity, str]]) -> None:
    """Give devices new secrets: device id -> identity and secret. Their sessions end."""
    if not secrets:
        return
    rows = [
        (device_id, tx.sealer.seal(secret, devices.context(i.protocol, i.product, i.device)))
        for device_id, (i, secret) in secrets.items()
    ]
    await tx.db.execute(ROTATE, *zip(*rows, strict=True))


async def devices_of(tx: Tx, product_id: int) -> int:
    """How many devices of the product have registered themselves."""
    return int(await tx.db.fetchval(DEVICES, product_id) or 0)
