"""provisioning/store/lists.py, and the triggers of the migration that keep its table."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from provisioning.core import accounts
from provisioning.model.account import Account
from provisioning.protocols.ublox.wire import PROTOCOL
from provisioning.store import lists, modules, tags, whitelist
from provisioning.store.database import Database, Tx
from provisioning.store.lists import List
from provisioning.store.whitelist import Kind
from tests.ublox import KEY, OTHER_KEY, make_account, make_devices, make_profile

NOW = datetime(2026, 5, 6, tzinfo=UTC)
SIZE = 4
CONTENTS = {
    List.MODULES: "SELECT account_id AS owner, device_id AS id FROM module",
    List.WHITELISTED: "SELECT account_id AS owner, device_id AS id FROM module WHERE whitelisted",
    List.BLACKLISTED: "SELECT account_id AS owner, device_id AS id FROM module WHERE blacklisted",
    List.OF_PROFILE: "SELECT profile_id AS owner, device_id AS id FROM module WHERE profile_id IS NOT NULL",
    List.UNATTRIBUTED: "SELECT account_id AS owner, device_id AS id FROM module WHERE profile_id IS NULL",
    List.WHITELIST: "SELECT account_id AS owner, id FROM whitelist",
    List.TAGGED: "SELECT tag_id AS owner, device_id AS id FROM tag_module",
    List.ISSUED: "SELECT issuer_id AS owner, device_id AS id FROM module WHERE issuer_id IS NOT NULL",
}
ADD_ROOT_CA = """
    WITH added AS (
        INSERT INTO authority (name, generation, certificate, key_type, serial, subject, not_before, not_after,
                               of_account)
        VALUES ('r' || md5($2), 1, $2::text::bytea, 'ec', '01', $2, $3, '9999-01-01Z', true) RETURNING id
    )
    INSERT INTO root_ca (account_id, name, authority_id, ca_days, device_days, created_at)
    SELECT $1, $2, id, 3650, 365, $3 FROM added RETURNING id
"""
SKIP_IDS = """
    SELECT setval(pg_get_serial_sequence('device', 'id'), nextval(pg_get_serial_sequence('device', 'id')) + $1),
           setval(pg_get_serial_sequence('whitelist', 'id'), nextval(pg_get_serial_sequence('whitelist', 'id')) + $1)
