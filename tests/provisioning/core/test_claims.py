"""Claim and release, and what each leaves behind. Registration and certificates: with the protocol that has them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioning.core import claims, registry
from provisioning.model.claim import Claim, CloudType
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Product
from provisioning.store import claims as store
from provisioning.store import devices
from provisioning.store.database import Database
from tests.conftest import until
from tests.provisioning.store.registry import PROTOCOL, add_product

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CLAIM = Claim(account="ACC1", cloud_type=CloudType.HOSTED, cloud_name="main", cloud_region="local")


@pytest.fixture
async def product(database: Database) -> Product:
    async with database.begin() as tx:
        return await add_product(tx, certificate_login=True)


async def register(database: Database, product: Product, key: str = "D1", **more: Any) -> tuple[Device, Claim | None]:
    async with database.begin() as tx:
        return await claims.register(tx, product, key, {"id": key}, now=NOW, **more)


async def stored(database: Database, key: str = "D1") -> Device:
    async with database.read() as tx:
        return await claims.device(tx, PROTOCOL, key)


async def kinds(database: Database) -> list[str]:
    async with database.read() as tx:
        return [row["kind"] for row in await tx.db.fetch("SELECT kind FROM event ORDER BY id")]


async def test_a_device_registers_once(database: Database, product: Product) -> None:
    for _ in range(2):
        device, held = await register(database, product, name="Dev", test=True)
        assert (device.state, device.product, device.key, held) == (State.REGISTERED, "pk", "D1", None)
    found = await stored(database)
    assert (found.name, found.secret, found.certificate_login) == ("Dev", "", True)
    assert await kinds(database) == ["device.registered"]
    async with database.read() as tx:
        assert (await store.told(tx, [found.id]))[found.id].test


async def test_keys_are_unique_among_all_products(database: Database, product: Product) -> None:
    await register(database, product)
    async with database.begin() as tx:
        other = await add_product(tx, "other")
    with pytest.raises(Refusal) as refused:
        await register(database, other)
    assert (refused.value.reason, refused.value.detail["field"]) == (Reason.DUPLICATE, "device")


async def test_polling_writes_nothing(database: Database, product: Product) -> None:
    await register(database, product)
    async with database.read() as tx:
        before = await tx.db.fetchval("SELECT xmin::text FROM description")
    await register(database, product)
    async with database.read() as tx:
        assert await tx.db.fetchval("SELECT xmin::text FROM description") == before


async def test_claim_and_release(database: Database, product: Product) -> None:
    device, _ = await register(database, product)
    for _ in range(2):  # safe to repeat
        async with database.begin() as tx:
            assert (await claims.claim(tx, device, CLAIM)).account == "ACC1"
    claimed = await stored(database)
    assert claimed.state is State.ALLOCATED
    assert claimed.secret
    async with database.begin() as tx:
        await claims.release(tx, claimed, now=NOW)
        assert await claims.claim_of(tx, claimed) is None
    released = await stored(database)
    assert (released.state, released.secret, released.key) == (State.REGISTERED, "", "D1")
    assert await kinds(database) == ["device.registered", "device.claimed", "device.released"]


async def test_steps_that_the_life_of_a_device_does_not_have(database: Database, product: Product) -> None:
    device, _ = await register(database, product)
    steps: list[Any] = [
        lambda tx: claims.release(tx, device, now=NOW),
        lambda tx: claims.confirm(tx, device, now=NOW),
    ]
    for step in steps:
        with pytest.raises(Refusal) as refused:
            async with database.begin() as tx:
                await step(tx)
        assert refused.value.reason is Reason.ILLEGAL_TRANSITION
    other = Claim(account="ACC2", cloud_type=CloudType.HOSTED, cloud_name="main", cloud_region="local")
    async with database.begin() as tx:
        await claims.claim(tx, device, CLAIM)
        with pytest.raises(Refusal) as refused:
            await claims.claim(tx, device, other)
    assert "ACC1" in str(refused.value.detail["state"])


async def test_a_device_that_a_reset_has_hit_is_still_released(database: Database, product: Product) -> None:
    device, _ = await register(database, product, claim=CLAIM)
    async with database.begin() as tx:
        await registry.reset(tx, device)
    async with database.begin() as tx:
        await claims.release(tx, device, now=NOW)
    assert (await stored(database)).state is State.REGISTERED


async def test_no_token_for_a_device_that_is_released_meanwhile(database: Database, product: Product) -> None:
    device, held = await register(database, product, claim=CLAIM)
    assert held is not None
    async with database.begin() as tx:
        await claims.release(tx, device, now=NOW)
        assert await claims.hand_token(tx, device, ask=False, now=NOW) is None


async def test_an_unknown_device(database: Database) -> None:
    with pytest.raises(Refusal) as refused:
        await stored(database)
    assert refused.value.reason is Reason.UNKNOWN


async def test_all_lock_the_device_first(database: Database, product: Product) -> None:
    """Who registers holds nothing of the device while somebody else has it: they would wait for each other."""
    device, _ = await register(database, product, claim=CLAIM)
    async with database.begin() as tx:
        await devices.hold(tx, device.id)
        registering = asyncio.create_task(register(database, product, name="another"))

        async def waits() -> bool:
            async with database.read() as other:
                found: bool = await other.db.fetchval(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')"
                )
                return found

        await until(waits, "the other one waits")
        await tx.db.execute("SET LOCAL lock_timeout = '3s'")
        await store.note_accessed(tx, device.id, NOW + timedelta(hours=1))
    await registering
