import asyncio

import pytest

from provisioning.model.credential import Credential
from provisioning.model.lifecycle import State
from provisioning.model.registry import Product
from provisioning.store import devices, logins, products, registrations
from provisioning.store.database import Database
from provisioning.store.registrations import Standing
from provisioning.store.sealing import SealError
from tests.conftest import until
from tests.provisioning.store.registry import PROTOCOL, add_device, add_product, execute, identity


@pytest.fixture
async def product(database: Database) -> Product:
    async with database.begin() as tx:
        return await add_product(tx, dynamic_activation=True, auto_create=True, register_limit=2)


async def create(database: Database, product: Product, *names: str) -> dict[str, int]:
    async with database.begin() as tx:
        added = await registrations.create(tx, [(identity(name), product.id, f"secret of {name}") for name in names])
        if added:
            await registrations.count(tx, {product.id: len(added)})
    return {name.device: device_id for name, device_id in added.items()}


async def counted(database: Database, product: Product) -> int:
    async with database.read() as tx:
        return await registrations.devices_of(tx, product.id)


async def look_up(database: Database, name: str = "dk") -> Standing:
    async with database.read() as tx:
        (found,) = await registrations.look_up(tx, [identity(name)])
    assert isinstance(found, Standing)
    return found


async def test_everything_that_a_registration_needs(database: Database, product: Product) -> None:
    before = await look_up(database)
    assert before.credential.product is not None
    assert (before.credential.product.id, before.credential.product.secret) == (product.id, "secret of pk")
    assert (before.credential.device, before.is_full) == (None, False)
    created = await create(database, product, "dk", "other")
    found = await look_up(database)
    assert found.is_full
    assert found.credential.device is not None
    assert (found.credential.device.id, found.credential.device.secret) == (created["dk"], "secret of dk")
    async with database.read() as tx:
        device = await devices.by_id(tx, created["dk"])
    assert device is not None
    assert (device.state, device.self_registered, device.asset, device.group) == (State.ALLOCATED, True, "", "")


async def test_answers_keep_their_order(database: Database, product: Product) -> None:
    await create(database, product, "a", "b")
    asked = [identity("b"), identity("x"), identity("a", "nothing"), identity("a"), identity("b")]
    async with database.read() as tx:
        found = [one.credential for one in await registrations.look_up(tx, asked) if isinstance(one, Standing)]
    assert [one.identity for one in found] == asked
    assert [(one.product is not None, one.device is not None) for one in found] == [
        (True, True), (True, False), (False, False), (True, True), (True, True),
    ]  # fmt: skip


async def test_a_damaged_row_leaves_the_others_alone(database: Database, product: Product) -> None:
    created = await create(database, product, "a", "b")
    await execute(database, "UPDATE device SET secret = 'x' WHERE key = 'a'")
    async with database.begin() as tx:
        first, second = await registrations.look_up(tx, [identity("a"), identity("b")])
        locked = await registrations.lock(tx, created.values())
    assert isinstance(first, SealError)
    assert isinstance(second, Standing)
    assert isinstance(locked[created["a"]], SealError)
    assert isinstance(locked[created["b"]], Credential)


async def test_a_device_is_created_once(database: Database, product: Product) -> None:
    first = await create(database, product, "a", "b")
    assert first.keys() == {"a", "b"}
    assert (await create(database, product, "b", "c")).keys() == {"c"}
    racing = await asyncio.gather(*(create(database, product, "d", "e", "f") for _ in range(4)))
    assert sorted(name for added in racing for name in added) == ["d", "e", "f"]
    assert await counted(database, product) == 6


@pytest.mark.parametrize("switch", ["dynamic_activation", "auto_create"])
async def test_a_product_that_was_closed_gets_none(database: Database, product: Product, switch: str) -> None:
    await execute(database, f"UPDATE product SET {switch} = false")
    assert await create(database, product, "a") == {}


async def test_a_product_that_is_gone_gets_none(database: Database, product: Product) -> None:
    async with database.begin() as tx:
        await products.delete(tx, product)
    assert await create(database, product, "a") == {}


async def test_how_many_are_above_the_limit(database: Database, product: Product) -> None:
    async with database.begin() as tx:
        free = await add_product(tx, "free")
        assert await registrations.count(tx, {product.id: 1, free.id: 1_000}) == {}
        assert await registrations.count(tx, {product.id: 1}) == {}
        assert await registrations.count(tx, {product.id: 4, free.id: 1}) == {product.id: 4}


