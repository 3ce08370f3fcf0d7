from dataclasses import replace

import pytest

from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Product
from provisioning.store import products
from provisioning.store.database import Database
from provisioning.store.sealing import SealError
from tests.provisioning.store.registry import PROTOCOL, add_device, add_product, execute


async def test_what_is_added_is_found(database: Database) -> None:
    async with database.begin() as tx:
        added = await add_product(
            tx, name="Näme", dynamic_activation=True, auto_create=True, demo=True, register_limit=1_000_000,
            client_authority="factory",
        )  # fmt: skip
    async with database.read() as tx:
        found = await products.find(tx, PROTOCOL, "pk")
        assert found == added
        assert await products.find(tx, PROTOCOL, "other") is None
        assert await products.find(tx, "other", "pk") is None
    assert found is not None
    assert (found.id > 0, found.created_at is not None, found.secret) == (True, True, "secret of pk")


async def test_find_all(database: Database) -> None:
    async with database.begin() as tx:
        for key in "abc":
            await add_product(tx, key)
        assert (await products.find_all(tx, PROTOCOL, ["a", "c", "x"])).keys() == {"a", "c"}
        assert await products.find_all(tx, PROTOCOL, []) == {}


async def test_pages_follow_each_other_and_count_devices(database: Database) -> None:
    async with database.begin() as tx:
        for key in "cab":
            product = await add_product(tx, key)
        await add_device(tx, product)
        await products.add(tx, Product(protocol="another", key="z", secret="s"))
        first = await products.page(tx, None, ("", ""), 2)
        rest = await products.page(tx, None, (first[-1].protocol, first[-1].key), 10)
        assert [(p.protocol, p.key) for p in first + rest] == [
            ("another", "z"), (PROTOCOL, "a"), (PROTOCOL, "b"), (PROTOCOL, "c"),
        ]  # fmt: skip
        assert [p.devices for p in first + rest] == [0, 0, 1, 0]
        assert [p.key for p in await products.page(tx, PROTOCOL, ("", ""), 10)] == ["a", "b", "c"]


async def test_update_writes_what_may_change(database: Database) -> None:
    async with database.begin() as tx:
        added = await add_product(tx)
        changed = replace(
            added, secret="new", name="n", dynamic_activation=True, auto_create=True, demo=True, register_limit=5,
            client_authority="factory",
        )  # fmt: skip
        await products.update(tx, changed)
        assert await products.find(tx, PROTOCOL, "pk") == changed


async def test_delete(database: Database) -> None:
    async with database.begin() as tx:
        await products.delete(tx, await add_product(tx))
        assert await products.find(tx, PROTOCOL, "pk") is None
    with pytest.raises(Refusal) as caught:  # noqa: PT012 - the refusal comes when the transaction ends
        async with database.begin() as tx:
            product = await add_product(tx)
            await add_device(tx, product)
            await products.delete(tx, product)
    assert caught.value.reason is Reason.IN_USE


async def test_demo_and_emptiness(database: Database) -> None:
    async with database.begin() as tx:
        assert await products.registry_is_empty(tx)
        assert await products.demo_keys(tx) == []
        await add_product(tx, "real")
        await add_product(tx, "b", demo=True)
        await add_product(tx, "a", demo=True)
        assert await products.demo_keys(tx) == [(PROTOCOL, "a"), (PROTOCOL, "b")]
        assert not await products.registry_is_empty(tx)


async def test_a_group_alone_is_not_an_empty_registry(database: Database) -> None:
    await execute(database, "INSERT INTO enrolment_group (protocol, key, password) VALUES ('p', 'g', '')")
    async with database.read() as tx:
        assert not await products.registry_is_empty(tx)


async def test_a_secret_of_another_row_does_not_open(database: Database) -> None:
    async with database.begin() as tx:
        await add_product(tx, "a")
        await add_product(tx, "b")
    await execute(database, "UPDATE product SET secret = (SELECT secret FROM product WHERE key = 'a') WHERE key = 'b'")
    with pytest.raises(SealError, match=r"product\|proto\|b"):
        async with database.read() as tx:
            await products.find(tx, PROTOCOL, "b")
