import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from provisioning.core import registry
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import devices, events, logins
from provisioning.store.database import Database, Tx
from tests.provisioning.store.registry import PROTOCOL, Fleet, add_fleet, add_group, add_product, execute, identity


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


async def stored(database: Database, device: Device) -> Device:
    async with database.read() as tx:
        found = await devices.by_id(tx, device.id)
    assert found is not None
    return found


async def kinds(database: Database) -> list[str]:
    async with database.read() as tx:
        return [event.kind for event in await events.page(tx)]


async def refused(database: Database, verb: Callable[[Tx], Awaitable[object]]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        async with database.begin() as tx:
            await verb(tx)
    return caught.value


async def test_what_is_asked_for_is_found_or_unknown(database: Database, fleet: Fleet) -> None:
    async with database.read() as tx:
        assert (await registry.product(tx, PROTOCOL, "pk")).id == fleet.product.id
        assert (await registry.group(tx, PROTOCOL, "g")).id == fleet.group.id
        assert (await registry.device(tx, PROTOCOL, "pk", "dk")).id == fleet.device.id
        assert (await registry.device_by_serial(tx, PROTOCOL, "g", "SN")).id == fleet.enrolled.id
    for verb, detail in (
        (lambda tx: registry.product(tx, PROTOCOL, "x"), {"product": "x"}),
        (lambda tx: registry.group(tx, PROTOCOL, "x"), {"group": "x"}),
        (lambda tx: registry.device(tx, PROTOCOL, "x", "dk"), {"product": "x"}),
        (lambda tx: registry.device(tx, PROTOCOL, "pk", "x"), {"product": "pk", "device": "x"}),
        (lambda tx: registry.device_by_serial(tx, PROTOCOL, "x", "SN"), {"group": "x"}),
        (lambda tx: registry.device_by_serial(tx, PROTOCOL, "g", "x"), {"group": "g", "serial": "x"}),
    ):
        refusal = await refused(database, verb)
        assert (refusal.reason, refusal.detail) == (Reason.UNKNOWN, detail)


async def test_a_product_in_use_goes_only_with_all_that_is_in_it(database: Database, fleet: Fleet) -> None:
    refusal = await refused(database, lambda tx: registry.delete_product(tx, fleet.product, cascade=False))
    assert refusal.reason is Reason.IN_USE
    async with database.begin() as tx:
        await devices.register(
            tx, fleet.group, Device(protocol=PROTOCOL, state=State.REGISTERED, group="g", serial="WAITS")
        )
        assert await registry.delete_product(tx, fleet.product, cascade=True) == 3
    assert await kinds(database) == ["device.deleted"] * 3
    async with database.read() as tx:
        for table in ("product", "enrolment_group", "device", "identifier"):
            assert await tx.db.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_cascade_leaves_other_products_alone(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        empty = await add_product(tx, "empty")
        await add_group(tx, "e", empty)
        assert await registry.delete_product(tx, empty, cascade=True) == 0
    assert (await stored(database, fleet.device)).key == "dk"


async def test_a_group_in_use_goes_only_with_its_devices(database: Database, fleet: Fleet) -> None:
    refusal = await refused(database, lambda tx: registry.delete_group(tx, fleet.group, cascade=False))
    assert refusal.reason is Reason.IN_USE
    async with database.begin() as tx:
        assert await registry.delete_group(tx, fleet.group, cascade=True) == 1
    assert (await stored(database, fleet.device)).key == "dk"
    assert await kinds(database) == ["device.deleted"]


async def test_delete_happens_once(database: Database, fleet: Fleet) -> None:
    async def delete() -> None:
        async with database.begin() as tx:
            await registry.delete_device(tx, fleet.enrolled)

    results = await asyncio.gather(*(delete() for _ in range(4)), return_exceptions=True)
    refusals = [result for result in results if isinstance(result, Refusal)]
    assert [refusal.reason for refusal in refusals] == [Reason.UNKNOWN] * 3
    async with database.read() as tx:
        (event,) = await events.page(tx)
    assert (event.kind, event.device, event.serial) == ("device.deleted", "dk-sn", "SN")


async def test_disable_and_enable(database: Database, fleet: Fleet) -> None:
    refusal = await refused(database, lambda tx: registry.enable(tx, fleet.device))
    assert (refusal.reason, refusal.detail) == (Reason.ILLEGAL_TRANSITION, {"state": "enabled", "step": "enable"})
    async with database.begin() as tx:
        await registry.disable(tx, fleet.device)
    assert (await stored(database, fleet.device)).disabled
    refusal = await refused(database, lambda tx: registry.disable(tx, fleet.device))
    assert refusal.detail == {"state": "disabled", "step": "disable"}
    async with database.begin() as tx:
        await registry.enable(tx, fleet.device)
    assert not (await stored(database, fleet.device)).disabled
    assert await kinds(database) == ["device.disabled", "device.enabled"]


async def test_reset_of_a_device_that_enrols(database: Database, fleet: Fleet) -> None:
    await execute(database, "UPDATE device SET state = 'activated', activated_at = now(), activations = 5")
    async with database.begin() as tx:
        result = await registry.reset(tx, fleet.enrolled)
    found = await stored(database, fleet.enrolled)
    assert (result.state, result.secret, found.state, found.secret) == (State.REGISTERED, "") * 2
    assert (found.key, found.product, found.asset, found.activations) == ("dk-sn", "pk", "asset of dk-sn", 0)
    assert await kinds(database) == ["device.reset"]
    refusal = await refused(database, lambda tx: registry.reset(tx, fleet.enrolled))
    assert (refusal.reason, refusal.detail) == (Reason.ILLEGAL_TRANSITION, {"state": "registered", "step": "reset"})


async def test_reset_of_a_device_without_a_serial_number_gives_a_new_secret(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        result = await registry.reset(tx, fleet.device)
    found = await stored(database, fleet.device)
    assert (found.state, found.key, found.secret) == (State.ALLOCATED, "dk", result.secret)
    assert found.secret != fleet.device.secret
    assert await kinds(database) == ["device.reset", "device.allocated"]
    async with database.read() as tx:
        (credential,) = await logins.look_up(tx, [identity()])
    assert credential.device.secret == result.secret  # type: ignore[union-attr]


async def test_allocate(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        waiting = await devices.register(
            tx, fleet.group, Device(protocol=PROTOCOL, state=State.REGISTERED, group="g", serial="WAITS")
        )
        assert waiting is not None
    refusal = await refused(database, lambda tx: registry.allocate(tx, waiting, fleet.product, "dk"))
    assert (refusal.reason, refusal.detail) == (Reason.DUPLICATE, {"field": "device"})
    async with database.begin() as tx:
        given = await registry.allocate(tx, waiting, fleet.product, "mine", "s")
    found = await stored(database, waiting)
    assert (found.key, found.secret, found.state, found.product) == ("mine", "s", State.ALLOCATED, "pk")
    assert given.key == "mine"
    refusal = await refused(database, lambda tx: registry.allocate(tx, waiting, fleet.product))
    assert refusal.detail == {"state": "allocated", "step": "allocate"}
    assert await kinds(database) == ["device.allocated"]


async def test_new_hardware_takes_the_place_of_the_old(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        result = await registry.replace_serial(tx, fleet.enrolled, "SN-NEW")
    found = await stored(database, fleet.enrolled)
    assert (result.serial, found.serial, found.key, found.asset) == ("SN-NEW", "SN-NEW", "dk-sn", "asset of dk-sn")
    refusal = await refused(database, lambda tx: registry.device_by_serial(tx, PROTOCOL, "g", "SN"))
    assert refusal.reason is Reason.UNKNOWN
    refusal = await refused(database, lambda tx: registry.replace_serial(tx, fleet.device, "X"))
    assert refusal.detail == {"state": "without serial number", "step": "replace"}
    async with database.begin() as tx:
        await devices.register(
            tx, fleet.group, Device(protocol=PROTOCOL, state=State.REGISTERED, group="g", serial="TAKEN")
        )
    refusal = await refused(database, lambda tx: registry.replace_serial(tx, fleet.enrolled, "TAKEN"))
    assert (refusal.reason, refusal.detail) == (Reason.DUPLICATE, {"field": "serial"})


async def test_reopen_activation(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await logins.issue(tx, {fleet.device.id: 5}, 5)
        await logins.close_activation(tx, fleet.device.id)
        await registry.reopen_activation(tx, fleet.device)
        assert await logins.issue(tx, {fleet.device.id: 1}, 5) == {fleet.device.id: 1}
        await logins.activate(tx, [fleet.device.id])
    refusal = await refused(database, lambda tx: registry.reopen_activation(tx, fleet.device))
    assert refusal.detail == {"state": "activated", "step": "activate again"}


async def test_new_secret(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        assert (await registry.new_secret(tx, fleet.device, "given")).secret == "given"
    assert (await stored(database, fleet.device)).secret == "given"
    async with database.begin() as tx:
        made = await registry.new_secret(tx, fleet.device)
    assert len(made.secret) == 32
    assert (await stored(database, fleet.device)).secret == made.secret


async def test_verbs_see_the_device_as_it_is_not_as_it_was_read(database: Database, fleet: Fleet) -> None:
    """Somebody resets the device between the reading and the verb."""
    async with database.begin() as tx:
        await registry.reset(tx, fleet.enrolled)
    for verb, reason in (
        (lambda tx: registry.new_secret(tx, fleet.enrolled, "s"), Reason.NOT_ALLOCATED),
        (lambda tx: registry.reopen_activation(tx, fleet.enrolled), Reason.ILLEGAL_TRANSITION),
        (lambda tx: registry.reset(tx, fleet.enrolled), Reason.ILLEGAL_TRANSITION),
    ):
        assert (await refused(database, verb)).reason is reason


async def test_verbs_do_nothing_to_a_device_that_is_gone(database: Database, fleet: Fleet) -> None:
    await execute(database, "DELETE FROM device")
    gone = replace(fleet.enrolled, state=State.REGISTERED)
    for verb in (
        lambda tx: registry.disable(tx, gone),
        lambda tx: registry.enable(tx, gone),
        lambda tx: registry.reset(tx, gone),
        lambda tx: registry.allocate(tx, gone, fleet.product),
        lambda tx: registry.new_secret(tx, gone),
        lambda tx: registry.replace_serial(tx, gone, "x"),
        lambda tx: registry.reopen_activation(tx, gone),
        lambda tx: registry.delete_device(tx, gone),
    ):
        assert (await refused(database, verb)).reason is Reason.UNKNOWN
    assert await kinds(database) == []
