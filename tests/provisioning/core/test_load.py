import asyncio

import pytest

from provisioning.core import registry
from provisioning.core.load import Outcome, put_devices, put_group, put_product
from provisioning.model.identity import Identity
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import DeviceSpec, Forms, GroupSpec, ProductSpec
from provisioning.store import devices, events, registrations
from provisioning.store.database import Database, Tx
from tests.provisioning.store.registry import PROTOCOL, Fleet, add_fleet, add_group

CREATED, UPDATED, UNCHANGED = Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


def spec(**fields: object) -> DeviceSpec:
    return DeviceSpec(protocol=PROTOCOL, **fields)  # type: ignore[arg-type]


async def put(database: Database, *specs: DeviceSpec) -> list[tuple[Outcome, Device] | Refusal]:
    async with database.begin() as tx:
        return await put_devices(tx, specs)


async def put_one(database: Database, **fields: object) -> tuple[Outcome, Device]:
    (result,) = await put(database, spec(**fields))
    assert not isinstance(result, Refusal), result
    return result


async def refused(database: Database, **fields: object) -> Refusal:
    (result,) = await put(database, spec(**fields))
    assert isinstance(result, Refusal)
    return result


async def kinds(database: Database) -> list[str]:
    async with database.read() as tx:
        return [event.kind for event in await events.page(tx)]


# --- products and groups ---


async def test_a_product_is_created_changed_and_left_alone(database: Database) -> None:
    async def do(**fields: object) -> tuple[Outcome, Product]:
        async with database.begin() as tx:
            return await put_product(tx, ProductSpec(protocol=PROTOCOL, key="p", **fields))  # type: ignore[arg-type]

    outcome, product = await do()
    assert (outcome, len(product.secret), product.dynamic_activation, product.auto_create) == (
        CREATED,
        32,
        False,
        False,
    )
    assert (await do())[0] is UNCHANGED
    assert (await do(secret=product.secret))[0] is UNCHANGED
    outcome, changed = await do(secret="s", name="n", dynamic_activation=True, auto_create=True)
    assert (outcome, changed.secret, changed.name) == (UPDATED, "s", "n")
    assert (await do(dynamic_activation=False))[1].name == "n"
    assert (await do(demo=True))[1].name == "n"
    async with database.read() as tx:
        found = await registry.product(tx, PROTOCOL, "p")
    assert (found.dynamic_activation, found.demo) == (False, True)


async def test_a_group_is_created_changed_and_left_alone(database: Database, fleet: Fleet) -> None:
    async def do(**fields: object) -> tuple[Outcome, Group]:
        async with database.begin() as tx:
            return await put_group(tx, GroupSpec(protocol=PROTOCOL, key="new", **fields))  # type: ignore[arg-type]

    outcome, group = await do()
    assert (outcome, len(group.password), group.product) == (CREATED, 32, "")
    assert (group.auto_register, group.auto_activation, group.freshness) == (True, False, 900)
    assert (await do())[0] is UNCHANGED
    outcome, changed = await do(product="pk", password="x", auto_register=False, auto_activation=True, freshness=0)
    assert (outcome, changed.product_id, changed.freshness) == (UPDATED, fleet.product.id, 0)
    assert (await do(name="n"))[1].product == "pk"
    with pytest.raises(Refusal) as caught:
        await do(product="nowhere")
    assert (caught.value.reason, caught.value.detail) == (Reason.UNKNOWN, {"product": "nowhere"})


# --- devices ---


async def test_a_device_is_created_by_product_and_key(database: Database, fleet: Fleet) -> None:
    outcome, device = await put_one(
        database, product="pk", key="new", secret="s", asset="a", name="n", timezone="UTC", disabled=True
    )
    assert (outcome, device.state, device.secret, device.disabled) == (CREATED, State.ALLOCATED, "s", True)
    async with database.read() as tx:
        stored = await devices.by_id(tx, device.id)
        (event,) = await events.page(tx)
    assert stored is not None
    assert (stored.secret, stored.asset, stored.name, stored.timezone, stored.disabled) == ("s", "a", "n", "UTC", True)
    assert (event.kind, event.device) == ("device.registered", "new")
    assert (await put_one(database, product="pk", key="new"))[0] is UNCHANGED
    assert len((await put_one(database, product="pk", key="other"))[1].secret) == 32


