import asyncio

import pytest

from provisioning.model.credential import Credential
from provisioning.model.lifecycle import State
from provisioning.store import devices, logins
from provisioning.store.database import Database
from provisioning.store.sealing import SealError
from tests.provisioning.store.registry import PROTOCOL, Fleet, add_fleet, execute, identity


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


async def look_up(database: Database, device: str = "dk", product: str = "pk") -> Credential:
    async with database.read() as tx:
        (found,) = await logins.look_up(tx, [identity(device, product)])
    assert isinstance(found, Credential)
    return found


async def test_everything_that_a_login_needs(database: Database, fleet: Fleet) -> None:
    found = await look_up(database)
    assert found.identity == fleet.identity
    assert found.product is not None
    assert found.device is not None
    assert (found.product.id, found.product.secret) == (fleet.product.id, fleet.product.secret)
    assert (found.product.dynamic_activation, found.product.auto_create) == (True, False)
    assert (found.device.id, found.device.secret, found.device.asset) == (
        fleet.device.id,
        fleet.device.secret,
        "asset of dk",
    )
    assert (found.device.epoch, found.device.disabled, found.device.activated) == (0, False, False)
    await execute(
        database,
        "UPDATE device SET disabled = true, state = 'activated', activated_at = now(), secret = secret || ''::bytea",
    )
    device = (await look_up(database)).device
    assert device is not None
    assert (device.epoch, device.disabled, device.activated) == (0, True, True)


async def test_what_is_missing_is_none_and_answers_keep_their_order(database: Database, fleet: Fleet) -> None:
    asked = [
        identity("dk"),
        identity("nobody"),
        identity("dk", "nothing"),
        identity()._replace(protocol="x"),
        identity("dk-sn"),
        identity("dk"),
    ]
    async with database.read() as tx:
        found = await logins.look_up(tx, asked)
    assert [one.identity for one in found if isinstance(one, Credential)] == asked
    assert [(one.product is not None, one.device is not None) for one in found if isinstance(one, Credential)] == [
        (True, True), (True, False), (False, False), (False, False), (True, True), (True, True),
    ]  # fmt: skip


async def test_a_reset_device_has_no_credential(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await devices.reset(tx, fleet.enrolled)
    assert (await look_up(database, "dk-sn")).device is None


async def test_a_damaged_row_hinders_no_other(database: Database, fleet: Fleet) -> None:
    await execute(database, "UPDATE device SET secret = secret || '\\x00'::bytea WHERE key = 'dk'")
    async with database.read() as tx:
        damaged, fine = await logins.look_up(tx, [identity("dk"), identity("dk-sn")])
    assert isinstance(damaged, SealError)
    assert isinstance(fine, Credential)


async def test_what_a_live_session_depends_on(database: Database, fleet: Fleet) -> None:
    one, two = fleet.device.id, fleet.enrolled.id
    await execute(database, "UPDATE device SET disabled = true, secret = 'unreadable' WHERE id = $1", one)
    async with database.begin() as tx:
        assert await logins.standing(tx, [one, two, 0]) == {one: (1, True), two: (0, False)}
        await devices.reset(tx, fleet.enrolled)
        assert await logins.standing(tx, [two]) == {}


async def issue(database: Database, wanted: dict[int, int], limit: int = 5) -> dict[int, int]:
    async with database.begin() as tx:
        return await logins.issue(tx, wanted, limit)


async def test_sessions_are_counted_up_to_the_limit(database: Database, fleet: Fleet) -> None:
    one, two = fleet.device.id, fleet.enrolled.id
    assert await issue(database, {one: 1, two: 3}) == {one: 1, two: 3}
    assert await issue(database, {one: 1, two: 3}) == {one: 1, two: 2}
    assert await issue(database, {one: 9, two: 1, 0: 1}) == {one: 3}
    assert await issue(database, {one: 1}) == {}
    assert await issue(database, {}) == {}
    async with database.read() as tx:
        assert [row[0] for row in await tx.db.fetch("SELECT activations FROM device")] == [5, 5]


@pytest.mark.parametrize(
    "change", ["disabled = true", "activation_closed = true", "state = 'activated', activated_at = now()"]
)
async def test_who_may_not_activate_is_not_counted(database: Database, fleet: Fleet, change: str) -> None:
    await execute(database, f"UPDATE device SET {change}")
    assert await issue(database, {fleet.device.id: 1}) == {}


async def test_close_activation(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await logins.close_activation(tx, fleet.device.id)
    assert await issue(database, {fleet.device.id: 1, fleet.enrolled.id: 1}) == {fleet.enrolled.id: 1}


async def test_only_the_first_login_activates(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        assert await logins.activate(tx, [fleet.device.id, 0]) == {fleet.device.id}
        assert await logins.activate(tx, [fleet.device.id, fleet.enrolled.id]) == {fleet.enrolled.id}
        assert await logins.activate(tx, [fleet.device.id, fleet.enrolled.id]) == set()
        found = await devices.by_id(tx, fleet.device.id)
        assert found is not None
        assert (found.state, found.activated_at is not None) == (State.ACTIVATED, True)


async def test_batches_with_common_devices_wait_for_each_other(database: Database, fleet: Fleet) -> None:
    """In whichever order they name them: no deadlock."""
    one, two = fleet.device.id, fleet.enrolled.id
    rounds = [issue(database, {a: 1, b: 1}, 1_000) for _ in range(50) for a, b in ((one, two), (two, one))]
    results = await asyncio.gather(*rounds)
    assert all(result == {one: 1, two: 1} for result in results)


async def test_create_makes_one_device(database: Database, fleet: Fleet) -> None:
    async def create(secret: str) -> int | None:
        async with database.begin() as tx:
            return await logins.create(tx, identity("new"), fleet.product.id, secret, "asset")

    made = [device_id for device_id in await asyncio.gather(*map(create, "abcd")) if device_id is not None]
    assert len(made) == 1
    device = (await look_up(database, "new")).device
    assert device is not None
    assert (device.id, device.secret in set("abcd"), device.asset) == (made[0], True, "asset")
    async with database.read() as tx:
        stored = await devices.by_id(tx, made[0])
    assert stored is not None
    assert (stored.state, stored.protocol) == (State.ALLOCATED, PROTOCOL)
