"""provisioning/core/publish.py"""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from provisioning.core import ca, certify, inventory, pki, publish, revocation, signing
from provisioning.core.pki import KeyType
from provisioning.model.certificate import Authority, Profile, Revocation
from provisioning.store.database import Database, open_database
from provisioning.store.sealing import Sealer
from tests.certificates import (
    KEY,
    NOW,
    ask_ocsp,
    days,
    issue,
    notifications,
    parsed,
    read_company,
    run,
)
from tests.conftest import until
from tests.openssl import made, verify

pytestmark = pytest.mark.server


@pytest.fixture
async def authority(database: Database) -> Authority:
    async with database.begin() as tx:
        return await ca.ensure_default(tx, KEY, now=NOW)


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.RSA2048])
async def test_revocation_bites(database: Database, kind: KeyType, tmp_path: Path) -> None:
    own = await run(database, ca.create, "own", await ca.make_key(kind), now=NOW)
    leaf = await issue(database, own)

    async def verdicts() -> tuple[bool, str]:
        crl = revocation.write_crl_pem(await run(database, publish.make_crl, own, now=NOW))
        code, _ = verify(tmp_path, parsed(leaf), parsed(own), crl=crl.encode())
        return code == 0, await ask_ocsp(database, own, leaf, tmp_path)

    assert await verdicts() == (True, "good")
    await run(database, inventory.hold, leaf, now=NOW)
    assert await verdicts() == (False, "revoked")
    await run(database, inventory.release, leaf, now=NOW)
    assert await verdicts() == (True, "good")
    await run(database, inventory.revoke, leaf, now=NOW, reason=Revocation.KEY_COMPROMISE)
    assert await verdicts() == (False, "revoked")


async def test_a_leaf_that_was_never_issued_is_unknown(
    database: Database, authority: Authority, tmp_path: Path
) -> None:
    forged = signing.issue(
        signing.Issuer(parsed(authority), KEY), pki.new_key().public_key(), pki.make_subject("x"),
        profile=Profile.DEVICE,
        now=NOW, days=9, serial=0x77,
    )  # fmt: skip
    row = certify.inventory_row(authority, forged, (None, None), Profile.DEVICE)
    assert await ask_ocsp(database, authority, row, tmp_path) == "unknown"


async def test_crl_numbers_only_rise(database: Database, authority: Authority) -> None:
    ders = await asyncio.gather(*(run(database, publish.make_crl, authority, now=NOW) for _ in range(8)))
    numbers = [
        x509.load_der_x509_crl(der).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for der in ders
    ]
    assert sorted(numbers) == list(range(1, 9))


async def test_an_entry_stays_on_the_crl_beyond_the_expiry(database: Database, authority: Authority) -> None:
    leaf = await issue(database, authority, days=10)
    await run(database, inventory.revoke, leaf, now=NOW)
    for at, count in ((10, 1), (39, 1), (41, 0)):
        crl = x509.load_der_x509_crl(await run(database, publish.make_crl, authority, now=NOW + days(at)))
        assert len(crl) == count, f"after {at} days"


async def test_one_responder_serves_until_it_grows_old(
    database: Database, authority: Authority, database_url: str, sealer: Sealer
) -> None:
    async with open_database(database_url, sealer, timeout=10) as other:
        both = await asyncio.gather(
            *(run(w, publish.ensure_responder, authority, now=NOW) for w in (database, other) for _ in range(3))
        )
    assert len({each.certificate.serial_number for each in both}) == 1
    first = both[0]
    assert first.key.public_key() == first.certificate.public_key()
    for at, is_same in ((19, True), (21, False), (100, False)):
        later = await run(database, publish.ensure_responder, authority, now=NOW + days(at))
        assert (later.certificate == first.certificate) == is_same, f"after {at} days"
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM responder") == 1, "the keys of expired responders are kept"
    await connection.close()


async def test_an_authority_near_its_end_makes_no_responder_for_each_question(database: Database) -> None:
    own = made("Short", not_after=NOW + days(5))
    imported = await run(database, ca.import_, "short", read_company(own))
    responders = [await run(database, publish.ensure_responder, imported, now=NOW) for _ in range(2)]
    assert responders[0].certificate == responders[1].certificate
    assert responders[0].certificate.not_valid_after_utc == NOW + days(5)


async def test_an_authority_kept_to_clients_answers_itself(database: Database, tmp_path: Path) -> None:
    own = made("Clients", extra=[(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), False)])
    imported = await run(database, ca.import_, "clients", read_company(own))
    leaf = await issue(database, imported)
    assert await ask_ocsp(database, imported, leaf, tmp_path) == "good"


async def test_an_unknown_authority_is_none_of_our_business(database: Database, authority: Authority) -> None:
    stranger = made("Stranger")
    leaf = made("leaf", stranger, ca=False)
    der = ocsp.OCSPRequestBuilder().add_certificate(leaf.certificate, stranger.certificate, hashes.SHA1()).build()
    request = revocation.read_ocsp_request(der.public_bytes(Encoding.DER))
    assert await run(database, publish.answer_ocsp, request, now=NOW) == revocation.UNAUTHORIZED


async def test_everyone_hears_of_new_authorities_and_not_of_crls(database: Database, database_url: str) -> None:
    async with notifications(database_url) as heard:
        own = await run(database, ca.ensure_default, pki.new_key(), now=NOW)
        await until(lambda: heard, "the first authority")
        await run(database, publish.make_crl, own, now=NOW)
        await run(database, ca.rotate, own, pki.new_key(), now=NOW)
        await until(lambda: len(heard) >= 2, "the rotation")
    assert all(each == {"change": "authority"} for each in heard)
    assert len(heard) == 2, "PostgreSQL says the same once for each transaction, and a CRL is no change"
