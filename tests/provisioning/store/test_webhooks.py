"""provisioning/store/webhooks.py"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from provisioning.model.account import Account
from provisioning.store import webhooks
from provisioning.store.database import Database
from provisioning.store.webhooks import Delivery, Limits, Result
from tests.certificates import notifications, run
from tests.conftest import until
from tests.provisioning.store.registry import execute
from tests.ublox import OTHER_KEY, make_account

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)
A, B = "https://a.example/", "https://b.example/"


@pytest.fixture
async def account(database: Database) -> Account:
    """It has a webhook of kind K at A and B, and one of kind L at A."""
    made = await make_account(database)
    for url, kind in ((A, "K"), (B, "K"), (A, "L")):
        await run(database, webhooks.add, made.id, url, kind, token=f"token {url}{kind}", now=NOW)
    return made


async def put(
    database: Database, account: Account, subject: str, body: str, *, kind: str = "K", at: datetime = NOW
) -> None:
    await run(database, webhooks.enqueue, account.id, kind=kind, subject=subject, body=body, now=at)


async def claim(
    database: Database,
    *,
    now: datetime = NOW,
    busy: Sequence[Delivery] = (),
    limits: Limits = Limits(100, 100, 100),  # noqa: B008 - it is frozen
) -> list[Delivery]:
    found, _ = await run(
        database, webhooks.claim, now=now, until=now + LEASE, lease=uuid4(), busy=list(busy), limits=limits
    )
    return list(found)


def result(of: Delivery, **more: Any) -> Result:
    return Result(lane=of.lane, lease=of.lease, id=of.id, **more)


async def finish(database: Database, *results: Result) -> set[int]:
    held: set[int] = await run(database, webhooks.finish, results)
    return held


async def bodies(database: Database, *, at: str = A, **more: Any) -> list[str]:
    return [each.body for each in await claim(database, **more) if each.url == at]


async def lanes(database: Database) -> int:
    async with database.read() as tx:
        return int(await tx.db.fetchval("SELECT count(*) FROM lane"))


async def test_a_delivery_for_each_webhook_that_wants_it(database: Database, account: Account) -> None:
    other = await make_account(database, OTHER_KEY)
    async with notifications(database.url) as heard:
        await put(database, account, "s", "1")
        await put(database, other, "s", "not theirs")
        await put(database, account, "s", "no webhook", kind="M")
        with suppress(ZeroDivisionError):
            async with database.begin() as tx:
                await webhooks.enqueue(tx, account.id, kind="K", subject="s", body="never happened", now=NOW)
                raise ZeroDivisionError
        await execute(database, """SELECT pg_notify('gatehouse', '{"mark":1}')""")
        await until(lambda: {"mark": 1} in heard, "the mark")
    assert heard == [{"change": "delivery"}, {"mark": 1}], "told when there is something, and only then"
    found = await claim(database)
    assert {(each.url, each.body, each.token, each.kind, each.subject) for each in found} == {
        (url, "1", f"token {url}K", "K", "s") for url in (A, B)
    }
    assert {(each.account, each.account_id, each.attempts) for each in found} == {(account.key, account.id, 0)}
    assert "token" not in repr(found)
    assert await claim(database) == [], "they are leased"
    assert await run(database, webhooks.depth) == (2, 0)


async def test_order(database: Database, account: Account) -> None:
    """Of one URL and one subject, whatever the kind; the others go on."""
    await put(database, account, "s", "1")
    await put(database, account, "s", "2", kind="L")
    await put(database, account, "t", "1t")
    await put(database, account, "s", "3")
    first, other = sorted((each for each in await claim(database) if each.url == A), key=lambda each: each.body)
    assert (first.body, other.body) == ("1", "1t")
    await finish(database, result(other))
    later = NOW + timedelta(minutes=1)
    await finish(database, result(first, due_at=later, error="e"))
    async with database.read() as tx:
        assert await webhooks.next_due(tx, NOW) == NOW + LEASE, "B's leases"
        assert await webhooks.next_due(tx, NOW + LEASE) == later
    assert await bodies(database, now=later - timedelta(seconds=1)) == []
    (again,) = [each for each in await claim(database, now=later) if each.url == A]
    assert (again.id, again.attempts) == (first.id, 1)
    await finish(database, result(again, dead_at=later, error="e"))
    (second,) = [each for each in await claim(database, now=later) if each.url == A]
    assert second.body == "2"
    await finish(database, result(second))
    (third,) = [each for each in await claim(database, now=later) if each.url == A]
    await finish(database, result(third))
    assert await lanes(database) == 2, "those at B"
    assert await run(database, webhooks.depth) == (3, 1)


async def test_limits_and_turns(database: Database, account: Account) -> None:
    """Neither a receiver nor an account with much to do keeps the others waiting."""
    other = await make_account(database, OTHER_KEY)
    await run(database, webhooks.add, other.id, A, "K", token="t", now=NOW)
    for n in range(6):
        await put(database, account, f"s{n}", str(n))
    await put(database, other, "s", "theirs", at=NOW + timedelta(seconds=1))
    limits = Limits(total=9, per_account=4, per_receiver=3)
    first = await claim(database, now=NOW + timedelta(seconds=1), limits=limits)
    assert sorted((each.account == other.key, each.url) for each in first) == [
        (False, A), (False, A), (False, B), (False, B), (True, A),
    ]  # fmt: skip
    assert {each.body for each in first if each.account == account.key} == {"0", "1"}, "the oldest"
    assert await claim(database, busy=first, limits=limits) == []
    (more,) = await claim(database, busy=first[1:], limits=limits)
    assert more.account == account.key
    ours = [each for each in [*first, more] if each.account == account.key]
    wide = Limits(total=9, per_account=9, per_receiver=3)
    assert sorted(each.url for each in [*ours, *await claim(database, busy=ours, limits=wide)]) == [A] * 3 + [B] * 3
    await put(database, other, "t", "theirs", at=NOW + timedelta(seconds=1))
    few = await claim(database, now=NOW + timedelta(seconds=1), limits=Limits(total=2, per_account=2, per_receiver=2))
    assert {each.account for each in few} == {account.key, other.key}, "in turn, whoever has waited longer"


async def test_what_a_killed_process_was_at_is_taken_up(database: Database, account: Account) -> None:
    await put(database, account, "s", "1")
    await put(database, account, "s", "2")
    (lost,) = [each for each in await claim(database) if each.url == A]
    over = NOW + LEASE
    assert await bodies(database, now=over - timedelta(seconds=1)) == []
    assert await bodies(database, now=over, busy=[lost]) == [], "not by who is at it all the same"
    (again,) = [each for each in await claim(database, now=over) if each.url == A]
    assert again.id == lost.id
    for late in (result(lost), result(lost, due_at=over), result(lost, dead_at=over)):
        assert await finish(database, late) == set(), "it has lost its lease: not written, and no need to try again"
    assert await bodies(database, now=over) == []
    async with database.begin() as tx:
        await tx.db.execute("SELECT FROM lane FOR UPDATE")
        assert await finish(database, result(lost)) == set(), "nor to wait for who holds the lane"
        assert await finish(database, result(again)) == {again.lane}
    await finish(database, result(again))
    assert await bodies(database, now=over) == ["2"]


async def test_two_processes_do_not_take_the_same(database: Database, account: Account) -> None:
    for n in range(20):
        await put(database, account, f"s{n}", str(n))
    rounds = await asyncio.gather(*(claim(database, limits=Limits(8, 8, 8)) for _ in range(3)))
    taken = [each.lane for found in rounds for each in found]
    assert len(taken) == len(set(taken)) > 0


async def test_who_claims_hears_that_another_was_faster(database: Database, account: Account) -> None:
    await put(database, account, "s", "1")
    async with database.begin() as one:
        await one.db.execute("SELECT FROM lane FOR UPDATE")
        async with database.begin() as two:
            asked: dict[str, Any] = {"now": NOW, "until": NOW + LEASE, "lease": uuid4(), "busy": (), "limits": Limits()}
            assert await webhooks.claim(two, **asked) == ([], True)


async def test_a_lane_that_is_written_to_is_finished_later(database: Database, account: Account) -> None:
    """Nothing is overlooked: the last delivery of a lane is done in the moment in which the next is written."""
    await put(database, account, "s", "1")
    (first,) = [each for each in await claim(database) if each.url == A]
    async with database.begin() as tx:
        await webhooks.enqueue(tx, account.id, kind="K", subject="s", body="2", now=NOW)
        assert await finish(database, result(first)) == {first.lane}
    assert await finish(database, result(first)) == set()
    assert await bodies(database) == ["2"]


async def test_a_lane_that_is_deleted_is_made_again(database: Database, account: Account) -> None:
    await put(database, account, "s", "1")
    (first,) = [each for each in await claim(database) if each.url == A]
    async with AsyncExitStack() as stack:
        tx = await stack.enter_async_context(database.begin())
        await webhooks.finish(tx, [result(first)])
        writing = asyncio.create_task(put(database, account, "s", "2"))
        await waits(database)
    await writing
    assert await bodies(database) == ["2"]


async def waits(database: Database) -> None:
    """Until somebody waits for a lock."""

    async def check() -> bool:
        async with database.read() as tx:
            return bool(await tx.db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))

    await until(check, "somebody to wait for a lock")


async def test_removing_a_webhook_and_writing_at_the_same_time(database: Database, account: Account) -> None:
    """Neither breaks the other: the device's transaction does not fail because its account has one receiver less."""

    async def remove() -> int:
        async with database.begin() as tx:
            await webhooks.exclude(tx, account.id)
            return await webhooks.remove(tx, account.id, A)

    await put(database, account, "s", "0")
    async with database.begin() as tx:
        await webhooks.enqueue(tx, account.id, kind="K", subject="s", body="1", now=NOW)
        removing = asyncio.create_task(remove())
        await waits(database)
        await webhooks.enqueue(tx, account.id, kind="L", subject="s", body="2", now=NOW)
    assert await removing == 2
    assert await run(database, webhooks.depth) == (2, 0)
    async with database.begin() as tx:
        await webhooks.exclude(tx, account.id)
        await webhooks.remove(tx, account.id, B)
        writing = asyncio.create_task(put(database, account, "s", "3"))
        await waits(database)
    await writing
    assert await run(database, webhooks.depth) == (0, 0)
    assert await lanes(database) == 0
    assert await claim(database) == []


