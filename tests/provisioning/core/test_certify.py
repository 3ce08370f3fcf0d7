"""provisioning/core/certify.py"""

import asyncio
import time
from pathlib import Path

import asyncpg
import pytest
from cryptography import x509

from provisioning.core import certify, chain, pki, publish, revocation
from provisioning.core.pki import KeyType
from provisioning.model.certificate import Authority, Certificate, Profile, Revocation, Status
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import authorities, certificates, devices, products
from provisioning.store import events as event_store
from provisioning.store.certificates import Filter
from provisioning.store.database import Database, Tx, open_database
from provisioning.store.sealing import Sealer
from tests.certificates import (
    KEY,
    NOW,
    URLS,
    add_device,
    ask_ocsp,
    days,
    issue,
    kinds,
    notifications,
    parsed,
    read_company,
    refusal,
    request_of,
    run,
    stored,
)
from tests.conftest import until
from tests.openssl import made, verify

pytestmark = pytest.mark.server


@pytest.fixture
async def authority(database: Database) -> Authority:
    async with database.begin() as tx:
        return await certify.ensure_default(tx, KEY, now=NOW)


@pytest.fixture
async def device(database: Database) -> Device:
    return await add_device(database)


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_rsa_keys_are_not_made_on_the_loop() -> None:
    loop = asyncio.get_running_loop()
    making = asyncio.gather(*(certify.make_key(KeyType.RSA3072) for _ in range(4)))
    longest, turns, begun = 0.0, 0, loop.time()
    while not making.done():
        before = time.perf_counter()
        await asyncio.sleep(0)
        longest, turns = max(longest, time.perf_counter() - before), turns + 1
    assert [key.key_size for key in making.result()] == [3072] * 4
    took = loop.time() - begun
    assert turns > 20, "the loop did not turn while keys were made"
    assert longest < max(0.2, took / 2), f"the loop stood still for {longest:.3f} s of {took:.3f} s"


# --- authorities -----------------------------------------------------------------------------------------------------


async def test_processes_that_start_at_once_agree_on_the_default(
    database: Database, database_url: str, sealer: Sealer
) -> None:
    async with open_database(database_url, sealer, timeout=10) as other:
        made_by = [
            run(where, certify.ensure_default, pki.new_key(), now=NOW) for where in (database, other) for _ in range(4)
        ]
        found = await asyncio.gather(*made_by)
    assert len({each.id for each in found}) == 1
    assert (found[0].name, found[0].generation, found[0].is_default, found[0].key_type) == (
        "gatehouse",
        1,
        True,
        "p256",
    )
    assert len(await run(database, authorities.every)) == 1
    assert [kind for kind, _ in await kinds(database)] == ["authority.created"]


async def test_without_a_default_it_is_unknown(database: Database) -> None:
    assert (await refusal(database, certify.default_authority)).reason is Reason.UNKNOWN
    assert (await refusal(database, certify.authority, "gatehouse")).reason is Reason.UNKNOWN


async def test_creates_authorities(database: Database, authority: Authority) -> None:
    key = await certify.make_key(KeyType.RSA2048)
    second = await run(
        database, certify.create_authority, "rsa", key, now=NOW, common_name="Example RSA", organization="Example",
        years=5, path_length=1, permitted_dns=["plant.example"],
    )  # fmt: skip
    assert (second.key_type, second.is_default, second.subject) == ("rsa2048", False, "CN=Example RSA,O=Example")
    assert second.not_after == NOW + days(5 * 365)
    assert (await run(database, certify.default_authority)) == authority
    await run(database, certify.set_default, second, now=NOW)
    assert (await run(database, certify.default_authority)).id == second.id
    assert (await run(database, certify.authority, "gatehouse")).is_default is False


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a/b", "ä", "a" * 41, "a\n"])
async def test_refuses_an_authority_name(database: Database, name: str) -> None:
    refused = await refusal(database, certify.create_authority, name, KEY, now=NOW)
    assert (refused.reason, refused.detail["field"]) == (Reason.MALFORMED, "name")


