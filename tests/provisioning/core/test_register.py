import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from provisioning.core import registry
from provisioning.core.enrol import Again
from provisioning.core.register import Registered, Registrations, Request, check, register
from provisioning.model.credential import Credential, DeviceCredential, ProductCredential
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Product
from provisioning.store import devices, events, logins, products, registrations
from provisioning.store.database import Database, Tx
from provisioning.store.registrations import Standing
from tests.provisioning.store.registry import add_device, add_product, execute, identity

SECRET = "drawn"


# --- pure ---


def standing(product: dict[str, Any] | None, device: dict[str, Any] | None, *, is_full: bool = False) -> Standing:
    return Standing(
        Credential(
            identity(),
            product=None if product is None else ProductCredential(id=1, secret="s", **product),
            device=None if device is None else DeviceCredential(id=2, secret="d", epoch=0, asset="", **device),
        ),
        is_full,
    )


def reason_of(found: Standing, again: Again = Again.DENY) -> Reason:
    with pytest.raises(Refusal) as caught:
        check(Request(standing=found, again=again, secret=SECRET))
    return caught.value.reason


OPEN = {"dynamic_activation": True, "auto_create": True}


def test_a_full_product_refuses_those_that_it_does_not_have() -> None:
    assert reason_of(standing(OPEN, None, is_full=True)) is Reason.LIMIT_REACHED
    there = {"disabled": False, "activated": False}
    check(Request(standing=standing(OPEN, there, is_full=True), again=Again.DENY, secret=SECRET))


def test_a_product_that_is_gone_was_never_there() -> None:
    assert reason_of(standing(None, None)) is Reason.NOT_PROVEN


# --- with a database ---


@pytest.fixture
async def door(database: Database) -> AsyncIterator[Registrations]:
    made = Registrations(database)
    yield made
    await made.close()


async def make_product(database: Database, **more: Any) -> Product:
    async with database.begin() as tx:
        return await add_product(tx, **(OPEN | more))


async def ask(
    door: Registrations, device: str = "dk", again: Again = Again.DENY, *, product: str = "pk", secret: str = SECRET,
    **more: Any,
) -> Registered:  # fmt: skip
    found = await door.look_up(identity(device, product))
    return await door.register(Request(standing=found, again=again, secret=secret, **more))


async def refusal(door: Registrations, device: str = "dk", again: Again = Again.DENY) -> Reason:
    with pytest.raises(Refusal) as caught:
        await ask(door, device, again)
    return caught.value.reason


async def count_of(database: Database, product: Product) -> tuple[int, int]:
    """Devices that are there, and what the count says."""
    async with database.read() as tx:
        listed = await devices.page(tx, devices.Filter(product=product.key), 0, 1_000)
        return len(listed), await registrations.devices_of(tx, product.id)


async def kinds(database: Database) -> list[tuple[str, str]]:
    async with database.read() as tx:
        return [(event.kind, event.device) for event in await events.page(tx)]


async def connect(database: Database, device_id: int) -> None:
    async with database.begin() as tx:
        await logins.activate(tx, [device_id])


async def test_a_new_device_gets_the_secret_that_was_drawn(door: Registrations, database: Database) -> None:
    product = await make_product(database)
    registered = await ask(door)
    async with database.read() as tx:
        device = await devices.by_id(tx, registered.device_id)
    assert device is not None
    assert (device.key, device.secret, device.state) == ("dk", SECRET, State.ALLOCATED)
    assert device.self_registered
    assert registered.secret == SECRET
    assert await count_of(database, product) == (1, 1)
    assert await kinds(database) == [("device.registered", "dk"), ("device.secret_issued", "dk")]


async def test_one_that_has_never_connected_gets_the_same_again(door: Registrations, database: Database) -> None:
    product = await make_product(database, register_limit=1)
    first = await ask(door)
    assert await ask(door, secret="another") == first
    assert await ask(door, again=Again.ROTATE, secret="another") == first
    assert await count_of(database, product) == (1, 1)
    assert [kind for kind, _ in await kinds(database)].count("device.registered") == 1


