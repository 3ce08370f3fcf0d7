"""provisioning/core/inventory.py"""

import asyncio

import pytest

from provisioning.core import ca, certify, inventory, pki
from provisioning.model.certificate import Authority, Profile, Revocation, Status
from provisioning.model.refusal import Reason
from provisioning.model.registry import Device
from provisioning.store import certificates, devices, products
from provisioning.store.certificates import Filter
from provisioning.store.database import Database, open_database
from provisioning.store.sealing import Sealer
from tests.certificates import (
    NOW,
    add_device,
    days,
    issue,
    kinds,
    notifications,
    refusal,
    run,
    stored,
)
from tests.conftest import until
from tests.openssl import made

pytestmark = pytest.mark.server


# --- revocation ------------------------------------------------------------------------------------------------------


async def test_hold_release_revoke(database: Database, authority: Authority, device: Device, database_url: str) -> None:
    leaf = await issue(database, authority, device=device)
    async with notifications(database_url) as heard:
        held = await run(database, inventory.hold, leaf, now=NOW)
        assert (held.status, held.reason, held.revoked_at) == (Status.HELD, None, NOW)
        free = await run(database, inventory.release, leaf, now=NOW + days(1))
        assert (free.status, free.revoked_at) == (Status.VALID, None)
        await run(database, inventory.hold, leaf, now=NOW + days(2))
        gone = await run(database, inventory.revoke, leaf, now=NOW + days(3), reason=Revocation.KEY_COMPROMISE)
        assert (gone.status, gone.reason, gone.revoked_at) == (Status.REVOKED, Revocation.KEY_COMPROMISE, NOW + days(2))
        assert await stored(database, leaf) == gone
        told = {"change": "certificate", "authority": authority.id, "serial": leaf.serial}
        wanted = [told | {"status": status} for status in ("held", "valid", "held", "revoked")]
        await until(lambda: len(heard) >= 4, "notifications")
        assert heard == wanted
    for verb in (inventory.hold, inventory.release, inventory.revoke):
        assert (await refusal(database, verb, leaf, now=NOW)).reason is Reason.ILLEGAL_TRANSITION
    assert [kind for kind, _ in await kinds(database, device_id=device.id)] == [
        "certificate.issued", "certificate.held", "certificate.released", "certificate.held", "certificate.revoked",
    ]  # fmt: skip


