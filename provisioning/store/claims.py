"""The tables `claim` and `description`, and devices whose key is unique in their protocol."""
# ruff: noqa: S608 - statements are put together of constants, never of values

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final

from provisioning.model.claim import Claim, ClaimedDevice, CloudType, Told
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device, Product
from provisioning.store import devices
from provisioning.store.database import Tx

ACCESSED_AGAIN: Final = "1 minute"
"""A device that polls is not worth a row version each time."""

FIND: Final = "SELECT value, device_id FROM identifier WHERE kind = $1 AND scope = 0 AND value = ANY($2)"
# As for serial numbers: the identifier is unique, its winner alone inserts the device.
ADD: Final = """
    WITH taken AS (
        INSERT INTO identifier (kind, scope, value, device_id)
        VALUES ($1, 0, $2, nextval(pg_get_serial_sequence('device', 'id')))
        ON CONFLICT DO NOTHING RETURNING device_id
    )
    INSERT INTO device (id, protocol, product_id, key, name, state)
    SELECT device_id, $1, $3, $2, $4, 'registered' FROM taken RETURNING id, created_at
"""
NAME: Final = """
    INSERT INTO identifier (kind, scope, value, device_id)
    SELECT kind, 0, value, device_id FROM unnest($1::text[], $2::text[], $3::bigint[]) n (kind, value, device_id)
"""
OF: Final = """
    SELECT device_id, account, cloud_type, cloud_name, cloud_region, claimed_at, asked_at, confirmed FROM claim
    WHERE device_id = ANY($1)
"""
PUT: Final = """
    INSERT INTO claim (device_id, account, cloud_type, cloud_name, cloud_region)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
    ON CONFLICT (device_id) DO UPDATE SET account = EXCLUDED.account, cloud_type = EXCLUDED.cloud_type,
        cloud_name = EXCLUDED.cloud_name, cloud_region = EXCLUDED.cloud_region
"""
DROP: Final = "DELETE FROM claim WHERE device_id = $1"
NOTE_ASKED: Final = "UPDATE claim SET asked_at = $2 WHERE device_id = $1 AND asked_at IS NULL"
CONFIRM: Final = "UPDATE claim SET confirmed = true, asked_at = coalesce(asked_at, $2) WHERE device_id = $1"
SETTLE: Final = "UPDATE claim SET confirmed = false, asked_at = NULL WHERE device_id = $1"
TOLD: Final = """
    SELECT device_id, body, fields, test, version, accessed_at, checked_at FROM description WHERE device_id = ANY($1)
"""
DESCRIBE: Final = f"""
    INSERT INTO description AS d (device_id, body, test, accessed_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (device_id) DO UPDATE SET body = EXCLUDED.body, test = EXCLUDED.test, accessed_at = EXCLUDED.accessed_at
    WHERE (d.body, d.test) IS DISTINCT FROM (EXCLUDED.body, EXCLUDED.test) OR d.accessed_at IS NULL
          OR d.accessed_at < EXCLUDED.accessed_at - interval '{ACCESSED_AGAIN}'
"""
NOTE_CHECKED: Final = """
    INSERT INTO description (device_id, fields, test, version, accessed_at, checked_at) VALUES ($1, $2, $3, $4, $5, $5)
    ON CONFLICT (device_id) DO UPDATE SET fields = EXCLUDED.fields, test = EXCLUDED.test, version = EXCLUDED.version,
        accessed_at = EXCLUDED.accessed_at, checked_at = EXCLUDED.checked_at
"""
NOTE_ACCESSED: Final = f"""
    UPDATE description SET accessed_at = $2
    WHERE device_id = $1 AND (accessed_at IS NULL OR accessed_at < $2::timestamptz - interval '{ACCESSED_AGAIN}')
"""
PAGE: Final = """
    SELECT d.id FROM device d LEFT JOIN claim c ON c.device_id = d.id LEFT JOIN product p ON p.id = d.product_id
    WHERE d.protocol = $1 AND ($2::text IS NULL OR p.key = $2) AND ($3::text IS NULL OR c.account = $3)
"""
FORWARDS: Final = f"{PAGE} AND d.id > $4 ORDER BY d.id LIMIT $5"
BACKWARDS: Final = f"{PAGE} AND d.id < $4 ORDER BY d.id DESC LIMIT $5"
# A successor was issued long ago, and the device has not come with it: of claimed devices alone.
OUTLIVED: Final = """
    SELECT c.id FROM certificate c JOIN certificate n ON n.id = c.superseded_by
                JOIN claim ON claim.device_id = c.device_id
    WHERE c.status <> 'revoked' AND n.created_at < $1 ORDER BY c.id LIMIT $2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything about a device that an account's administrators see."""

    device: Device
    claim: Claim | None
    told: Told


async def find_all(tx: Tx, protocol: str, keys: Sequence[str]) -> dict[str, Device]:
    """Those of the devices that there are, by key, whatever their product."""
    ids = {row["value"]: row["device_id"] for row in await tx.db.fetch(FIND, protocol, keys)}
    found = {device.id: device for device in await devices.by_ids(tx, list(ids.values()))}
    return {value: found[device_id] for value, device_id in ids.items() if device_id in found}


