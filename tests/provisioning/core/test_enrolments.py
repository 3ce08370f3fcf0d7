"""Many claims at once: each gets what `enrol` would give it alone."""

import asyncio
from dataclasses import replace
from itertools import count

import pytest

from provisioning.core import enrol, enrolments
from provisioning.core.enrolments import Enrolments, enrol_all
from provisioning.core.generate import HOUSE
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import devices, events, groups
from provisioning.store.database import Database
from tests.provisioning.core.test_enrol import Claim
from tests.provisioning.store.registry import Fleet, add_fleet


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


def told(outcome: Device | Refusal) -> str:
    return str(outcome.reason) if isinstance(outcome, Refusal) else outcome.serial


async def test_each_of_many_gets_its_own_answer(database: Database, fleet: Fleet) -> None:
    claims = [
        Claim("A"), Claim("B", secret="wrong"), Claim("A"), Claim("C", fresh=False), Claim("D", group="none"),
        Claim(fleet.enrolled.serial), Claim("E"),
    ]  # fmt: skip
    async with database.begin() as tx:
        outcomes = await enrol_all(tx, claims)
    assert [told(each) for each in outcomes] == [
        "A", Reason.NOT_PROVEN, "A", Reason.STALE, Reason.UNKNOWN, fleet.enrolled.serial, "E",
    ]  # fmt: skip
    assert outcomes[0] == outcomes[2], "two claims to one serial number got different devices"
    assert claims[4].tried == [enrol.NOBODY], "the time of the answer tells that there is no such group"
    async with database.read() as tx:
        for outcome, serial in ((outcomes[0], "A"), (outcomes[6], "E")):
            assert outcome == await devices.by_serial(tx, fleet.group, serial), "the answer is not what was written"
        registered = [event.serial for event in await events.page(tx) if event.kind == "device.registered"]
    assert sorted(registered) == ["A", "E"], "one event for each new device, and none for the others"


async def test_who_waits_for_a_product_gets_it_in_the_batch_too(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await groups.update(tx, replace(fleet.group, auto_activation=False))
        (waiting,) = await enrol_all(tx, [Claim("A")])
        await groups.update(tx, replace(fleet.group, auto_activation=True))
        after, fresh = await enrol_all(tx, [Claim("A"), Claim("B")])
    assert [each.state for each in (waiting, after, fresh) if isinstance(each, Device)] == [
        State.REGISTERED, State.ALLOCATED, State.ALLOCATED,
    ]  # fmt: skip


async def test_a_group_that_registers_nobody_knows_its_own_alone(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await groups.update(tx, replace(fleet.group, auto_register=False))
        stranger, known = await enrol_all(tx, [Claim("X"), Claim(fleet.enrolled.serial)])
    assert (told(stranger), told(known)) == (Reason.UNKNOWN, fleet.enrolled.serial)


async def test_what_comes_together_is_committed_together(database: Database, fleet: Fleet) -> None:
    crowd = Enrolments(database)
    claims = [Claim(f"S{number % 40}") for number in range(80)]
    found = await asyncio.gather(*(crowd.enrol(claim) for claim in claims))
    assert [device.serial for device in found] == [claim.serial for claim in claims]
    async with database.read() as tx:
        count_them = "SELECT count(DISTINCT xmin::text) FROM device WHERE name = 'n'"
        assert await tx.db.fetchval(count_them) < 5, "each claim had a transaction of its own"
    with pytest.raises(Refusal):
        await crowd.enrol(Claim("S1", secret="wrong"))
    await crowd.close()


async def test_a_name_that_is_taken_does_not_turn_others_away(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are drawn at random; two may meet, and their batch is undone. Then each is enrolled alone."""
    drawn = count()
    keys = ["same", "same", "k1", "k2", "k3"]
    forms = replace(HOUSE, device_key=lambda: keys[min(next(drawn), 4)])
    monkeypatch.setattr(enrolments, "outfit", lambda device, product: enrol.outfit(device, product, forms=forms))
    crowd = Enrolments(database)
    found = await asyncio.gather(*(crowd.enrol(Claim(serial)) for serial in ("A", "B")))
    assert [device.serial for device in found] == ["A", "B"]
    assert len({device.key for device in found}) == 2
    await crowd.close()
