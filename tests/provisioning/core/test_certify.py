"""provisioning/core/certify.py"""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from provisioning.core import ca, certify, chain, inventory, pki, publish
from provisioning.model.certificate import Authority, Certificate, Profile, Status
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import certificates, devices
from provisioning.store import events as event_store
from provisioning.store.certificates import Filter
from provisioning.store.database import Database, Tx, open_database
from provisioning.store.sealing import Sealer
from tests.certificates import (
    NOW,
    URLS,
    add_device,
    days,
    issue,
    kinds,
    parsed,
    refusal,
    request_of,
    run,
    stored,
)
from tests.openssl import verify

pytestmark = pytest.mark.server


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
    key = await ca.make_key()
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
    await run(database, inventory.revoke, won, now=NOW)
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
    generation = await run(database, ca.rotate, authority, pki.new_key(), now=NOW)
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
    await run(database, inventory.hold, leaf, now=NOW)
    refused = await refusal(database, certify.renew, authority, leaf, now=NOW, days=9)
    assert (refused.reason, refused.detail) == (Reason.ILLEGAL_TRANSITION, {"state": "held", "step": "renew"})


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
                (inventory.revoke, (leaf,), {}),
                (inventory.revoke_of_device, (owner.id,), {}),
                (inventory.warn_expiring, (), {}),
                (publish.make_crl, (authority,), {}),
                (publish.ensure_responder, (authority,), {}),
            )
        ]
        work += [run(where, certificates.note_seen, seen) for where in (database, other)]
        work += [run(where, devices.delete, each) for where, each in zip((database, other) * 3, gear, strict=True)]
        work += [run(where, ca.rotate, authority, pki.new_key(), now=NOW) for where in (database, other)]
        results = await asyncio.gather(*work, return_exceptions=True)
    failed = [each for each in results if isinstance(each, BaseException)]
    strange = [
        each for each in failed if getattr(each, "reason", None) not in {Reason.ILLEGAL_TRANSITION, Reason.IN_USE}
    ]
    assert strange == [], str(strange[0])
    assert await run(database, certificates.page, Filter(status=Status.VALID, profile=Profile.DEVICE), 0, 100) == []
