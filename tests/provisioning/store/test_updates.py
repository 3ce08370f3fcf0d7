import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from provisioning.model.registry import Device
from provisioning.model.update import Update
from provisioning.store import updates
from provisioning.store.database import Database, Tx
from tests.provisioning.store.registry import PROTOCOL, add_device, add_product

pytestmark = pytest.mark.server

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CHECKSUM = "41bb20919c5d1d1eb2299079216a300c0fcbf4c5e2ebf0e418ea15919f07fe7f"


async def add(tx: Tx, version: str = "1.4.0", **more: Any) -> Update:
    fields: dict[str, Any] = {"protocol": PROTOCOL, "product": "pk", "checksum": CHECKSUM, "size": 14, "file": "f"}
    added = await updates.add(tx, Update(version=version, **fields | more))
    assert added
    return added


@pytest.fixture
async def device(database: Database) -> Device:
    async with database.begin() as tx:
        await add_product(tx, "other")
        return await add_device(tx, await add_product(tx), "d")


async def test_what_is_added_is_found(database: Database, device: Device) -> None:
    async with database.begin() as tx:
        added = await add(
            tx, policy="a == 1", percentage=7, max_devices=3, rate=2, rate_period=60, test=True, file="fw.bin"
        )  # fmt: skip
        assert await updates.find(tx, added.id) == added
        assert await updates.lock(tx, added.id) == added
        assert await updates.find(tx, added.id + 1) is None
        assert await updates.add(tx, Update(**_fields(added) | {"product": "nope"})) is None


def _fields(update: Update) -> dict[str, Any]:
    return {name: getattr(update, name) for name in update.__slots__}


@pytest.mark.parametrize(
    "wrong",
    [
        {"checksum": "../x"}, {"checksum": CHECKSUM.upper()}, {"percentage": 0}, {"percentage": 101},
        {"max_devices": 0}, {"rate": 0}, {"size": -1},
    ],
)  # fmt: skip
async def test_the_table_refuses_what_makes_no_sense(database: Database, device: Device, wrong: dict[str, Any]) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        async with database.begin() as tx:
            await add(tx, **wrong)


async def test_pages_follow_each_other(database: Database, device: Device) -> None:
    async with database.begin() as tx:
        names = [(await add(tx, version)).name for version in ("1.0.0", "1.1.0", "1.2.0")]
        await add(tx, product="other")
        first = await updates.page(tx, PROTOCOL, "pk", 0, 2)
        rest = await updates.page(tx, PROTOCOL, "pk", first[-1].id, 2)
        assert [each.name for each in (*first, *rest)] == names
        assert len(await updates.page(tx, None, None, 0, 9)) == 4
        assert await updates.page(tx, "x", None, 0, 9) == []


async def test_live_ones_of_the_devices_product(database: Database, device: Device) -> None:
    async with database.begin() as tx:
        given, fresh, test, stopped = [await add(tx, test=name == "test") for name in ("given", "", "test", "stopped")]
        await add(tx, product="other")
        await updates.give(tx, given.id, device.id, NOW)
        assert await updates.stop(tx, stopped.id, "why", NOW)
        assert not await updates.stop(tx, stopped.id, "why", NOW)
        found = await updates.live(tx, PROTOCOL, "pk", "d", test=False)
        assert {each.update.id: each.was_offered for each in found} == {given.id: True, fresh.id: False}
        assert {each.device_id for each in found} == {device.id}
        found = await updates.live(tx, PROTOCOL, "pk", "d", test=True)
        assert {each.update.id for each in found} == {given.id, fresh.id, test.id}
        assert await updates.live(tx, PROTOCOL, "pk", "x", test=True) == []
        assert await updates.live(tx, "x", "pk", "d", test=True) == []


async def test_a_slot_tells_what_is_left(database: Database, device: Device) -> None:
    async with database.begin() as tx:
        update = await add(tx, max_devices=1, rate=1, rate_period=60)
        free = updates.Slot(live=True, full=False, waiting=False, was_offered=False)
        assert await updates.slot(tx, update.id, device.id, NOW) == free
        await updates.give(tx, update.id, device.id, NOW)
        taken = updates.Slot(live=True, full=True, waiting=True, was_offered=True)
        assert await updates.slot(tx, update.id, device.id, NOW) == taken
        later = await updates.slot(tx, update.id, device.id, NOW + timedelta(seconds=60))
        assert (later.waiting, later.full) == (False, True)
        await updates.stop(tx, update.id, "", NOW)
        assert not (await updates.slot(tx, update.id, device.id, NOW)).live
        await updates.delete(tx, update.id)
        assert not (await updates.slot(tx, update.id, device.id, NOW)).live


async def test_reports_count_the_last_one_of_each_device(database: Database, device: Device) -> None:
    async with database.begin() as tx:
        other = await add_device(tx, await _product(tx), "e")
        update = await add(tx)
        for each in (device, other):
            await updates.give(tx, update.id, each.id, NOW)
        counts = []
        for key, success in (("d", False), ("e", True), ("d", True), ("e", True), ("e", False)):
            found = await updates.report(tx, update.id, key, success=success, now=NOW)
            assert found
            counts.append((found.succeeded, found.failed))
        assert counts == [(0, 1), (1, 1), (2, 0), (2, 0), (1, 1)]
        assert await updates.report(tx, update.id, "x", success=True, now=NOW) is None


async def _product(tx: Tx) -> Any:
    from provisioning.store import products

    return await products.find(tx, PROTOCOL, "pk")


async def test_a_device_of_the_same_key_in_another_product_reports_nothing(database: Database, device: Device) -> None:
    from provisioning.store import products

    async with database.begin() as tx:
        other = await products.find(tx, PROTOCOL, "other")
        assert other
        await add_device(tx, other, "d")
        update = await add(tx, product="other")
        await updates.give(tx, update.id, device.id, NOW)
        assert await updates.report(tx, update.id, "d", success=True, now=NOW) is None


async def test_offers_go_with_their_device_and_their_update(database: Database, device: Device) -> None:
    async with database.begin() as tx:
        update = await add(tx)
        await updates.give(tx, update.id, device.id, NOW)
        await tx.db.execute("DELETE FROM device")
        assert await tx.db.fetchval("SELECT count(*) FROM update_offer") == 0
        found = await updates.find(tx, update.id)
        assert found
        assert found.offered == 1
        assert await updates.delete(tx, update.id)
        assert not await updates.delete(tx, update.id)


async def test_whoever_holds_an_image_holds_it_alone(database: Database, device: Device) -> None:
    order: list[str] = []
    held = asyncio.Event()

    async def first() -> None:
        async with database.begin() as tx:
            assert not await updates.hold_image(tx, CHECKSUM)
            held.set()
            await add(tx)
            order.append("first")

    async def second() -> None:
        await held.wait()
        async with database.begin() as tx:
            assert await updates.hold_image(tx, CHECKSUM)
            order.append("second")

    await asyncio.gather(first(), second())
    assert order == ["first", "second"]


async def test_which_images_are_used(database: Database, device: Device) -> None:
    async with database.begin() as tx:
        await add(tx)
        assert (await updates.size_of(tx, CHECKSUM), await updates.size_of(tx, "0" * 64)) == (14, None)
        assert await updates.used(tx, [CHECKSUM, "0" * 64]) == {CHECKSUM}