async def test_refuses_a_second_one_of_a_name_or_a_subject(database: Database, authority: Authority) -> None:
    refused = await refusal(database, certify.create_authority, "gatehouse", KEY, now=NOW)
    assert (refused.reason, refused.detail) == (Reason.DUPLICATE, {"field": "authority"})
    refused = await refusal(
        database, certify.create_authority, "other", pki.new_key(), now=NOW, common_name="Gatehouse CA gatehouse"
    )
    assert (refused.reason, refused.detail) == (Reason.DUPLICATE, {"field": "subject"})


async def test_imports_a_company_authority(database: Database, authority: Authority, tmp_path: Path) -> None:
    root = made("Company Root")
    own = made("Company Devices", root, path_length=0)
    imported = await run(database, certify.import_authority, "company", read_company(own, root))
    assert (imported.has_key, imported.is_default, len(imported.chain)) == (True, False, 1)
    leaf = await issue(database, imported)
    code, said = verify(tmp_path, parsed(leaf), root.certificate, own.certificate, purpose="sslclient")
    assert code == 0, said
    refused = await refusal(database, certify.import_authority, "company", read_company(root))
    assert (refused.reason, refused.detail) == (Reason.DUPLICATE, {"field": "authority"})
    refused = await refusal(database, certify.import_authority, "again", read_company(own, root))
    assert (refused.reason, refused.detail) == (Reason.DUPLICATE, {"field": "certificate"})
    assert certify.bundle(imported, leaf).count("BEGIN CERTIFICATE") == 2, (
        "leaf and issuer; the anchor is everybody's own"
    )


async def test_a_company_authority_keeps_to_its_limits(database: Database) -> None:
    root = made("Root", constraints=([x509.DNSName("plant.example")], None))
    own = made("Own", root, path_length=0, not_after=NOW + days(30))
    imported = await run(database, certify.import_authority, "company", read_company(own, root))
    names = pki.read_names(["mqtt.example"])
    refused = await refusal(
        database, certify.issue_from_csr, imported, request_of(), now=NOW, days=9, profile=Profile.SERVER, names=names
    )
    assert refused.detail == {"field": "names", "rule": "CN=Root may not certify the name mqtt.example"}
    assert (await issue(database, imported)).not_after == NOW + days(30)
    refused = await refusal(database, certify.issue_from_csr, imported, request_of(), now=NOW + days(31), days=9)
    assert (refused.reason, refused.detail["state"]) == (Reason.ILLEGAL_TRANSITION, "expired")


async def test_a_trusted_authority_issues_nothing_and_its_leaves_are_adopted(
    database: Database, device: Device
) -> None:
    vendor = made("Chip Vendor")
    anchor = await run(database, certify.trust_authority, "chips", pki.read_anchor(vendor.pem, now=NOW))
    assert (anchor.has_key, anchor.is_default) == (False, False)
    refused = await refusal(database, certify.issue_from_csr, anchor, request_of(), now=NOW, days=9)
    assert (refused.reason, refused.detail["state"]) == (Reason.ILLEGAL_TRANSITION, "without a key")
    assert (await refusal(database, publish.make_crl, anchor, now=NOW)).reason is Reason.ILLEGAL_TRANSITION
    birth = made("chip-17", vendor, ca=False).certificate
    adopted = await run(database, certify.adopt, anchor, birth, now=NOW, device=device)
    assert (adopted.cn, adopted.device_id, adopted.serial) == (
        "chip-17",
        device.id,
        pki.write_serial(birth.serial_number),
    )
    assert (await refusal(database, certify.adopt, anchor, birth, now=NOW, device=device)).reason is Reason.DUPLICATE
    stranger = made("chip-18", made("Chip Vendor"), ca=False).certificate
    assert "not trusted" in str(await refusal(database, certify.adopt, anchor, stranger, now=NOW, device=device))
    assert (await run(database, authorities.trusted, NOW)) == [anchor]