async def find(tx: Tx, protocol: str, key: str) -> Device | None:
    return (await find_all(tx, protocol, [key])).get(key)


async def add(tx: Tx, product: Product, key: str, name: str) -> Device | None:
    """A registered device; None: somebody else has registered its key just now."""
    row = await tx.db.fetchrow(ADD, product.protocol, key, product.id, name)
    if row is None:
        return None
    return Device(
        protocol=product.protocol, state=State.REGISTERED, product=product.key, key=key, name=name,
        certificate_login=product.certificate_login, id=row["id"], created_at=row["created_at"],
    )  # fmt: skip


async def name_all(tx: Tx, added: Sequence[Device]) -> None:
    """Make the keys of devices unique in their protocol. Raises: Refusal DUPLICATE from the transaction."""
    if added:
        await tx.db.execute(NAME, [d.protocol for d in added], [d.key for d in added], [d.id for d in added])


async def of(tx: Tx, device_ids: Sequence[int]) -> dict[int, Claim]:
    """The claims that there are, by device id."""
    found = {}
    for row in await tx.db.fetch(OF, device_ids):
        stated: dict[str, Any] = dict(row)
        device_id = stated.pop("device_id")
        found[device_id] = Claim(**stated | {"cloud_type": CloudType(row["cloud_type"])})
    return found


async def put(tx: Tx, claims: Sequence[tuple[int, Claim]]) -> None:
    """Write the claims of devices, new ones or in the place of those that they have."""
    rows = [(i, c.account, str(c.cloud_type), c.cloud_name, c.cloud_region) for i, c in claims]
    if rows:
        await tx.db.execute(PUT, *zip(*rows, strict=True))


async def drop(tx: Tx, device_id: int) -> None:
    await tx.db.execute(DROP, device_id)


async def note_asked(tx: Tx, device_id: int, now: datetime) -> bool:
    """The device waits for leave to get another token. False: it has been waiting already."""
    return await tx.db.execute(NOTE_ASKED, device_id, now) == "UPDATE 1"


async def confirm(tx: Tx, device_id: int, now: datetime) -> None:
    """Let the device have another token."""
    await tx.db.execute(CONFIRM, device_id, now)


async def settle(tx: Tx, device_id: int) -> None:
    """It has got what it asked for."""
    await tx.db.execute(SETTLE, device_id)


async def told(tx: Tx, device_ids: Sequence[int]) -> dict[int, Told]:
    """What devices have told, by device id; one that told nothing is not there."""
    found = {}
    for row in await tx.db.fetch(TOLD, device_ids):
        stated: dict[str, Any] = dict(row)
        device_id = stated.pop("device_id")
        found[device_id] = Told(**stated | {"body": json.loads(row["body"]), "fields": json.loads(row["fields"])})
    return found


async def describe(tx: Tx, device_id: int, body: Mapping[str, object], *, test: bool, now: datetime) -> None:
    """Keep what the device told when it registered. Repeating it writes nothing but, now and then, the time."""
    await tx.db.execute(DESCRIBE, device_id, json.dumps(body), test, now)


async def note_checked(
    tx: Tx, device_id: int, body: Mapping[str, object], *, test: bool, version: str | None, now: datetime
) -> None:
    """Keep what the device told when it looked for an update."""
    await tx.db.execute(NOTE_CHECKED, device_id, json.dumps(body), test, version, now)


async def note_accessed(tx: Tx, device_id: int, now: datetime) -> None:
    await tx.db.execute(NOTE_ACCESSED, device_id, now)


async def records(tx: Tx, found: Sequence[Device]) -> list[Record]:
    ids = [device.id for device in found]
    claims, stories = await of(tx, ids), await told(tx, ids)
    return [Record(device=d, claim=claims.get(d.id), told=stories.get(d.id, Told())) for d in found]


async def page(
    tx: Tx,
    protocol: str,
    *,
    product: str | None = None,
    account: str | None = None,
    after: int | None = None,
    before: int | None = None,
    limit: int,
) -> list[Record]:
    """Devices of the product and of the account (None: of any) in the order of their ids.

    The first ones after the id `after`, or the last ones before the id `before`.
    """
    which, start = (FORWARDS, after or 0) if before is None else (BACKWARDS, before)
    ids = [row["id"] for row in await tx.db.fetch(which, protocol, product, account, start, limit)]
    return await records(tx, sorted(await devices.by_ids(tx, ids), key=lambda device: device.id))


async def with_claims(tx: Tx, found: Sequence[Device]) -> list[Device]:
    """The same devices; those that are claimed with their claims."""
    claims = await of(tx, [device.id for device in found])
    return [_claimed(device, claims[device.id]) if device.id in claims else device for device in found]


def _claimed(device: Device, claim: Claim) -> ClaimedDevice:
    stated = {each.name: getattr(device, each.name) for each in fields(device)}
    return ClaimedDevice(**stated, claim=replace(claim, asked_at=None, confirmed=False))


async def outlived(tx: Tx, since: datetime, limit: int) -> list[int]:
    """Ids of the certificates of claimed devices that are not revoked, and whose successor is older than `since`."""
    return [row["id"] for row in await tx.db.fetch(OUTLIVED, since, limit)]
