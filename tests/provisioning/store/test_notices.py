"""provisioning/store/notices.py"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioning.core.watch import Doubt
from provisioning.model.account import Account
from provisioning.store import notices, suspicions, tags
from provisioning.store.database import Database
from provisioning.store.lists import Page
from provisioning.store.notices import By, Chosen, Span
from tests.provisioning.store.registry import execute
from tests.ublox import OTHER_KEY, make_account, make_devices, make_profile

pytestmark = pytest.mark.server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
EVER = Span(NOW - 1_000 * DAY, NOW + DAY)
UIDS = ["0002000089280087", "0002000089280088", "0002000089280089"]
FOREIGN = "0002000089290001"


@dataclass(frozen=True)
class Fleet:
    """Three modules of an account: the first is of a profile, the second and third have a tag. And one of another's."""

    account: Account
    ids: list[int]
    foreign: int
    profile: int

    def of(self, *numbers: int) -> Chosen:
        return Chosen(self.account.id, By.IDS, [self.ids[number] for number in numbers])

    @property
    def tagged(self) -> Chosen:
        return Chosen(self.account.id, By.TAGS, ["downtown", "no such"])

    def profiled(self, profile: int | None) -> Chosen:
        return Chosen(self.account.id, By.PROFILE, profile)


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    account, other = await make_account(database), await make_account(database, OTHER_KEY)
    ids = await make_devices(database, account, UIDS)
    (foreign,) = await make_devices(database, other, [FOREIGN])
    profile = await make_profile(database, account)
    await execute(database, "UPDATE module SET profile_id = $1 WHERE device_id = $2", profile, ids[0])
    async with database.begin() as tx:
        for owner, devices in ((account, ids[1:]), (other, [foreign])):
            await tags.add(tx, owner.id, "downtown", "downtown", now=NOW)
            (tag,) = await tags.find(tx, owner.id, ["downtown"])
            await tags.assign_modules(tx, [tag.id], devices, sync=False)
    return Fleet(account, ids, foreign, profile)


def uids(page: Page[Any]) -> list[str]:
    assert page.total == len(page.records)
    return [row.uid for row in page.records]


