"""provisioning/store/profiles.py"""

import asyncio
from datetime import UTC, datetime

import pytest

from provisioning.store import lists, profiles, tags
from provisioning.store.database import Database
from tests.provisioning.store.registry import execute
from tests.ublox import OTHER_KEY, PROFILE, make_account, make_devices, make_profile

NOW = datetime(2026, 5, 6, tzinfo=UTC)


async def test_profiles_are_listed_with_devices_and_tags(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGE_SIZE", 2)
    account, other = await make_account(database), await make_account(database, OTHER_KEY)
    eu = await make_profile(database, account)
    us = await make_profile(database, account, "us", name="meters-us", whitelist_check=False)
    await make_profile(database, account, "eu2")
    await make_profile(database, other, "theirs")
    await make_devices(database, account, ["0000000000000001", "0000000000000002"])
    await execute(database, "UPDATE module SET profile_id = $1", eu)
    async with database.begin() as tx:
        for name in ("Z", "a"):
            await tags.add(tx, account.id, name, name.casefold(), now=NOW)
            await tags.add(tx, other.id, name, name.casefold(), now=NOW)
        z, a = await tags.find(tx, account.id, ["z", "a"])
        await tags.assign_profiles(tx, [z.id, a.id], [eu], sync=False)
        await tags.assign_profiles(tx, [a.id], [us], sync=False)
    async with database.read() as tx:
        first, second, third = [await profiles.page(tx, account.id, number) for number in (1, 2, 3)]
        assert [(each.key, each.name, each.whitelist_check, each.devices, each.tags) for each in first.records] == [
            (PROFILE, "meters-eu", True, 2, ("Z", "a")),
            ("us", "meters-us", False, 0, ("a",)),
        ]
        assert [each.key for each in second.records] == ["eu2"]
        assert (list(third.records), first.total, second.total, third.total) == ([], 3, 3, 3)
        named = await profiles.page(tx, account.id, 1, name="meters-eu")
        assert ([each.key for each in named.records], named.total) == ([PROFILE, "eu2"], 2)
        assert (await profiles.page(tx, account.id, 1, name="Meters-EU")).total == 0
        tagged = await profiles.page_tagged(tx, account.id, 1, ["z", "a", "none"])
        assert ([each.key for each in tagged.records], tagged.total) == ([PROFILE, "us"], 2)
        assert (await profiles.page_tagged(tx, other.id, 1, ["a"])).total == 0
        assert list(await profiles.find_all(tx, account.id, ["us", "theirs", "none"])) == ["us"]
        assert await profiles.find(tx, account.id, "theirs") is None


async def test_whoever_changes_a_profile_has_it_for_himself(database: Database) -> None:
    account = await make_account(database)
    await make_profile(database, account)

    async def add(name: str) -> None:
        async with database.begin() as tx:
            profile = await profiles.hold(tx, account.id, PROFILE)
            assert profile is not None
            await profiles.provision(tx, profile, {**profile.desired, name: ("ENABLED", NOW)}, None)

    await asyncio.gather(*(add(f"n{number}") for number in range(5)))
    async with database.begin() as tx:
        found = await profiles.find(tx, account.id, PROFILE)
        assert found is not None
        assert found.desired == {f"n{number}": ("ENABLED", NOW) for number in range(5)}
        assert await profiles.hold(tx, account.id, "none") is None
