"""provisioning/upkeep.py"""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from provisioning import upkeep
from provisioning.app import Running
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import events, notices
from provisioning.store.database import Database, Tx
from provisioning.store.sealing import SealError
from tests.conftest import Serve, load_rows, until
from tests.devices import DEVICE, PRODUCT
from tests.provisioning.store.registry import execute
from tests.ublox import make_account, make_devices

pytestmark = pytest.mark.server


async def test_old_events_go(service: Running) -> None:
    await load_rows(service, PRODUCT, DEVICE)
    await execute(service.database, "UPDATE event SET at = now() - interval '31 days'")
    pruning = asyncio.create_task(upkeep.prune(service.database, 30))

    async def none_left() -> bool:
        async with service.database.read() as tx:
            return await events.page(tx) == []

    await until(none_left, "the pruning")
    pruning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pruning


async def test_works_for_accounts_are_done_to_their_end_and_one_that_fails_keeps_up_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CARE_AT_ONCE", 2)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    left, seen = [1, 2, 3, 4, 5], list[datetime]()

    async def failing(tx: Tx, *, now: datetime, limit: int) -> int:
        raise Refusal(Reason.UNAVAILABLE)

    async def broken(tx: Tx, *, now: datetime, limit: int) -> int:
        raise SealError("the key of somebody's authority does not open")

    async def working(tx: Tx, *, now: datetime, limit: int) -> list[int]:
        seen.append(now)
        return [left.pop() for _ in range(min(limit, len(left)))]

    caring = asyncio.create_task(
        upkeep.care_for_accounts(database, (failing, broken, working), lambda: now, every=0.01)
    )
    await until(lambda: len(seen) >= 4, "the works, done twice")
    assert left == []
    assert set(seen) == {now}, "the clock that was given"
    caring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caring


async def test_a_service_makes_sums_of_its_tallies(serve: Serve, database: Database) -> None:
    account = await make_account(database)
    for number in range(3):
        await make_devices(database, account, [f"{number:016x}"])

    async def rows() -> list[int]:
        async with database.read() as tx:
            return [row["n"] for row in await tx.db.fetch("SELECT n FROM tally WHERE kind = 1")]

    async def summed() -> bool:
        return await rows() == [3]

    assert await rows() == [1, 1, 1]
    await serve()
    await until(summed, "the sum")


async def test_what_devices_have_told_goes_after_the_days_of_the_setting(database: Database) -> None:
    account = await make_account(database)
    (device,) = await make_devices(database, account, ["0002000089280087"])
    now = datetime(2026, 1, 2, tzinfo=UTC)
    works = upkeep.for_accounts(200)
    assert works[: len(upkeep.FOR_ACCOUNTS)] == upkeep.FOR_ACCOUNTS
    async with database.begin() as tx:
        for days in (199, 201):
            await notices.add_activity(tx, device, "BEAT", now - timedelta(days=days))
        done = [await work(tx, now=now, limit=9) for work in works[len(upkeep.FOR_ACCOUNTS) :]]
        left = await tx.db.fetchval("SELECT min(at) FROM activity")
    assert (done, left) == ([1, 0], now - timedelta(days=199))