async def test_whoever_deletes_frees_places(database: Database, product: Product) -> None:
    """In one statement or in several, by our code or at a psql prompt; those made by hand never counted."""
    created = await create(database, product, *"abcde")
    async with database.begin() as tx:
        await add_device(tx, product, "by hand")
        other = await add_product(tx, "other", dynamic_activation=True, auto_create=True)
        mine = await registrations.create(tx, [(identity("x", "other"), other.id, "s")])
        await registrations.count(tx, {other.id: len(mine)})
    async with database.begin() as tx:
        await registrations.take_back(tx, [created["a"]])
    assert await counted(database, product) == 4
    await execute(database, "DELETE FROM device WHERE key IN ('b', 'by hand', 'x')")
    assert (await counted(database, product), await counted(database, other)) == (3, 0)
    await execute(database, "DELETE FROM device WHERE key = 'nobody'")
    assert await counted(database, product) == 3
    await execute(database, "TRUNCATE device CASCADE")
    assert await counted(database, product) == 0


async def test_the_count_goes_with_its_product(database: Database, product: Product) -> None:
    await create(database, product, "a")
    await execute(database, "DELETE FROM device")
    async with database.begin() as tx:
        await products.delete(tx, product)
        assert await tx.db.fetchval("SELECT count(*) FROM registration") == 0


async def test_a_product_whose_deletion_is_under_way_is_not_held(database: Database, product: Product) -> None:
    async with database.begin() as deletion:
        await products.lock_for_deletion(deletion, product)
        async with database.begin() as tx:
            assert await registrations.hold(tx, [product.id, product.id + 1]) == {product.id + 1}
    async with database.begin() as tx, database.begin() as another:
        assert await registrations.hold(tx, [product.id]) == await registrations.hold(another, [product.id])


async def test_a_lock_is_held_until_the_end(database: Database, product: Product) -> None:
    created = await create(database, product, "a")
    async with database.begin() as tx:
        assert (await registrations.lock(tx, [created["a"], 999])).keys() == {created["a"]}
        deletion = asyncio.create_task(execute(database, "DELETE FROM device"))

        async def waits() -> bool:
            return bool(await tx.db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))

        await until(waits, "the deletion to wait for the lock")
        assert not deletion.done()
    await deletion
    async with database.begin() as tx:
        assert await registrations.lock(tx, [created["a"]]) == {}


async def test_deletions_and_registrations_do_not_wait_in_a_circle(database: Database, product: Product) -> None:
    """Each locks device rows first and the count last."""
    await execute(database, "UPDATE product SET register_limit = NULL")
    for turn in range(5):
        names = [f"{turn}-{n}" for n in range(20)]
        created = await create(database, product, *names)

        async def rotate(ids: dict[str, int], turn: int = turn) -> None:
            async with database.begin() as tx:
                found = await registrations.lock(tx, ids.values())
                await registrations.rotate(
                    tx, {key: (one.identity, "new") for key, one in found.items() if isinstance(one, Credential)}
                )
                added = await registrations.create(tx, [(identity(f"{turn}-new"), product.id, "s")])
                await registrations.count(tx, {product.id: len(added)})

        await asyncio.gather(rotate(created), execute(database, "DELETE FROM device WHERE key NOT LIKE '%new'"))
    async with database.read() as tx:
        listed = await devices.page(tx, devices.Filter(protocol=PROTOCOL), 0, 999)
    assert await counted(database, product) == len(listed)


async def test_a_new_secret_ends_sessions_of_the_old_one(database: Database, product: Product) -> None:
    created = await create(database, product, "a", "b")
    async with database.begin() as tx:
        await registrations.rotate(tx, {created["a"]: (identity("a"), "new")})
    for name, secret, epoch in (("a", "new", 1), ("b", "secret of b", 0)):
        device = (await look_up(database, name)).credential.device
        assert device is not None
        assert (device.secret, device.epoch) == (secret, epoch)


@pytest.mark.parametrize("statement", [registrations.LOOK_UP, logins.LOOK_UP], ids=["registrations", "logins"])
async def test_a_look_up_reads_the_devices_that_it_names_and_no_others(
    database: Database, product: Product, statement: str
) -> None:
    """While a table grows the planner has no statistics of it, and must not take a product for small."""
    await create(database, product, *(f"d{n}" for n in range(1_000)))
    columns = zip(*(("proto", "pk", f"d{n}") for n in range(50)), strict=True)
    async with database.read() as tx:
        plan = "\n".join(row[0] for row in await tx.db.fetch(f"EXPLAIN {statement}", *columns))
    assert "Index Cond: ((product_id = p.id) AND (key = w.device))" in plan, plan
