"""provisioning/protocols/ublox/issuing.py"""

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from cryptography.x509.oid import NameOID

from provisioning.core import pki
from provisioning.model.refusal import Refusal
from provisioning.protocols.ublox.issuing import make_subject, seal_key
from provisioning.store.database import Database
from tests import openssl
from tests.ublox import ROOT_SECRET
from tests.ublox_certificates import CA, INSTALL, OTHER_CA, REMOVE, UID, Desk, csr_of, installed, open_desk

RENEWAL = "DEVICE_CERTIFICATE_RENEWAL_EVENT"


def open_key(uid: str, sealed: str, der: bytes) -> ec.EllipticCurvePrivateKey:
    """As a module does it: no code of the product."""
    raw = base64.b64decode(sealed)
    key = HKDF(SHA256(), 32, salt=bytes.fromhex(uid), info=b"uss/ztp").derive(ROOT_SECRET)
    found = load_der_private_key(AESGCM(key).decrypt(raw[:12], raw[12:], der), None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found


@pytest.fixture
async def desk(database: Database) -> Desk:
    """An account with one module and one root CA."""
    found = await open_desk(database, UID)
    await found.create()
    return found


async def errors(desk: Desk) -> list[str]:
    rows = await desk.rows("SELECT payload FROM notification WHERE kind = 'DEVICE_ERROR' ORDER BY id")
    return [json.loads(row["payload"])["Error"] for row in rows]


# --- pure ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serial", "expected"),
    [
        ("123234354", "Device 123234354"),
        ("a-b.c/d", "Device a-b.c/d"),
        (None, None),
        ("", None),
        ("a_b", None),
        ("ü", None),
    ],
)
def test_the_subject_names_the_device(serial: str | None, expected: str | None) -> None:
    subject = make_subject(UID, serial)
    assert [each.value for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [UID]
    assert [each.value for each in subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)] == (
        [expected] if expected else []
    )


def test_a_private_key_is_for_one_module_and_one_certificate() -> None:
    key = pki.new_key()
    sealed = seal_key(ROOT_SECRET, UID, key, b"der")
    assert open_key(UID, sealed, b"der").public_key() == key.public_key()
    assert seal_key(ROOT_SECRET, UID, key, b"der") != sealed, "the nonce is used twice"
    for uid, der in ((UID[:-1] + "8", b"der"), (UID, b"another")):
        with pytest.raises(InvalidTag):
            open_key(uid, sealed, der)


# --- first issue -----------------------------------------------------------------------------------------------------


async def test_nothing_is_issued_unless_it_is_enabled_and_a_ca_is_set(desk: Desk) -> None:
    assert await desk.beat() == [], "nothing is provisioned"
    await desk.provision(ca=None)
    assert await desk.beat() == [], "there is no CA"
    await desk.provision(state="DISABLED")
    assert await desk.beat() == [], "ZTPV1 is disabled"
    await desk.provision()
    assert [each.kind for each in await desk.beat()] == [INSTALL]
    assert await desk.beat() == [], "it has its certificate"
    await desk.provision(state="DISABLED")
    await desk.ok("/ztp/rootca/update", {"CAName": CA, "RenewBeforeExpiration": 30})
    desk.clock.move(days=364)
    assert await desk.beat() == [], "disabled: nothing more is issued"
    assert (await desk.module()).certificate_id is not None, "the certificate stays"


async def test_the_certificate_is_as_the_contract_has_it(desk: Desk, tmp_path: Path) -> None:
    await desk.rows("UPDATE module SET device_serial = '123234354'")
    await desk.provision()
    key = pki.new_key()
    given = await desk.beat(csr=csr_of(key))
    leaf, root = installed(given), await desk.root()
    anchor = x509.load_der_x509_certificate(root.certificate)
    assert openssl.verify(tmp_path, leaf, anchor)[0] == 0
    said = openssl.openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-text")
    assert f"CN = {UID}" in said
    assert "serialNumber = Device 123234354" in said
    assert "ecdsa-with-SHA256" in said
    assert "CA:FALSE" in said
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert leaf.public_key() == key.public_key(), "the request's key"
    assert leaf.not_valid_after_utc == desk.clock() + timedelta(days=365)
    body = given[0].body
    assert body.keys() == {"Certificate", "CAName", "SerialNumber"}, "no private key: the device has it"
    assert (body["CAName"], body["SerialNumber"]) == (CA, f"{leaf.serial_number:x}")
    stored = await desk.certificate()
    assert (stored.serial, stored.device_id, stored.cn) == (body["SerialNumber"], (await desk.module()).id, UID)
    assert await desk.usage() == {}, "a first certificate is no renewal"