async def test_one_that_was_made_by_hand_does_not_count(door: Registrations, database: Database) -> None:
    product = await make_product(database, register_limit=1)
    async with database.begin() as tx:
        await add_device(tx, product)
    assert (await ask(door)).secret == "secret of dk"
    assert await count_of(database, product) == (1, 0)
    await ask(door, "second")
    assert await refusal(door, "third") is Reason.LIMIT_REACHED


async def test_one_that_has_connected_gets_what_the_policy_says(door: Registrations, database: Database) -> None:
    await make_product(database)
    first = await ask(door)
    await connect(database, first.device_id)
    assert await refusal(door) is Reason.ACTIVATION_SPENT
    assert await ask(door, again=Again.SAME, secret="another") == first
    rotated = await ask(door, again=Again.ROTATE, secret="another")
    assert rotated == Registered(first.device_id, "another")
    found = (await door.look_up(identity())).credential.device
    assert found is not None
    assert (found.secret, found.epoch, found.activated) == ("another", 1, True)


async def test_switches_and_disabled_devices(door: Registrations, database: Database) -> None:
    product = await make_product(database)
    first = await ask(door)
    async with database.begin() as tx:
        device = await devices.by_id(tx, first.device_id)
        assert device is not None
        await registry.disable(tx, device)
    assert await refusal(door, again=Again.ROTATE) is Reason.DISABLED
    async with database.begin() as tx:
        await products.update(tx, replace(product, auto_create=False))
    assert await refusal(door, "unknown") is Reason.DEVICE_UNKNOWN
    async with database.begin() as tx:
        await products.update(tx, replace(product, dynamic_activation=False))
    assert await refusal(door) is Reason.ACTIVATION_OFF


async def test_who_gets_a_certificate_is_not_told_a_secret(door: Registrations, database: Database) -> None:
    await make_product(database)
    await ask(door, is_told=False)
    assert await kinds(database) == [("device.registered", "dk")]


async def test_a_race_for_the_last_places_has_so_many_winners(database: Database) -> None:
    """In two processes, as far as the database can tell."""
    product = await make_product(database, register_limit=7)
    doors = [Registrations(database) for _ in range(2)]
    results = await asyncio.gather(
        *(ask(doors[n % 2], f"d{n}", secret=f"secret {n}") for n in range(50)), return_exceptions=True
    )
    won = {f"d{n}": result for n, result in enumerate(results) if isinstance(result, Registered)}
    lost = Counter(result.reason for result in results if isinstance(result, Refusal))
    assert (len(won), lost) == (7, {Reason.LIMIT_REACHED: 43})
    assert await count_of(database, product) == (7, 7)
    told = Counter(await kinds(database))
    assert told == Counter((kind, name) for name in won for kind in ("device.registered", "device.secret_issued"))
    for made in doors:
        await made.close()


async def test_a_batch_is_cut_at_the_limit(database: Database) -> None:
    """Nobody looked before: the count alone decides, and those that came first are in."""
    product = await make_product(database, register_limit=3)
    asked = [f"d{n}" for n in (5, 3, 9, 1, 7)]
    async with database.begin() as tx:
        found = await registrations.look_up(tx, [identity(name) for name in asked])
        requests = [
            Request(standing=one, again=Again.DENY, secret=SECRET) for one in found if isinstance(one, Standing)
        ]
        results = await register(tx, requests)
    assert [isinstance(result, Registered) for result in results] == [True, True, True, False, False]
    assert await count_of(database, product) == (3, 3)


async def test_one_device_asked_for_many_times_at_once_is_one_device(door: Registrations, database: Database) -> None:
    product = await make_product(database, register_limit=1)
    results = await asyncio.gather(*(ask(door, secret=f"secret {n}") for n in range(20)))
    assert len(set(results)) == 1
    assert await count_of(database, product) == (1, 1)
    assert [kind for kind, _ in await kinds(database)].count("device.registered") == 1


