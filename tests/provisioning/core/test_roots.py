"""provisioning/core/roots.py, and what the upkeep does with it by protocols/ublox/expiry.py"""

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from provisioning.core import ca, certify, inventory, pki, publish, revocation, roots, signing
from provisioning.core.roots import days_left, next_warning
from provisioning.model.certificate import Profile
from provisioning.protocols.ublox import expiry
from provisioning.store import authorities, certificates
from provisioning.store.database import Database
from provisioning.upkeep import FOR_ACCOUNTS
from tests.certificates import kinds, notifications
from tests.material import NOW
from tests.provisioning.store.registry import execute
from tests.ublox_certificates import CA, OTHER, OTHER_CA, UID, Desk, open_desk

DAY = timedelta(days=1)
WARNING, END = "DEVICE_CERTIFICATE_EXPIRATION_EVENT", "ROOTCA_EXPIRATION_EVENT"


@pytest.fixture
async def desk(database: Database) -> Desk:
    return await open_desk(database, UID, OTHER)


async def work(desk: Desk, verb: Any, **more: Any) -> Any:
    async with desk.database.begin() as tx:
        return await verb(tx, now=desk.clock(), **{"limit": 100} | more)


async def payloads(desk: Desk) -> list[Any]:
    return [json.loads(body)["Payload"] for body in await desk.told()]


# --- pure ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (60 * DAY, 60),
        (60 * DAY - timedelta(seconds=1), 60),
        (59 * DAY, 59),
        (timedelta(seconds=1), 1),
        (0 * DAY, 0),
        (-9 * DAY, 0),
    ],
)
def test_days_left_count_begun_ones(left: timedelta, expected: int) -> None:
    assert days_left(NOW + left, NOW) == expected


@pytest.mark.parametrize(
    ("left", "days"), [(365, 60), (61, 60), (60, 30), (31, 30), (30, 7), (8, 7), (7, None), (1, None), (-1, None)]
)
def test_a_warning_is_due_at_the_next_threshold(left: int, days: int | None) -> None:
    until = NOW + left * DAY
    assert next_warning(until, NOW) == (None if days is None else until - days * DAY)


def test_an_authority_may_be_made_for_days() -> None:
    made = signing.make_authority(pki.make_subject("x"), pki.new_key(), now=NOW, days=1826, serial=1)
    assert made.not_valid_after_utc == NOW + 1826 * DAY


# --- apart from the house --------------------------------------------------------------------------------------------


async def test_nobody_logs_in_here_with_what_an_account_issues(desk: Desk, database_url: str) -> None:
    """The house trusts, names, lists and publishes its own authorities alone, and hears nothing of the others."""
    async with notifications(database_url) as heard:
        async with desk.database.begin() as tx:
            house = await ca.ensure_default(tx, pki.new_key(), now=desk.clock())
        await desk.create()
        await desk.provision()
        await desk.beat()
        root = await desk.root()
        async with desk.database.begin() as tx:
            of_account = await authorities.by_id(tx, root.authority_id)
            assert of_account is not None
            assert (of_account.of_account, of_account.is_default, of_account.name) == (
                True,
                False,
                f"account-ca-{root.id}",
            )
            assert [each.id for each in await authorities.trusted(tx, desk.clock())] == [house.id]
            assert [each.id for each in await authorities.every(tx)] == [house.id]
            assert await authorities.find(tx, of_account.name) is None
            assert await authorities.names(tx) == {house.id: ("gatehouse", 1), of_account.id: (of_account.name, 1)}
            assert not await certificates.is_name_in_use(tx, UID, desk.clock())
            serial = (await desk.certificate()).serial
            digest = revocation.DIGESTS[0]()
            own = x509.load_der_x509_certificate(root.certificate)
            request = revocation.OcspRequest(digest, *revocation.issuer_hashes(own, digest), serial)
            assert await publish.answer_ocsp(tx, request, now=desk.clock()) == revocation.UNAUTHORIZED
        leaf = x509.load_der_x509_certificate((await desk.certificate()).der)
        with pytest.raises(x509.ExtensionNotFound):
            leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints)
        await desk.provision(state="DISABLED", ca=None)
        async with desk.database.begin() as tx:
            await roots.retire_all(tx, desk.account.id, desk.clock())
            await tx.db.execute("SELECT pg_notify('gatehouse', '{\"change\":\"last\"}')")
        while not heard or heard[-1]["change"] != "last":
            async with desk.database.read() as tx:
                await tx.db.fetch("SELECT")
    assert [each["change"] for each in heard].count("authority") == 1, "the house's own"