async def test_a_rotation_leaves_the_old_generation_in_service(
    database: Database, authority: Authority, tmp_path: Path
) -> None:
    old_leaf = await issue(database, authority)
    new = await run(database, certify.rotate, authority, pki.new_key(), now=NOW)
    assert (new.name, new.generation, new.is_default, new.subject) == (
        "gatehouse",
        2,
        True,
        "CN=Gatehouse CA gatehouse G2",
    )
    assert (await run(database, certify.default_authority)) == new
    assert [str(each) for each in await run(database, authorities.trusted, NOW)] == ["gatehouse/1", "gatehouse/2"]
    refused = await refusal(database, certify.issue_from_csr, authority, request_of(), now=NOW, days=9)
    assert (refused.reason, refused.detail["state"]) == (Reason.ILLEGAL_TRANSITION, "retired or distrusted"), (
        "even for who read it before"
    )
    refused = await refusal(database, certify.rotate, authority, pki.new_key(), now=NOW)
    assert (refused.reason, refused.detail["state"]) == (Reason.ILLEGAL_TRANSITION, "retired")
    await run(database, certify.revoke, old_leaf, now=NOW)
    crl = revocation.write_crl_pem(await run(database, publish.make_crl, authority, now=NOW))
    code, said = verify(tmp_path, parsed(old_leaf), parsed(authority), crl=crl.encode())
    assert (code, "certificate revoked" in said) == (2, True), said
    assert "revoked" in await ask_ocsp(database, authority, old_leaf, tmp_path)
    new_leaf = await issue(database, new)
    assert chain.verify_leaf(parsed(new_leaf), [parsed(authority), parsed(new)], NOW) == [parsed(new)]
    third = await run(database, certify.rotate, new, pki.new_key(), now=NOW)
    assert third.subject == "CN=Gatehouse CA gatehouse G3"
    assert [kind for kind, _ in await kinds(database)].count("authority.rotated") == 2


async def test_a_rotation_keeps_what_the_authority_is_kept_to(database: Database) -> None:
    own = await run(
        database,
        certify.create_authority,
        "plant",
        KEY,
        now=NOW,
        organization="Example",
        path_length=2,
        permitted_dns=["plant.example"],
    )
    new = parsed(await run(database, certify.rotate, own, pki.new_key(), now=NOW))
    assert new.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 2
    trees = new.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert trees == [x509.DNSName("plant.example")]
    assert pki.first_attribute(new.subject, "O") == "Example"


