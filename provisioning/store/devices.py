"""The tables `device` and `identifier`."""
# ruff: noqa: S608 - statements are put together of constants, never of values

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import asyncpg

from provisioning.model.identity import Identity
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group
from provisioning.store.database import Tx

SERIAL: Final = "serial"
NODE_ALIVE: Final = "20 seconds"

SELECT: Final = f"""
    SELECT d.id, d.protocol, d.state, coalesce(p.key, '') AS product, coalesce(d.key, '') AS key, d.secret,
           coalesce(g.key, '') AS "group", coalesce(i.value, '') AS serial, d.asset, d.name, d.name_i18n, d.timezone,
           d.disabled,
           coalesce(p.certificate_login, false) AS certificate_login, d.self_registered, d.activations,
           d.created_at, d.activated_at,
           coalesce(s.online AND n.seen > now() - interval '{NODE_ALIVE}', false) AS online, s.seen AS last_seen
    FROM device d
    LEFT JOIN product p ON p.id = d.product_id
    LEFT JOIN enrolment_group g ON g.id = d.group_id
    LEFT JOIN identifier i ON i.device_id = d.id AND i.kind = '{SERIAL}'
    LEFT JOIN presence s ON s.device_id = d.id
    LEFT JOIN node n ON n.id = s.node
"""
BY_ID: Final = f"{SELECT} WHERE d.id = $1"
BY_IDS: Final = f"{SELECT} WHERE d.id = ANY($1)"
BY_KEYS: Final = f"{SELECT} WHERE d.product_id = $1 AND d.key = ANY($2)"
BY_SERIALS: Final = f"""
    {SELECT} WHERE d.id IN (SELECT device_id FROM identifier WHERE kind = '{SERIAL}' AND scope = $1 AND value = ANY($2))
"""
BY_SERIAL_ANYWHERE: Final = f"""
    {SELECT} WHERE d.protocol = $1
             AND d.id IN (SELECT device_id FROM identifier WHERE kind = '{SERIAL}' AND value = $2)
    ORDER BY d.id LIMIT $3
"""
BY_ASSET: Final = f"{SELECT} WHERE d.protocol = $1 AND d.asset = $2 ORDER BY d.id LIMIT 2"
LIST: Final = f"""
    {SELECT} WHERE ($1::text IS NULL OR d.protocol = $1) AND ($2::text IS NULL OR p.key = $2)
             AND ($3::text IS NULL OR g.key = $3) AND ($4::text IS NULL OR d.state = $4)
             AND ($5::boolean IS NULL OR d.disabled = $5) AND d.id > $6
    ORDER BY d.id LIMIT $7
"""
LOCK: Final = "SELECT FROM device WHERE id = $1 FOR UPDATE"
LOCK_ALL: Final = "SELECT FROM device WHERE id = ANY($1) ORDER BY id FOR UPDATE"
KEEP: Final = "SELECT FROM device WHERE id = $1 FOR KEY SHARE"