async def test_names_of_the_house_are_not_given_to_accounts(desk: Desk) -> None:
    async with desk.database.begin() as tx:
        await ca.create(tx, "plant", pki.new_key(), now=desk.clock(), common_name="plant.example")
    body = {"CACertificateValidity": 1825, "DeviceCertificateValidity": 365}
    await desk.refused(
        "/ztp/rootca/create", body | {"CAName": "plant.example"}, 409, "Bad Request. CAName already exists"
    )


# --- the end of a root CA --------------------------------------------------------------------------------------------


async def test_one_that_issued_nothing_leaves_no_trace(desk: Desk) -> None:
    await desk.create()
    await desk.ok("/ztp/rootca/delete", {"CAName": CA})
    assert await desk.rows("SELECT name FROM authority WHERE of_account") == []
    assert await desk.rows("SELECT name FROM root_ca") == []


async def test_one_that_has_issued_is_retired_without_its_key_and_its_name_is_free(desk: Desk) -> None:
    await desk.create()
    await desk.create(OTHER_CA)
    await desk.provision()
    await desk.beat()
    old = await desk.root()
    await desk.provision(ca=OTHER_CA)
    await desk.beat()
    await desk.ok("/ztp/rootca/delete", {"CAName": CA})
    (row,) = await desk.rows(
        "SELECT key, retired_at, distrusted_at FROM authority WHERE id = $1", old.authority_id
    )  # fmt: skip
    assert row == {"key": None, "retired_at": desk.clock(), "distrusted_at": desk.clock()}
    assert ("authority.distrusted", await serial_of(desk, old.authority_id)) in await kinds(desk.database)
    assert await work(desk, roots.refresh_crls) == 0
    again = await desk.create()
    assert pki.read_certificate(again["Certificate"]).public_key() != pki.read_certificate(old.certificate).public_key()
    assert [each["CAName"] for each in (await desk.ok("/ztp/rootca/get"))["CAs"]] == [OTHER_CA, CA]
    await desk.provision()
    await desk.beat()
    assert (await desk.module()).issuer_id == (await desk.root()).id


async def serial_of(desk: Desk, authority_id: int) -> str:
    (row,) = await desk.rows("SELECT serial FROM authority WHERE id = $1", authority_id)
    return str(row["serial"])


async def test_an_account_that_goes_leaves_no_authority_that_signs(desk: Desk) -> None:
    await desk.create()
    await desk.create(OTHER_CA)
    async with desk.database.begin() as tx:
        assert await roots.retire_all(tx, desk.account.id, desk.clock()) == 2
    rows = await desk.rows("SELECT key, retired_at, distrusted_at FROM authority WHERE of_account")
    assert rows == [{"key": None, "retired_at": desk.clock(), "distrusted_at": desk.clock()}] * 2
    await desk.refused(
        "/ztp/rootca/popcertificate/generate", {"CAName": CA, "RegistrationCode": "1"}, 400, "Bad Request"
    )
    await desk.provision()
    assert await desk.beat() == [], "a heartbeat goes on"


# --- upkeep ----------------------------------------------------------------------------------------------------------


def test_the_upkeep_has_its_works() -> None:
    wanted = {roots.refresh_crls, expiry.warn_of_certificates, expiry.warn_of_root_cas}
    assert wanted <= set(FOR_ACCOUNTS)


async def test_crls_are_made_anew_every_day(desk: Desk) -> None:
    await desk.create()
    await desk.create(OTHER_CA)
    assert await work(desk, roots.refresh_crls) == 0, "they are fresh"
    desk.clock.move(hours=23)
    assert await work(desk, roots.refresh_crls) == 0
    desk.clock.move(hours=1)
    assert await work(desk, roots.refresh_crls, limit=1) == 1
    assert await work(desk, roots.refresh_crls) == 1
    assert await work(desk, roots.refresh_crls) == 0
    crls = [x509.load_der_x509_crl(row["crl"]) for row in await desk.rows("SELECT crl FROM root_ca")]
    numbers = {each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in crls}
    assert numbers == {2}
    assert {each.next_update_utc for each in crls} == {desk.clock() + 7 * DAY}
    desk.clock.move(days=1826)
    assert await work(desk, roots.refresh_crls) == 0, "the CAs have expired"


async def test_a_key_that_does_not_open_holds_up_nobody_else(desk: Desk) -> None:
    await desk.create()
    await desk.create(OTHER_CA)
    await desk.provision()
    desk.clock.move(days=2)
    damaged = (await desk.root()).authority_id
    await execute(desk.database, "UPDATE authority SET key = set_byte(key, 30, 255 - get_byte(key, 30)) WHERE id = $1",
                  damaged)  # fmt: skip
    assert await work(desk, roots.refresh_crls) == 1, "the other CA's"
    assert await desk.beat() == [], "a heartbeat goes on"
    (error,) = await desk.rows("SELECT payload FROM notification WHERE kind = 'DEVICE_ERROR'")
    assert json.loads(error["payload"]) == {"Error": "The CA cannot sign"}