async def test_an_attempt_at_a_webhook_that_was_removed(database: Database, account: Account) -> None:
    await put(database, account, "s", "1")
    found = await claim(database)
    await execute(database, "DELETE FROM webhook")  # as an account is deleted: lanes are left behind
    assert await finish(database, *(result(each, due_at=NOW) for each in found[:1])) == set()
    assert await claim(database, now=NOW + LEASE) == []
    assert await lanes(database) == 0, "who finds them deletes them"
    await execute(database, "DELETE FROM account")


async def test_a_token_is_changed_for_all_kinds_and_read_at_each_attempt(database: Database, account: Account) -> None:
    for kind in ("K", "L"):
        await put(database, account, kind, kind, kind=kind)
    assert await run(database, webhooks.set_token, account.id, A, "new") == 2
    assert {(each.url, each.kind): each.token for each in await claim(database)} == {
        (A, "K"): "new", (A, "L"): "new", (B, "K"): f"token {B}K",
    }  # fmt: skip
    async with database.read() as tx:
        assert not await tx.db.fetchval("SELECT bool_or(authorization_token LIKE '%new%'::bytea) FROM webhook")
    await execute(database, "UPDATE webhook SET authorization_token = 'another row''s'")
    assert {each.token for each in await claim(database, now=NOW + LEASE)} == {None}