async def test_of_two_revocations_at_once_one_counts(database: Database, authority: Authority) -> None:
    leaf = await issue(database, authority)
    both = await asyncio.gather(
        *(run(database, inventory.revoke, leaf, now=NOW) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in both) == ["Certificate", "Refusal"]
    assert [kind for kind, _ in await kinds(database)].count("certificate.revoked") == 1


async def test_a_device_takes_its_certificates_along(
    database: Database, authority: Authority, device: Device, database_url: str
) -> None:
    """Whoever deletes it, and however."""
    leaves = [await issue(database, authority, device=device) for _ in range(2)]
    await run(database, inventory.hold, leaves[1], now=NOW - days(1))
    other = await issue(database, authority, device=await add_device(database, "dk2"))
    async with notifications(database_url) as heard:
        await run(database, devices.delete_all, (await run(database, products.find, "p", "pk1")).id, [])
        await until(lambda: sum(each["change"] == "certificate" for each in heard) == 3, "notifications")
    for leaf in (*leaves, other):
        gone = await stored(database, leaf)
        assert (gone.status, gone.reason, gone.device_id, gone.identity) == (
            Status.REVOKED, Revocation.CESSATION_OF_OPERATION, None, None,
        )  # fmt: skip
    assert (await stored(database, leaves[1])).revoked_at == NOW - days(1)


async def test_a_leaf_is_never_left_valid_by_a_race_with_the_deletion(database: Database, authority: Authority) -> None:
    for n in range(10):
        device = await add_device(database, f"race-{n}")
        await asyncio.gather(
            issue(database, authority, device=device), run(database, devices.delete, device), return_exceptions=True
        )
    left = await run(database, certificates.page, Filter(status=Status.VALID), 0, 100)
    assert [each.serial for each in left] == []


async def test_revokes_all_of_a_device(database: Database, authority: Authority, device: Device) -> None:
    leaves = [await issue(database, authority, device=device) for _ in range(3)]
    await run(database, inventory.revoke, leaves[0], now=NOW)
    gone = await run(database, inventory.revoke_of_device, device.id, now=NOW, reason=Revocation.AFFILIATION_CHANGED)
    assert [each.id for each in gone] == [each.id for each in leaves[1:]]
    assert await run(database, inventory.revoke_of_device, device.id, now=NOW) == []
    told = await kinds(database, device_id=device.id)
    assert [kind for kind, _ in told].count("certificate.revoked") == 3


async def test_a_predecessor_goes_when_its_successor_is_in_use(database: Database, authority: Authority) -> None:
    old = await issue(database, authority)
    await run(database, certificates.note_seen, {old.id: NOW})
    new = await run(database, certify.renew, authority, old, now=NOW, days=365)
    refused = await refusal(database, inventory.revoke_predecessor, old, now=NOW)
    assert (refused.reason, "has not been seen" in str(refused)) == (Reason.IN_USE, True)
    assert await run(database, inventory.revoke_replaced, now=NOW) == []
    await run(database, certificates.note_seen, {new.id: NOW + days(1)})
    await run(database, certificates.note_seen, {old.id: NOW + days(2)})
    assert await run(database, inventory.revoke_replaced, now=NOW) == [], "the device went back to the old one"
    await run(database, certificates.note_seen, {new.id: NOW + days(3)})
    [gone] = await run(database, inventory.revoke_replaced, now=NOW + days(3))
    assert (gone.id, gone.status, gone.reason) == (old.id, Status.REVOKED, Revocation.SUPERSEDED)
    assert await run(database, inventory.revoke_replaced, now=NOW + days(3)) == []


async def test_a_successor_that_was_skipped_counts_no_less(database: Database, authority: Authority) -> None:
    first = await issue(database, authority)
    second = await run(database, certify.renew, authority, first, now=NOW, days=365)
    third = await run(database, certify.renew, authority, second, now=NOW, days=365)
    await run(database, certificates.note_seen, {third.id: NOW})
    assert [each.id for each in await run(database, inventory.revoke_replaced, now=NOW)] == [first.id, second.id]


async def test_a_revoked_or_expired_successor_does_not_count(database: Database, authority: Authority) -> None:
    old = await issue(database, authority)
    new = await run(database, certify.renew, authority, old, now=NOW, days=10)
    await run(database, certificates.note_seen, {new.id: NOW})
    assert await run(database, inventory.revoke_replaced, now=NOW + days(11)) == []
    await run(database, inventory.revoke, new, now=NOW)
    assert await run(database, inventory.revoke_replaced, now=NOW) == []


async def test_expiry_is_told_once_for_each_threshold(
    database: Database, authority: Authority, device: Device, database_url: str, sealer: Sealer
) -> None:
    leaf = await issue(database, authority, days=365, device=device)
    short = await issue(database, authority, days=10)
    told = []
    async with open_database(database_url, sealer, timeout=10) as other:
        for left in (61, 60, 59, 30, 29, 7, 6, 1, 0, -1):
            at = leaf.not_after - days(left)
            due = await asyncio.gather(*(run(where, inventory.warn_expiring, now=at) for where in (database, other)))
            told += [left for each in due for certificate in each if certificate.id == leaf.id]
    assert told == [60, 30, 7]
    assert (await kinds(database, device_id=device.id)).count(("certificate.expiring", leaf.serial)) == 3
    assert await run(database, inventory.warn_expiring, now=short.not_after - days(1)) == [], (
        "half of its life is no warning"
    )


async def test_a_late_start_tells_the_nearest_threshold_only(database: Database, authority: Authority) -> None:
    leaves = [await issue(database, authority) for _ in range(3)]
    at = leaves[0].not_after - days(5)
    assert len(await run(database, inventory.warn_expiring, now=at, limit=2)) == 2
    assert len(await run(database, inventory.warn_expiring, now=at, limit=2)) == 1
    assert await run(database, inventory.warn_expiring, now=at, limit=2) == []


async def test_whose_place_is_taken_is_not_warned_of(database: Database, authority: Authority) -> None:
    old = await issue(database, authority)
    new = await run(database, certify.renew, authority, old, now=NOW, days=900)
    revoked = await issue(database, authority)
    await run(database, inventory.revoke, revoked, now=NOW)
    assert [each.id for each in await run(database, inventory.warn_expiring, now=old.not_after - days(31))] == [old.id]
    await run(database, certificates.note_seen, {new.id: NOW})
    assert await run(database, inventory.warn_expiring, now=old.not_after - days(29)) == []


async def test_finds_a_certificate_by_the_serial_that_people_paste(database: Database, authority: Authority) -> None:
    leaf = await issue(database, authority)
    assert await run(database, inventory.find, leaf.serial.upper()) == leaf
    assert (await refusal(database, inventory.find, "abc")).reason is Reason.UNKNOWN
    assert (await refusal(database, inventory.find, "xyz")).reason is Reason.MALFORMED
    second = await run(database, ca.create, "second", pki.new_key(), now=NOW)
    twin = made("twin", made("Third"), ca=False, serial=int(leaf.serial, 16)).certificate
    row = certify.inventory_row(second, twin, (None, None), Profile.DEVICE)
    await run(database, certificates.add, row)
    assert (await refusal(database, inventory.find, leaf.serial)).reason is Reason.DUPLICATE
    assert await run(database, inventory.find, leaf.serial, authority) == leaf
