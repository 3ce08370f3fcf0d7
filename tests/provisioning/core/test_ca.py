"""provisioning/core/ca.py"""

import asyncio
import time
from pathlib import Path

import pytest
from cryptography import x509

from provisioning.core import ca, certify, chain, inventory, pki, publish, revocation, signing
from provisioning.core.pki import KeyType
from provisioning.model.certificate import Authority, Profile
from provisioning.model.refusal import Reason
from provisioning.model.registry import Device
from provisioning.store import authorities
from provisioning.store.database import Database, open_database
from provisioning.store.sealing import Sealer
from tests.certificates import (
    KEY,
    NOW,
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
)
from tests.conftest import until
from tests.openssl import made, verify

pytestmark = pytest.mark.server


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_rsa_keys_are_not_made_on_the_loop() -> None:
    loop = asyncio.get_running_loop()
    making = asyncio.gather(*(ca.make_key(KeyType.RSA3072) for _ in range(4)))
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
            run(where, ca.ensure_default, pki.new_key(), now=NOW) for where in (database, other) for _ in range(4)
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
    assert (await refusal(database, ca.default)).reason is Reason.UNKNOWN
    assert (await refusal(database, ca.find, "gatehouse")).reason is Reason.UNKNOWN


async def test_creates_authorities(database: Database, authority: Authority) -> None:
    key = await ca.make_key(KeyType.RSA2048)
    second = await run(
        database, ca.create, "rsa", key, now=NOW, common_name="Example RSA", organization="Example",
        years=5, path_length=1, permitted_dns=["plant.example"],
    )  # fmt: skip
    assert (second.key_type, second.is_default, second.subject) == ("rsa2048", False, "CN=Example RSA,O=Example")
    assert second.not_after == NOW + days(5 * 365)
    assert (await run(database, ca.default)) == authority
    await run(database, ca.set_default, second, now=NOW)
    assert (await run(database, ca.default)).id == second.id
    assert (await run(database, ca.find, "gatehouse")).is_default is False


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a/b", "ä", "a" * 41, "a\n"])
async def test_refuses_an_authority_name(database: Database, name: str) -> None:
    refused = await refusal(database, ca.create, name, KEY, now=NOW)
    assert (refused.reason, refused.detail["field"]) == (Reason.MALFORMED, "name")


async def test_refuses_a_second_one_of_a_name_or_a_subject(database: Database, authority: Authority) -> None:
    refused = await refusal(database, ca.create, "gatehouse", KEY, now=NOW)
    assert (refused.reason, refused.detail) == (Reason.DUPLICATE, {"field": "authority"})
    refused = await refusal(database, ca.create, "other", pki.new_key(), now=NOW, common_name="Gatehouse CA gatehouse")
    assert (refused.reason, refused.detail) == (Reason.DUPLICATE, {"field": "subject"})


async def test_imports_a_company_authority(database: Database, authority: Authority, tmp_path: Path) -> None:
    root = made("Company Root")
    own = made("Company Devices", root, path_length=0)
    imported = await run(database, ca.import_, "company", read_company(own, root))
    assert (imported.has_key, imported.is_default, len(imported.chain)) == (True, False, 1)
    leaf = await issue(database, imported)
    code, said = verify(tmp_path, parsed(leaf), root.certificate, own.certificate, purpose="sslclient")
    assert code == 0, said
    refused = await refusal(database, ca.import_, "company", read_company(root))
    assert (refused.reason, refused.detail) == (Reason.DUPLICATE, {"field": "authority"})
    refused = await refusal(database, ca.import_, "again", read_company(own, root))
    assert (refused.reason, refused.detail) == (Reason.DUPLICATE, {"field": "certificate"})
    assert certify.bundle(imported, leaf).count("BEGIN CERTIFICATE") == 2, (
        "leaf and issuer; the anchor is everybody's own"
    )


