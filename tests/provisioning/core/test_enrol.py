import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from provisioning.core import registry
from provisioning.core.enrol import (
    MOST_CANDIDATES,
    NOBODY,
    Again,
    Description,
    Grant,
    allocate,
    allocated,
    enrol,
    may_have_secret,
    outfit,
    recall,
    whose,
)
from provisioning.model.credential import DeviceCredential, ProductCredential
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group
from provisioning.store import devices, events, groups
from provisioning.store.database import Database, Tx
from tests.provisioning.store.registry import PROTOCOL, Fleet, add_fleet, add_group, execute

ABOUT = Description(name="n", name_i18n={"en_US": "N"}, timezone="+08:00")


@dataclass
class Claim:
    serial: str = "NEW"
    group: str = "g"
    secret: str = "password of g"
    fresh: bool = True
    protocol: str = PROTOCOL
    description: Description = ABOUT
    tried: list[str] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def proven_by(self, secret: str) -> bool:
        self.tried.append(secret)
        return secret == self.secret

    def is_fresh(self, seconds: int) -> bool:
        self.asked.append(seconds)
        return self.fresh


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


async def change(database: Database, group: Group, **fields: object) -> None:
    async with database.begin() as tx:
        await groups.update(tx, replace(group, **fields))  # type: ignore[arg-type]


async def do(database: Database, claim: Claim) -> Device:
    async with database.begin() as tx:
        return await enrol(tx, claim)


async def refused(database: Database, claim: Claim) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await do(database, claim)
    return caught.value


async def kinds(database: Database) -> list[str]:
    async with database.read() as tx:
        return [event.kind for event in await events.page(tx)]


async def test_a_new_serial_number_gets_its_device(database: Database, fleet: Fleet) -> None:
    device = await do(database, Claim())
    assert (device.state, device.product, device.serial, device.group) == (State.ALLOCATED, "pk", "NEW", "g")
    assert (device.name, device.name_i18n, device.timezone) == ("n", {"en_US": "N"}, "+08:00")
    assert (len(device.key), len(device.secret), len(device.asset)) == (10, 32, 8)
    async with database.read() as tx:
        assert await devices.by_id(tx, device.id) == device
        (event,) = await events.page(tx)
    assert (event.kind, event.device, event.serial) == ("device.registered", device.key, "NEW")


async def test_it_is_safe_to_repeat(database: Database, fleet: Fleet) -> None:
    first = await do(database, Claim())
    again = await do(database, Claim(description=Description(name="other")))
    assert again == first
    assert await kinds(database) == ["device.registered"]


@pytest.mark.parametrize("count", [8, 50])
async def test_racing_claims_of_one_serial_number_get_one_device(database: Database, fleet: Fleet, count: int) -> None:
    found = await asyncio.gather(*(do(database, Claim()) for _ in range(count)))
    assert len({(device.product, device.key, device.secret, device.asset) for device in found}) == 1
    assert {device.state for device in found} == {State.ALLOCATED}
    assert await kinds(database) == ["device.registered"]
    async with database.read() as tx:
        assert await tx.db.fetchval("SELECT count(*) FROM device") == 3


async def test_racing_claims_of_a_waiting_device_get_one_secret(database: Database, fleet: Fleet) -> None:
    await change(database, fleet.group, auto_activation=False)
    await do(database, Claim())
    await change(database, fleet.group, auto_activation=True)
    found = await asyncio.gather(*(do(database, Claim()) for _ in range(8)))
    assert len({(device.key, device.secret) for device in found}) == 1
    assert await kinds(database) == ["device.registered", "device.allocated"]


async def test_an_unknown_group_is_told_after_a_proof_was_computed(database: Database, fleet: Fleet) -> None:
    claim = Claim(group="x")
    refusal = await refused(database, claim)
    assert (refusal.reason, refusal.detail, claim.tried) == (Reason.UNKNOWN, {"group": "x"}, [NOBODY])
    assert (await refused(database, Claim(protocol="x"))).reason is Reason.UNKNOWN


