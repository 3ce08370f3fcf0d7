"""provisioning/protocols/ublox/certificate.py"""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from provisioning.app import Running
from provisioning.core import ca, certify, pki
from provisioning.model.account import Account
from provisioning.model.refusal import Refusal
from provisioning.protocols.ublox import refusals
from provisioning.protocols.ublox.certificate import Delete, Renew, Revoke, Transfer, Update
from provisioning.protocols.ublox.reading import Form
from provisioning.store.database import Database
from tests import openssl
from tests.ublox import OTHER_KEY, Client, make_account, make_devices, sign
from tests.ublox_certificates import (
    CA,
    INSTALL,
    OTHER,
    OTHER_CA,
    REMOVE,
    SUCCESS,
    UID,
    Desk,
    csr_of,
    installed,
    open_desk,
)

RENEW, UPDATE, DELETE, REVOKE, TRANSFER = (
    f"/ztp/devicecertificate/{name}" for name in ("renew", "update", "delete", "revoke", "rootca/transfer")
)
IN_PROGRESS = "Request aborted. The certificate update of ROTPublicUID(s) is still in progress"
FOREIGN = "0002000089289999"
DAYS = {"CAName": CA, "DeviceCertificateValidity": 365}


@pytest.fixture
async def desk(database: Database) -> Desk:
    """Two modules, one with a certificate of the first of two root CAs; and a foreign one."""
    found = await open_desk(database, UID, OTHER)
    for name in (CA, OTHER_CA):
        await found.create(name)
    await found.provision()
    await found.beat()
    await make_devices(database, await make_account(database, OTHER_KEY), [FOREIGN])
    return found


async def orders(desk: Desk) -> list[str]:
    return [row["kind"] for row in await desk.rows("SELECT kind FROM certificate_order ORDER BY device_id")]


# --- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "body", "message"),
    [
        (Renew, DAYS, "Bad Request"),
        (Renew, DAYS | {"ROTPublicUIDs": [UID], "SerialNumbers": ["1"]}, "Bad Request"),
        (Renew, DAYS | {"ROTPublicUIDs": []}, "Bad Request"),
        (Renew, DAYS | {"ROTPublicUIDs": [UID] * 1001}, "Bad Request. Invalid ROTPublicUIDs"),
        (Renew, {"DeviceCertificateValidity": 29}, "Bad Request"),
        (
            Renew, DAYS | {"DeviceCertificateValidity": 29, "ROTPublicUIDs": [UID]},
            "Bad Request. Invalid DeviceCertificateValidity",
        ),
        (Renew, {"CAName": CA, "ROTPublicUIDs": [UID]}, "Bad Request"),
        (Update, {"CAName": CA, "SerialNumbers": ["xyz"]}, "Bad Request. Invalid SerialNumbers"),
        (Update, {"CAName": CA, "SerialNumbers": [17]}, "Bad Request. Invalid SerialNumbers"),
        (Update, {"CAName": CA, "SerialNumbers": ["0"]}, "Bad Request. Invalid SerialNumbers"),
        (Delete, {"ROTPublicUIDs": []}, "Bad Request. Invalid ROTPublicUIDs"),
        (Delete, {}, "Bad Request"),
        (Revoke, {"CAName": CA, "ROTPublicUID": UID, "SerialNumber": "1"}, "Bad Request"),
        (Revoke, {"CAName": CA, "SerialNumber": "f" * 41}, "Bad Request. Invalid SerialNumber"),
        (Transfer, {"FromCA": CA, "ToCA": "a b", "ROTPublicUIDs": [UID]}, "Bad Request. Invalid ToCA"),
    ],
)  # fmt: skip
def test_bodies_that_do_not_fit(form: type[Form], body: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal) as caught:
        form.read(body)
    assert refusals.write_error(caught.value) == refusals.Row(400, message)


@pytest.mark.parametrize("text", ["0a1b", "0A:1B", "a1b", "0x0A1B", " 0a 1b "])
def test_serial_numbers_in_any_usual_form(text: str) -> None:
    assert Revoke.read({"CAName": CA, "SerialNumber": text}).serial == "a1b"


# --- orders ----------------------------------------------------------------------------------------------------------