async def test_a_company_authority_keeps_to_its_limits(database: Database) -> None:
    root = made("Root", constraints=([x509.DNSName("plant.example")], None))
    own = made("Own", root, path_length=0, not_after=NOW + days(30))
    imported = await run(database, ca.import_, "company", read_company(own, root))
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
    anchor = await run(database, ca.trust, "chips", signing.read_anchor(vendor.pem, now=NOW))
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
    new = await run(database, ca.rotate, authority, pki.new_key(), now=NOW)
    assert (new.name, new.generation, new.is_default, new.subject) == (
        "gatehouse",
        2,
        True,
        "CN=Gatehouse CA gatehouse G2",
    )
    assert (await run(database, ca.default)) == new
    assert [str(each) for each in await run(database, authorities.trusted, NOW)] == ["gatehouse/1", "gatehouse/2"]
    refused = await refusal(database, certify.issue_from_csr, authority, request_of(), now=NOW, days=9)
    assert (refused.reason, refused.detail["state"]) == (Reason.ILLEGAL_TRANSITION, "retired or distrusted"), (
        "even for who read it before"
    )
    refused = await refusal(database, ca.rotate, authority, pki.new_key(), now=NOW)
    assert (refused.reason, refused.detail["state"]) == (Reason.ILLEGAL_TRANSITION, "retired")
    await run(database, inventory.revoke, old_leaf, now=NOW)
    crl = revocation.write_crl_pem(await run(database, publish.make_crl, authority, now=NOW))
    code, said = verify(tmp_path, parsed(old_leaf), parsed(authority), crl=crl.encode())
    assert (code, "certificate revoked" in said) == (2, True), said
    assert "revoked" in await ask_ocsp(database, authority, old_leaf, tmp_path)
    new_leaf = await issue(database, new)
    assert chain.verify_leaf(parsed(new_leaf), [parsed(authority), parsed(new)], NOW) == [parsed(new)]
    third = await run(database, ca.rotate, new, pki.new_key(), now=NOW)
    assert third.subject == "CN=Gatehouse CA gatehouse G3"
    assert [kind for kind, _ in await kinds(database)].count("authority.rotated") == 2


async def test_a_rotation_keeps_what_the_authority_is_kept_to(database: Database) -> None:
    own = await run(
        database,
        ca.create,
        "plant",
        KEY,
        now=NOW,
        organization="Example",
        path_length=2,
        permitted_dns=["plant.example"],
    )
    new = parsed(await run(database, ca.rotate, own, pki.new_key(), now=NOW))
    assert new.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 2
    trees = new.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert trees == [x509.DNSName("plant.example")]
    assert pki.first_attribute(new.subject, "O") == "Example"


async def test_of_two_rotations_at_once_one_wins(database: Database, authority: Authority) -> None:
    both = await asyncio.gather(
        *(run(database, ca.rotate, authority, pki.new_key(), now=NOW) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in both) == ["Authority", "Refusal"]
    assert len(await run(database, authorities.every)) == 2


async def test_an_imported_authority_is_rotated_by_import(database: Database) -> None:
    root = made("Root")
    imported = await run(database, ca.import_, "company", read_company(made("Own", root), root))
    refused = await refusal(database, ca.rotate, imported, pki.new_key(), now=NOW)
    assert (refused.reason, refused.detail["field"]) == (Reason.MALFORMED, "key")
    new = await run(database, ca.rotate, imported, read_company(made("Own", root), root), now=NOW)
    assert (new.generation, new.is_default, len(new.chain)) == (2, True, 1)


async def test_what_a_distrusted_authority_issued_is_not_accepted(
    database: Database, authority: Authority, database_url: str
) -> None:
    refused = await refusal(database, ca.distrust, authority, now=NOW)
    assert (refused.reason, "rotate it" in str(refused)) == (Reason.IN_USE, True)
    new = await run(database, ca.rotate, authority, pki.new_key(), now=NOW)
    async with notifications(database_url) as heard:
        gone = await run(database, ca.distrust, authority, now=NOW)
        await until(lambda: heard == [{"change": "authority"}], "the notification")
    assert gone.distrusted_at == NOW
    assert await run(database, authorities.trusted, NOW) == [new]
    assert (await refusal(database, ca.distrust, authority, now=NOW)).reason is Reason.ILLEGAL_TRANSITION
    assert (await run(database, publish.make_crl, gone, now=NOW)).startswith(b"0"), "its CRL is still signed"
    await run(database, ca.restore, authority)
    assert len(await run(database, authorities.trusted, NOW)) == 2
    assert (await refusal(database, ca.restore, authority)).reason is Reason.ILLEGAL_TRANSITION
    told = [kind for kind, _ in await kinds(database)]
    assert told == ["authority.created", "authority.rotated", "authority.distrusted", "authority.restored"]


async def test_a_distrusted_authority_issues_nothing(database: Database, authority: Authority) -> None:
    second = await run(database, ca.create, "second", pki.new_key(), now=NOW)
    gone = await run(database, ca.distrust, second, now=NOW)
    for read_when in (second, gone):
        refused = await refusal(database, certify.issue_from_csr, read_when, request_of(), now=NOW, days=9)
        assert refused.reason is Reason.ILLEGAL_TRANSITION
    assert (await refusal(database, ca.set_default, second, now=NOW)).reason is Reason.ILLEGAL_TRANSITION
    next_one = await run(database, ca.rotate, second, pki.new_key(), now=NOW)
    assert await issue(database, next_one), "a rotation leads out of it"
