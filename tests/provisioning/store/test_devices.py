import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import devices, presence
from provisioning.store.database import Database
from provisioning.store.devices import Filter
from tests.provisioning.store.registry import (
    PROTOCOL,
    Fleet,
    add_device,
    add_fleet,
    add_group,
    add_product,
    execute,
)


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


def waiting(serial: str = "SN2", **more: object) -> Device:
    return Device(protocol=PROTOCOL, state=State.REGISTERED, group="g", serial=serial, **more)  # type: ignore[arg-type]


async def test_each_way_to_a_device_finds_the_same(database: Database, fleet: Fleet) -> None:
    async with database.read() as tx:
        device = await devices.by_id(tx, fleet.enrolled.id)
        assert device is not None
        assert device == replace(fleet.enrolled, created_at=device.created_at)
        assert device.identity == fleet.identity._replace(device="dk-sn")
        assert await devices.by_serial(tx, fleet.group, "SN") == device
        assert await devices.by_serials(tx, fleet.group, ["SN", "x"]) == {"SN": device}
        assert await devices.by_serial_anywhere(tx, PROTOCOL, "SN", 5) == [device]
        assert (await devices.by_keys(tx, fleet.product.id, ["dk-sn", "x"])) == {"dk-sn": device}


async def test_what_is_not_there_is_not_found(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        other = await add_group(tx, "other")
        assert await devices.by_id(tx, 0) is None
        assert await devices.by_keys(tx, 0, ["dk"]) == {}
        assert await devices.by_serial(tx, other, "SN") is None
        assert await devices.by_serial_anywhere(tx, "another", "SN", 5) == []
        assert await devices.by_serial_anywhere(tx, PROTOCOL, "dk", 5) == []


async def test_a_serial_number_belongs_to_its_group(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        other = await add_group(tx, "other")
        second = await devices.register(tx, other, replace(waiting("SN"), group="other"))
        assert second is not None
        found = await devices.by_serial_anywhere(tx, PROTOCOL, "SN", 5)
        assert [device.group for device in found] == ["g", "other"]
        assert await devices.by_serial_anywhere(tx, PROTOCOL, "SN", 1) == found[:1]


async def test_register_keeps_the_first(database: Database, fleet: Fleet) -> None:
    new = waiting(name="n", name_i18n={"en_US": "ü"}, timezone="+08:00")
    async with database.begin() as tx:
        added = await devices.register(tx, fleet.group, new)
        assert added is not None
        assert await devices.by_id(tx, added.id) == added
        assert await devices.register(tx, fleet.group, new) is None
        ready = replace(waiting("SN3"), state=State.ALLOCATED, product="pk", key="dk3", secret="s3", asset="a3")
        allocated = await devices.register(tx, fleet.group, ready)
        assert allocated is not None
        assert await devices.by_id(tx, allocated.id) == allocated


async def test_racing_registrations_have_one_winner(database: Database, fleet: Fleet) -> None:
    async def register() -> bool:
        async with database.begin() as tx:
            return await devices.register(tx, fleet.group, waiting()) is not None

    assert sum(await asyncio.gather(*(register() for _ in range(8)))) == 1
    async with database.read() as tx:
        assert await tx.db.fetchval("SELECT count(*) FROM device WHERE state = 'registered'") == 1


async def test_add_many_adds_all_or_none(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        assert await devices.add_many(tx, []) == []
        rows: list[tuple[Device, int | None, int | None]] = [
            (
                replace(fleet.device, key=f"new{i}", serial=f"S{i}" if i else "", group="g"),
                fleet.product.id,
                fleet.group.id,
            )
            for i in range(3)
        ]
        added = await devices.add_many(tx, rows)
        assert [device.key for device in added] == ["new0", "new1", "new2"]
        assert (await devices.by_serials(tx, fleet.group, ["S1", "S2", ""])).keys() == {"S1", "S2"}
    with pytest.raises(Refusal, match="duplicate"):
        async with database.begin() as tx:
            await devices.add_many(tx, [(replace(fleet.device, key="fine"), fleet.product.id, None), *rows])
    async with database.read() as tx:
        assert await devices.by_keys(tx, fleet.product.id, ["fine"]) == {}


async def test_the_life_of_a_device(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        device = await devices.register(tx, fleet.group, waiting())
        assert device is not None
        given = replace(device, product="pk", key="k", secret="s", asset="a", state=State.ALLOCATED)
        await devices.allocate(tx, given, fleet.product.id)
        assert await devices.by_id(tx, device.id) == given
        await tx.db.execute("UPDATE device SET state = 'activated', activated_at = now(), activations = 3, "
                            "activation_closed = true WHERE id = $1", device.id)  # fmt: skip
        await devices.reset(tx, given)
        assert await devices.by_id(tx, device.id) == replace(given, state=State.REGISTERED, secret="")
        assert not await tx.db.fetchval("SELECT activation_closed FROM device WHERE id = $1", device.id)


async def test_each_secret_is_counted(database: Database, fleet: Fleet) -> None:
    async def epoch() -> int:
        async with database.read() as tx:
            number: int = await tx.db.fetchval("SELECT epoch FROM device WHERE id = $1", fleet.device.id)
        return number

    assert await epoch() == 0
    async with database.begin() as tx:
        await devices.set_secret(tx, replace(fleet.device, secret="new"))
        await devices.set_disabled(tx, fleet.device, disabled=True)
        await devices.describe(tx, replace(fleet.device, name="n"))
    assert await epoch() == 1
    await execute(database, "UPDATE device SET secret = 'x' WHERE id = $1", fleet.device.id)
    assert await epoch() == 2


async def test_single_changes(database: Database, fleet: Fleet) -> None:
    described = replace(fleet.device, name="n", name_i18n={"de": "ä"}, timezone="UTC", asset="a2", disabled=True)
    async with database.begin() as tx:
        await devices.describe(tx, described)
        await devices.set_disabled(tx, fleet.device, disabled=True)
        await devices.set_secret(tx, replace(fleet.device, secret="new"))
        found = await devices.by_id(tx, fleet.device.id)
        assert found is not None
        assert found == replace(described, secret="new", created_at=found.created_at)


async def test_serial_numbers_change(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await devices.rename_serial(tx, fleet.enrolled, "SN9")
        assert await devices.by_serial(tx, fleet.group, "SN") is None
        assert (await devices.by_serials(tx, fleet.group, ["SN9"])).keys() == {"SN9"}
        other = await add_group(tx, "other")
        await devices.set_serial(tx, replace(fleet.enrolled, serial="SN10", group="other"), other.id)
        moved = await devices.by_serial(tx, other, "SN10")
        assert moved is not None
        assert (moved.id, moved.group) == (fleet.enrolled.id, "other")
    for taken in ("rename", "set"):
        with pytest.raises(Refusal) as caught:  # noqa: PT012 - the refusal comes when the transaction ends
            async with database.begin() as tx:
                second = await add_device(tx, fleet.product, taken, other, serial=taken)
                if taken == "rename":
                    await devices.rename_serial(tx, second, "SN10")
                else:
                    await devices.set_serial(tx, replace(second, serial="SN10"), other.id)
        assert caught.value.detail == {"field": "serial"}


async def test_reopen_activation(database: Database, fleet: Fleet) -> None:
    await execute(database, "UPDATE device SET activations = 5, activation_closed = true")
    async with database.begin() as tx:
        await devices.reopen_activation(tx, fleet.device)
        row = await tx.db.fetchrow("SELECT activations, activation_closed FROM device WHERE id = $1", fleet.device.id)
        assert row is not None
        assert tuple(row) == (0, False)


async def test_delete_takes_the_identifiers_along(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await devices.delete(tx, fleet.enrolled)
    async with database.read() as tx:
        assert await devices.by_id(tx, fleet.enrolled.id) is None
        assert await tx.db.fetchval("SELECT count(*) FROM identifier") == 0


async def test_delete_all_says_who_went(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        other = await add_product(tx, "other")
        stays = await add_device(tx, other)
        unallocated = await devices.register(tx, fleet.group, waiting())
        assert unallocated is not None
        gone = await devices.delete_all(tx, fleet.product.id, [fleet.group.id])
        assert dict(gone) == {
            fleet.device.id: fleet.device.identity,
            fleet.enrolled.id: fleet.enrolled.identity,
            unallocated.id: fleet.identity._replace(product="", device=""),
        }
        assert await devices.by_id(tx, stays.id) is not None
        assert await devices.delete_all(tx, None, []) == []


async def test_a_locked_device_waits_and_is_read_anew(database: Database, fleet: Fleet) -> None:
    held = asyncio.Event()

    async def change() -> None:
        async with database.begin() as tx:
            await devices.lock(tx, fleet.device)
            held.set()
            await devices.set_disabled(tx, fleet.device, disabled=True)

    task = asyncio.create_task(change())
    await held.wait()
    async with database.begin() as tx:
        assert (await devices.lock(tx, fleet.device)).disabled
    await task


async def test_who_was_deleted_meanwhile_cannot_be_locked(database: Database, fleet: Fleet) -> None:
    """Or a secret would be issued, and an event written, for a device that is not there."""
    async with database.begin() as tx:
        await devices.delete(tx, fleet.device)
    with pytest.raises(Refusal) as caught:
        async with database.begin() as tx:
            await devices.lock(tx, fleet.device)
    assert caught.value.reason is Reason.UNKNOWN


async def test_pages_filter_and_follow_each_other(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        registered = await devices.register(tx, fleet.group, waiting())
        assert registered is not None
        await devices.set_disabled(tx, fleet.device, disabled=True)

        async def ids(which: Filter, after: int = 0, limit: int = 10) -> list[int]:
            return [device.id for device in await devices.page(tx, which, after, limit)]

        everybody = [fleet.device.id, fleet.enrolled.id, registered.id]
        assert await ids(Filter()) == everybody
        assert await ids(Filter(), limit=2) == everybody[:2]
        assert await ids(Filter(), after=everybody[0]) == everybody[1:]
        assert await ids(Filter(protocol="x")) == []
        assert await ids(Filter(protocol=PROTOCOL, product="pk")) == everybody[:2]
        assert await ids(Filter(group="g")) == everybody[1:]
        assert await ids(Filter(state=State.REGISTERED)) == everybody[2:]
        assert await ids(Filter(disabled=True)) == everybody[:1]
        assert await ids(Filter(disabled=False)) == everybody[1:]


async def test_online_means_that_a_living_process_says_so(database: Database, fleet: Fleet) -> None:
    from datetime import UTC, datetime
    from uuid import uuid4

    node, now = uuid4(), datetime.now(UTC)
    async with database.begin() as tx:
        await presence.beat(tx, node)
        await presence.note(tx, node, {fleet.device.id: presence.Stay(1, online=True, seen=1)}, 1)
        found = await devices.by_id(tx, fleet.device.id)
        assert found is not None
        assert found.online
        assert found.last_seen is not None
        assert abs(found.last_seen - now) < timedelta(minutes=1)
        await tx.db.execute("UPDATE node SET seen = now() - $1::interval", timedelta(seconds=30))
        found = await devices.by_id(tx, fleet.device.id)
        assert found is not None
        assert not found.online


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE device SET secret = NULL",
        "UPDATE device SET product_id = NULL",
        "UPDATE device SET state = 'registered'",
        "UPDATE device SET state = 'activated'",
        "UPDATE device SET activated_at = now()",
        "UPDATE device SET state = 'lost'",
        "UPDATE enrolment_group SET freshness = -1",
    ],
)
async def test_the_database_refuses_what_cannot_be(database: Database, fleet: Fleet, statement: str) -> None:
    from asyncpg import CheckViolationError

    with pytest.raises(CheckViolationError):
        await execute(database, statement)