async def test_a_device_is_created_by_group_and_serial_number(database: Database, fleet: Fleet) -> None:
    outcome, waiting = await put_one(database, group="g", serial="S1")
    assert (outcome, waiting.state, waiting.secret) == (CREATED, State.REGISTERED, "")
    assert (await put_one(database, group="g", serial="S1"))[0] is UNCHANGED
    outcome, given = await put_one(database, group="g", serial="S1", product="pk", key="k1", secret="s1")
    assert (outcome, given.id, given.state) == (UPDATED, waiting.id, State.ALLOCATED)
    assert await kinds(database) == ["device.registered", "device.allocated"]
    async with database.read() as tx:
        stored = await devices.by_id(tx, waiting.id)
    assert stored is not None
    assert (stored.key, stored.secret, stored.state) == ("k1", "s1", State.ALLOCATED)


async def test_what_is_stated_changes_and_nothing_else(database: Database, fleet: Fleet) -> None:
    outcome, changed = await put_one(database, product="pk", key="dk", name="n", name_i18n={"de": "ä"})
    assert changed.name_i18n == {"de": "ä"}
    assert (outcome, changed.secret, changed.asset) == (UPDATED, "secret of dk", "asset of dk")
    assert (await put_one(database, product="pk", key="dk", name="n"))[0] is UNCHANGED
    outcome, changed = await put_one(database, product="pk", key="dk", secret="new", disabled=True, asset="a2")
    async with database.read() as tx:
        stored = await devices.by_id(tx, fleet.device.id)
    assert stored is not None
    assert (stored.secret, stored.disabled, stored.asset, stored.name) == ("new", True, "a2", "n")
    await put_one(database, product="pk", key="dk", disabled=False)
    assert await kinds(database) == ["device.disabled", "device.enabled"]


async def test_a_device_moves_to_another_serial_number_and_group(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await add_group(tx, "other")
    outcome, moved = await put_one(database, product="pk", key="dk", group="other", serial="S9")
    assert (outcome, moved.group, moved.serial) == (UPDATED, "other", "S9")
    assert (await put_one(database, group="other", serial="S9"))[1].id == fleet.device.id
    assert (await refused(database, product="pk", key="dk-sn", serial="x", group="nowhere")).detail == {
        "group": "nowhere"
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"product": "nowhere", "key": "k"}, Reason.UNKNOWN),
        ({"group": "nowhere", "serial": "s"}, Reason.UNKNOWN),
        ({"product": "pk", "key": "new", "group": "g", "serial": "SN"}, Reason.DUPLICATE),
        ({"product": "pk", "key": "dk", "group": "g", "serial": "SN"}, Reason.DUPLICATE),
        ({"product": "pk", "key": "dk", "serial": "S"}, Reason.MALFORMED),
        ({"product": "pk", "key": "dk", "group": "g"}, Reason.MALFORMED),
        ({"group": "g", "serial": "WAITS", "secret": "s"}, Reason.NOT_ALLOCATED),
    ],
)
async def test_what_cannot_be_is_refused_and_hinders_no_other_row(
    database: Database, fleet: Fleet, fields: dict[str, object], reason: Reason
) -> None:
    await put_one(database, group="g", serial="WAITS")
    bad, good = await put(database, spec(**fields), spec(product="pk", key="good"))
    assert isinstance(bad, Refusal)
    assert bad.reason is reason
    assert not isinstance(good, Refusal)
    async with database.read() as tx:
        assert (await registry.device(tx, PROTOCOL, "pk", "good")).id == good[1].id


async def test_a_mixed_batch_has_a_result_for_each_row_in_order(database: Database, fleet: Fleet) -> None:
    results = await put(
        database,
        spec(product="pk", key="new1"),
        spec(product="pk", key="dk"),
        spec(product="nowhere", key="x"),
        spec(product="pk", key="dk-sn", name="n"),
        spec(product="pk", key="new2"),
        spec(product="pk", key="new1", name="again"),
        spec(product="pk", key="new1", name="again"),
    )
    assert [result.reason if isinstance(result, Refusal) else result[0] for result in results] == [
        CREATED, UNCHANGED, Reason.UNKNOWN, UPDATED, CREATED, UPDATED, UNCHANGED,
    ]  # fmt: skip
    async with database.read() as tx:
        assert (await registry.device(tx, PROTOCOL, "pk", "new1")).name == "again"
    assert await put(database) == []