async def test_proof_comes_before_freshness_and_both_before_the_device(database: Database, fleet: Fleet) -> None:
    await change(database, fleet.group, auto_register=False, freshness=60)
    assert (await refused(database, Claim(secret="no", fresh=False))).reason is Reason.NOT_PROVEN
    claim = Claim(fresh=False)
    assert (await refused(database, claim)).reason is Reason.STALE
    assert claim.asked == [60]
    assert (await refused(database, Claim())).reason is Reason.UNKNOWN
    assert await kinds(database) == []


async def test_without_auto_register_only_known_numbers_enrol(database: Database, fleet: Fleet) -> None:
    await change(database, fleet.group, auto_register=False)
    assert (await refused(database, Claim())).detail == {"serial": "NEW"}
    assert (await do(database, Claim(serial="SN"))).key == fleet.enrolled.key


async def test_without_auto_activation_the_registration_is_kept(database: Database, fleet: Fleet) -> None:
    await change(database, fleet.group, auto_activation=False)
    for _ in range(2):
        device = await do(database, Claim())
        assert (device.state, device.key, device.secret) == (State.REGISTERED, "", "")
        with pytest.raises(Refusal) as caught:
            allocated(device)
        assert (caught.value.reason, caught.value.detail) == (Reason.NOT_ALLOCATED, {"serial": "NEW"})
    assert await kinds(database) == ["device.registered"]


async def test_a_group_without_a_product_allocates_nobody(database: Database, fleet: Fleet) -> None:
    await change(database, fleet.group, product="", product_id=None)
    assert (await do(database, Claim())).state is State.REGISTERED
    assert (await do(database, Claim(serial="SN"))).key == fleet.enrolled.key


async def test_an_administrator_allocates_who_waits(database: Database, fleet: Fleet) -> None:
    await change(database, fleet.group, auto_activation=False)
    waiting = await do(database, Claim())
    async with database.begin() as tx:
        given = await allocate(tx, waiting, "pk", fleet.product.id, key="mykey", secret="mysecret")
    assert (given.key, given.secret) == ("mykey", "mysecret")
    assert await do(database, Claim()) == given
    with pytest.raises(Refusal, match="illegal_transition"):
        async with database.begin() as tx:
            await allocate(tx, given, "pk", fleet.product.id)


async def test_after_a_reset_the_next_enrolment_gives_a_new_secret(database: Database, fleet: Fleet) -> None:
    first = await do(database, Claim())
    async with database.begin() as tx:
        await registry.reset(tx, first)
    again = await do(database, Claim())
    assert (again.key, again.asset, again.id) == (first.key, first.asset, first.id)
    assert again.secret not in {first.secret, ""}
    assert await kinds(database) == ["device.registered", "device.reset", "device.allocated"]


async def test_who_is_deleted_while_it_enrols_gets_no_secret(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(database, fleet.group, auto_activation=False)
    await do(database, Claim())
    await change(database, fleet.group, auto_activation=True)
    by_serial = devices.by_serial

    async def deleted_since(tx: Tx, group: Group, serial: str) -> Device | None:
        found = await by_serial(tx, group, serial)
        await execute(database, "DELETE FROM device WHERE state = 'registered'")
        return found

    monkeypatch.setattr(devices, "by_serial", deleted_since)
    assert (await refused(database, Claim())).reason is Reason.UNKNOWN
    assert await kinds(database) == ["device.registered"]


async def test_outfit_keeps_what_is_reserved(fleet: Fleet) -> None:
    waiting = replace(fleet.enrolled, state=State.REGISTERED, secret="", activations=4)
    assert outfit(waiting, "pk").key == "dk-sn"
    assert outfit(waiting, "pk", "given").key == "given"
    elsewhere = outfit(waiting, "other")
    assert elsewhere.key != "dk-sn"
    assert (elsewhere.product, elsewhere.asset, elsewhere.activations) == ("other", fleet.enrolled.asset, 0)


# --- by the serial number alone ---


async def test_recall_finds_the_group_whose_password_proves_it(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        other = await add_group(tx, "other")
        await devices.register(tx, other, Device(protocol=PROTOCOL, state=State.REGISTERED, group="other", serial="SN"))
    async with database.read() as tx:
        group, device = await recall(tx, Claim(serial="SN"))
        assert (group.key, device.id) == ("g", fleet.enrolled.id)
        group, device = await whose(tx, Claim(serial="SN", secret="password of other"))
        assert (group.key, device.state) == ("other", State.REGISTERED)


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (lambda: Claim(serial="x"), Reason.UNKNOWN),
        (lambda: Claim(serial="SN", secret="x"), Reason.NOT_PROVEN),
        (lambda: Claim(serial="SN", fresh=False), Reason.STALE),
        (lambda: Claim(serial="SN", protocol="x"), Reason.UNKNOWN),
        (lambda: Claim(serial="WAITS"), Reason.NOT_ALLOCATED),
    ],
)
async def test_recall_refuses(database: Database, fleet: Fleet, claim: Callable[[], Claim], reason: Reason) -> None:
    async with database.begin() as tx:
        await devices.register(
            tx, fleet.group, Device(protocol=PROTOCOL, state=State.REGISTERED, group="g", serial="WAITS")
        )
    made = claim()
    with pytest.raises(Refusal) as caught:
        async with database.read() as tx:
            await recall(tx, made)
    assert caught.value.reason is reason
    assert made.tried, "a proof is computed in any case"


