"""provisioning/store/whitelist.py"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from provisioning.model.account import Account
from provisioning.store import modules, whitelist
from provisioning.store.database import Database
from provisioning.store.lists import Page
from provisioning.store.whitelist import Entry, Kind
from tests.conftest import until
from tests.provisioning.store.registry import execute
from tests.ublox import OTHER_KEY, PROFILE, make_account, make_devices, make_profile

NOW = datetime(2026, 5, 6, tzinfo=UTC)
FRESH, WAITING, ACTIVE = "0000000000000001", "0000000000000002", "0000000000000003"
IMEI = "352656100000000"
WAITERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
ACTIVATE = "UPDATE device SET state = 'activated', activated_at = $2 WHERE id = $1"


async def change(
    database: Database, account: Account, add: Sequence[str] = (), drop: Sequence[str] = (), kind: Kind = Kind.UID
) -> None:
    async with database.begin() as tx:
        await whitelist.hold(tx, account.id)
        await whitelist.add(tx, account.id, kind, add, now=NOW)
        await whitelist.drop(tx, account.id, kind, drop)
        both = [*add, *drop]
        uids, imeis = (both, []) if kind is Kind.UID else ([], both)
        await whitelist.settle(tx, account.id, uids, imeis)


async def states(database: Database, account: Account) -> dict[str, str]:
    """`w`: on the list, `b`: blacklisted."""
    async with database.read() as tx:
        found = await modules.of_account(tx, account.id, [FRESH, WAITING, ACTIVE])
    return {uid: "w" * each.whitelisted + "b" * each.blacklisted for uid, each in found.items()}


async def make_three(database: Database) -> Account:
    """A module that has not bootstrapped, one that did so without leave, one that is activated."""
    account = await make_account(database)
    _, waiting, active = await make_devices(database, account, [FRESH, WAITING, ACTIVE])
    async with database.begin() as tx:
        await modules.update(tx, waiting, {"bootstrapped_at": NOW, "blacklisted": True, "imei": IMEI})
        await modules.update(tx, active, {"bootstrapped_at": NOW})
        await tx.db.execute(ACTIVATE, active, NOW)
    return account


async def test_modules_follow_the_list(database: Database) -> None:
    account = await make_three(database)
    everybody = [FRESH, WAITING, ACTIVE]
    assert await states(database, account) == {FRESH: "", WAITING: "b", ACTIVE: ""}
    await change(database, account, add=everybody)
    assert await states(database, account) == {FRESH: "w", WAITING: "w", ACTIVE: "w"}
    await change(database, account, drop=everybody)
    assert await states(database, account) == {FRESH: "", WAITING: "b", ACTIVE: ""}, "only who waits is shut out"


async def test_a_module_stands_on_the_list_by_uid_or_by_imei(database: Database) -> None:
    account = await make_three(database)
    await change(database, account, add=[IMEI, "1" * 14], kind=Kind.IMEI)
    await change(database, account, add=[WAITING])
    assert (await states(database, account))[WAITING] == "w"
    await change(database, account, drop=[IMEI], kind=Kind.IMEI)
    assert (await states(database, account))[WAITING] == "w", "by its uid still"
    await change(database, account, drop=[WAITING])
    assert (await states(database, account))[WAITING] == "b"
    await change(database, account, add=[IMEI], kind=Kind.IMEI)
    assert (await states(database, account))[WAITING] == "w"
    async with database.read() as tx:
        assert await whitelist.stands(tx, account.id, WAITING, IMEI)
        assert not await whitelist.stands(tx, account.id, WAITING, None)
        assert not await whitelist.stands(tx, account.id, FRESH, "2" * 15)
        assert not await whitelist.stands(tx, account.id, IMEI, FRESH), "a uid is no IMEI"


async def test_a_list_is_its_accounts_alone(database: Database) -> None:
    account, other = await make_three(database), await make_account(database, OTHER_KEY)
    await change(database, other, add=[WAITING])
    await change(database, other, add=[IMEI], kind=Kind.IMEI)
    assert (await states(database, account))[WAITING] == "b"
    async with database.read() as tx:
        assert not await whitelist.stands(tx, account.id, WAITING, IMEI)
        assert await whitelist.has_foreign(tx, other.id, ["00000000000000ff", WAITING])
        assert not await whitelist.has_foreign(tx, other.id, ["00000000000000ff"]), "nobody's yet"
        assert not await whitelist.has_foreign(tx, account.id, [WAITING])
        assert (await whitelist.page(tx, account.id, 1)).total == 0
        theirs = await whitelist.page(tx, other.id, 1)
    assert [(each.value, each.profile) for each in theirs.records] == [(WAITING, None), (IMEI, None)]


async def test_an_entry_names_the_device_profile_of_its_module(database: Database) -> None:
    account = await make_three(database)
    profile = await make_profile(database, account)
    await execute(database, "UPDATE module SET profile_id = $1, imei = $2 WHERE uid <> $3", profile, IMEI, FRESH)
    await change(database, account, add=[FRESH, ACTIVE])
    await change(database, account, add=[IMEI], kind=Kind.IMEI)
    await change(database, account, add=[ACTIVE])
    async with database.read() as tx:
        assert await whitelist.page(tx, account.id, 1) == Page(
            [
                Entry(Kind.UID, FRESH, NOW, None),
                Entry(Kind.UID, ACTIVE, NOW, PROFILE),
                Entry(Kind.IMEI, IMEI, NOW, PROFILE),
            ],
            1,
            3,
        )


async def test_entries_that_stand_keep_their_date(database: Database) -> None:
    account = await make_account(database)
    await change(database, account, add=[FRESH])
    async with database.begin() as tx:
        await whitelist.add(tx, account.id, Kind.UID, [FRESH, FRESH, WAITING], now=NOW + timedelta(days=1))
    async with database.read() as tx:
        found = (await whitelist.page(tx, account.id, 1)).records
    assert [(each.value, each.created_at.day) for each in found] == [(FRESH, 6), (WAITING, 7)]


async def test_many_who_change_the_list_at_once_neither_wait_in_a_circle_nor_lose_anything(database: Database) -> None:
    account = await make_account(database)
    uids = [f"{number:016x}" for number in range(40)]
    await make_devices(database, account, uids)
    await asyncio.gather(
        *(change(database, account, add=uids[: 20 + n] if n % 2 else uids[::-1][: 20 + n]) for n in range(8)),
        *(change(database, account, add=[f"{n:015}"], kind=Kind.IMEI) for n in range(8)),
    )
    async with database.read() as tx:
        assert (await whitelist.page(tx, account.id, 1)).total == 48
        assert await tx.db.fetchval("SELECT count(*) FROM module WHERE whitelisted") == 40


async def test_whoever_makes_an_imei_known_and_whoever_lists_it_see_each_other(database: Database) -> None:
    account = await make_account(database)
    (device,) = await make_devices(database, account, [FRESH])

    async def somebody_waits() -> bool:
        async with database.read() as tx:
            return bool(await tx.db.fetchval(WAITERS))

    async with database.begin() as tx:
        await whitelist.keep(tx, account.id)
        assert not await whitelist.stands(tx, account.id, FRESH, IMEI)
        await modules.update(tx, device, {"imei": IMEI})
        listing = asyncio.create_task(change(database, account, add=[IMEI], kind=Kind.IMEI))
        await until(somebody_waits, "the change of the list to wait")
    await listing
    assert await states(database, account) == {FRESH: "w"}