async def test_notifications_are_listed_by_module_time_and_kind(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        for hours, (device, kind) in enumerate(
            [(fleet.ids[1], "INFO"), (fleet.ids[0], "ERROR"), (fleet.ids[2], "INFO"), (fleet.foreign, "INFO")]
        ):
            await notices.add_notification(tx, device, kind, {"Number": hours}, NOW - timedelta(hours=hours))

        async def listed(chosen: Chosen, span: Span = EVER, kind: str | None = None) -> list[str]:
            return uids(await notices.notifications(tx, chosen, span, kind, 1))

        assert await listed(fleet.of(0, 1, 2)) == [UIDS[2], UIDS[0], UIDS[1]], "the oldest first"
        assert await listed(fleet.of(0, 1, 2), kind="INFO") == [UIDS[2], UIDS[1]]
        assert await listed(fleet.of(0)) == [UIDS[0]]
        assert await listed(Chosen(fleet.account.id, By.IDS, [fleet.foreign])) == [], "another account's"
        assert await listed(fleet.tagged) == [UIDS[2], UIDS[1]]
        hour = timedelta(hours=1)
        assert await listed(fleet.of(0, 1, 2), Span(NOW - 2 * hour, NOW)) == [UIDS[2], UIDS[0]], (
            "not what is at the end"
        )
        first = (await notices.notifications(tx, fleet.of(2), EVER, None, 1)).records[0]
    assert (first.kind, first.at, first.payload) == ("INFO", NOW - 2 * hour, {"Number": 2})


async def test_pages_end_where_the_list_does(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        for number in range(201):
            await notices.add_activity(tx, fleet.ids[0], str(number), NOW)
        await notices.add_activity(tx, fleet.ids[1], "another's", NOW)
        found = {
            number: await notices.activities(tx, fleet.ids[0], EVER, number) for number in (1, 2, 3, 4, 10**9, 10**18)
        }
    assert {page.total for page in found.values()} == {201}
    assert [len(page.records) for page in found.values()] == [100, 100, 1, 0, 0, 0]
    told = [row.command for number in (1, 2, 3) for row in found[number].records]
    assert told == [str(number) for number in range(201)], "at the same time: in the order in which they were written"


async def test_activities_have_results_and_details(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        await notices.add_activity(tx, fleet.ids[0], "INSTALL", NOW, result="ERROR", details={"Id": 7})
        await notices.add_activity(tx, fleet.ids[0], "BEAT", NOW - DAY)
        page = await notices.activities(tx, fleet.ids[0], EVER, 1)
        assert [(row.command, row.result, row.details) for row in page.records] == [
            ("BEAT", "OK", {}), ("INSTALL", "ERROR", {"Id": 7})
        ]  # fmt: skip
        assert (await notices.activities(tx, fleet.ids[0], Span(NOW - DAY, NOW), 1)).total == 1


async def test_clone_events_are_listed_by_module_tag_and_profile(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        for number, device in enumerate(fleet.ids):
            at = NOW - number * DAY
            await notices.add_clone_event(tx, fleet.account.id, device, f"R{number}", at, source="192.0.2.7", imei="1")

        async def listed(chosen: Chosen, span: Span = EVER) -> list[str]:
            return uids(await notices.clone_events(tx, chosen, span, 1))

        assert await listed(fleet.of(0, 1)) == [UIDS[1], UIDS[0]]
        assert await listed(fleet.tagged) == [UIDS[2], UIDS[1]]
        assert await listed(fleet.profiled(fleet.profile)) == [UIDS[0]]
        assert await listed(fleet.profiled(None)) == [UIDS[2], UIDS[1]], "those without a profile"
        assert await listed(fleet.profiled(None), Span(NOW - DAY, NOW)) == [UIDS[1]]
        (first,) = (await notices.clone_events(tx, fleet.of(2), EVER, 1)).records
        assert (first.reason, first.source, first.imei, first.at) == ("R2", "192.0.2.7", "1", NOW - 2 * DAY)
        assert (await notices.clone_events(tx, fleet.profiled(None), EVER, 10**18)).total == 2


async def test_suspicions_are_listed_by_module_with_those_that_share_them(database: Database, fleet: Fleet) -> None:
    account, ids = fleet.account, fleet.ids
    await execute(database, "UPDATE module SET serial = 'S', bootstrapped_at = now() WHERE device_id <> $1", ids[2])
    await execute(database, "UPDATE module SET production_serial = 'P' WHERE device_id = ANY($1)", ids[1:])
    async with database.begin() as tx:
        await suspicions.add(tx, Doubt.SERIAL, [(account.id, ids[0], "S")], NOW)
        await suspicions.add(tx, Doubt.PRODUCTION_SERIAL, [(account.id, ids[2], "P")], NOW - DAY)

        async def listed(chosen: Chosen) -> list[str]:
            return uids(await notices.suspicions(tx, chosen, 1))

        assert await listed(fleet.of(2, 0)) == [UIDS[0], UIDS[2]], "in the order of their ids"
        assert await listed(fleet.tagged) == UIDS[1:]
        assert await listed(fleet.profiled(fleet.profile)) == UIDS[:1]
        assert await listed(fleet.profiled(None)) == UIDS[1:]
        assert await listed(Chosen(account.id, By.IDS, [fleet.foreign])) == []
        (both,) = (await notices.suspicions(tx, fleet.of(1), 1)).records
        past = await notices.suspicions(tx, fleet.of(0, 1, 2), 10**18)
    assert both.reasons == sorted([Doubt.SERIAL, Doubt.PRODUCTION_SERIAL])
    assert both.related == [UIDS[0], UIDS[2]], "of its own account alone"
    assert both.detected_at == NOW - DAY, "since the first reason came up"
    assert (past.records, past.total) == ([], 3)


async def test_of_many_that_share_a_serial_number_some_are_named(database: Database, fleet: Fleet) -> None:
    more = await make_devices(database, fleet.account, [f"{number:016x}" for number in range(102)], serial="same")
    async with database.begin() as tx:
        await suspicions.add(tx, Doubt.PRODUCTION_SERIAL, [(fleet.account.id, device, "same") for device in more], NOW)
        chosen = Chosen(fleet.account.id, By.PROFILE, None)
        first, second = [await notices.suspicions(tx, chosen, number) for number in (1, 2)]
    assert [(page.total, len(page.records)) for page in (first, second)] == [(102, 100), (102, 2)]
    assert len(first.records[0].related) == notices.MOST_RELATED
    assert first.records[0].uid not in first.records[0].related


async def test_what_is_old_goes(database: Database, fleet: Fleet) -> None:
    device = fleet.ids[0]
    async with database.begin() as tx:
        for days in (399, 401, 402):
            at = NOW - days * DAY
            await notices.add_notification(tx, device, "INFO", {}, at)
            await notices.add_activity(tx, device, "BEAT", at)
            await notices.add_clone_event(tx, fleet.account.id, device, "R", at, source="192.0.2.7")
        done = [await notices.prune(tx, now=NOW, limit=4, keep_days=400) for _ in range(3)]
        left = [
            (await notices.notifications(tx, fleet.of(0), EVER, None, 1)).total,
            (await notices.activities(tx, device, EVER, 1)).total,
            (await notices.clone_events(tx, fleet.of(0), EVER, 1)).total,
        ]
    assert (done, left) == ([4, 2, 0], [1, 1, 1])