async def test_a_certificate_s_life_over_the_wire(api: Client, account: Account, running: Running) -> None:
    await make_devices(running.database, account, [UID])
    await api.refused(RENEW, DAYS | {"ROTPublicUIDs": [UID]}, 404, "Not Found")
    await api.ok("/ztp/rootca/create", {"CACertificateValidity": 1825} | DAYS)
    await api.ok("/device/whitelist/add", {"ROTPublicUIDs": [UID]})
    wanted = {"ROTPublicUIDs": [UID], "Provisioning": {"ZTPV1": "ENABLED", "CAName": CA}}
    await api.ok("/device/provisioning/set", wanted)
    about = {"ROTPublicUID": UID, "Timestamp": "2026-01-01T00:00:00Z", "Nonce": "n1", "DeviceSerialNumber": "123234354"}
    counter = 0

    async def call(path: str, body: dict[str, Any]) -> Any:
        answer = await api.post(path, sign(body, UID), version="/device/v1")
        assert answer.status == 200, answer
        return answer.body

    async def beat(*applied: str) -> dict[str, Any]:
        nonlocal counter
        counter += 1
        body = {"ROTPublicUID": UID, "Counter": counter, "Applied": list(applied)}
        return {each["Command"]: each for each in (await call("/heartbeat", body))["Commands"]}

    await call("/bootstrap", about)
    first = (await beat())[INSTALL]
    assert (await beat())[INSTALL] == first, "again, until it is applied"
    assert (await api.ok("/ztp/rootca/device/get", {"CAName": CA}))["Devices"][0]["Status"] == "PENDING"
    assert INSTALL not in await beat(INSTALL)
    assert (await api.ok("/ztp/rootca/device/get", {"CAName": CA}))["Devices"][0]["Status"] == "VALID"
    assert await api.ok(UPDATE, {"CAName": CA, "SerialNumbers": [first["SerialNumber"]]}) == SUCCESS
    assert (await beat())[REMOVE]["SerialNumber"] == first["SerialNumber"]
    await api.refused(DELETE, {"ROTPublicUIDs": [UID]}, 400, IN_PROGRESS)
    second = (await beat(REMOVE))[INSTALL]
    assert second["SerialNumber"] != first["SerialNumber"]
    await beat(INSTALL)
    assert await api.ok(REVOKE, {"CAName": CA, "ROTPublicUID": UID}) == SUCCESS
    (crl,) = (await api.ok("/ztp/rootca/crl/get"))["CRLs"]
    assert crl["SerialNumbers"] == [second["SerialNumber"]]
    (device,) = (await api.ok("/device/info/get", {"ROTPublicUIDs": [UID], "Options": ["ZTP"]}))["DeviceInfo"]
    assert (device["ZTP"]["CertificateAuthorityName"], device["ZTP"]["Status"]) == (CA, "REVOKED")
    await api.refused(
        "/ztp/rootca/delete", {"CAName": CA}, 400, "Request aborted. This CA is currently assigned to ROTPublicUID(s)"
    )


async def test_who_may_be_named(desk: Desk) -> None:
    invalid = "Bad Request. Invalid ROTPublicUIDs"
    for path, body in (
        (RENEW, DAYS), (UPDATE, {"CAName": CA}), (DELETE, {}), (TRANSFER, {"FromCA": CA, "ToCA": OTHER_CA}),
    ):  # fmt: skip
        for uids in ([OTHER], [FOREIGN], ["00020000ffffffff"], [UID, OTHER]):
            await desk.refused(path, body | {"ROTPublicUIDs": uids}, 400, invalid)
    for uid in (OTHER, FOREIGN):
        await desk.refused(REVOKE, {"CAName": CA, "ROTPublicUID": uid}, 400, "Bad Request. Invalid ROTPublicUID")
    assert await orders(desk) == []


