"""Claims, descriptions and names that are unique in a protocol, in the database."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from provisioning.model.claim import Claim, ClaimedDevice, CloudType
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Product
from provisioning.store import claims
from provisioning.store.database import Database
from tests.provisioning.store.registry import PROTOCOL, add_device, add_product, execute

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CLAIM = Claim(account="A", cloud_type=CloudType.HOSTED, cloud_name="main", cloud_region="local")


@pytest.fixture
async def product(database: Database) -> Product:
    async with database.begin() as tx:
        return await add_product(tx)


async def add(database: Database, product: Product, key: str = "D1") -> Device | None:
    async with database.begin() as tx:
        return await claims.add(tx, product, key, "")


async def test_of_many_who_add_one_key_one_wins(database: Database, product: Product) -> None:
    results = await asyncio.gather(*(add(database, product) for _ in range(8)))
    assert len([each for each in results if each]) == 1
    async with database.read() as tx:
        assert await tx.db.fetchval("SELECT count(*) FROM device") == 1
        found = await claims.find_all(tx, PROTOCOL, ["D1", "D2"])
        assert await claims.find(tx, "other", "D1") is None
    assert found.keys() == {"D1"}


async def test_a_name_that_is_taken(database: Database, product: Product) -> None:
    await add(database, product)

    async def name_again() -> None:
        async with database.begin() as tx:
            other = await add_product(tx, "other")
            await claims.name_all(tx, [await add_device(tx, other, "D1")])

    with pytest.raises(Refusal) as refused:
        await name_again()
    assert refused.value.reason is Reason.DUPLICATE


async def test_a_claim_goes_with_its_device(database: Database, product: Product) -> None:
    device = await add(database, product)
    assert device is not None
    async with database.begin() as tx:
        await claims.put(tx, [(device.id, CLAIM)])
        await claims.describe(tx, device.id, {"a": 1}, test=True, now=NOW)
        found = (await claims.of(tx, [device.id]))[device.id]
        assert found.is_same(CLAIM)
        (claimed,) = await claims.with_claims(tx, [device])
        assert isinstance(claimed, ClaimedDevice)
        assert claimed.claim.is_same(CLAIM)
    await execute(database, "DELETE FROM device")
    async with database.read() as tx:
        assert await claims.of(tx, [device.id]) == {}
        assert await claims.told(tx, [device.id]) == {}
        assert await claims.find(tx, PROTOCOL, "D1") is None


async def test_who_waits_is_noted_once(database: Database, product: Product) -> None:
    device = await add(database, product)
    assert device is not None
    async with database.begin() as tx:
        await claims.put(tx, [(device.id, CLAIM)])
        assert await claims.note_asked(tx, device.id, NOW)
        assert not await claims.note_asked(tx, device.id, NOW + timedelta(hours=1))
        await claims.confirm(tx, device.id, NOW + timedelta(hours=2))
        held = (await claims.of(tx, [device.id]))[device.id]
        assert (held.asked_at, held.confirmed) == (NOW, True)
        await claims.settle(tx, device.id)
        held = (await claims.of(tx, [device.id]))[device.id]
        assert (held.asked_at, held.confirmed) == (None, False)


async def test_what_a_device_tells(database: Database, product: Product) -> None:
    device = await add(database, product)
    assert device is not None
    later = NOW + timedelta(seconds=61)
    async with database.begin() as tx:
        await claims.note_accessed(tx, device.id, NOW)  # there is nothing yet, and that is no mistake
        await claims.describe(tx, device.id, {"a": ["ä", 1.5, None]}, test=True, now=NOW)
        await claims.describe(tx, device.id, {"a": ["ä", 1.5, None]}, test=True, now=NOW + timedelta(seconds=59))
        told = (await claims.told(tx, [device.id]))[device.id]
        assert (told.body, told.fields, told.test, told.accessed_at) == ({"a": ["ä", 1.5, None]}, {}, True, NOW)
        await claims.note_checked(tx, device.id, {"b": 2}, test=False, version="1.0.0", now=later)
        told = (await claims.told(tx, [device.id]))[device.id]
        assert (told.fields, told.test, told.version, told.checked_at) == ({"b": 2}, False, "1.0.0", later)
        assert told.body == {"a": ["ä", 1.5, None]}
