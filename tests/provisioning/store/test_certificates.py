"""provisioning/store/certificates.py"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from provisioning.model.certificate import Authority, Certificate, CrlEntry, Profile, Revocation, Status
from provisioning.model.identity import Identity
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Product
from provisioning.store import authorities, certificates, devices, products
from provisioning.store.certificates import Filter
from provisioning.store.database import Database

pytestmark = pytest.mark.server

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def authority(database: Database) -> Authority:
    return await add_authority(database, "a")


async def add_authority(database: Database, name: str) -> Authority:
    new = Authority(
        name=name, generation=1, certificate=name.encode(), key_type="p256", has_key=True, serial="1", subject="CN=a",
        not_before=NOW, not_after=NOW + timedelta(days=10_000),
    )  # fmt: skip
    async with database.begin() as tx:
        return await authorities.add(tx, new, "key")


@pytest.fixture
async def device(database: Database) -> Device:
    async with database.begin() as tx:
        product = await products.add(tx, Product(protocol="p", key="pk1", secret="s"))
        new = Device(protocol="p", state=State.ALLOCATED, product="pk1", key="dk1", secret="s")
        return (await devices.add_many(tx, [(new, product.id, None)]))[0]


def certificate(authority: Authority, n: int, **more: Any) -> Certificate:
    plain = Certificate(
        authority_id=authority.id, serial=f"{n:x}", fingerprint=f"{authority.id:032x}{n:032x}", der=f"der {n}".encode(),
        profile=Profile.DEVICE, cn=f"device-{n}", not_before=NOW, not_after=NOW + timedelta(days=100 + n),
    )  # fmt: skip
    return replace(plain, **more)


async def add(database: Database, *wanted: Certificate) -> list[Certificate]:
    async with database.begin() as tx:
        added = [await certificates.add(tx, each) for each in wanted]
        assert None not in added, "a serial is taken"
        return [each for each in added if each]


async def test_a_certificate_comes_back_as_it_went_in(database: Database, authority: Authority, device: Device) -> None:
    [own, other] = await add(
        database,
        certificate(authority, 1, device_id=device.id, identity=Identity("p", "pk1", "dk1")),
        certificate(authority, 2),
    )
    async with database.read() as tx:
        assert await certificates.by_id(tx, own.id) == own
        assert await certificates.find(tx, authority.id, "2") == other
        assert await certificates.find(tx, authority.id, "3") is None
        assert await certificates.by_fingerprint(tx, own.fingerprint) == own
        assert await certificates.by_fingerprints(tx, [own.fingerprint, "00" * 32]) == {own.fingerprint: own}
        assert await certificates.of_device(tx, device.id) == [own]


async def test_a_serial_is_unique_within_its_authority(database: Database, authority: Authority) -> None:
    [first] = await add(database, certificate(authority, 1))
    second = await add_authority(database, "b")
    [twin] = await add(database, certificate(second, 1))
    async with database.begin() as tx:
        assert await certificates.add(tx, certificate(authority, 1, fingerprint="ff" * 32)) is None
        assert await certificates.by_serial(tx, "1") == [first, twin]
    with pytest.raises(Refusal) as caught:
        await add(database, certificate(authority, 9, fingerprint=first.fingerprint))
    assert caught.value.reason is Reason.DUPLICATE


@pytest.mark.parametrize(
    ("more", "constraint"),
    [({"serial": "0a"}, "certificate_serial"), ({"serial": "A"}, "certificate_serial"),
     ({"serial": ""}, "certificate_serial"),
     ({"fingerprint": "00"}, "certificate_fingerprint"), ({"not_after": NOW}, "certificate_validity")],
)  # fmt: skip
async def test_the_database_keeps_the_form(
    database: Database, authority: Authority, more: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=constraint):
        await add(database, certificate(authority, 1, **more))


async def test_status_reason_and_time_belong_together(database: Database, authority: Authority) -> None:
    [own] = await add(database, certificate(authority, 1))
    for wrong in (
        replace(own, status=Status.REVOKED, revoked_at=NOW),
        replace(own, status=Status.HELD),
        replace(own, reason=Revocation.UNSPECIFIED),
        replace(own, revoked_at=NOW),
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            async with database.begin() as tx:
                await certificates.set_status(tx, wrong)


async def test_pages_by_what_is_asked(database: Database, authority: Authority, device: Device) -> None:
    other = await add_authority(database, "b")
    added = await add(
        database, certificate(authority, 1, device_id=device.id), certificate(authority, 2, profile=Profile.SERVER),
        certificate(other, 3), certificate(other, 4, cn="device-1"),
    )  # fmt: skip
    async with database.begin() as tx:
        await certificates.set_status(tx, replace(added[2], status=Status.HELD, revoked_at=NOW))

    async def serials(after: int = 0, limit: int = 10, **which: Any) -> str:
        async with database.read() as tx:
            return " ".join(each.serial for each in await certificates.page(tx, Filter(**which), after, limit))

    assert await serials() == "1 2 3 4"
    assert await serials(limit=2) == "1 2"
    assert await serials(after=added[1].id) == "3 4"
    assert await serials(authority_id=other.id) == "3 4"
    assert await serials(device_id=device.id) == "1"
    assert await serials(status=Status.HELD) == "3"
    assert await serials(profile=Profile.SERVER) == "2"
    assert await serials(cn="device-1") == "1 4"
    assert await serials(expires_from=added[1].not_after, expires_before=added[3].not_after) == "2 3"


async def test_the_last_sight_never_goes_back(database: Database, authority: Authority) -> None:
    added = await add(database, *(certificate(authority, n) for n in range(1, 4)))
    async with database.begin() as tx:
        await certificates.note_seen(tx, {added[0].id: NOW, added[1].id: NOW, 999_999: NOW})
        await certificates.note_seen(tx, {added[0].id: NOW - timedelta(days=1), added[1].id: NOW + timedelta(days=1)})
        seen = [(await certificates.by_id(tx, each.id) or each).last_seen_at for each in added]
    assert seen == [NOW, NOW + timedelta(days=1), None]


async def test_processes_that_note_the_same_do_not_lock_each_other_out(
    database: Database, authority: Authority
) -> None:
    added = await add(database, *(certificate(authority, n) for n in range(1, 101)))

    async def note(ids: list[int], at: datetime) -> None:
        async with database.begin() as tx:
            await certificates.note_seen(tx, dict.fromkeys(ids, at))

    ids = [each.id for each in added]
    await asyncio.gather(*(note(ids[::-1] if n % 2 else ids, NOW + timedelta(seconds=n)) for n in range(20)))
    async with database.read() as tx:
        last = await certificates.by_fingerprints(tx, [each.fingerprint for each in added])
    assert {each.last_seen_at for each in last.values()} == {NOW + timedelta(seconds=19)}


async def test_crl_entries_are_those_not_valid_and_not_long_expired(database: Database, authority: Authority) -> None:
    added = await add(database, *(certificate(authority, n) for n in range(1, 5)))
    other = await add_authority(database, "b")
    [stranger] = await add(database, certificate(other, 9))
    at = NOW + timedelta(hours=1)
    async with database.begin() as tx:
        for each, reason in ((added[0], Revocation.SUPERSEDED), (added[2], None), (stranger, Revocation.SUPERSEDED)):
            status = Status.REVOKED if reason else Status.HELD
            await certificates.set_status(tx, replace(each, status=status, reason=reason, revoked_at=at))
        assert await certificates.crl_entries(tx, authority.id, NOW) == [
            CrlEntry("1", at, Revocation.SUPERSEDED), CrlEntry("3", at, None),
        ]  # fmt: skip
        assert [each.serial for each in await certificates.crl_entries(tx, authority.id, added[1].not_after)] == ["3"]


async def test_who_took_whose_place(database: Database, authority: Authority) -> None:
    old, new = await add(database, certificate(authority, 1), certificate(authority, 2))
    async with database.begin() as tx:
        await certificates.supersede(tx, old, new)
        assert not await certificates.is_successor_seen(tx, old, NOW)
        await certificates.note_seen(tx, {new.id: NOW})
        assert await certificates.is_successor_seen(tx, old, NOW)
        assert not await certificates.is_successor_seen(tx, new, NOW)
        assert [each.id for each in await certificates.replaced(tx, NOW, 10)] == [old.id]
        assert await certificates.replaced(tx, new.not_after, 10) == []


async def test_two_that_took_each_others_place_end_nowhere(database: Database, authority: Authority) -> None:
    """Nobody writes such rows; a search that met them would not return."""
    both = await add(database, certificate(authority, 1), certificate(authority, 2))
    async with database.begin() as tx:
        await certificates.supersede(tx, both[0], both[1])
        await certificates.supersede(tx, both[1], both[0])
        assert await certificates.replaced(tx, NOW, 10) == []