async def test_leases_are_given_back(database: Database, account: Account) -> None:
    await put(database, account, "s", "1")
    found = await claim(database)
    await run(database, webhooks.release, [replace(each, lease=uuid4()) for each in found], NOW)
    assert await claim(database) == [], "they are not ours"
    await run(database, webhooks.release, found, NOW)
    assert len(await claim(database)) == 2


async def test_dead_letters(database: Database, account: Account) -> None:
    for n in range(3):
        await put(database, account, "s", str(n))
    died = []
    for n in range(3):
        found = await claim(database)
        at = NOW + timedelta(days=n)
        await finish(
            database,
            *(result(each, dead_at=at, error="answered 500") if each.url == A else result(each) for each in found),
        )
        died += [each.id for each in found if each.url == A]
    assert await claim(database) == []
    async with database.read() as tx:
        everything = await webhooks.dead(tx, "ublox", None, 9)
        assert [each.id for each in everything] == died
        first = everything[0]
        assert (first.account, first.url, first.kind, first.subject, first.attempts, first.error, first.dead_at) == (
            account.key, A, "K", "s", 1, "answered 500", NOW,
        )  # fmt: skip
        assert await webhooks.dead(tx, "ublox", first, 1) == everything[1:2]
        assert await webhooks.dead(tx, "ublox", None, 9, account=OTHER_KEY) == []
        assert await webhooks.dead(tx, "ublox", None, 9, url=B) == []
        assert await webhooks.dead(tx, "another", None, 9) == []
        listed = await webhooks.page(tx, "ublox", None, 0, 9)
    assert [(each.url, each.kind, each.waiting, each.dead) for each in listed] == [
        (A, "K", 0, 3), (B, "K", 0, 0), (A, "L", 0, 0),
    ]  # fmt: skip
    now = NOW + timedelta(days=3)
    assert await run(database, webhooks.prune, now=now, limit=9, keep_days=4) == 0
    assert await run(database, webhooks.prune, now=now, limit=1, keep_days=1) == 1
    revived = [
        await run(database, webhooks.revive, "ublox", ids=[died[0], died[2], 10**18], now=now, limit=9),
        await run(database, webhooks.revive, "ublox", ids=[died[2]], now=now, limit=9),
        await run(database, webhooks.revive, "ublox", url=B, now=now, limit=9),
        await run(database, webhooks.revive, "ublox", account=account.key, url=A, now=now, limit=9),
    ]
    assert revived == [[died[2]], [], [], [died[1]]]
    (again,) = await claim(database, now=now)
    assert (again.id, again.attempts) == (died[1], 0), "in their old order, with all attempts before them"