"""


async def contents(tx: Tx, which: List) -> dict[int, list[int]]:
    found = dict[int, list[int]]()
    for row in await tx.db.fetch(f"{CONTENTS[which]} ORDER BY 1, 2"):
        found.setdefault(row["owner"], []).append(row["id"])
    return found


async def check(tx: Tx, former: dict[List, set[int]]) -> None:
    """Every page of every list is where `locate` says, and so are the pages of lists that have become empty."""
    for which in List:
        now = await contents(tx, which)
        former[which] |= now.keys()
        for owner in former[which]:
            ids = now.get(owner, [])
            for number in range(1, len(ids) // SIZE + 3):
                place = await lists.locate(tx, which, owner, number, SIZE)
                assert place.total == len(ids), f"{which.name} of {owner}"
                page = [] if place.first is None else [each for each in ids if each >= place.first]
                there = ids[(number - 1) * SIZE : number * SIZE]
                assert (place.first is None) == (not there), f"{which.name} of {owner}, page {number}: {place}"
                assert page[place.skip : place.skip + SIZE] == there, f"{which.name} of {owner}, page {number}: {place}"
        if which in lists.LENGTH_OF:
            lengths = await lists.lengths(tx, which, list(former[which]))
            assert {owner: n for owner, n in lengths.items() if n} == {owner: len(ids) for owner, ids in now.items()}


@dataclass
class Fleet:
    """Does anything that changes a list."""

    database: Database
    account: Account
    chance: random.Random
    devices: list[int] = field(default_factory=list)
    uids: dict[int, str] = field(default_factory=dict)
    profiles: list[int] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    root_cas: list[int] = field(default_factory=list)
    made: int = 0

    def some(self, most: int = 5) -> list[int]:
        return self.chance.sample(self.devices, min(len(self.devices), self.chance.randint(1, most)))

    def new(self) -> int:
        self.made += 1
        return self.account.id * 1_000_000 + self.made

    async def add_devices(self, tx: Tx) -> None:
        await tx.db.execute(SKIP_IDS, self.chance.choice((0, 1, 300, 900)))
        uids = [f"{self.new():016x}" for _ in range(self.chance.randint(1, 6))]
        added = await make_devices(self.database, self.account, uids)
        self.devices += added
        self.uids |= dict(zip(added, uids, strict=True))

    async def add_profile(self, _: Tx) -> None:
        self.profiles.append(await make_profile(self.database, self.account, f"p{self.new()}"))

    async def add_tag(self, tx: Tx) -> None:
        self.tags.append(f"t{self.new()}")
        await tags.add(tx, self.account.id, self.tags[-1], self.tags[-1], now=NOW)

    async def add_root_ca(self, tx: Tx) -> None:
        self.root_cas.append(await tx.db.fetchval(ADD_ROOT_CA, self.account.id, f"ca{self.new()}", NOW))

    async def bootstrap(self, tx: Tx) -> None:
        for each in self.some():
            changes = {
                "bootstrapped_at": NOW, "blacklisted": self.chance.random() < 0.5,
                "imei": self.chance.choice(("1" * 15, "2" * 15, None)),
                "profile_id": self.chance.choice((None, *self.profiles)),
            }  # fmt: skip
            await modules.update(tx, each, changes)

    async def issue(self, tx: Tx) -> None:
        for each in self.some():
            await modules.update(tx, each, {"issuer_id": self.chance.choice((None, *self.root_cas))})

    async def change_whitelist(self, tx: Tx) -> None:
        uids = [self.uids[each] for each in self.some()] + [f"{self.chance.randint(1, 10**9):016x}"]
        imeis = self.chance.sample(("1" * 15, "2" * 15, "3" * 15), 1)
        for kind, values in ((Kind.UID, uids), (Kind.IMEI, imeis)):
            if self.chance.random() < 0.6:
                await whitelist.add(tx, self.account.id, kind, values, now=NOW)
            else:
                await whitelist.drop(tx, self.account.id, kind, values)
        await whitelist.settle(tx, self.account.id, uids, imeis)

    async def assign(self, tx: Tx) -> None:
        found = await tags.keep(tx, self.account.id, self.chance.sample(self.tags, min(2, len(self.tags))))
        await tags.assign_modules(tx, [tag.id for tag in found], self.some(12), sync=False)

    async def remove(self, tx: Tx) -> None:
        names = None if self.chance.random() < 0.1 else self.tags[:2]
        await tags.remove_modules(
            tx, self.account.id, names, None if names and self.chance.random() < 0.1 else self.some()
        )

    async def delete_devices(self, tx: Tx) -> None:
        gone = self.some(4)
        await tx.db.execute("DELETE FROM device WHERE id = ANY($1)", gone)
        self.devices = [each for each in self.devices if each not in gone]

    async def delete_profile(self, tx: Tx) -> None:
        if self.profiles:
            gone = self.profiles.pop(0)
            await tx.db.execute("UPDATE module SET profile_id = NULL WHERE profile_id = $1", gone)
            await tx.db.execute("DELETE FROM enrolment_group WHERE id = $1", gone)

    async def delete_tag(self, tx: Tx) -> None:
        if self.tags:
            tag = await tags.hold(tx, self.account.id, self.tags.pop(0))
            assert tag is not None
            await tags.delete(tx, tag)

    async def delete_root_ca(self, tx: Tx) -> None:
        if self.root_cas:
            gone = self.root_cas.pop(0)
            await tx.db.execute("UPDATE module SET issuer_id = NULL WHERE issuer_id = $1", gone)
            await tx.db.execute("DELETE FROM root_ca WHERE id = $1", gone)

    async def compact(self, tx: Tx) -> None:
        await lists.compact(tx, now=NOW, limit=self.chance.choice((1, 5, 1_000)))

    def step(self) -> Callable[[Tx], Awaitable[None]]:
        often = (self.add_devices, self.bootstrap, self.change_whitelist, self.assign, self.issue)
        seldom = (
            self.remove, self.delete_devices, self.delete_profile, self.delete_tag, self.delete_root_ca, self.compact,
        )  # fmt: skip
        for made, add in (
            (self.profiles, self.add_profile), (self.tags, self.add_tag), (self.root_cas, self.add_root_ca),
        ):  # fmt: skip
            if len(made) < 2:
                return add
        return self.chance.choice(often * 2 + seldom)


async def test_lists_are_counted_and_paged_right_after_whatever_changes_them(database: Database) -> None:
    chance = random.Random(20)
    former: dict[List, set[int]] = {which: set() for which in List}
    fleets = [Fleet(database, await make_account(database, key), chance) for key in (KEY, OTHER_KEY)]
    for number in range(200):
        step = chance.choice(fleets).step()
        async with database.begin() as tx:
            await step(tx)
        if number % 10 == 9:
            async with database.snapshot() as tx:
                await check(tx, former)
    assert all(len(owners) >= 2 for owners in former.values()), "the steps have filled every list"

    async with database.begin() as tx:
        await accounts.delete(tx, PROTOCOL, KEY, cascade=True, now=NOW)
    async with database.begin() as tx:
        await check(tx, former)
        before = await tx.db.fetchval("SELECT count(*) FROM tally")
        assert await lists.compact(tx, now=NOW) > 0
        assert await tx.db.fetchval("SELECT count(*) FROM tally") < before
        assert await tx.db.fetchval("SELECT count(*) - count(DISTINCT (kind, owner, bucket)) FROM tally") == 0
        assert await tx.db.fetchval("SELECT count(*) FROM tally WHERE n <= 0") == 0, "nothing is kept of empty buckets"
        await check(tx, former)
        assert await lists.compact(tx, now=NOW) == 0


@pytest.mark.parametrize("number", [10**9, 10**18])
async def test_a_page_far_past_the_end_is_empty(database: Database, number: int) -> None:
    account = await make_account(database)
    await make_devices(database, account, ["0000000000000001"])
    async with database.read() as tx:
        assert await lists.locate(tx, List.MODULES, account.id, number) == lists.Place(1, None)
        assert await modules.page(tx, List.MODULES, account.id, number) == lists.Page([], number, 1)
        assert await whitelist.page(tx, account.id, number) == lists.Page([], number, 0)


async def test_two_who_make_sums_at_once_lose_nothing(database: Database) -> None:
    account = await make_account(database)
    for number in range(20):
        await make_devices(database, account, [f"{number:016x}"])

    async def compact() -> int:
        async with database.begin() as tx:
            return await lists.compact(tx, now=NOW)

    await asyncio.gather(*(compact() for _ in range(4)))
    async with database.read() as tx:
        assert (await lists.locate(tx, List.MODULES, account.id, 1)).total == 20
        assert [row["n"] for row in await tx.db.fetch("SELECT n FROM tally WHERE kind = 1")] == [20]
