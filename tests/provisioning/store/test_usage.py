"""provisioning/store/usage.py"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pytest

from provisioning.store import tags, usage
from provisioning.store.database import Database
from provisioning.store.usage import Days
from tests.ublox import OTHER_KEY, make_account, make_devices

pytestmark = pytest.mark.server

NOON = datetime(2026, 3, 2, 12, 0, 30, 700_000, tzinfo=UTC)
TODAY, YESTERDAY = date(2026, 3, 2), date(2026, 3, 1)
FIRST, SECOND = "0002000089280087", "000200008928c093"
MINUTE = timedelta(minutes=1)


async def count(database: Database, of: tuple[int, int], kind: str, at: datetime, times: int = 1) -> None:
    for _ in range(times):
        async with database.begin() as tx:
            await usage.count(tx, *of, kind, at)


async def test_uses_are_summed_by_device_kind_and_day(database: Database) -> None:
    account, other = await make_account(database), await make_account(database, OTHER_KEY)
    ids = await make_devices(database, account, [FIRST, SECOND])
    foreign = await make_devices(database, other, ["0002000089280099"])
    async with database.begin() as tx:
        await tags.add(tx, account.id, "Downtown", "downtown", now=NOON)
        (tag,) = await tags.find(tx, account.id, ["downtown"])
        await tags.assign_modules(tx, [tag.id], [ids[1]], sync=False)
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    await count(database, (account.id, ids[0]), "Key", NOON, 2)
    await count(database, (account.id, ids[0]), "Key", midnight)
    await count(database, (account.id, ids[0]), "Key", midnight - timedelta(microseconds=1))
    await count(database, (account.id, ids[0]), "Other", NOON + MINUTE)
    await count(database, (account.id, ids[1]), "Key", NOON)
    await count(database, (other.id, foreign[0]), "Key", NOON)
    await asyncio.gather(*(count(database, (account.id, ids[1]), "Same", NOON) for _ in range(5)))
    everything = Days(YESTERDAY, TODAY)
    expected = {FIRST: {"Key": 4, "Other": 1}, SECOND: {"Key": 1, "Same": 5}}

    async def sums(
        days: Days, now: datetime, limit: int = 10, ids: list[int] | None = None, tags: list[str] | None = None
    ) -> Mapping[str, Mapping[str, int]]:
        async with database.read() as tx:
            return await usage.sums(tx, account.id, days, now=now, limit=limit, ids=ids, tags=tags)

    async def check() -> None:
        late = NOON + timedelta(hours=2)
        assert await sums(everything, late) == expected
        assert await sums(everything, late, limit=1) == {FIRST: expected[FIRST]}
        assert await sums(everything, late, ids=[ids[0], foreign[0]]) == {FIRST: expected[FIRST]}
        assert await sums(everything, late, tags=["downtown", "none"]) == {SECOND: expected[SECOND]}
        assert await sums(everything, late, ids=[]) == await sums(everything, late, tags=["none"]) == {}
        assert await sums(Days(YESTERDAY, YESTERDAY), late) == {FIRST: {"Key": 1}}
        assert await sums(Days(TODAY, TODAY), late) == {**expected, FIRST: {"Key": 3, "Other": 1}}

    await check()
    assert await sums(Days(TODAY, TODAY), NOON + timedelta(minutes=4, seconds=59)) == {FIRST: {"Key": 1}}, "too young"
    assert await sums(Days(TODAY, TODAY), NOON + timedelta(minutes=5), ids=[ids[1]]) == {SECOND: expected[SECOND]}

    done = []
    for now in (NOON + timedelta(minutes=10), *[NOON + timedelta(minutes=12)] * 3):
        async with database.begin() as tx:
            done.append(await usage.compact(tx, now=now, limit=3))
    assert done == [3, 3, 0, 0], "the seconds, of both accounts, oldest first; what stands at midnight is a day already"
    await check()
    async with database.begin() as tx:
        rows = await tx.db.fetch("SELECT DISTINCT at FROM usage ORDER BY at")
        assert [row["at"] for row in rows] == [midnight - timedelta(days=1), midnight]
        assert await usage.compact(tx, now=NOON + timedelta(days=1), limit=3) == 0


async def test_what_is_young_stays_as_it_is(database: Database) -> None:
    account = await make_account(database)
    (device,) = await make_devices(database, account, [FIRST])
    await count(database, (account.id, device), "Key", NOON)
    async with database.begin() as tx:
        assert await usage.compact(tx, now=NOON + timedelta(minutes=9), limit=3) == 0


async def test_old_usage_goes(database: Database) -> None:
    account = await make_account(database)
    (device,) = await make_devices(database, account, [FIRST])
    for days in (0, 89, 91, 92, 93):
        await count(database, (account.id, device), "Key", NOON - timedelta(days=days))
    async with database.begin() as tx:
        assert [await usage.prune(tx, now=NOON, limit=2) for _ in range(3)] == [2, 1, 0]
        left = await tx.db.fetch("SELECT at FROM usage ORDER BY at")
    assert [(NOON - row["at"]).days for row in left] == [89, 0]
