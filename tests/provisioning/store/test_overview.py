"""provisioning/store/overview.py"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from provisioning.model.account import Account
from provisioning.model.root import Standing
from provisioning.store import overview, tags
from provisioning.store.database import Database, Tx
from provisioning.store.overview import Installed
from tests.ublox import OTHER_KEY, make_account, make_devices

pytestmark = pytest.mark.server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=365)
UIDS = [f"00020000892800{number:02x}" for number in range(4)]
COMMAND = "INSTALL"
AUTHORITY = """
    INSERT INTO authority (name, generation, certificate, key_type, serial, subject, not_before, not_after)
    VALUES ('ca', 1, '', 'p256', '1', 'CN=ca', $1, $2) RETURNING id
"""
ROOT = """
    INSERT INTO root_ca (account_id, name, authority_id, ca_days, device_days, created_at)
    VALUES ($1, 'example.com', $2, 3650, 365, $3) RETURNING id
"""
CERTIFICATE = """
    INSERT INTO certificate (authority_id, serial, fingerprint, der, device_id, profile, not_before, not_after)
    VALUES ($1, $2, $3, $4, $5, 'device', $6, $7) RETURNING id
"""


@pytest.fixture
async def account(database: Database) -> Account:
    return await make_account(database)


async def install(tx: Tx, account: Account, ids: list[int]) -> None:
    """Give each module a certificate of one root CA; the serial number ends with the module's id."""
    authority = await tx.db.fetchval(AUTHORITY, NOW, LATER)
    root = await tx.db.fetchval(ROOT, account.id, authority, NOW)
    for device in ids:
        serial, der = f"abc{device}", b"der %d" % device
        given = (authority, serial, sha256(der).digest(), der, device, NOW, LATER)
        certificate = await tx.db.fetchval(CERTIFICATE, *given)
        await tx.db.execute(
            "UPDATE module SET certificate_id = $2, issuer_id = $3 WHERE device_id = $1", device, certificate, root
        )


async def test_certificates_of_modules_and_how_they_are_doing(database: Database, account: Account) -> None:
    valid, sent, removed, revoked = await make_devices(database, account, UIDS)
    (bare,) = await make_devices(database, account, ["00020000892800ff"])
    async with database.begin() as tx:
        await install(tx, account, [valid, sent, removed, revoked])
        for device, kind in ((valid, "OTHER"), (sent, COMMAND), (revoked, COMMAND)):
            await tx.db.execute(
                "INSERT INTO command (device_id, kind, body, created_at) VALUES ($1, $2, '{}', $3)", device, kind, NOW
            )
        await tx.db.execute(
            """
            INSERT INTO certificate_order (device_id, kind, root_ca_id, removed, ordered_at)
            SELECT m.id, 'update', r.id, m.id = $1, $3 FROM root_ca r, unnest(ARRAY[$1::bigint, $2]) AS m (id)
            """,
            removed, valid, NOW,
        )  # fmt: skip
        await tx.db.execute(
            "UPDATE certificate SET status = 'revoked', reason = 'keyCompromise', revoked_at = $2 WHERE device_id = $1",
            revoked, NOW,
        )  # fmt: skip
        found = await overview.installed(tx, [valid, sent, removed, revoked, bare], COMMAND)
    assert {device: each.standing for device, each in found.items()} == {
        valid: Standing.VALID, sent: Standing.PENDING, removed: Standing.PENDING, revoked: Standing.REVOKED
    }  # fmt: skip
    assert found[valid] == Installed(
        authority="example.com", serial=f"abc{valid}", not_before=NOW, not_after=LATER, der=b"der %d" % valid,
        standing=Standing.VALID,
    )  # fmt: skip


async def test_modules_by_the_serial_numbers_of_their_devices(database: Database, account: Account) -> None:
    other = await make_account(database, OTHER_KEY)
    same = await make_devices(database, account, UIDS[:2], serial="same")
    await make_devices(database, account, UIDS[2:3], serial="another")
    await make_devices(database, other, UIDS[3:], serial="same")
    async with database.read() as tx:
        assert await overview.by_device_serials(tx, account.id, ["same", "none"], 9) == same
        assert await overview.by_device_serials(tx, account.id, ["same"], 1) == same[:1]


async def test_modules_of_several_tags_are_listed_once(database: Database, account: Account) -> None:
    uids = [f"{number:016x}" for number in range(150)]
    ids = await make_devices(database, account, uids)
    async with database.begin() as tx:
        for name, of in (("a", ids[:120]), ("b", ids[30:]), ("c", ids[:0])):
            await tags.add(tx, account.id, name, name, now=NOW)
            (tag,) = await tags.find(tx, account.id, [name])
            await tags.assign_modules(tx, [tag.id], of, sync=False)
        tag_ids = [tag.id for tag in await tags.find(tx, account.id, ["a", "b", "c"])]
        pages = [await overview.tagged(tx, tag_ids, number) for number in (1, 2, 3, 10**18)]
        none = await overview.tagged(tx, [], 1)
    assert {page.total for page in pages} == {150}
    assert [page.records for page in pages] == [uids[:100], uids[100:], [], []]
    assert (none.records, none.total) == ([], 0)
