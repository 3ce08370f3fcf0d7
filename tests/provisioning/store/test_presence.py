from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from provisioning.store import devices, presence
from provisioning.store.database import Database
from provisioning.store.presence import Lost, Stay
from tests.provisioning.store.registry import Fleet, add_fleet, execute

A, B = uuid4(), uuid4()
# The clocks of two processes have nothing to do with each other.
EPOCH = {A: 10**18, B: 10**12}


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    async with database.begin() as tx:
        await presence.beat(tx, A)
        await presence.beat(tx, B)
    return await add_fleet(database)


def login(node: UUID, ago: int) -> int:
    """What `node` calls a session that began so many seconds before `NOW`."""
    return EPOCH[node] - ago * 10**9


async def note(
    database: Database, node: UUID, device: int, since: int, *, online: bool = True, seen: int | None = None
) -> list[Lost]:
    """Tell of a session that began `since` seconds ago, and is as it is since `seen` seconds ago."""
    stay = Stay(login(node, since), online, login(node, since if seen is None else seen))
    async with database.begin() as tx:
        return await presence.note(tx, node, {device: stay}, EPOCH[node])


async def hold(database: Database, node: UUID, device: int, since: int) -> list[Lost]:
    async with database.begin() as tx:
        return await presence.hold(tx, node, {device: login(node, since)}, EPOCH[node])


async def where(database: Database, device: int) -> tuple[UUID, int, bool] | None:
    async with database.read() as tx:
        row = await tx.db.fetchrow("SELECT node, login, online FROM presence WHERE device_id = $1", device)
    return None if row is None else (row["node"], row["login"], row["online"])


async def state(database: Database, device_id: int) -> tuple[bool, int | None]:
    """Online, and how many seconds ago it was last seen."""
    async with database.read() as tx:
        found = await devices.by_id(tx, device_id)
    assert found is not None
    seen = found.last_seen
    return found.online, None if seen is None else 10 * round((datetime.now(UTC) - seen) / timedelta(seconds=10))


async def test_came_and_went(database: Database, fleet: Fleet) -> None:
    one, two = fleet.device.id, fleet.enrolled.id
    assert await state(database, one) == (False, None)
    assert await note(database, A, one, 1000) == []
    assert await note(database, A, two, 1000, online=False, seen=500) == []
    assert await state(database, one) == (True, 1000)
    assert await state(database, two) == (False, 500)
    await note(database, A, one, 1000, online=False, seen=200)
    assert await state(database, one) == (False, 200)


async def test_an_end_here_does_not_hide_a_session_elsewhere(database: Database, fleet: Fleet) -> None:
    one = fleet.device.id
    await note(database, A, one, 1000)
    await note(database, B, one, 500)
    assert await note(database, A, one, 1000, online=False, seen=200) == []
    assert await state(database, one) == (True, 500)
    await note(database, B, one, 500, online=False, seen=100)
    assert await state(database, one) == (False, 100)


@pytest.mark.parametrize("later_first", [False, True])
async def test_the_newer_login_wins_whoever_writes_first(database: Database, fleet: Fleet, later_first: bool) -> None:
    one = fleet.device.id
    order = [(A, 500), (B, 1000)] if later_first else [(B, 1000), (A, 500)]
    lost = [await note(database, node, one, since) for node, since in order]
    assert lost == [[], [Lost(one, login(B, 1000), fleet.identity)] if later_first else []]
    assert await where(database, one) == (A, login(A, 500), True)


async def test_a_visit_that_is_over_counts_as_a_login(database: Database, fleet: Fleet) -> None:
    one = fleet.device.id
    await note(database, A, one, 1000, online=False, seen=400)
    assert await note(database, B, one, 1500) == [Lost(one, login(B, 1500), fleet.identity)]
    assert await state(database, one) == (False, 400)


async def test_a_clock_of_the_database_that_was_set_back_keeps_nobody_out(database: Database, fleet: Fleet) -> None:
    one = fleet.device.id
    await note(database, A, one, 1000)
    await execute(database, "UPDATE presence SET since = now() + interval '1 hour'")
    assert await note(database, B, one, 0) == []
    assert await where(database, one) == (B, login(B, 0), True)


async def test_a_session_that_was_written_is_written_again_where_it_was_lost(database: Database, fleet: Fleet) -> None:
    one = fleet.device.id
    await note(database, A, one, 1000)
    assert await hold(database, A, one, 1000) == []
    await execute(database, "TRUNCATE presence")
    assert await hold(database, A, one, 1000) == []
    assert await state(database, one) == (True, 1000)


async def test_a_session_that_was_written_loses_against_any_other(database: Database, fleet: Fleet) -> None:
    """Even if it thinks that it is younger: the process was paused in the meantime, and its clock with it."""
    one = fleet.device.id
    await note(database, A, one, 1000)
    await note(database, B, one, 500)
    assert await hold(database, A, one, 100) == [Lost(one, login(A, 100), fleet.identity)]
    assert await where(database, one) == (B, login(B, 500), True)


async def test_a_deleted_device_hinders_nobody(database: Database, fleet: Fleet) -> None:
    one, stay = fleet.device.id, Stay(login(A, 100), online=True, seen=login(A, 100))
    async with database.begin() as tx:
        assert await presence.note(tx, A, {0: stay, one: stay}, EPOCH[A]) == []
        assert await presence.hold(tx, A, {0: stay.login, one: stay.login}, EPOCH[A]) == []
    assert await state(database, one) == (True, 100)


async def test_who_leaves_takes_its_sessions_along(database: Database, fleet: Fleet) -> None:
    await note(database, A, fleet.device.id, 100)
    async with database.begin() as tx:
        await presence.leave(tx, A)
    assert await state(database, fleet.device.id) == (False, 100)


async def test_the_dead_are_buried(database: Database, fleet: Fleet) -> None:
    await execute(database, "UPDATE node SET seen = now() - interval '2 hours' WHERE id = $1", A)
    async with database.begin() as tx:
        await presence.beat(tx, B)
        assert [row["id"] for row in await tx.db.fetch("SELECT id FROM node")] == [B]
