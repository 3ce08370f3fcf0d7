from dataclasses import replace

import pytest

from provisioning.model.refusal import Reason, Refusal
from provisioning.store import groups
from provisioning.store.database import Database
from tests.provisioning.store.registry import PROTOCOL, add_device, add_group, add_product


async def test_what_is_added_is_found(database: Database) -> None:
    async with database.begin() as tx:
        product = await add_product(tx)
        added = await add_group(tx, "g", product, name="n", auto_register=False, auto_activation=True, freshness=0)
        bare = await add_group(tx, "bare")
        assert await groups.find(tx, PROTOCOL, "g") == added
        assert await groups.find(tx, PROTOCOL, "bare") == bare
        assert await groups.find(tx, PROTOCOL, "x") is None
        assert await groups.find(tx, "x", "g") is None
        assert await groups.find_all(tx, PROTOCOL, ["g", "bare", "x"]) == {"g": added, "bare": bare}
    assert (added.product, added.product_id, bare.product, bare.product_id) == ("pk", product.id, "", None)
    assert added.password == "password of g"


async def test_pages_follow_each_other(database: Database) -> None:
    async with database.begin() as tx:
        for key in "cab":
            await add_group(tx, key)
        first = await groups.page(tx, PROTOCOL, ("", ""), 2)
        rest = await groups.page(tx, None, (PROTOCOL, first[-1].key), 2)
        assert [group.key for group in first + rest] == ["a", "b", "c"]
        assert await groups.page(tx, "x", ("", ""), 2) == []


async def test_groups_of_a_product(database: Database) -> None:
    async with database.begin() as tx:
        one, two = await add_product(tx, "one"), await add_product(tx, "two")
        for key in "ba":
            await add_group(tx, key, one)
        await add_group(tx, "c", two)
        assert [group.key for group in await groups.of_product(tx, one.id)] == ["a", "b"]


async def test_update_writes_what_may_change(database: Database) -> None:
    async with database.begin() as tx:
        product = await add_product(tx)
        changed = replace(
            await add_group(tx), password="new", product="pk", product_id=product.id, name="n", auto_register=False,
            auto_activation=True, freshness=5,
        )  # fmt: skip
        await groups.update(tx, changed)
        assert await groups.find(tx, PROTOCOL, "g") == changed


async def test_delete(database: Database) -> None:
    async with database.begin() as tx:
        await groups.delete(tx, await add_group(tx))
        assert await groups.find(tx, PROTOCOL, "g") is None
    with pytest.raises(Refusal) as caught:  # noqa: PT012 - the refusal comes when the transaction ends
        async with database.begin() as tx:
            product = await add_product(tx)
            group = await add_group(tx, product=product)
            await add_device(tx, product, group=group, serial="SN")
            await groups.delete(tx, group)
    assert caught.value.reason is Reason.IN_USE
