"""provisioning/protocols/ublox/rootca.py"""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from provisioning.app import Running
from provisioning.core import pki
from provisioning.model.account import Account
from provisioning.model.refusal import Refusal
from provisioning.protocols.ublox import refusals
from provisioning.protocols.ublox.rootca import CreateCa, GetCrls
from provisioning.store.database import Database
from tests import openssl
from tests.ublox import OTHER_KEY, PROFILE, Client, make_account, make_profile
from tests.ublox_certificates import CA, OTHER, OTHER_CA, SUCCESS, UID, Desk, open_desk

CREATE = "/ztp/rootca/create"
BODY = {"CAName": CA, "CACertificateValidity": 3650, "DeviceCertificateValidity": 3650}


@pytest.fixture
async def desk(database: Database) -> Desk:
    return await open_desk(database, UID, OTHER)


async def other_account(desk: Desk) -> Desk:
    return Desk(desk.database, await make_account(desk.database, OTHER_KEY), desk.clock)


async def test_the_wire_of_an_account_without_the_subscription(api: Client, account: Account, running: Running) -> None:
    created = await api.ok(CREATE, BODY)
    assert list(created) == [
        "CAName",
        "CACertificateValidity",
        "DeviceCertificateValidity",
        "Certificate",
        "CreatedDate",
    ]
    await api.refused(CREATE, BODY, 409, "Bad Request. CAName already exists")
    await api.refused(CREATE, BODY | {"CACertificateValidity": 1824}, 400, "Bad Request. Invalid CACertificateValidity")
    async with running.database.begin() as tx:
        await tx.db.execute("UPDATE account SET certificates = false WHERE product_id = $1", account.id)
    renewing = BODY | {"CAName": OTHER_CA, "RenewBeforeExpiration": 30}
    for path, body in (
        (CREATE, renewing),
        ("/ztp/rootca/update", {"CAName": CA, "RenewBeforeExpiration": 30}),
        ("/ztp/rootca/crl/get", {}),
        ("/ztp/devicecertificate/renew", {"CAName": CA, "DeviceCertificateValidity": 30, "ROTPublicUIDs": [UID]}),
        ("/ztp/devicecertificate/update", {"CAName": CA, "ROTPublicUIDs": [UID]}),
        ("/ztp/devicecertificate/delete", {"ROTPublicUIDs": [UID]}),
        ("/ztp/devicecertificate/revoke", {"CAName": CA, "ROTPublicUID": UID}),
        ("/ztp/devicecertificate/rootca/transfer", {"FromCA": CA, "ToCA": OTHER_CA, "ROTPublicUIDs": [UID]}),
    ):
        await api.refused(path, body, 401, "Not Authorized.")
    assert (await api.ok("/ztp/rootca/get"))["TotalRecords"] == 1
    assert (await api.ok("/ztp/rootca/device/get", {"CAName": CA}))["Devices"] == []
    await api.ok("/ztp/rootca/popcertificate/generate", {"CAName": CA, "RegistrationCode": "9307"})
    assert await api.ok("/ztp/rootca/delete", {"CAName": CA}) == SUCCESS