# One statement settles the race of many registrations of one serial number: the identifier is unique, its winner alone
# inserts a device (the foreign key is deferred), and a loser gets no row and reads the winner's.
REGISTER: Final = f"""
    WITH taken AS (
        INSERT INTO identifier (kind, scope, value, device_id)
        VALUES ('{SERIAL}', $1, $2, nextval(pg_get_serial_sequence('device', 'id')))
        ON CONFLICT DO NOTHING RETURNING device_id
    )
    INSERT INTO device (id, protocol, group_id, product_id, key, secret, asset, name, name_i18n, timezone, state)
    SELECT device_id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM taken RETURNING id, created_at
"""
# The same for many, in one order, so that batches with common serial numbers wait for each other instead of failing.
REGISTER_MANY: Final = f"""
    WITH wanted AS (
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bytea[], $7::text[],
                             $8::text[], $9::jsonb[], $10::text[], $11::text[])
               w (scope, value, protocol, product_id, key, secret, asset, name, name_i18n, timezone, state)
    ), taken AS (
        INSERT INTO identifier (kind, scope, value, device_id)
        SELECT '{SERIAL}', scope, value, nextval(pg_get_serial_sequence('device', 'id')) FROM wanted
        ORDER BY scope, value
        ON CONFLICT DO NOTHING RETURNING scope, value, device_id
    ), added AS (
        INSERT INTO device (id, protocol, group_id, product_id, key, secret, asset, name, name_i18n, timezone, state)
        SELECT t.device_id, w.protocol, w.scope, w.product_id, w.key, w.secret, w.asset, w.name, w.name_i18n,
               w.timezone, w.state
        FROM taken t JOIN wanted w USING (scope, value) RETURNING id, created_at
    )
    SELECT t.scope, t.value, a.id, a.created_at FROM added a JOIN taken t ON t.device_id = a.id
"""
ALLOCATE: Final = """
    UPDATE device SET product_id = $2, key = $3, secret = $4, asset = $5, state = 'allocated', activated_at = NULL,
           activations = 0, activation_closed = false
    WHERE id = $1
"""
RESET: Final = """
    UPDATE device SET secret = NULL, state = 'registered', activated_at = NULL, activations = 0,
           activation_closed = false
    WHERE id = $1
"""
SET_DISABLED: Final = "UPDATE device SET disabled = $2 WHERE id = $1"
DESCRIBE: Final = "UPDATE device SET name = $2, name_i18n = $3, timezone = $4, asset = $5 WHERE id = $1"
SET_SECRET: Final = "UPDATE device SET secret = $2 WHERE id = $1"  # noqa: S105 - a statement
REOPEN_ACTIVATION: Final = "UPDATE device SET activations = 0, activation_closed = false WHERE id = $1"
DELETE: Final = "DELETE FROM device WHERE id = $1"
RENAME_SERIAL: Final = f"UPDATE identifier SET value = $2 WHERE kind = '{SERIAL}' AND device_id = $1"
ADD_SERIALS: Final = f"""
    INSERT INTO identifier (kind, scope, value, device_id)
    SELECT '{SERIAL}', * FROM unnest($1::bigint[], $2::text[], $3::bigint[])
"""
ADD_MANY: Final = """
    INSERT INTO device (protocol, product_id, key, secret, group_id, asset, name, name_i18n, timezone, state, disabled,
                        self_registered)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::bigint[], $6::text[], $7::text[],
                         $8::jsonb[], $9::text[], $10::text[], $11::boolean[], $12::boolean[])
    RETURNING id
"""
DELETE_WHERE: Final = """
    DELETE FROM device d WHERE d.product_id = $1 OR d.group_id = ANY($2)
    RETURNING d.id, d.protocol, coalesce((SELECT key FROM product p WHERE p.id = d.product_id), '') AS product,
              coalesce(d.key, '') AS key
"""
SET_GROUP: Final = "UPDATE device SET group_id = $2 WHERE id = $1"
DROP_SERIAL: Final = f"DELETE FROM identifier WHERE kind = '{SERIAL}' AND device_id = $1"
KICK: Final = """
    SELECT pg_notify('gatehouse', json_build_object(
        'change', 'kicked', 'protocol', $1::text, 'product', $2::text, 'device', $3::text)::text)
"""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which devices to list; None: any."""

    protocol: str | None = None
    product: str | None = None
    group: str | None = None
    state: State | None = None
    disabled: bool | None = None


def context(protocol: str, product: str, key: str) -> str:
    return f"device|{protocol}|{product}|{key}"


def _device(tx: Tx, row: asyncpg.Record) -> Device:
    fields: dict[str, Any] = dict(row)
    fields["state"] = State(row["state"])
    fields["name_i18n"] = json.loads(row["name_i18n"])
    sealed = row["secret"]
    fields["secret"] = tx.sealer.open(sealed, context(row["protocol"], row["product"], row["key"])) if sealed else ""
    return Device(**fields)


def _sealed(tx: Tx, device: Device) -> bytes | None:
    if not device.secret:
        return None
    return tx.sealer.seal(device.secret, context(device.protocol, device.product, device.key))


async def by_id(tx: Tx, device_id: int) -> Device | None:
    row = await tx.db.fetchrow(BY_ID, device_id)
    return _device(tx, row) if row else None


async def by_ids(tx: Tx, device_ids: Sequence[int]) -> list[Device]:
    """Those of the devices that there are."""
    return [_device(tx, row) for row in await tx.db.fetch(BY_IDS, device_ids)]


async def by_keys(tx: Tx, product_id: int, keys: Sequence[str]) -> dict[str, Device]:
    """Those of the product's devices that there are, by key."""
    return {row["key"]: _device(tx, row) for row in await tx.db.fetch(BY_KEYS, product_id, keys)}