async def test_a_deletion_frees_a_place(door: Registrations, database: Database) -> None:
    product = await make_product(database, register_limit=2)
    first = await ask(door, "a")
    await ask(door, "b")
    assert await refusal(door, "c") is Reason.LIMIT_REACHED
    async with database.begin() as tx:
        device = await devices.by_id(tx, first.device_id)
        assert device is not None
        await registry.delete_device(tx, device)
    await ask(door, "c")
    assert await count_of(database, product) == (2, 2)
    async with database.begin() as tx:
        await registry.delete_product(tx, product, cascade=True)
    assert await refusal(door, "d") is Reason.NOT_PROVEN


async def test_a_product_that_is_being_deleted_holds_nobody_up(door: Registrations, database: Database) -> None:
    """Its own devices are told to come again; those of others, in the same batch, do not wait for the end of it."""
    await make_product(database)
    other = await make_product(database, key="other")
    await asyncio.gather(ask(door, "a"), ask(door, "o", product="other"))
    async with database.begin() as tx:
        await registry.delete_product(tx, other, cascade=True)
        async with asyncio.timeout(5):
            found = await asyncio.gather(
                *(ask(door, name) for name in ("a", "b", "c")),
                *(ask(door, name, product="other") for name in ("o", "p")), return_exceptions=True,
            )  # fmt: skip
    assert [isinstance(one, Registered) for one in found] == [True, True, True, False, False]
    assert all(isinstance(one, Refusal) and one.reason is Reason.UNAVAILABLE for one in found[3:])
    with pytest.raises(Refusal, match="not_proven"):
        await ask(door, "p", product="other")


async def test_a_limit_that_is_lowered_holds_and_one_that_goes_is_gone(door: Registrations, database: Database) -> None:
    product = await make_product(database)
    for name in "abc":
        await ask(door, name)
    async with database.begin() as tx:
        await products.update(tx, replace(product, register_limit=1))
    assert await refusal(door, "d") is Reason.LIMIT_REACHED
    async with database.begin() as tx:
        await products.update(tx, product)
    await ask(door, "d")


async def test_what_has_changed_since_it_was_read_is_read_again(door: Registrations, database: Database) -> None:
    await make_product(database)
    before = await door.look_up(identity())
    first = await ask(door)
    late = await door.register(Request(standing=before, again=Again.DENY, secret="too late"))
    assert late == first
    stale = await door.look_up(identity())
    async with database.begin() as tx:
        device = await devices.by_id(tx, first.device_id)
        assert device is not None
        await registry.delete_device(tx, device)
    anew = await door.register(Request(standing=stale, again=Again.DENY, secret="anew"))
    assert anew.secret == "anew"
    assert anew.device_id != first.device_id


async def test_a_secret_that_does_not_open_refuses_its_own_device_alone(
    door: Registrations, database: Database
) -> None:
    await make_product(database)
    broken = await ask(door, "broken")
    standing = await door.look_up(identity("broken"))
    await execute(database, "UPDATE device SET secret = 'x' WHERE id = $1", broken.device_id)
    good, bad = await asyncio.gather(
        ask(door, "good"),
        door.register(Request(standing=standing, again=Again.DENY, secret=SECRET)),
        return_exceptions=True,
    )
    assert isinstance(good, Registered)
    assert isinstance(bad, Refusal)
    assert bad.reason is Reason.INTERNAL
    assert await refusal(door, "broken") is Reason.INTERNAL


async def test_alone_undoes_what_has_to_be_read_again(door: Registrations, database: Database) -> None:
    product = await make_product(database)
    tries: list[Standing] = []

    async def work(tx: Tx, request: Request) -> str | None:
        tries.append(request.standing)
        await add_device(tx, product, f"try {len(tries)}")
        return "done" if len(tries) == 2 else None

    asked = Request(standing=await door.look_up(identity()), again=Again.DENY, secret=SECRET)
    assert await door.alone(asked, work) == "done"
    async with database.read() as tx:
        assert [each.key for each in await devices.page(tx, devices.Filter(), 0, 9)] == ["try 2"]


async def test_alone_gives_up_in_the_end(door: Registrations, database: Database) -> None:
    await make_product(database)

    async def never(_tx: Tx, _request: Request) -> None:
        return None

    asked = Request(standing=await door.look_up(identity()), again=Again.DENY, secret=SECRET)
    with pytest.raises(Refusal, match="faster than it can be read"):
        await door.alone(asked, never)
