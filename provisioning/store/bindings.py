"""The table `binding`: which gateway speaks for which device.

Whoever adds a binding holds the rows of all devices in it (`lock`), so that what it has read of them stays true: a
gateway is never at the same time behind another one, and its limit holds.
"""

from collections.abc import Collection, Sequence
from typing import Final

from provisioning.model.identity import Identity
from provisioning.store.database import Tx

# In the order of everybody who locks devices.
LOCK: Final = "SELECT id FROM device WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"
GATEWAYS_OF: Final = "SELECT sub_device_id, gateway_id FROM binding WHERE sub_device_id = ANY($1)"
WITH_SUB_DEVICES: Final = "SELECT DISTINCT gateway_id FROM binding WHERE gateway_id = ANY($1)"
COUNT: Final = "SELECT count(*) FROM binding WHERE gateway_id = $1"
ADD: Final = (
    "INSERT INTO binding (sub_device_id, gateway_id) SELECT id, $2 FROM unnest($1::bigint[]) w (id) ORDER BY id"
)
REMOVE: Final = """
    WITH held AS (SELECT sub_device_id FROM binding WHERE sub_device_id = ANY($1) AND gateway_id = $2
                  ORDER BY sub_device_id FOR UPDATE)
    DELETE FROM binding b USING held WHERE b.sub_device_id = held.sub_device_id RETURNING b.sub_device_id
"""
OF_GATEWAY: Final = """
    SELECT d.protocol, p.key AS product, d.key AS device
    FROM binding b JOIN device d ON d.id = b.sub_device_id JOIN product p ON p.id = d.product_id
    WHERE b.gateway_id = $1 ORDER BY d.id
"""


async def lock(tx: Tx, device_ids: Collection[int]) -> set[int]:
    """Hold the devices until the transaction ends; returns those that there are."""
    return {row["id"] for row in await tx.db.fetch(LOCK, list(device_ids))}


async def gateways_of(tx: Tx, device_ids: Collection[int]) -> dict[int, int]:
    """Device id -> id of its gateway, of those that are bound."""
    rows = await tx.db.fetch(GATEWAYS_OF, list(device_ids))
    return {row["sub_device_id"]: row["gateway_id"] for row in rows}


async def with_sub_devices(tx: Tx, device_ids: Collection[int]) -> set[int]:
    """Those that speak for others."""
    return {row["gateway_id"] for row in await tx.db.fetch(WITH_SUB_DEVICES, list(device_ids))}


async def count(tx: Tx, gateway_id: int) -> int:
    """How many devices the gateway speaks for."""
    found: int = await tx.db.fetchval(COUNT, gateway_id)
    return found


async def add(tx: Tx, gateway_id: int, device_ids: Sequence[int]) -> None:
    """Bind devices that are locked and not bound."""
    if device_ids:
        await tx.db.execute(ADD, list(device_ids), gateway_id)


async def remove(tx: Tx, gateway_id: int, device_ids: Collection[int]) -> set[int]:
    """Unbind devices from this gateway; returns those that were bound to it."""
    return {row["sub_device_id"] for row in await tx.db.fetch(REMOVE, list(device_ids), gateway_id)}


async def of_gateway(tx: Tx, gateway_id: int) -> list[Identity]:
    """The devices that the gateway speaks for, in the order of their ids."""
    return [Identity(**row) for row in await tx.db.fetch(OF_GATEWAY, gateway_id)]