async def by_serials(tx: Tx, group: Group, serials: Sequence[str]) -> dict[str, Device]:
    """Those of the group's devices that there are, by serial number."""
    return {row["serial"]: _device(tx, row) for row in await tx.db.fetch(BY_SERIALS, group.id, serials)}


async def by_serial(tx: Tx, group: Group, serial: str) -> Device | None:
    return (await by_serials(tx, group, [serial])).get(serial)


async def by_serial_anywhere(tx: Tx, protocol: str, serial: str, limit: int) -> list[Device]:
    """Devices with this serial number, in whichever group; at most `limit`."""
    return [_device(tx, row) for row in await tx.db.fetch(BY_SERIAL_ANYWHERE, protocol, serial, limit)]


async def by_asset(tx: Tx, protocol: str, asset: str) -> list[Device]:
    """Devices with this asset id; more than one when an administrator gave it twice: at most two of them."""
    return [_device(tx, row) for row in await tx.db.fetch(BY_ASSET, protocol, asset)]


async def page(tx: Tx, which: Filter, after: int, limit: int) -> list[Device]:
    """Devices with an id above `after`, in that order."""
    state = str(which.state) if which.state else None
    rows = await tx.db.fetch(
        LIST, which.protocol, which.product, which.group, state, which.disabled, after, limit
    )  # fmt: skip
    return [_device(tx, row) for row in rows]


async def lock(tx: Tx, device: Device) -> Device:
    """The device as it stands now, held until the transaction ends.

    Raises:
        Refusal: UNKNOWN, when it has been deleted in the meantime.
    """
    await tx.db.fetchrow(LOCK, device.id)
    if found := await by_id(tx, device.id):
        return found
    raise Refusal(Reason.UNKNOWN, device=device.key or device.serial)


async def lock_all(tx: Tx, device_ids: Sequence[int]) -> list[Device]:
    """As `lock`, of many; those that have been deleted in the meantime are left out."""
    await tx.db.execute(LOCK_ALL, device_ids)
    return await by_ids(tx, device_ids)


async def hold(tx: Tx, device_id: int) -> None:
    """Let nobody else change the device until the transaction ends. It may be gone."""
    await tx.db.fetchrow(LOCK, device_id)


async def keep(tx: Tx, device_id: int) -> None:
    """Let nobody delete or lock the device until the transaction ends. It may be gone."""
    await tx.db.fetchrow(KEEP, device_id)


async def register(tx: Tx, group: Group, device: Device) -> Device | None:
    """Add the device under its serial number; None: somebody else has registered that number just before."""
    allocated = device.state is not State.REGISTERED
    row = await tx.db.fetchrow(
        REGISTER, group.id, device.serial, device.protocol, group.id, group.product_id if allocated else None,
        device.key or None, _sealed(tx, device), device.asset, device.name, json.dumps(device.name_i18n),
        device.timezone, str(device.state),
    )  # fmt: skip
    return replace(device, id=row["id"], created_at=row["created_at"]) if row else None