async def test_without_a_request_the_key_comes_along_for_the_module_alone(desk: Desk) -> None:
    await desk.provision()
    given = await desk.beat()
    leaf = installed(given)
    key = open_key(UID, str(given[0].body["PrivateKey"]), leaf.public_bytes(Encoding.DER))
    assert key.public_key() == leaf.public_key()
    assert key.curve.name == "secp256r1"
    kept = await desk.rows("SELECT 1 FROM command WHERE body::text LIKE '%BEGIN%PRIVATE%'")
    assert not kept


async def test_validity_counts_from_installation_and_ends_with_the_ca(desk: Desk) -> None:
    desk.clock.move(days=1825 - 20)
    await desk.provision()
    leaf = installed(await desk.beat())
    assert leaf.not_valid_after_utc == (await desk.root()).not_after
    assert leaf.not_valid_after_utc == desk.clock() + timedelta(days=20)


async def test_an_expired_ca_breaks_no_heartbeat_and_is_told_once(desk: Desk) -> None:
    await desk.hook("DEVICE_ERRORS_EVENT")
    await desk.provision()
    desk.clock.move(days=1826)
    assert await desk.beat() == []
    assert await desk.beat() == []
    assert await errors(desk) == [f"The CA {CA} has expired"]
    assert [json.loads(body)["EventType"] for body in await desk.told()] == ["DEVICE_ERRORS_EVENT"]


# --- renewal ---------------------------------------------------------------------------------------------------------


