"""provisioning/store/tags.py"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import lists, modules, tags
from provisioning.store.database import Database
from tests.conftest import until
from tests.ublox import OTHER_KEY, make_account, make_devices, make_profile

NOW = datetime(2026, 5, 6, tzinfo=UTC)
UIDS = ["0000000000000001", "0000000000000002", "0000000000000003"]
WAITERS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def make_tags(database: Database, account: Account, *names: str) -> list[int]:
    async with database.begin() as tx:
        for name in names:
            await tags.add(tx, account.id, name, name.casefold(), now=NOW)
        return [tag.id for tag in await tags.find(tx, account.id, [name.casefold() for name in names])]


async def assign(database: Database, tag_ids: Sequence[int], device_ids: Sequence[int]) -> None:
    async with database.begin() as tx:
        await tags.assign_modules(tx, tag_ids, device_ids, sync=False)


async def counts(database: Database, account: Account) -> dict[str, tuple[int, int]]:
    async with database.read() as tx:
        found = await tags.page(tx, account.id, 1)
    assert found.total == len(found.records)
    return {tag.name: (tag.modules, tag.profiles) for tag in found.records}


async def test_a_name_is_taken_once_in_an_account_however_it_is_written(database: Database) -> None:
    account, other = await make_account(database), await make_account(database, OTHER_KEY)
    await make_tags(database, account, "Straße")
    await make_tags(database, other, "STRASSE")
    with pytest.raises(Refusal) as caught:
        await make_tags(database, account, "STRASSE")
    assert (caught.value.reason, caught.value.detail) == (Reason.DUPLICATE, {"field": "TagName"})
    async with database.read() as tx:
        (mine,) = (await tags.page(tx, account.id, 1)).records
        assert (mine.name, mine.folded, mine.created_at) == ("Straße", "strasse", NOW)
        assert [tag.name for tag in await tags.find(tx, other.id, ["strasse"])] == ["STRASSE"]


async def test_tags_come_and_go_from_modules_and_profiles(database: Database) -> None:
    account, other = await make_account(database), await make_account(database, OTHER_KEY)
    ids = await make_devices(database, account, UIDS)
    profile = await make_profile(database, account)
    a, b = await make_tags(database, account, "a", "b")
    (theirs,) = await make_tags(database, other, "a")
    foreign = await make_devices(database, other, ["00000000000000ff"])
    await assign(database, [theirs], foreign)
    await assign(database, [b, a], ids[::-1])
    await assign(database, [a], ids)
    async with database.begin() as tx:
        await tags.assign_profiles(tx, [a, b], [profile], sync=True)
        await tags.assign_profiles(tx, [a], [profile], sync=True)
    assert await counts(database, account) == {"a": (3, 1), "b": (3, 1)}
    async with database.begin() as tx:
        assert await tx.db.fetchval("SELECT bool_and(sync) FROM tag_profile")
        await tags.remove_modules(tx, account.id, ["a", "nobody's"], ids[:2])
        await tags.remove_profiles(tx, account.id, ["b"], None)
    assert await counts(database, account) == {"a": (1, 1), "b": (3, 0)}
    async with database.begin() as tx:
        assert await modules.tagged_ids(tx, account.id, ["a", "b"], 10) == ids, "each once"
        assert await modules.tagged_ids(tx, account.id, ["a", "b"], 2) == ids[:2]
        assert await modules.tagged_ids(tx, other.id, ["b"], 10) == []
        await tags.remove_modules(tx, account.id, None, ids[2:])
    assert await counts(database, account) == {"a": (0, 1), "b": (2, 0)}
    async with database.begin() as tx:
        await tags.remove_modules(tx, account.id, None, None)
        await tags.remove_profiles(tx, account.id, None, [profile])
    assert await counts(database, account) == {"a": (0, 0), "b": (0, 0)}
    assert await counts(database, other) == {"a": (1, 0)}, "nothing of another account was touched"


async def test_what_is_deleted_leaves_no_assignment(database: Database) -> None:
    account = await make_account(database)
    ids = await make_devices(database, account, UIDS)
    profile = await make_profile(database, account)
    a, b = await make_tags(database, account, "a", "b")
    await assign(database, [a, b], ids)
    async with database.begin() as tx:
        await tags.assign_profiles(tx, [a], [profile], sync=False)
        await tx.db.execute("DELETE FROM device WHERE id = $1", ids[0])
        tag = await tags.hold(tx, account.id, "a")
        assert tag is not None
        assert await tags.has_modules(tx, tag)
        await tags.delete(tx, tag)
        assert await tx.db.fetchval("SELECT count(*) FROM tag_profile") == 0
        assert await tags.hold(tx, account.id, "a") is None
    assert await counts(database, account) == {"b": (2, 0)}


async def test_pages_are_in_the_order_of_making(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGE_SIZE", 2)
    account = await make_account(database)
    await make_tags(database, account, "c", "a", "b")
    async with database.read() as tx:
        pages = [await tags.page(tx, account.id, number) for number in (1, 2, 3, 10**18)]
    assert [[tag.name for tag in page.records] for page in pages] == [["c", "a"], ["b"], [], []]
    assert {page.total for page in pages} == {3}


async def test_many_who_assign_and_remove_at_once_do_not_wait_in_a_circle(database: Database) -> None:
    account = await make_account(database)
    ids = await make_devices(database, account, [f"{number:016x}" for number in range(30)])
    names = [f"t{number}" for number in range(6)]
    tag_ids = await make_tags(database, account, *names)

    async def remove() -> None:
        async with database.begin() as tx:
            await tags.remove_modules(tx, account.id, names[::-1], ids[::-1])

    for _ in range(3):
        await asyncio.gather(
            *(assign(database, tag_ids[::-1] if n % 2 else tag_ids, ids[::-1] if n % 3 else ids) for n in range(6)),
            *(remove() for _ in range(3)),
        )
    await asyncio.gather(*(assign(database, [tag], ids) for tag in tag_ids for _ in range(2)))
    assert await counts(database, account) == dict.fromkeys(names, (30, 0))


async def test_a_tag_is_not_deleted_while_somebody_assigns_it(database: Database) -> None:
    account = await make_account(database)
    ids = await make_devices(database, account, UIDS)
    await make_tags(database, account, "a")

    async def is_assigned() -> bool:
        async with database.begin() as tx:
            tag = await tags.hold(tx, account.id, "a")
            assert tag is not None
            return await tags.has_modules(tx, tag)

    async def somebody_waits() -> bool:
        async with database.read() as tx:
            return bool(await tx.db.fetchval(WAITERS))

    async with database.begin() as tx:
        (tag,) = await tags.keep(tx, account.id, ["a"])
        deleting = asyncio.create_task(is_assigned())
        await until(somebody_waits, "the deletion to wait")
        await tags.assign_modules(tx, [tag.id], ids, sync=False)
    assert await deleting
