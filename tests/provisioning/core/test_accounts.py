"""Accounts: who proves to be one, what a new secret ends, and what goes with an account."""

from datetime import UTC, datetime, timedelta

import pytest

from provisioning.core import accounts, pki, registry, roots
from provisioning.core.access import Claims
from provisioning.model.account import Account
from provisioning.model.certificate import Status
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox.wire import PROTOCOL
from provisioning.store import accounts as store
from provisioning.store import authorities, certificates, devices
from provisioning.store.database import Database, Tx
from tests.ublox import KEY, OTHER_KEY, SECRET, make_account, make_devices, make_profile

NOW = datetime.now(UTC).replace(microsecond=0)
SECOND = timedelta(seconds=1)
UID = "0002000089280087"


@pytest.fixture
async def account(database: Database) -> Account:
    return await make_account(database)


async def kinds(database: Database) -> list[str]:
    """Of the events so far."""
    async with database.read() as tx:
        return [row["kind"] for row in await tx.db.fetch("SELECT kind FROM event ORDER BY id")]


async def test_an_account_is_created_once(database: Database, account: Account) -> None:
    async with database.read() as tx:
        assert await accounts.find(tx, PROTOCOL, KEY) == account
    with pytest.raises(Refusal) as refused:
        await make_account(database, secret="another one, which must not count")
    assert refused.value.reason is Reason.DUPLICATE
    async with database.read() as tx:
        assert (await accounts.prove(tx, PROTOCOL, KEY, SECRET)).id == account.id
        with pytest.raises(Refusal, match="unknown"):
            await accounts.find(tx, PROTOCOL, OTHER_KEY)
    assert await kinds(database) == ["account.created"]