async def test_renewal_before_expiry_keeps_the_key(desk: Desk) -> None:
    await desk.hook(RENEWAL)
    await desk.ok("/ztp/rootca/update", {"CAName": CA, "RenewBeforeExpiration": 30})
    await desk.provision()
    first = installed(await desk.beat())
    desk.clock.move(days=334)
    assert await desk.beat() == [], "31 days are left"
    desk.clock.move(days=1, microseconds=1)
    given = await desk.beat(csr=csr_of(pki.new_key()))
    second = installed(given)
    assert second.public_key() == first.public_key()
    assert second.serial_number != first.serial_number
    assert second.subject == first.subject
    assert second.not_valid_after_utc == desk.clock().replace(microsecond=0) + timedelta(days=365)
    assert "PrivateKey" not in given[0].body
    assert await desk.usage() == {"CertificateRenewals": 1}
    (told,) = await desk.told()
    assert json.loads(told) == {
        "ROTPublicUID": UID, "Timestamp": f"{desk.clock():%Y-%m-%dT%H:%M:%SZ}", "EventType": RENEWAL,
        "Payload": {
            "CertificateAuthorityName": CA, "CertificateSerialNumber": f"{second.serial_number:x}",
            "CertificateValidity": 365, "ExpirationDate": f"{second.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        },
    }  # fmt: skip
    old = await desk.rows("SELECT status FROM certificate WHERE serial = $1", f"{first.serial_number:x}")
    assert old == [{"status": "valid"}], "a certificate that was renewed is no revoked one"
    assert await desk.beat() == []


async def test_renewal_comes_to_an_end(desk: Desk) -> None:
    """Neither a long RenewBeforeExpiration nor a CA at its end makes each heartbeat renew."""
    await desk.create(OTHER_CA, DeviceCertificateValidity=30, RenewBeforeExpiration=365)
    await desk.provision(ca=OTHER_CA)
    await desk.beat()
    desk.clock.move(days=14)
    assert await desk.beat() == [], "not in the first half of its life"
    desk.clock.move(days=1)
    assert [each.kind for each in await desk.beat()] == [INSTALL]
    desk.clock.move(days=1825 - 15 - 10)
    await desk.beat()
    assert (await desk.certificate()).not_after == (await desk.root(OTHER_CA)).not_after
    desk.clock.move(days=9)
    assert await desk.beat() == [], "the next one would end with it"


async def test_without_the_subscription_nothing_is_renewed_by_itself(desk: Desk) -> None:
    await desk.ok("/ztp/rootca/update", {"CAName": CA, "RenewBeforeExpiration": 30})
    await desk.provision()
    await desk.beat()
    await desk.rows("UPDATE account SET certificates = false")
    desk.clock.move(days=340)
    assert await desk.beat() == []
    await desk.rows("UPDATE account SET certificates = true")
    assert [each.kind for each in await desk.beat()] == [INSTALL]


# --- another CA ------------------------------------------------------------------------------------------------------


async def test_another_ca_in_the_provisioning_replaces_the_certificate(desk: Desk) -> None:
    await desk.create(OTHER_CA)
    await desk.provision()
    first = installed(await desk.beat())
    await desk.provision(ca=OTHER_CA)
    second = installed(await desk.beat())
    assert second.public_key() == first.public_key()
    assert pki.first_attribute(second.issuer, "CN") == OTHER_CA
    assert await desk.beat() == []
    assert await desk.usage() == {}


async def test_a_revoked_certificate_s_key_is_not_taken_to_another_ca(desk: Desk) -> None:
    await desk.create(OTHER_CA)
    await desk.provision()
    first = installed(await desk.beat())
    await desk.ok("/ztp/devicecertificate/revoke", {"CAName": CA, "ROTPublicUID": UID})
    await desk.provision(ca=OTHER_CA)
    assert installed(await desk.beat()).public_key() != first.public_key()


# --- orders ----------------------------------------------------------------------------------------------------------


async def order(desk: Desk, what: str, **more: Any) -> None:
    body = {"CAName": CA, "ROTPublicUIDs": [UID]} | more
    assert await desk.ok(f"/ztp/devicecertificate/{what}", body)


async def test_an_ordered_renewal_has_its_own_validity(desk: Desk) -> None:
    await desk.provision()
    first = installed(await desk.beat())
    await desk.provision(state="DISABLED")
    await order(desk, "renew", DeviceCertificateValidity=1000)
    second = installed(await desk.beat())
    assert second.public_key() == first.public_key()
    assert second.not_valid_after_utc == desk.clock() + timedelta(days=1000)
    assert await desk.usage() == {"CertificateRenewals": 1}
    assert await desk.beat() == [], "the order is done"
    await order(desk, "renew", DeviceCertificateValidity=3650)
    assert installed(await desk.beat()).not_valid_after_utc == (await desk.root()).not_after, "cut, not refused"


async def test_an_update_takes_two_heartbeats_and_a_new_key(desk: Desk) -> None:
    await desk.provision()
    key = pki.new_key()
    first = installed(await desk.beat(csr=csr_of(key)))
    await order(desk, "update")
    (removal,) = await desk.beat()
    assert (removal.kind, removal.body) == (REMOVE, {"SerialNumber": f"{first.serial_number:x}"})
    with pytest.raises(Refusal, match=r"malformed .*CSR"):
        await desk.beat(csr=csr_of(key))
    given = await desk.beat()
    second = installed(given)
    assert second.public_key() != first.public_key()
    assert (
        open_key(UID, str(given[0].body["PrivateKey"]), second.public_bytes(Encoding.DER)).public_key()
        == second.public_key()
    )
    assert await desk.usage() == {"CertificateUpdates": 1}
    assert await desk.beat() == [], "the order is done"
    await order(desk, "update")
    await desk.beat()
    another = pki.new_key()
    assert installed(await desk.beat(csr=csr_of(another))).public_key() == another.public_key()


async def test_a_deleted_certificate_does_not_come_back_by_itself(desk: Desk) -> None:
    await desk.provision()
    first = installed(await desk.beat())
    await order(desk, "delete")
    (removal,) = await desk.beat()
    assert (removal.kind, removal.body) == (REMOVE, {"SerialNumber": f"{first.serial_number:x}"})
    module = await desk.module()
    assert (module.certificate_id, module.issuer_id) == (None, None)
    desk.clock.move(days=1)
    assert await desk.beat() == []
    for state in ("DISABLED", "ENABLED"):
        await desk.provision(state=state)
    assert installed(await desk.beat()).public_key() != first.public_key(), "provisioned anew"
    assert await desk.rows("SELECT * FROM certificate_order") == []


async def test_a_transfer_moves_the_provisioning_too(desk: Desk) -> None:
    await desk.create(OTHER_CA, DeviceCertificateValidity=100)
    await desk.provision()
    first = installed(await desk.beat())
    await desk.ok("/ztp/devicecertificate/rootca/transfer", {"FromCA": CA, "ToCA": OTHER_CA, "ROTPublicUIDs": [UID]})
    desk.clock.move(days=1)
    second = installed(await desk.beat())
    assert second.public_key() == first.public_key()
    assert pki.first_attribute(second.issuer, "CN") == OTHER_CA
    assert second.not_valid_after_utc == desk.clock() + timedelta(days=100)
    assert await desk.beat() == [], "it does not go back"
    root, module = await desk.root(OTHER_CA), await desk.module()
    assert (module.desired["CAName"][0], module.current["CAName"][0]) == (OTHER_CA, OTHER_CA)
    assert (module.desired_ca, module.current_ca, module.issuer_id) == (root.id, root.id, root.id)
    await desk.ok("/ztp/rootca/delete", {"CAName": CA})


async def test_an_order_that_cannot_be_carried_out_is_told_and_dropped(desk: Desk) -> None:
    await desk.create(OTHER_CA, CACertificateValidity=3650)
    await desk.provision()
    await desk.beat()
    await order(desk, "renew", DeviceCertificateValidity=30)
    await desk.rows("UPDATE certificate SET status = 'revoked', reason = 'unspecified', revoked_at = now()")
    assert await desk.beat() == []
    serial = (await desk.certificate()).serial
    assert await errors(desk) == [f"The certificate {serial} is revoked and cannot be renewed"]
    assert await desk.rows("SELECT * FROM certificate_order") == []
    await order(desk, "update")
    await desk.beat()
    desk.clock.move(days=1826)
    assert await desk.beat() == []
    assert (await errors(desk))[1:] == [f"The CA {CA} has expired"]