async def test_two_rows_that_claim_one_serial_number_undo_the_batch(database: Database, fleet: Fleet) -> None:
    with pytest.raises(Refusal) as caught:
        await put(
            database,
            spec(product="pk", key="a", group="g", serial="S"),
            spec(product="pk", key="b", group="g", serial="S"),
        )
    assert (caught.value.reason, caught.value.detail) == (Reason.DUPLICATE, {"field": "serial"})
    async with database.read() as tx:
        assert await devices.by_keys(tx, fleet.product.id, ["a", "b"]) == {}


async def test_who_was_faster_is_not_overwritten(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row was read before somebody changed it: only what is stated changes, from where the device stands now."""
    lock = devices.lock

    async def changed_since(tx: Tx, device: Device) -> Device:
        monkeypatch.setattr(devices, "lock", lock)
        async with database.begin() as other:
            await registry.reset(other, fleet.enrolled)
            await other.db.execute("UPDATE device SET name = 'theirs' WHERE id = $1", fleet.enrolled.id)
        return await lock(tx, device)

    monkeypatch.setattr(devices, "lock", changed_since)
    _, device = await put_one(database, product="pk", key="dk-sn", timezone="UTC", secret="mine")
    assert (device.name, device.timezone, device.state, device.secret) == ("theirs", "UTC", State.ALLOCATED, "mine")


async def test_racing_batches_settle_without_a_loss(database: Database, fleet: Fleet) -> None:
    specs = [spec(product="pk", key=f"k{i}") for i in range(20)]
    results = await asyncio.gather(*(put(database, *specs) for _ in range(4)), return_exceptions=True)
    assert {r.reason for r in results if isinstance(r, Refusal)} <= {Reason.DUPLICATE}
    async with database.read() as tx:
        assert len(await devices.by_keys(tx, fleet.product.id, [f"k{i}" for i in range(20)])) == 20


async def test_what_is_made_up_has_the_forms_of_the_spec(database: Database) -> None:
    forms = Forms(
        product_key=lambda: "PK", product_secret=lambda: "PS", device_key=lambda: "DK", device_secret=lambda: "DS",
        asset_id=lambda: "",
    )  # fmt: skip
    async with database.begin() as tx:
        _, product = await put_product(tx, ProductSpec(protocol=PROTOCOL, key="p", forms=forms))
        _, same = await put_product(tx, ProductSpec(protocol=PROTOCOL, key="p", forms=forms, secret="stated"))
    assert (product.secret, same.secret) == ("PS", "stated")
    _, device = await put_one(database, product="p", key="d", forms=forms)
    assert (device.secret, device.asset) == ("DS", "")


async def test_the_limit_of_a_product_and_its_authority(database: Database) -> None:
    async def do(**fields: object) -> tuple[Outcome, int | None, str]:
        async with database.begin() as tx:
            outcome, product = await put_product(tx, ProductSpec(protocol=PROTOCOL, key="p", **fields))  # type: ignore[arg-type]
        return outcome, product.register_limit, product.client_authority

    assert await do() == (CREATED, None, "")
    assert await do(register_limit=5, client_authority="ca") == (UPDATED, 5, "ca")
    assert await do(name="n") == (UPDATED, 5, "ca")
    assert await do(register_limit=5) == (UNCHANGED, 5, "ca")
    assert await do(register_limit=0, client_authority="") == (UPDATED, None, "")


async def test_devices_that_had_registered_themselves_elsewhere_count(database: Database) -> None:
    """A limit does not refuse them: they are there, and their places are taken."""
    async with database.begin() as tx:
        _, product = await put_product(tx, ProductSpec(protocol=PROTOCOL, key="p", register_limit=1))
    rows = [spec(product="p", key=key, self_registered=key != "c") for key in "abc"]
    for outcome in (CREATED, UNCHANGED):
        assert [result[0] for result in await put(database, *rows) if not isinstance(result, Refusal)] == [outcome] * 3
    async with database.read() as tx:
        assert await registrations.devices_of(tx, product.id) == 2
        (found,) = await registrations.look_up(tx, [Identity(PROTOCOL, "p", "new")])
    assert isinstance(found, registrations.Standing)
    assert found.is_full