async def test_of_two_rotations_at_once_one_wins(database: Database, authority: Authority) -> None:
    both = await asyncio.gather(
        *(run(database, certify.rotate, authority, pki.new_key(), now=NOW) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in both) == ["Authority", "Refusal"]
    assert len(await run(database, authorities.every)) == 2


async def test_an_imported_authority_is_rotated_by_import(database: Database) -> None:
    root = made("Root")
    imported = await run(database, certify.import_authority, "company", read_company(made("Own", root), root))
    refused = await refusal(database, certify.rotate, imported, pki.new_key(), now=NOW)
    assert (refused.reason, refused.detail["field"]) == (Reason.MALFORMED, "key")
    new = await run(database, certify.rotate, imported, read_company(made("Own", root), root), now=NOW)
    assert (new.generation, new.is_default, len(new.chain)) == (2, True, 1)


async def test_what_a_distrusted_authority_issued_is_not_accepted(
    database: Database, authority: Authority, database_url: str
) -> None:
    refused = await refusal(database, certify.distrust, authority, now=NOW)
    assert (refused.reason, "rotate it" in str(refused)) == (Reason.IN_USE, True)
    new = await run(database, certify.rotate, authority, pki.new_key(), now=NOW)
    async with notifications(database_url) as heard:
        gone = await run(database, certify.distrust, authority, now=NOW)
        await until(lambda: heard == [{"change": "authority"}], "the notification")
    assert gone.distrusted_at == NOW
    assert await run(database, authorities.trusted, NOW) == [new]
    assert (await refusal(database, certify.distrust, authority, now=NOW)).reason is Reason.ILLEGAL_TRANSITION
    assert (await run(database, publish.make_crl, gone, now=NOW)).startswith(b"0"), "its CRL is still signed"
    await run(database, certify.restore, authority)
    assert len(await run(database, authorities.trusted, NOW)) == 2
    assert (await refusal(database, certify.restore, authority)).reason is Reason.ILLEGAL_TRANSITION
    told = [kind for kind, _ in await kinds(database)]
    assert told == ["authority.created", "authority.rotated", "authority.distrusted", "authority.restored"]


async def test_a_distrusted_authority_issues_nothing(database: Database, authority: Authority) -> None:
    second = await run(database, certify.create_authority, "second", pki.new_key(), now=NOW)
    gone = await run(database, certify.distrust, second, now=NOW)
    for read_when in (second, gone):
        refused = await refusal(database, certify.issue_from_csr, read_when, request_of(), now=NOW, days=9)
        assert refused.reason is Reason.ILLEGAL_TRANSITION
    assert (await refusal(database, certify.set_default, second, now=NOW)).reason is Reason.ILLEGAL_TRANSITION
    next_one = await run(database, certify.rotate, second, pki.new_key(), now=NOW)
    assert await issue(database, next_one), "a rotation leads out of it"


# --- leaves ----------------------------------------------------------------------------------------------------------


async def test_issues_from_a_request(database: Database, authority: Authority, device: Device, tmp_path: Path) -> None:
    request = request_of(names=pki.read_names(["wish.example"]))
    leaf = await issue(database, authority, request=request, device=device)
    assert (leaf.cn, leaf.profile, leaf.status, leaf.device_id) == ("device-1", Profile.DEVICE, Status.VALID, device.id)
    assert leaf.identity == device.identity
    assert await stored(database, leaf) == leaf
    assert parsed(leaf).public_key() == request.key
    assert chain.alternative_names(parsed(leaf)) == (), "what a request wishes for is not given unasked"
    code, said = verify(tmp_path, parsed(leaf), parsed(authority), purpose="sslclient")
    assert code == 0, said
    [event] = await run(database, event_store.page, device_id=device.id)
    assert (event.kind, event.product, event.device, event.serial) == ("certificate.issued", "pk1", "dk1", leaf.serial)


async def test_a_generated_key_is_returned_and_never_stored(
    database: Database, authority: Authority, database_url: str
) -> None:
    key = await certify.make_key()
    subject = pki.make_subject("mqtt.example")
    async with database.begin() as tx:
        both = await certify.issue_with_key(
            tx,
            authority,
            key,
            subject,
            now=NOW,
            days=90,
            profile=Profile.SERVER,
            names=pki.read_names(["mqtt.example"]),
        )
    assert pki.read_key(both.key).public_key() == parsed(both.certificate).public_key()
    assert "PRIVATE KEY" not in repr(both)
    secret = key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    connection = await asyncpg.connect(database_url)
    for table in ("authority", "certificate", "responder", "event"):
        for row in await connection.fetch(f"SELECT * FROM {table}"):
            held = [bytes(value) for value in row.values() if isinstance(value, bytes)]
            assert not any(secret in each or b"PRIVATE KEY" in each for each in held), f"a key stands in {table}"
    await connection.close()


async def test_200_leaves_of_two_processes_share_no_serial(
    database: Database, authority: Authority, database_url: str, sealer: Sealer
) -> None:
    async with open_database(database_url, sealer, timeout=30) as other:
        leaves = await asyncio.gather(
            *(issue(where, authority, days=1) for _ in range(100) for where in (database, other))
        )
    assert len({each.serial for each in leaves}) == 200
    assert len(await run(database, certificates.page, Filter(authority_id=authority.id), 0, 1_000)) == 200


async def test_of_two_that_want_one_name_one_gets_it(
    database: Database, authority: Authority, database_url: str, sealer: Sealer
) -> None:
    async def apply(tx: Tx) -> Certificate:
        await certify.check_name_is_free(tx, "device-1", now=NOW)
        return await certify.issue_from_csr(tx, authority, request_of(), now=NOW, days=9)

    async with open_database(database_url, sealer, timeout=10) as other:
        both = await asyncio.gather(
            *(run(w, apply) for w in (database, other) for _ in range(3)), return_exceptions=True
        )
    [won] = [each for each in both if isinstance(each, Certificate)]
    assert [each.detail for each in both if isinstance(each, Refusal)] == [{"field": "cn"}] * 5
    assert (await refusal(database, certify.check_name_is_free, "device-1", now=NOW)).reason is Reason.DUPLICATE
    await run(database, certify.check_name_is_free, "device-1", now=won.not_after)
    await run(database, certify.revoke, won, now=NOW)
    await run(database, certify.check_name_is_free, "device-1", now=NOW)


async def test_a_serial_that_is_taken_is_drawn_again(
    database: Database, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await issue(database, authority)
    taken = int(first.serial, 16)
    draws = [taken, 0xBEEF]
    monkeypatch.setattr(pki, "new_serial", lambda: draws.pop(0))
    assert (await issue(database, authority)).serial == "beef"
    assert draws == []
    draws = [taken, taken]
    assert (
        await refusal(database, certify.issue_from_csr, authority, request_of(), now=NOW, days=9)
    ).reason is Reason.INTERNAL


async def test_nothing_is_issued_by_a_transaction_that_fails(database: Database, authority: Authority) -> None:
    async def fail(tx: Tx) -> None:
        await certify.issue_from_csr(tx, authority, request_of(), now=NOW, days=9)
        raise Refusal(Reason.DISABLED)

    await refusal(database, fail)
    assert await run(database, certificates.page, Filter(), 0, 10) == []
    assert [kind for kind, _ in await kinds(database)] == ["authority.created"]


async def test_a_device_that_is_gone_gets_none(database: Database, authority: Authority, device: Device) -> None:
    await run(database, devices.delete, device)
    refused = await refusal(database, certify.issue_from_csr, authority, request_of(), now=NOW, days=9, device=device)
    assert refused.reason is Reason.IN_USE


async def test_renews_with_the_same_key(database: Database, authority: Authority, device: Device) -> None:
    names = pki.read_names(["d1.example"])
    old = await issue(database, authority, device=device, names=names)
    new = await run(database, certify.renew, authority, old, now=NOW + days(300), days=365, urls=URLS)
    assert new.serial != old.serial
    assert parsed(new).public_key() == parsed(old).public_key()
    assert (parsed(new).subject, chain.alternative_names(parsed(new))) == (parsed(old).subject, names)
    assert (new.device_id, new.identity, new.not_after) == (device.id, device.identity, NOW + days(665))
    kept = await stored(database, old)
    assert (kept.status, kept.superseded_by) == (Status.VALID, new.id)
    assert ("certificate.renewed", new.serial) in await kinds(database, device_id=device.id)


async def test_a_renewal_moves_to_the_new_generation(database: Database, authority: Authority) -> None:
    old = await issue(database, authority)
    generation = await run(database, certify.rotate, authority, pki.new_key(), now=NOW)
    new = await run(database, certify.renew, generation, old, now=NOW, days=9)
    assert new.authority_id == generation.id
    assert (await stored(database, old)).superseded_by == new.id


async def test_rekeys_under_the_same_names(database: Database, authority: Authority) -> None:
    key, names = pki.new_key(), pki.read_names(["d1.example"])
    old = await issue(database, authority, request=request_of(key=key), names=names)
    fresh = request_of(names=names)
    new = await run(database, certify.rekey, authority, old, fresh, now=NOW, days=9)
    assert parsed(new).public_key() == fresh.key
    for wrong, rule in (
        (request_of(cn="other", names=names), "must have the subject"),
        (request_of(), "must have the alternative names"),
        (request_of(key=key, names=names), "renew it instead"),
    ):
        refused = await refusal(database, certify.rekey, authority, old, wrong, now=NOW, days=9)
        assert (refused.reason, rule in str(refused)) == (Reason.MALFORMED, True)


async def test_what_is_not_valid_is_not_renewed(database: Database, authority: Authority) -> None:
    leaf = await issue(database, authority)
    await run(database, certify.hold, leaf, now=NOW)
    refused = await refusal(database, certify.renew, authority, leaf, now=NOW, days=9)
    assert (refused.reason, refused.detail) == (Reason.ILLEGAL_TRANSITION, {"state": "held", "step": "renew"})


# --- revocation ------------------------------------------------------------------------------------------------------


async def test_hold_release_revoke(database: Database, authority: Authority, device: Device, database_url: str) -> None:
    leaf = await issue(database, authority, device=device)
    async with notifications(database_url) as heard:
        held = await run(database, certify.hold, leaf, now=NOW)
        assert (held.status, held.reason, held.revoked_at) == (Status.HELD, None, NOW)
        free = await run(database, certify.release, leaf, now=NOW + days(1))
        assert (free.status, free.revoked_at) == (Status.VALID, None)
        await run(database, certify.hold, leaf, now=NOW + days(2))
        gone = await run(database, certify.revoke, leaf, now=NOW + days(3), reason=Revocation.KEY_COMPROMISE)
        assert (gone.status, gone.reason, gone.revoked_at) == (Status.REVOKED, Revocation.KEY_COMPROMISE, NOW + days(2))
        assert await stored(database, leaf) == gone
        told = {"change": "certificate", "authority": authority.id, "serial": leaf.serial}
        wanted = [told | {"status": status} for status in ("held", "valid", "held", "revoked")]
        await until(lambda: len(heard) >= 4, "notifications")
        assert heard == wanted
    for verb in (certify.hold, certify.release, certify.revoke):
        assert (await refusal(database, verb, leaf, now=NOW)).reason is Reason.ILLEGAL_TRANSITION
    assert [kind for kind, _ in await kinds(database, device_id=device.id)] == [
        "certificate.issued", "certificate.held", "certificate.released", "certificate.held", "certificate.revoked",
    ]  # fmt: skip


async def test_of_two_revocations_at_once_one_counts(database: Database, authority: Authority) -> None:
    leaf = await issue(database, authority)
    both = await asyncio.gather(
        *(run(database, certify.revoke, leaf, now=NOW) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in both) == ["Certificate", "Refusal"]
    assert [kind for kind, _ in await kinds(database)].count("certificate.revoked") == 1


async def test_a_device_takes_its_certificates_along(
    database: Database, authority: Authority, device: Device, database_url: str
) -> None:
    """Whoever deletes it, and however."""
    leaves = [await issue(database, authority, device=device) for _ in range(2)]
    await run(database, certify.hold, leaves[1], now=NOW - days(1))
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
    await run(database, certify.revoke, leaves[0], now=NOW)
    gone = await run(database, certify.revoke_of_device, device.id, now=NOW, reason=Revocation.AFFILIATION_CHANGED)
    assert [each.id for each in gone] == [each.id for each in leaves[1:]]
    assert await run(database, certify.revoke_of_device, device.id, now=NOW) == []
    told = await kinds(database, device_id=device.id)
    assert [kind for kind, _ in told].count("certificate.revoked") == 3


async def test_a_predecessor_goes_when_its_successor_is_in_use(database: Database, authority: Authority) -> None:
    old = await issue(database, authority)
    await run(database, certificates.note_seen, {old.id: NOW})
    new = await run(database, certify.renew, authority, old, now=NOW, days=365)
    refused = await refusal(database, certify.revoke_predecessor, old, now=NOW)
    assert (refused.reason, "has not been seen" in str(refused)) == (Reason.IN_USE, True)
    assert await run(database, certify.revoke_replaced, now=NOW) == []
    await run(database, certificates.note_seen, {new.id: NOW + days(1)})
    await run(database, certificates.note_seen, {old.id: NOW + days(2)})
    assert await run(database, certify.revoke_replaced, now=NOW) == [], "the device went back to the old one"
    await run(database, certificates.note_seen, {new.id: NOW + days(3)})
    [gone] = await run(database, certify.revoke_replaced, now=NOW + days(3))
    assert (gone.id, gone.status, gone.reason) == (old.id, Status.REVOKED, Revocation.SUPERSEDED)
    assert await run(database, certify.revoke_replaced, now=NOW + days(3)) == []


async def test_a_successor_that_was_skipped_counts_no_less(database: Database, authority: Authority) -> None:
    first = await issue(database, authority)
    second = await run(database, certify.renew, authority, first, now=NOW, days=365)
    third = await run(database, certify.renew, authority, second, now=NOW, days=365)
    await run(database, certificates.note_seen, {third.id: NOW})
    assert [each.id for each in await run(database, certify.revoke_replaced, now=NOW)] == [first.id, second.id]


async def test_a_revoked_or_expired_successor_does_not_count(database: Database, authority: Authority) -> None:
    old = await issue(database, authority)
    new = await run(database, certify.renew, authority, old, now=NOW, days=10)
    await run(database, certificates.note_seen, {new.id: NOW})
    assert await run(database, certify.revoke_replaced, now=NOW + days(11)) == []
    await run(database, certify.revoke, new, now=NOW)
    assert await run(database, certify.revoke_replaced, now=NOW) == []


async def test_expiry_is_told_once_for_each_threshold(
    database: Database, authority: Authority, device: Device, database_url: str, sealer: Sealer
) -> None:
    leaf = await issue(database, authority, days=365, device=device)
    short = await issue(database, authority, days=10)
    told = []
    async with open_database(database_url, sealer, timeout=10) as other:
        for left in (61, 60, 59, 30, 29, 7, 6, 1, 0, -1):
            at = leaf.not_after - days(left)
            due = await asyncio.gather(*(run(where, certify.warn_expiring, now=at) for where in (database, other)))
            told += [left for each in due for certificate in each if certificate.id == leaf.id]
    assert told == [60, 30, 7]
    assert (await kinds(database, device_id=device.id)).count(("certificate.expiring", leaf.serial)) == 3
    assert await run(database, certify.warn_expiring, now=short.not_after - days(1)) == [], (
        "half of its life is no warning"
    )


async def test_a_late_start_tells_the_nearest_threshold_only(database: Database, authority: Authority) -> None:
    leaves = [await issue(database, authority) for _ in range(3)]
    at = leaves[0].not_after - days(5)
    assert len(await run(database, certify.warn_expiring, now=at, limit=2)) == 2
    assert len(await run(database, certify.warn_expiring, now=at, limit=2)) == 1
    assert await run(database, certify.warn_expiring, now=at, limit=2) == []


async def test_whose_place_is_taken_is_not_warned_of(database: Database, authority: Authority) -> None:
    old = await issue(database, authority)
    new = await run(database, certify.renew, authority, old, now=NOW, days=900)
    revoked = await issue(database, authority)
    await run(database, certify.revoke, revoked, now=NOW)
    assert [each.id for each in await run(database, certify.warn_expiring, now=old.not_after - days(31))] == [old.id]
    await run(database, certificates.note_seen, {new.id: NOW})
    assert await run(database, certify.warn_expiring, now=old.not_after - days(29)) == []


async def test_finds_a_certificate_by_the_serial_that_people_paste(database: Database, authority: Authority) -> None:
    leaf = await issue(database, authority)
    assert await run(database, certify.certificate, leaf.serial.upper()) == leaf
    assert (await refusal(database, certify.certificate, "abc")).reason is Reason.UNKNOWN
    assert (await refusal(database, certify.certificate, "xyz")).reason is Reason.MALFORMED
    second = await run(database, certify.create_authority, "second", pki.new_key(), now=NOW)
    twin = made("twin", made("Third"), ca=False, serial=int(leaf.serial, 16)).certificate
    row = certify.inventory_row(second, twin, (None, None), Profile.DEVICE)
    await run(database, certificates.add, row)
    assert (await refusal(database, certify.certificate, leaf.serial)).reason is Reason.DUPLICATE
    assert await run(database, certify.certificate, leaf.serial, authority) == leaf


async def test_everything_at_once_locks_nobody_out(
    database: Database, authority: Authority, database_url: str, sealer: Sealer
) -> None:
    """Two processes renew, revoke, publish, delete and rotate on the same rows: a deadlock would be UNAVAILABLE."""
    gear = [await add_device(database, f"d{n}") for n in range(6)]
    leaves = [await issue(database, authority, device=each) for each in gear]
    seen = {each.id: NOW for each in leaves}
    async with open_database(database_url, sealer, timeout=20) as other:
        work = [
            run(where, verb, *arguments, now=NOW, **more)
            for where in (database, other)
            for leaf, owner in zip(leaves, gear, strict=True)
            for verb, arguments, more in (
                (certify.renew, (authority, leaf), {"days": 9}),
                (certify.revoke, (leaf,), {}),
                (certify.revoke_of_device, (owner.id,), {}),
                (certify.warn_expiring, (), {}),
                (publish.make_crl, (authority,), {}),
                (publish.ensure_responder, (authority,), {}),
            )
        ]
        work += [run(where, certificates.note_seen, seen) for where in (database, other)]
        work += [run(where, devices.delete, each) for where, each in zip((database, other) * 3, gear, strict=True)]
        work += [run(where, certify.rotate, authority, pki.new_key(), now=NOW) for where in (database, other)]
        results = await asyncio.gather(*work, return_exceptions=True)
    failed = [each for each in results if isinstance(each, BaseException)]
    strange = [
        each for each in failed if getattr(each, "reason", None) not in {Reason.ILLEGAL_TRANSITION, Reason.IN_USE}
    ]
    assert strange == [], str(strange[0])
    assert await run(database, certificates.page, Filter(status=Status.VALID, profile=Profile.DEVICE), 0, 100) == []