async def test_a_group_that_is_deleted_meanwhile_proves_nobody(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_all = groups.find_all

    async def deleted_since(tx: Tx, protocol: str, keys: list[str]) -> dict[str, Group]:
        await execute(database, "DELETE FROM device; DELETE FROM enrolment_group")
        return await find_all(tx, protocol, keys)

    monkeypatch.setattr(groups, "find_all", deleted_since)
    with pytest.raises(Refusal, match="not_proven"):
        async with database.read() as tx:
            await whose(tx, Claim(serial="SN"))


async def test_a_serial_number_of_many_groups_costs_a_bounded_look_up(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        for i in range(MOST_CANDIDATES + 2):
            group = await add_group(tx, f"many{i}")
            await devices.register(
                tx, group, Device(protocol=PROTOCOL, state=State.REGISTERED, group=group.key, serial="POPULAR")
            )
    claim = Claim(serial="POPULAR", secret="x")
    with pytest.raises(Refusal):
        async with database.read() as tx:
            await whose(tx, claim)
    assert len(claim.tried) == MOST_CANDIDATES


# --- may it have a secret? ---

OPEN = ProductCredential(id=1, secret="s", dynamic_activation=True, auto_create=True)
CLOSED = replace(OPEN, dynamic_activation=False)
LISTED = replace(OPEN, auto_create=False)
NEW = DeviceCredential(id=2, secret="d", epoch=0, asset="", disabled=False, activated=False)
USED = replace(NEW, activated=True)
OFF = replace(NEW, disabled=True)


@pytest.mark.parametrize(
    ("product", "device", "again", "result"),
    [
        (OPEN, None, Again.DENY, Grant.CREATE),
        (LISTED, None, Again.DENY, Reason.DEVICE_UNKNOWN),
        (CLOSED, None, Again.DENY, Reason.ACTIVATION_OFF),
        (CLOSED, OFF, Again.ROTATE, Reason.ACTIVATION_OFF),
        *((LISTED, NEW, again, Grant.SECRET) for again in Again),
        *((OPEN, OFF, again, Reason.DISABLED) for again in Again),
        (OPEN, replace(OFF, activated=True), Again.DENY, Reason.DISABLED),
        (OPEN, USED, Again.DENY, Reason.ACTIVATION_SPENT),
        (OPEN, USED, Again.SAME, Grant.SECRET),
        (OPEN, USED, Again.ROTATE, Grant.NEW_SECRET),
    ],
)
def test_may_have_secret(
    product: ProductCredential, device: DeviceCredential | None, again: Again, result: Grant | Reason
) -> None:
    try:
        found: Grant | Reason = may_have_secret(product, device, again)
    except Refusal as refusal:
        found = refusal.reason
    assert found is result