async def register_many(tx: Tx, wanted: Sequence[tuple[Group, Device]]) -> dict[tuple[int, str], Device]:
    """As `register`, for devices whose serial numbers differ: those that were added, by group id and serial number."""
    rows = [
        (
            group.id, d.serial, d.protocol, None if d.state is State.REGISTERED else group.product_id, d.key or None,
            _sealed(tx, d), d.asset, d.name, json.dumps(d.name_i18n), d.timezone, str(d.state),
        ) for group, d in wanted
    ]  # fmt: skip
    added = await tx.db.fetch(REGISTER_MANY, *zip(*rows, strict=True))
    by_name = {(group.id, device.serial): device for group, device in wanted}
    return {
        (row["scope"], row["value"]): replace(
            by_name[row["scope"], row["value"]], id=row["id"], created_at=row["created_at"]
        ) for row in added
    }  # fmt: skip


async def add_many(tx: Tx, rows: Sequence[tuple[Device, int | None, int | None]]) -> list[Device]:
    """Add (device, product id, group id). Raises: Refusal DUPLICATE from the transaction."""
    if not rows:
        return []
    columns = [
        (
            d.protocol,
            product,
            d.key or None,
            _sealed(tx, d),
            group,
            d.asset,
            d.name,
            json.dumps(d.name_i18n),
            d.timezone,
            str(d.state),
            d.disabled,
            d.self_registered,
        )
        for d, product, group in rows
    ]
    found = await tx.db.fetch(ADD_MANY, *zip(*columns, strict=True))
    added = [replace(device, id=row["id"]) for (device, _, _), row in zip(rows, found, strict=True)]
    serials = [(group, d.serial, d.id) for d, (_, _, group) in zip(added, rows, strict=True) if d.serial]
    if serials:
        await tx.db.execute(ADD_SERIALS, *zip(*serials, strict=True))
    return added


async def allocate(tx: Tx, device: Device, product_id: int) -> None:
    """Give the device its product, key, secret and asset, as they stand in `device`."""
    await tx.db.execute(ALLOCATE, device.id, product_id, device.key, _sealed(tx, device), device.asset)


async def reset(tx: Tx, device: Device) -> None:
    """Destroy the secret. Product and key stay reserved for the device."""
    await tx.db.execute(RESET, device.id)


async def set_disabled(tx: Tx, device: Device, *, disabled: bool) -> None:
    await tx.db.execute(SET_DISABLED, device.id, disabled)


async def set_secret(tx: Tx, device: Device) -> None:
    await tx.db.execute(SET_SECRET, device.id, _sealed(tx, device))


async def describe(tx: Tx, device: Device) -> None:
    """Write name, time zone and asset id."""
    await tx.db.execute(
        DESCRIBE, device.id, device.name, json.dumps(device.name_i18n), device.timezone, device.asset
    )  # fmt: skip


async def set_serial(tx: Tx, device: Device, group_id: int) -> None:
    """Put the device into the group under the serial number that stands in `device`.

    Raises: Refusal DUPLICATE from the transaction.
    """
    await tx.db.execute(SET_GROUP, device.id, group_id)
    await tx.db.execute(DROP_SERIAL, device.id)
    await tx.db.execute(ADD_SERIALS, [group_id], [device.serial], [device.id])


async def rename_serial(tx: Tx, device: Device, serial: str) -> None:
    """Raises: Refusal DUPLICATE from the transaction."""
    await tx.db.execute(RENAME_SERIAL, device.id, serial)


async def reopen_activation(tx: Tx, device: Device) -> None:
    """Let the device activate dynamically as if it never had."""
    await tx.db.execute(REOPEN_ACTIVATION, device.id)


async def delete(tx: Tx, device: Device) -> None:
    await tx.db.execute(DELETE, device.id)


async def delete_all(tx: Tx, product_id: int | None, group_ids: Sequence[int]) -> list[tuple[int, Identity]]:
    """Delete the devices of a product and of groups; returns who they were."""
    rows = await tx.db.fetch(DELETE_WHERE, product_id, group_ids)
    return [(row["id"], Identity(row["protocol"], row["product"], row["key"])) for row in rows]


async def kick(tx: Tx, device: Device) -> None:
    """Tell every process to end the device's session."""
    await tx.db.execute(KICK, device.protocol, device.product, device.key)
