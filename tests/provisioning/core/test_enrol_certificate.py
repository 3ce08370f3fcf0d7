"""provisioning/core/enrol_certificate.py; over EST: tests/provisioning/protocols/x509/test_est.py"""

from typing import Any

import pytest

from provisioning.core import ca, enrol_certificate, inventory, pki, registry
from provisioning.model.certificate import Authority, Certificate, Status
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason
from provisioning.model.registry import Device
from provisioning.store import certificates
from provisioning.store.database import Database
from tests.certificates import KEY, NOW, add_device, days, issue, kinds, refusal, request_of, run, stored

pytestmark = pytest.mark.server

DK1 = Identity("p", "pk1", "dk1")
SOON: dict[str, Any] = {"now": NOW, "days": 30}


@pytest.fixture
async def authority(database: Database) -> Authority:
    found: Authority = await run(database, ca.ensure_default, KEY, now=NOW)
    return found


@pytest.fixture
async def device(database: Database) -> Device:
    return await add_device(database)


async def test_a_secret_names_its_device(database: Database, device: Device) -> None:
    found = await run(database, enrol_certificate.by_secret, DK1, "s")
    assert (found.id, found.identity) == (device.id, DK1)
    for identity, secret in [
        (DK1, "S"),
        (DK1, ""),
        (Identity("p", "pk1", "nobody"), "s"),
        (Identity("p", "nobody", "dk1"), "s"),
        (Identity("q", "pk1", "dk1"), "s"),
    ]:
        found = await refusal(database, enrol_certificate.by_secret, identity, secret)
        assert (found.reason, found.detail) == (Reason.NOT_PROVEN, {}), identity
    await run(database, registry.disable, device)
    assert (await refusal(database, enrol_certificate.by_secret, DK1, "x")).reason is Reason.NOT_PROVEN
    assert (await refusal(database, enrol_certificate.by_secret, DK1, "s")).reason is Reason.DISABLED


async def test_a_certificate_names_its_device(database: Database, authority: Authority, device: Device) -> None:
    leaf = await issue(database, authority, device=device)

    async def said(which: Certificate, now: Any = NOW) -> object:
        found = await refusal(database, enrol_certificate.by_certificate, which.der, now=now)
        return found.detail.get("certificate", found.reason)

    found, shown = await run(database, enrol_certificate.by_certificate, leaf.der, now=NOW)
    assert (found.id, shown.id) == (device.id, leaf.id)
    assert await said(leaf, NOW + days(365)) == "expired"
    assert await said(leaf, NOW - days(1)) == "not yet valid"
    assert await said(await issue(database, authority)) == "not a device's"
    await run(database, inventory.hold, leaf, now=NOW)
    assert await said(leaf) == "on hold"
    await run(database, inventory.revoke, leaf, now=NOW)
    assert await said(leaf) == "revoked"


async def test_enrolment_is_under_the_device_s_name(database: Database, authority: Authority, device: Device) -> None:
    enrol = enrol_certificate.enrol
    leaf = await run(database, enrol, authority, device, request_of("dk1"), **SOON)
    assert (leaf.device_id, leaf.identity, leaf.cn) == (device.id, DK1, "dk1")
    found = await refusal(database, enrol, authority, device, request_of("dk2"), **SOON)
    assert (found.reason, found.detail["field"]) == (Reason.MALFORMED, "csr")
    assert ("certificate.issued", leaf.serial) in await kinds(database, after=0, limit=10)


async def test_a_successor_for_the_same_key_or_another(
    database: Database, authority: Authority, device: Device
) -> None:
    enrol, reenrol = enrol_certificate.enrol, enrol_certificate.reenrol
    key = pki.new_key()
    first = await run(database, enrol, authority, device, request_of("dk1", key), **SOON)
    second = await run(database, reenrol, authority, device, first, request_of("dk1", key), **SOON)
    third = await run(database, reenrol, authority, device, second, request_of("dk1"), **SOON)
    fourth = await run(database, reenrol, authority, device, None, request_of("dk1"), **SOON)
    chain = [await stored(database, each) for each in (first, second, third, fourth)]
    assert [each.superseded_by for each in chain] == [second.id, third.id, fourth.id, None]
    assert [each.last_seen_at for each in chain] == [NOW, NOW, None, None]
    assert {each.status for each in chain} == {Status.VALID}
    found = await refusal(database, reenrol, authority, device, fourth, request_of("other"), **SOON)
    assert found.detail["rule"] == "must have the subject of the certificate that it replaces"
    found = await refusal(database, reenrol, authority, device, None, request_of("other"), **SOON)
    assert found.detail["rule"] == "has a subject that no certificate of the device has: enrol it"


async def test_firmware_in_a_loop(
    database: Database, authority: Authority, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol_certificate, "MOST_LIVE", 1)
    enrol, reenrol = enrol_certificate.enrol, enrol_certificate.reenrol
    leaf = await run(database, enrol, authority, device, request_of("dk1"), **SOON)
    assert (await refusal(database, enrol, authority, device, request_of("dk1"), **SOON)).reason is Reason.IN_USE
    found = await refusal(database, reenrol, authority, device, leaf, request_of("dk1"), **SOON)
    assert found.reason is Reason.IN_USE
    assert len(await run(database, certificates.of_device, device.id)) == 1
    later = SOON | {"now": NOW + days(31)}
    assert await run(database, enrol, authority, device, request_of("dk1"), **later)