async def test_the_ca_must_be_the_one_that_issued(desk: Desk) -> None:
    one: dict[str, Any] = {"ROTPublicUIDs": [UID]}
    for path, body in (
        (RENEW, {"CAName": OTHER_CA, "DeviceCertificateValidity": 365}), (UPDATE, {"CAName": OTHER_CA}),
        (TRANSFER, {"FromCA": OTHER_CA, "ToCA": CA}),
    ):  # fmt: skip
        await desk.refused(path, body | one, 400, "Bad Request. Invalid ROTPublicUIDs")
    await desk.refused(REVOKE, {"CAName": OTHER_CA, "ROTPublicUID": UID}, 400, "Bad Request. Invalid ROTPublicUID")
    for path, body in (
        (RENEW, DAYS | {"CAName": "unknown"} | one), (UPDATE, {"CAName": "unknown"} | one),
        (TRANSFER, {"FromCA": "unknown", "ToCA": CA} | one), (TRANSFER, {"FromCA": CA, "ToCA": "unknown"} | one),
        (REVOKE, {"CAName": "unknown", "ROTPublicUID": UID}),
    ):  # fmt: skip
        await desk.refused(path, body, 404, "Not Found")
    await desk.refused(TRANSFER, {"FromCA": CA, "ToCA": CA} | one, 400, "Bad Request. Invalid ToCA")
    desk.clock.move(days=1826)
    await desk.refused(RENEW, DAYS | one, 400, "Bad Request. Invalid CAName")
    await desk.refused(TRANSFER, {"FromCA": CA, "ToCA": OTHER_CA} | one, 400, "Bad Request. Invalid ToCA")


async def test_by_serial_number(desk: Desk) -> None:
    serial = (await desk.certificate()).serial
    await desk.refused(RENEW, DAYS | {"SerialNumbers": [serial, "1"]}, 404, "Not Found")
    assert await orders(desk) == []
    assert await desk.ok(RENEW, DAYS | {"SerialNumbers": [f"0x{serial.upper()}", serial]}) == SUCCESS
    assert await orders(desk) == ["renew"]
    await desk.beat()
    await desk.refused(UPDATE, {"CAName": CA, "SerialNumbers": [serial]}, 404, "Not Found")
    await desk.refused(UPDATE, {"CAName": OTHER_CA, "SerialNumbers": [serial]}, 404, "Not Found")


async def test_an_order_takes_the_place_of_the_one_before(desk: Desk) -> None:
    one: dict[str, Any] = {"ROTPublicUIDs": [UID]}
    await desk.ok(RENEW, DAYS | one)
    await desk.ok(TRANSFER, {"FromCA": CA, "ToCA": OTHER_CA} | one)
    await desk.ok(DELETE, one)
    assert await orders(desk) == ["delete"]
    assert [each.kind for each in await desk.beat()] == [REMOVE]


async def test_nothing_comes_between_the_halves_of_an_update(desk: Desk) -> None:
    one: dict[str, Any] = {"ROTPublicUIDs": [UID]}
    serial = (await desk.certificate()).serial
    assert await desk.ok(UPDATE, {"CAName": CA} | one) == SUCCESS
    for _ in range(2):
        for path, body in (
            (RENEW, DAYS | one), (RENEW, DAYS | {"SerialNumbers": [serial]}), (DELETE, one),
            (REVOKE, {"CAName": CA, "ROTPublicUID": UID}), (REVOKE, {"CAName": CA, "SerialNumber": serial}),
            (TRANSFER, {"FromCA": CA, "ToCA": OTHER_CA} | one),
        ):  # fmt: skip
            await desk.refused(path, body, 400, IN_PROGRESS)
        assert await desk.ok(UPDATE, {"CAName": CA} | one) == SUCCESS, "it goes on as it is"
        last = await desk.beat()
    assert [each.kind for each in last] == [INSTALL], "asking again did not start it again"
    assert await desk.ok(RENEW, DAYS | one) == SUCCESS


async def test_one_that_may_not_be_ordered_for_orders_for_none(desk: Desk) -> None:
    await desk.provision(OTHER)
    await desk.beat(OTHER)
    await desk.ok(UPDATE, {"CAName": CA, "ROTPublicUIDs": [OTHER]})
    await desk.refused(DELETE, {"ROTPublicUIDs": [UID, OTHER]}, 400, IN_PROGRESS)
    assert await orders(desk) == ["update"]


async def test_orders_of_many_at_once_do_not_wait_in_a_ring(desk: Desk) -> None:
    await desk.provision(OTHER)
    await desk.beat(OTHER)
    bodies = [DAYS | {"ROTPublicUIDs": uids} for uids in ([UID, OTHER], [OTHER, UID])]
    assert await asyncio.gather(*(desk.ok(RENEW, body) for body in bodies * 4)) == [SUCCESS] * 8
    assert await orders(desk) == ["renew", "renew"]


