"""provisioning/store/modules.py"""

import asyncio
from datetime import UTC, datetime, timedelta

from provisioning.model.module import Properties
from provisioning.store import lists, modules, tags
from provisioning.store.database import Database
from provisioning.store.lists import List, Page
from tests.conftest import until
from tests.provisioning.store.test_lists import ADD_ROOT_CA
from tests.provisioning.store.test_tags import WAITERS
from tests.ublox import OTHER_KEY, ROOT_SECRET, make_account, make_devices, make_profile

NOW = datetime(2026, 5, 6, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
UIDS = [f"{number:016x}" for number in range(1, 6)]


async def test_modules_are_found_in_their_account(database: Database) -> None:
    account, other = await make_account(database), await make_account(database, OTHER_KEY)
    ids = await make_devices(database, account, UIDS[:2], serial="S1", imei="1" * 15)
    await make_devices(database, other, UIDS[2:3])
    async with database.read() as tx:
        assert await modules.ids(tx, account.id, [UIDS[1], UIDS[2], "00000000000000ff"]) == {UIDS[1]: ids[1]}
        assert [each.uid for each in await modules.by_ids(tx, ids[::-1])] == UIDS[:2]
        assert set(await modules.by_uids(tx, UIDS)) == set(UIDS[:3])
        (found,) = (await modules.of_account(tx, account.id, UIDS[:1], with_secret=True)).values()
        assert (found.id, found.account_id, found.account) == (ids[0], account.id, account.key)
        assert (found.production_serial, found.imei, found.secret) == ("S1", "1" * 15, ROOT_SECRET.hex())
        assert await modules.by_uid(tx, "00000000000000ff") is None


async def test_every_list_has_pages(database: Database) -> None:
    account = await make_account(database)
    ids = await make_devices(database, account, UIDS)
    profile = await make_profile(database, account)
    async with database.begin() as tx:
        root_ca = await tx.db.fetchval(ADD_ROOT_CA, account.id, "ca", NOW)
        await modules.update(tx, ids[0], {"whitelisted": True})
        await modules.update(tx, ids[1], {"blacklisted": True})
        await modules.update(tx, ids[2], {"profile_id": profile})
        await modules.update(tx, ids[3], {"issuer_id": root_ca})
        await tags.add(tx, account.id, "t", "t", now=NOW)
        (tag,) = await tags.find(tx, account.id, ["t"])
        await tags.assign_modules(tx, [tag.id], [ids[4], ids[0]], sync=False)
    owners = {List.OF_PROFILE: profile, List.ISSUED: root_ca, List.TAGGED: tag.id}
    expected = {
        List.MODULES: UIDS, List.WHITELISTED: UIDS[:1], List.BLACKLISTED: UIDS[1:2], List.OF_PROFILE: UIDS[2:3],
        List.UNATTRIBUTED: [*UIDS[:2], *UIDS[3:]], List.TAGGED: [UIDS[0], UIDS[4]], List.ISSUED: UIDS[3:4],
    }  # fmt: skip
    assert expected.keys() == set(List) - {List.WHITELIST}
    async with database.read() as tx:
        for which, uids in expected.items():
            found = await modules.page(tx, which, owners.get(which, account.id), 1)
            assert found == Page(uids, 1, len(uids)), which.name
        assert (await modules.page(tx, List.MODULES, account.id, 2)).records == []


async def test_a_page_begins_where_the_one_before_has_ended(database: Database) -> None:
    account = await make_account(database)
    uids = [f"{number:016x}" for number in range(lists.PAGE_SIZE * 2 + 1)]
    await make_devices(database, account, uids)
    async with database.read() as tx:
        pages = [await modules.page(tx, List.MODULES, account.id, number) for number in (1, 2, 3, 4)]
    assert [len(page.records) for page in pages] == [100, 100, 1, 0]
    assert [uid for page in pages for uid in page.records] == uids


async def desired(database: Database, ids: list[int]) -> list[Properties]:
    async with database.read() as tx:
        return [each.desired for each in await modules.by_ids(tx, ids)]


async def test_what_is_wanted_again_keeps_its_date(database: Database) -> None:
    account = await make_account(database)
    a, b, untouched = await make_devices(database, account, UIDS[:3])
    async with database.begin() as tx:
        root_ca = await tx.db.fetchval(ADD_ROOT_CA, account.id, "ca", NOW)
        await modules.provision(tx, [a], {"X": ("ENABLED", NOW), "N": (3600, NOW), "CA": ("ca", NOW)}, root_ca)
        await modules.provision(tx, [b, a], {"X": ("ENABLED", LATER), "N": (7200, LATER)}, None)
    assert await desired(database, [a, b, untouched]) == [
        {"X": ("ENABLED", NOW), "N": (7200, LATER), "CA": ("ca", NOW)},
        {"X": ("ENABLED", LATER), "N": (7200, LATER)},
        {},
    ]
    async with database.begin() as tx:
        assert [each.desired_ca for each in await modules.by_ids(tx, [a, b])] == [root_ca, None]
        await modules.unprovision(tx, [a, untouched])
        assert [each.desired_ca for each in await modules.by_ids(tx, [a])] == [None]
    assert await desired(database, [a, untouched]) == [{}, {}]
    assert len((await desired(database, [b]))[0]) == 2


async def test_many_who_provision_at_once_lose_nothing(database: Database) -> None:
    account = await make_account(database)
    ids = await make_devices(database, account, UIDS)

    async def provision(number: int) -> None:
        async with database.begin() as tx:
            await modules.provision(tx, ids[::-1] if number % 2 else ids, {f"P{number}": (number, NOW)}, None)

    await asyncio.gather(*(provision(number) for number in range(8)))
    assert await desired(database, ids) == [{f"P{number}": (number, NOW) for number in range(8)}] * len(ids)


async def test_whoever_wants_the_same_at_once_leaves_the_date_of_the_first(database: Database) -> None:
    account = await make_account(database)
    ids = await make_devices(database, account, UIDS[:1])

    async def provision(at: datetime) -> None:
        async with database.begin() as tx:
            await modules.provision(tx, ids, {"X": ("ENABLED", at)}, None)

    async def somebody_waits() -> bool:
        async with database.read() as tx:
            return bool(await tx.db.fetchval(WAITERS))

    async with database.begin() as tx:
        await modules.provision(tx, ids, {"X": ("ENABLED", NOW)}, None)
        second = asyncio.create_task(provision(LATER))
        await until(somebody_waits, "the second to wait")
    await second
    assert await desired(database, ids) == [{"X": ("ENABLED", NOW)}]