def test_secrets_are_made_up_of_32_alphanumerics() -> None:
    made = {accounts.new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(len(secret) == 32 and secret.isalnum() and secret.isascii() for secret in made)


@pytest.mark.parametrize(
    ("key", "secret", "named"),
    [
        (KEY, "wrong", True), (KEY, SECRET.lower(), True), (KEY, "", True), (OTHER_KEY, SECRET, False),
        (KEY.upper(), SECRET, False),
    ],
)  # fmt: skip
async def test_who_does_not_prove(database: Database, account: Account, key: str, secret: str, *, named: bool) -> None:
    async with database.read() as tx:
        with pytest.raises(Refusal) as refused:
            await accounts.prove(tx, PROTOCOL, key, secret)
    assert refused.value.reason is Reason.NOT_PROVEN
    assert refused.value.detail == ({"account": account.key} if named else {}), "what is no key may be a secret"


async def test_claims_hold_for_one_secret_of_one_account(database: Database, account: Account) -> None:
    good = Claims(KEY, account.id, 1)
    async with database.begin() as tx:
        assert await accounts.current(tx, PROTOCOL, good) == account
        for wrong in (Claims(OTHER_KEY, account.id, 1), Claims(KEY, account.id + 1, 1), Claims(KEY, account.id, 2)):
            with pytest.raises(Refusal):
                await accounts.current(tx, PROTOCOL, wrong)
        rotated = await accounts.rotate(tx, account, PROTOCOL, accounts.hash_secret("new"))
        assert rotated.generation == 2
        with pytest.raises(Refusal):
            await accounts.current(tx, PROTOCOL, good)
        with pytest.raises(Refusal):
            await accounts.prove(tx, PROTOCOL, KEY, SECRET)
        assert await accounts.prove(tx, PROTOCOL, KEY, "new") == rotated
    assert await kinds(database) == ["account.created", "account.rotated"]


async def test_rotating_an_account_that_is_gone(database: Database, account: Account) -> None:
    async with database.begin() as tx:
        await accounts.delete(tx, PROTOCOL, KEY, cascade=False, now=NOW)
    with pytest.raises(Refusal) as refused:
        async with database.begin() as tx:
            await accounts.rotate(tx, account, PROTOCOL, accounts.hash_secret("new"))
    assert refused.value.reason is Reason.UNKNOWN


async def test_refresh_tokens(database: Database, account: Account) -> None:
    other = await make_account(database, OTHER_KEY)
    async with database.begin() as tx:
        token = await accounts.give_refresh_token(tx, account, now=NOW)
        assert token != await accounts.give_refresh_token(tx, account, now=NOW)
        end = NOW + timedelta(days=3)
        for now in (NOW, end - SECOND, end):
            assert await accounts.refresh(tx, PROTOCOL, KEY, token, now=now) == account

        async def refused(key: str, token: str, now: datetime = NOW) -> bool:
            try:
                await accounts.refresh(tx, PROTOCOL, key, token, now=now)
            except Refusal as refusal:
                return refusal.reason is Reason.NOT_PROVEN
            return False

        assert await refused(KEY, token, end + SECOND), "its three days are over"
        assert await refused(OTHER_KEY, token), "it is another account's"
        assert await refused("nobody", token)
        assert await refused(KEY, token + "x")
        await accounts.rotate(tx, account, PROTOCOL, accounts.hash_secret("new"))
        assert await refused(KEY, token), "it was given for a secret before"
        assert [row["hash"] for row in await tx.db.fetch("SELECT hash FROM refresh_token")].count(token.encode()) == 0
        await accounts.give_refresh_token(tx, other, now=end + SECOND)
        assert await tx.db.fetchval("SELECT count(*) FROM refresh_token") == 1, "those that ended are dropped"


async def count(tx: Tx, *tables: str) -> dict[str, int]:
    return {table: await tx.db.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def test_what_goes_with_an_account(database: Database, account: Account) -> None:
    """Everything of it, and nothing of another one's; what its root CAs certified is good for nothing any more."""
    other = await make_account(database, OTHER_KEY)
    await make_profile(database, account)
    await make_profile(database, other, "QHlN732VgUWCdfNeXHkQR1")
    module, _ = await make_devices(database, account, [UID, "0002000089280088"])
    await make_devices(database, other, ["0002000089280089"])
    async with database.begin() as tx:
        root = await roots.create(tx, account, "example.com", now=NOW, ca_days=3_650, device_days=365)
        kept = await roots.create(tx, other, "example.org", now=NOW, ca_days=3_650, device_days=365)
        (device,) = await devices.by_ids(tx, [module])
        key = pki.new_key().public_key()
        leaf = await roots.issue(tx, root, key, pki.make_subject(UID), device, now=NOW, days=365)
        await tx.db.execute(
            "UPDATE module SET certificate_id = $2, issuer_id = $3, current_ca = $3, desired_ca = $3"
            " WHERE device_id = $1",
            module, leaf.id, root.id,
        )  # fmt: skip
        await tx.db.execute("UPDATE device_profile SET root_ca_id = $1 WHERE account_id = $2", root.id, account.id)
        await accounts.give_refresh_token(tx, account, now=NOW)
    with pytest.raises(Refusal) as refused:
        async with database.begin() as tx:
            await accounts.delete(tx, PROTOCOL, KEY, cascade=False, now=NOW)
    assert refused.value.reason is Reason.IN_USE
    async with database.begin() as tx:
        assert (await authorities.by_id(tx, root.authority_id)).distrusted_at is None  # type: ignore[union-attr]
        assert await accounts.delete(tx, PROTOCOL, KEY, cascade=True, now=NOW) == 2
    async with database.begin() as tx:
        left = await count(tx, "account", "module", "device_profile", "root_ca", "refresh_token", "enrolment_group")
        assert list(left.values()) == [1, 1, 1, 1, 0, 1]
        gone = await authorities.by_id(tx, root.authority_id)
        assert gone is not None
        assert (gone.distrusted_at, gone.retired_at, gone.has_key) == (NOW, NOW, False)
        still = await authorities.by_id(tx, kept.authority_id)
        assert still is not None
        assert (still.distrusted_at, still.has_key) == (None, True)
        (revoked,) = await certificates.by_ids(tx, [leaf.id])
        assert revoked.status is Status.REVOKED
    happened = await kinds(database)
    assert (happened[-1], happened.count("device.deleted")) == ("account.deleted", 2)
    again = await make_account(database)
    assert again.id != account.id
    async with database.read() as tx:
        with pytest.raises(Refusal):
            await accounts.current(tx, PROTOCOL, Claims(KEY, account.id, 1))
        with pytest.raises(Refusal):
            await registry.device(tx, PROTOCOL, KEY, UID)


async def test_pages_of_accounts(database: Database) -> None:
    made = [await make_account(database, f"key-{number}") for number in range(3)]
    await make_devices(database, made[1], [UID])
    async with database.read() as tx:
        first = await store.page(tx, PROTOCOL, "", 2)
        rest = await store.page(tx, PROTOCOL, first[-1].key, 2)
    assert [(each.key, each.devices) for each in (*first, *rest)] == [("key-0", 0), ("key-1", 1), ("key-2", 0)]