async def test_accounts_are_told_before_certificates_expire(desk: Desk) -> None:
    await desk.hook(WARNING)
    await desk.create(DeviceCertificateValidity=45)
    await desk.create(OTHER_CA, DeviceCertificateValidity=100)
    await desk.provision()
    await desk.provision(OTHER, OTHER_CA)
    for uid in (UID, OTHER):
        await desk.beat(uid)
    short, long = await desk.certificate(), await desk.certificate(OTHER)
    start = desk.clock()
    told: list[tuple[int, Any]] = []
    for day in (0, 14, 15, 37, 38, 39, 40, 69, 70, 92, 93, 99, 101):
        desk.clock.now = start + day * DAY
        while await work(desk, expiry.warn_of_certificates, limit=1):
            pass
        assert await work(desk, inventory.warn_expiring) == [], "the house does not speak of them"
        told += [(day, each) for each in (await payloads(desk))[len(told) :]]
    assert [
        (day, each["CertificateSerialNumber"], each["DaysToExpiration"], each["CertificateAuthorityName"])
        for day, each in told
    ] == [
        (15, short.serial, 30, CA), (38, short.serial, 7, CA), (40, long.serial, 60, OTHER_CA),
        (70, long.serial, 30, OTHER_CA), (93, long.serial, 7, OTHER_CA),
    ]  # fmt: skip
    assert told[0][1].keys() == {
        "CertificateAuthorityName", "CertificateSerialNumber", "DaysToExpiration", "ExpirationDate",
    }  # fmt: skip
    assert (await kinds(desk.database)).count(("certificate.expiring", long.serial)) == 3, "the log tells as much"


async def test_only_what_is_of_use_is_told(desk: Desk) -> None:
    """Of a certificate that was replaced or revoked nothing, of thresholds that passed meanwhile the last one."""
    await desk.hook(WARNING)
    await desk.create(DeviceCertificateValidity=100)
    for uid in (UID, OTHER):
        await desk.provision(uid)
        await desk.beat(uid)
    await desk.ok("/ztp/devicecertificate/revoke", {"CAName": CA, "ROTPublicUID": OTHER})
    desk.clock.move(days=75)
    assert await work(desk, expiry.warn_of_certificates) == 2
    assert [each["DaysToExpiration"] for each in await payloads(desk)] == [25]
    body = {"CAName": CA, "DeviceCertificateValidity": 30, "ROTPublicUIDs": [UID]}
    await desk.ok("/ztp/devicecertificate/renew", body)
    await desk.beat()
    desk.clock.move(days=20)
    await work(desk, expiry.warn_of_certificates)
    assert len(await payloads(desk)) == 1, "its successor has 10 days"
    desk.clock.move(days=20)
    await work(desk, expiry.warn_of_certificates)
    assert len(await payloads(desk)) == 1, "it has expired while nobody looked"
    assert await work(desk, expiry.warn_of_certificates) == 0


async def test_accounts_are_told_before_root_cas_expire(desk: Desk) -> None:
    await desk.hook(END)
    await desk.create()
    await desk.provision()
    await desk.beat()
    until = (await desk.root()).not_after
    for left in (181, 180, 179, 90, 60, 31, 30, 7, 1, 0, -1):
        desk.clock.now = until - left * DAY
        await work(desk, expiry.warn_of_root_cas)
    told = [json.loads(body) for body in await desk.told()]
    assert [each["Payload"]["DaysToExpiration"] for each in told] == [180, 90, 60, 30, 7, 0]
    assert "ROTPublicUID" not in told[0]
    assert told[0]["Payload"] == {
        "CertificateAuthorityName": CA, "DaysToExpiration": 180, "ExpirationDate": f"{until:%Y-%m-%dT%H:%M:%SZ}",
        "ProvisionedDevicesCount": 1,
    }  # fmt: skip


async def test_what_others_issue_is_still_told_by_the_house(desk: Desk) -> None:
    async with desk.database.begin() as tx:
        house = await ca.ensure_default(tx, pki.new_key(), now=desk.clock())
        leaf = signing.issue(
            (await ca.signer(tx, house))[0], pki.new_key().public_key(), pki.make_subject("d"), profile=Profile.DEVICE,
            now=desk.clock(), days=365, serial=7,
        )  # fmt: skip
        await certify.adopt(tx, house, leaf, now=desk.clock(), device=None)
    desk.clock.move(days=306)
    assert [each.serial for each in await work(desk, inventory.warn_expiring)] == ["7"]
