import asyncio

import pytest

from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import bindings, devices
from provisioning.store.database import Database
from tests.certificates import notifications
from tests.conftest import until
from tests.provisioning.store.registry import add_device, add_product, execute


async def add(database: Database, *names: str) -> list[Device]:
    async with database.begin() as tx:
        product = await add_product(tx)
        return [await add_device(tx, product, name) for name in names]


async def test_bindings(database: Database) -> None:
    gateway, other, one, two, three = await add(database, "g", "h", "s1", "s2", "s3")
    async with database.begin() as tx:
        await bindings.add(tx, gateway.id, [two.id, one.id])
        await bindings.add(tx, other.id, [three.id])
        await bindings.add(tx, other.id, [])
    async with database.begin() as tx:
        assert await bindings.gateways_of(tx, [one.id, three.id, gateway.id]) == {
            one.id: gateway.id,
            three.id: other.id,
        }
        assert await bindings.with_sub_devices(tx, [one.id, gateway.id]) == {gateway.id}
        assert await bindings.count(tx, gateway.id) == 2
        assert await bindings.of_gateway(tx, gateway.id) == [one.identity, two.identity]
        assert await bindings.lock(tx, [one.id, 4711]) == {one.id}
        assert await bindings.remove(tx, gateway.id, [one.id, three.id]) == {one.id}
        assert await bindings.of_gateway(tx, gateway.id) == [two.identity]


async def test_one_gateway_for_each_device(database: Database) -> None:
    gateway, other, one = await add(database, "g", "h", "s1")
    async with database.begin() as tx:
        await bindings.add(tx, gateway.id, [one.id])
    with pytest.raises(Refusal) as caught:
        async with database.begin() as tx:
            await bindings.add(tx, other.id, [one.id])
    assert caught.value.reason is Reason.DUPLICATE


async def test_who_locks_the_same_devices_waits(database: Database) -> None:
    """In whatever order they are named: nobody waits in a ring."""
    one, other = await add(database, "a", "b")

    async def lock(*ids: int) -> None:
        for _ in range(10):
            async with database.begin() as tx:
                assert await bindings.lock(tx, ids) == set(ids)

    await asyncio.gather(lock(one.id, other.id), lock(other.id, one.id))


async def test_a_device_that_is_gone_leaves_no_binding(database: Database) -> None:
    gateway, one, two = await add(database, "g", "s1", "s2")
    async with database.begin() as tx:
        await bindings.add(tx, gateway.id, [one.id, two.id])
    async with database.begin() as tx:
        await devices.delete(tx, one)
        assert await bindings.of_gateway(tx, gateway.id) == [two.identity]
        await devices.delete(tx, gateway)
        assert await bindings.gateways_of(tx, [two.id]) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE device SET disabled = true WHERE key = 's1'", True),
        ("UPDATE device SET secret = secret || '\\x00'::bytea WHERE key = 's1'", True),
        ("DELETE FROM device WHERE key = 's1'", True),
        ("UPDATE device SET disabled = true WHERE key = 's2'", False),
        ("UPDATE device SET name = 'x' WHERE key = 's1'", False),
    ],
)
async def test_the_gateway_of_a_device_that_may_not_go_on(
    database: Database, database_url: str, change: str, told: bool
) -> None:
    gateway, one, _ = await add(database, "g", "s1", "s2")
    async with database.begin() as tx:
        await bindings.add(tx, gateway.id, [one.id])
    async with notifications(database_url) as heard:
        await execute(database, change)
        await execute(database, "SELECT pg_notify('gatehouse', '{\"change\":\"end\"}')")
        await until(lambda: heard and heard[-1]["change"] == "end", "the notifications")
    kicked = {"change": "kicked", "protocol": "proto", "product": "pk", "device": "g"}
    assert (kicked in heard) is told