async def test_dead_letters_come_before_what_waits_and_not_into_what_is_under_way(
    database: Database, account: Account
) -> None:
    await put(database, account, "s", "1")
    (first,) = [each for each in await claim(database) if each.url == A]
    await put(database, account, "s", "2")
    await finish(database, result(first, dead_at=NOW))
    (second,) = [each for each in await claim(database) if each.url == A]
    async with notifications(database.url) as heard:
        assert await run(database, webhooks.revive, "ublox", now=NOW, limit=9) == [first.id]
        assert await bodies(database) == [], "the second is under way"
        await until(lambda: heard == [{"change": "delivery"}], "the news")
    await finish(database, result(second, due_at=NOW + timedelta(hours=12)))
    (again,) = [each for each in await claim(database) if each.url == A]
    assert again.id == first.id
    await finish(database, result(again))
    assert await bodies(database) == []
    assert await bodies(database, now=NOW + timedelta(hours=12)) == ["2"]


async def test_a_dead_receiver_with_much_before_it_costs_the_others_nothing(
    database: Database, account: Account
) -> None:
    """A claim looks at as much as may go, not at what waits: here at some pages of 20,000 lanes that are due."""
    await execute(
        database,
        f"""INSERT INTO delivery (webhook_id, receiver, subject, kind, body, created_at, due_at)
            SELECT id, receiver, n::text, 'K', '{{}}', '{NOW - LEASE}', '{NOW - LEASE}'
            FROM webhook, generate_series(1, 20000) n WHERE url = '{A}' AND kind = 'K';
            INSERT INTO lane (account_id, receiver, subject, due_at)
            SELECT {account.id}, receiver, subject, due_at FROM delivery""",
    )
    await put(database, account, "s", "1")
    async with database.read() as tx:
        plan = json.loads(
            await tx.db.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {webhooks.PICK}", NOW, [], [], [], 4, [], [], 16, 64
            )
        )[0]["Plan"]
    assert plan["Actual Rows"] == 5
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100
    found = await claim(database, limits=Limits(total=64, per_account=16, per_receiver=4))
    assert sorted(each.url for each in found) == [A, A, A, A, B]