# --- revocation ------------------------------------------------------------------------------------------------------


async def test_a_revoked_certificate_stays_on_the_device(desk: Desk) -> None:
    serial = (await desk.certificate()).serial
    await desk.ok(RENEW, DAYS | {"ROTPublicUIDs": [UID]})
    assert await desk.ok(REVOKE, {"CAName": CA, "ROTPublicUID": UID}) == SUCCESS
    assert await desk.rows("SELECT status, reason FROM certificate WHERE serial = $1", serial) == [
        {"status": "revoked", "reason": "unspecified"}
    ]
    assert (await desk.ok("/ztp/rootca/crl/get"))["CRLs"][0]["SerialNumbers"] == [serial]
    assert await orders(desk) == [], "a renewal would keep its key"
    desk.clock.move(days=1)
    assert await desk.beat() == []
    assert (await desk.certificate()).serial == serial
    assert await desk.ok(REVOKE, {"CAName": CA, "SerialNumber": serial}) == SUCCESS, "once more"
    for asked, field in (({"ROTPublicUIDs": [UID]}, "ROTPublicUIDs"), ({"SerialNumbers": [serial]}, "SerialNumbers")):
        await desk.refused(RENEW, DAYS | asked, 400, f"Bad Request. Invalid {field}")
    await desk.ok(UPDATE, {"CAName": CA, "ROTPublicUIDs": [UID]})
    assert [each.kind for each in await desk.beat()] == [REMOVE]
    assert f"{installed(await desk.beat()).serial_number:x}" != serial


async def test_a_certificate_that_the_device_has_no_more_is_revoked_by_its_serial_number(desk: Desk) -> None:
    old = (await desk.certificate()).serial
    await desk.ok(RENEW, DAYS | {"ROTPublicUIDs": [UID]})
    await desk.beat()
    await desk.ok(UPDATE, {"CAName": CA, "ROTPublicUIDs": [UID]})
    assert await desk.ok(REVOKE, {"CAName": CA, "SerialNumber": old}) == SUCCESS, "the update is about another one"
    assert (await desk.ok("/ztp/rootca/crl/get"))["CRLs"][0]["SerialNumbers"] == [old]
    await desk.refused(REVOKE, {"CAName": OTHER_CA, "SerialNumber": old}, 404, "Not Found")
    await desk.refused(REVOKE, {"CAName": CA, "SerialNumber": "1"}, 404, "Not Found")


async def test_revocations_at_once_all_get_into_the_crl(desk: Desk) -> None:
    await desk.provision(OTHER)
    await desk.beat(OTHER)
    await asyncio.gather(*(desk.ok(REVOKE, {"CAName": CA, "ROTPublicUID": uid}) for uid in (UID, OTHER)))
    assert len((await desk.ok("/ztp/rootca/crl/get"))["CRLs"][0]["SerialNumbers"]) == 2


# --- doors -----------------------------------------------------------------------------------------------------------


async def test_a_module_s_certificate_opens_no_door_here(running: Running, account: Account, tmp_path: Path) -> None:
    """The handshake ends there and then; with a certificate of the house's it goes on."""
    desk = Desk(running.database, account)
    await make_devices(running.database, account, [UID])
    await desk.create()
    await desk.provision()
    key = pki.new_key()
    leaf = installed(await desk.beat(csr=csr_of(key)))
    async with running.database.begin() as tx:
        request = pki.Request(leaf.subject, key.public_key())
        house = await certify.issue_from_csr(tx, await ca.default(tx), request, now=desk.clock(), days=9)

    async def knock(certificate: x509.Certificate, port: int) -> None:
        file = openssl.write(tmp_path / "device.pem", certificate)
        file.write_text(file.read_text() + pki.write_key(key))
        shown = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        shown.check_hostname, shown.verify_mode = False, ssl.CERT_NONE
        shown.maximum_version = ssl.TLSVersion.TLSv1_2  # there a handshake ends with what the server thinks of it
        shown.load_cert_chain(file)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=shown)
        writer.transport.abort()

    for port in (running.mqtts.port, running.https.port):
        await knock(x509.load_der_x509_certificate(house.der), port)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await knock(leaf, port)