async def test_a_root_ca_is_as_the_contract_has_it(desk: Desk, tmp_path: Path) -> None:
    created = await desk.ok(CREATE, BODY | {"RenewBeforeExpiration": 180})
    own = x509.load_pem_x509_certificate(created["Certificate"].encode())
    assert openssl.verify(tmp_path, own, own)[0] == 0
    said = openssl.openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-text")
    assert f"Subject: CN = {CA}\n" in said
    assert "NIST CURVE: P-256" in said
    assert "CA:TRUE" in said
    assert "Certificate Sign, CRL Sign" in said
    assert own.not_valid_after_utc - desk.clock() == timedelta(days=3650)
    assert (own.not_valid_after_utc - own.not_valid_before_utc).days == 3650
    assert created["CreatedDate"] == f"{desk.clock():%Y-%m-%dT%H:%M:%SZ}"
    (listed,) = (await desk.ok("/ztp/rootca/get"))["CAs"]
    assert listed == created | {
        "RenewBeforeExpiration": 180, "ExpirationDate": f"{own.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
    }  # fmt: skip
    assert list(listed) == [
        "CAName", "CACertificateValidity", "DeviceCertificateValidity", "RenewBeforeExpiration", "Certificate",
        "CreatedDate", "ExpirationDate",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"CAName": "a b"}, "CAName"),
        ({"CAName": "a" * 46}, "CAName"),
        ({"CAName": "ä"}, "CAName"),
        ({"CAName": "a\n"}, "CAName"),
        ({"CACertificateValidity": 3651}, "CACertificateValidity"),
        ({"DeviceCertificateValidity": 29}, "DeviceCertificateValidity"),
        ({"DeviceCertificateValidity": 3651}, "DeviceCertificateValidity"),
        ({"RenewBeforeExpiration": 0}, "RenewBeforeExpiration"),
        ({"RenewBeforeExpiration": 366}, "RenewBeforeExpiration"),
        ({"CACertificateValidity": "3650"}, "CACertificateValidity"),
        ({"CACertificateValidity": True}, "CACertificateValidity"),
    ],
)
def test_what_does_not_fit_is_named(more: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as caught:
        CreateCa.read(BODY | more)
    assert refusals.write_error(caught.value) == refusals.Row(400, f"Bad Request. Invalid {field}")


def test_a_list_of_names_has_one_at_least() -> None:
    with pytest.raises(Refusal) as caught:
        GetCrls.read({"CANames": []})
    assert refusals.write_error(caught.value) == refusals.Row(400, "Bad Request. Invalid CANames")
    assert GetCrls.read({"CANames": None}).names is None


async def test_device_certificates_live_no_longer_than_the_ca(desk: Desk) -> None:
    body = BODY | {"CACertificateValidity": 1825, "DeviceCertificateValidity": 1826}
    await desk.refused(CREATE, body, 400, "Bad Request. Invalid DeviceCertificateValidity")
    await desk.ok(CREATE, body | {"DeviceCertificateValidity": 1825})


async def test_a_name_is_unique_in_the_installation(desk: Desk) -> None:
    other = await other_account(desk)
    made = await asyncio.gather(*(each.ok(CREATE, BODY) for each in (desk, other, desk, other)), return_exceptions=True)
    assert sum(isinstance(each, dict) for each in made) == 1
    winner = desk if (await desk.ok("/ztp/rootca/get"))["TotalRecords"] else other
    for each in (desk, other):
        await each.refused(CREATE, BODY, 409, "Bad Request. CAName already exists")
    assert await winner.ok("/ztp/rootca/delete", {"CAName": CA}) == SUCCESS
    await desk.ok(CREATE, BODY)


async def test_an_account_has_at_most_fifteen(desk: Desk) -> None:
    for n in range(14):
        await desk.create(f"ca-{n}")
    made = await asyncio.gather(*(desk.create(f"last-{n}") for n in range(2)), return_exceptions=True)
    assert sum(isinstance(each, dict) for each in made) == 1, "two at once were two"
    await desk.refused(CREATE, BODY, 400, "Bad Request. No more than 15 CAs are allowed")
    await (await other_account(desk)).create()
    found = await desk.ok("/ztp/rootca/get", {"PageNumber": 1})
    assert [each["CAName"] for each in found["CAs"]][:3] == ["ca-0", "ca-1", "ca-2"]
    assert (found["PageNumber"], found["PageSize"], found["TotalRecords"], len(found["CAs"])) == (1, 100, 15, 15)
    for number in (2, 10**18):
        past = await desk.ok("/ztp/rootca/get", {"PageNumber": number})
        assert (past["CAs"], past["TotalRecords"]) == ([], 15)
    await desk.ok("/ztp/rootca/delete", {"CAName": "ca-3"})
    await desk.create("one-more")


async def test_another_account_s_root_ca_is_as_good_as_none(desk: Desk) -> None:
    await (await other_account(desk)).create()
    assert (await desk.ok("/ztp/rootca/get", {"CAName": CA}))["CAs"] == []
    assert await desk.ok("/ztp/rootca/crl/get", {"CANames": [CA]}) == {"CRLs": []}
    assert (await desk.ok("/ztp/rootca/device/get", {"CAName": CA}))["TotalRecords"] == 0
    for path, more in (
        ("/ztp/rootca/update", {"RenewBeforeExpiration": 30}),
        ("/ztp/rootca/popcertificate/generate", {"RegistrationCode": "1"}),
        ("/ztp/rootca/delete", {}),
    ):
        await desk.refused(path, {"CAName": CA} | more, 404, "Not Found")
        await desk.refused(path, {"CAName": "unknown"} | more, 404, "Not Found")


async def test_update_sets_when_certificates_are_renewed(desk: Desk) -> None:
    await desk.create()
    await desk.create(OTHER_CA)
    assert await desk.ok("/ztp/rootca/update", {"CAName": CA, "RenewBeforeExpiration": 7}) == SUCCESS
    own, other = (await desk.ok("/ztp/rootca/get"))["CAs"]
    assert own["RenewBeforeExpiration"] == 7
    assert "RenewBeforeExpiration" not in other, "it was never set"


async def test_a_proof_of_possession(desk: Desk, tmp_path: Path) -> None:
    created = await desk.create()
    code = "930783746273459058465786283467236543874968549"
    reply = await desk.ok("/ztp/rootca/popcertificate/generate", {"CAName": CA, "RegistrationCode": code})
    assert reply["CAName"] == CA
    leaf = x509.load_pem_x509_certificate(reply["PoPCertificate"].encode())
    anchor = x509.load_pem_x509_certificate(created["Certificate"].encode())
    assert openssl.verify(tmp_path, leaf, anchor)[0] == 0
    assert pki.first_attribute(leaf.subject, "CN") == code
    assert leaf.not_valid_after_utc == desk.clock() + timedelta(days=90)
    assert leaf.public_key() != anchor.public_key()
    for wrong in ("", "x" * 65, "a\nb", "a\0", " "):
        body = {"CAName": CA, "RegistrationCode": wrong}
        await desk.refused("/ztp/rootca/popcertificate/generate", body, 400, "Bad Request. Invalid RegistrationCode")
    desk.clock.move(days=1826)
    body = {"CAName": CA, "RegistrationCode": code}
    await desk.refused("/ztp/rootca/popcertificate/generate", body, 400, "Bad Request")


async def test_crls(desk: Desk, tmp_path: Path) -> None:
    desk.clock.move(hours=-2)  # OpenSSL goes by its own
    created = await desk.create()
    await desk.create(OTHER_CA)
    for uid in (UID, OTHER):
        await desk.provision(uid)
        await desk.beat(uid)
    leaf = x509.load_der_x509_certificate((await desk.certificate()).der)
    serial = f"{leaf.serial_number:x}"
    anchor = x509.load_pem_x509_certificate(created["Certificate"].encode())
    empty = (await desk.ok("/ztp/rootca/crl/get"))["CRLs"]
    assert [(each["CAName"], each["SerialNumbers"]) for each in empty] == [(CA, []), (OTHER_CA, [])]
    assert openssl.verify(tmp_path, leaf, anchor, crl=empty[0]["CRL"].encode())[0] == 0
    desk.clock.move(hours=1)
    await desk.ok("/ztp/devicecertificate/revoke", {"CAName": CA, "ROTPublicUID": UID})
    (crl,) = (await desk.ok("/ztp/rootca/crl/get", {"CANames": [CA, "unknown"]}))["CRLs"]
    assert crl["SerialNumbers"] == [serial]
    assert crl["NextUpdate"] == f"{desk.clock() + timedelta(days=7):%Y-%m-%dT%H:%M:%SZ}"
    assert crl["CRL"].startswith("-----BEGIN X509 CRL-----\n")
    code, said = openssl.verify(tmp_path, leaf, anchor, crl=crl["CRL"].encode())
    assert code != 0
    assert "certificate revoked" in said
    other = x509.load_der_x509_certificate((await desk.certificate(OTHER)).der)
    assert openssl.verify(tmp_path, other, anchor, crl=crl["CRL"].encode())[0] == 0


async def test_a_crl_has_whatever_was_revoked_by_whomever(desk: Desk) -> None:
    await desk.create()
    await desk.provision()
    await desk.beat()
    serial = (await desk.certificate()).serial
    await desk.rows(
        "UPDATE certificate SET status = 'revoked', reason = 'keyCompromise', revoked_at = $1",
        desk.clock() + timedelta(seconds=1),
    )  # fmt: skip
    desk.clock.move(seconds=2)
    (crl,) = (await desk.ok("/ztp/rootca/crl/get"))["CRLs"]
    assert crl["SerialNumbers"] == [serial]


async def test_devices_of_a_root_ca(desk: Desk) -> None:
    await desk.create()

    async def listed() -> list[tuple[str, str]]:
        found = await desk.ok("/ztp/rootca/device/get", {"CAName": CA})
        assert found["TotalRecords"] == len(found["Devices"])
        return [(each["ROTPublicUID"], each["Status"]) for each in found["Devices"]]

    for uid in (OTHER, UID):
        await desk.provision(uid)
        await desk.beat(uid)
    assert await listed() == [(UID, "PENDING"), (OTHER, "PENDING")]
    await desk.beat()
    assert await listed() == [(UID, "VALID"), (OTHER, "PENDING")]
    (first, _) = (await desk.ok("/ztp/rootca/device/get", {"CAName": CA}))["Devices"]
    certificate = await desk.certificate()
    assert (first["SerialNumber"], first["ExpirationDate"]) == (
        certificate.serial, f"{certificate.not_after:%Y-%m-%dT%H:%M:%SZ}",
    )  # fmt: skip
    await desk.ok("/ztp/devicecertificate/revoke", {"CAName": CA, "ROTPublicUID": UID})
    await desk.ok("/ztp/devicecertificate/update", {"CAName": CA, "ROTPublicUIDs": [OTHER]})
    await desk.beat(OTHER)
    await desk.rows("DELETE FROM command")
    assert await listed() == [(UID, "REVOKED"), (OTHER, "PENDING")], "removed, and the next one is to come"
    await desk.beat(OTHER)
    await desk.beat(OTHER)
    assert await listed() == [(UID, "REVOKED"), (OTHER, "VALID")]
    await desk.ok("/ztp/devicecertificate/delete", {"ROTPublicUIDs": [UID]})
    await desk.beat()
    assert await listed() == [(OTHER, "VALID")]
    past = await desk.ok("/ztp/rootca/device/get", {"CAName": CA, "PageNumber": 10**9})
    assert (past["Devices"], past["TotalRecords"]) == ([], 1)


async def test_a_root_ca_in_use_is_not_deleted(desk: Desk) -> None:
    await desk.create()
    await desk.create(OTHER_CA)
    in_devices = "Request aborted. This CA is currently assigned to ROTPublicUID(s)"
    await desk.provision()
    await desk.refused("/ztp/rootca/delete", {"CAName": CA}, 400, in_devices)
    await desk.beat()
    await desk.provision(ca=OTHER_CA)
    await desk.refused("/ztp/rootca/delete", {"CAName": CA}, 400, in_devices)
    await desk.beat()
    await desk.ok("/ztp/rootca/delete", {"CAName": CA})
    assert [each["CAName"] for each in (await desk.ok("/ztp/rootca/get"))["CAs"]] == [OTHER_CA]
    await desk.refused("/ztp/rootca/delete", {"CAName": CA}, 404, "Not Found")
    assert await desk.beat() == [], "the module has its certificate of the other one"
    await desk.create("third.example.com")
    transfer = {"FromCA": OTHER_CA, "ToCA": "third.example.com", "ROTPublicUIDs": [UID]}
    await desk.ok("/ztp/devicecertificate/rootca/transfer", transfer)
    await desk.refused("/ztp/rootca/delete", {"CAName": "third.example.com"}, 400, in_devices)


async def test_a_root_ca_of_a_profile_is_not_deleted(desk: Desk) -> None:
    await desk.create()
    await make_profile(desk.database, desk.account)
    body = {"DeviceProfileUID": PROFILE}
    path = "/deviceprofile/bootstrapprovisioning"
    await desk.ok(f"{path}/set", body | {"Provisioning": {"ZTPV1": "ENABLED", "CAName": CA}})
    message = "Request aborted. This CA is currently linked to DeviceProfileUID(s)"
    await desk.refused("/ztp/rootca/delete", {"CAName": CA}, 400, message)
    await desk.ok(f"{path}/delete", body)
    await desk.ok("/ztp/rootca/delete", {"CAName": CA})
    assert await desk.rows("SELECT * FROM root_ca") == []
