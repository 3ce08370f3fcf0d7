from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from provisioning.store import devices, presence
from provisioning.store.database import Database
from tests.provisioning.store.registry import Fleet, add_fleet, execute

A, B = uuid4(), uuid4()
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    async with database.begin() as tx:
        await presence.beat(tx, A)
        await presence.beat(tx, B)
    return await add_fleet(database)


async def note(database: Database, node: UUID, changes: Mapping[int, bool], at: datetime = NOON) -> None:
    async with database.begin() as tx:
        await presence.note(tx, node, {device: (online, at) for device, online in changes.items()})


async def state(database: Database, device_id: int) -> tuple[bool, datetime | None]:
    async with database.read() as tx:
        found = await devices.by_id(tx, device_id)
    assert found is not None
    return found.online, found.last_seen


async def test_came_and_went(database: Database, fleet: Fleet) -> None:
    one, two = fleet.device.id, fleet.enrolled.id
    assert await state(database, one) == (False, None)
    await note(database, A, {one: True, two: False})
    assert await state(database, one) == (True, NOON)
    assert await state(database, two) == (False, NOON)
    later = NOON + timedelta(hours=1)
    await note(database, A, {one: False}, later)
    assert await state(database, one) == (False, later)


async def test_an_end_here_does_not_hide_a_session_elsewhere(database: Database, fleet: Fleet) -> None:
    one = fleet.device.id
    await note(database, A, {one: True})
    await note(database, B, {one: True})
    await note(database, A, {one: False})
    assert await state(database, one) == (True, NOON)
    await note(database, B, {one: False})
    assert await state(database, one) == (False, NOON)


async def test_a_deleted_device_hinders_nobody(database: Database, fleet: Fleet) -> None:
    await note(database, A, {0: True, fleet.device.id: True})
    assert await state(database, fleet.device.id) == (True, NOON)


async def test_who_leaves_takes_its_sessions_along(database: Database, fleet: Fleet) -> None:
    await note(database, A, {fleet.device.id: True})
    async with database.begin() as tx:
        await presence.leave(tx, A)
    assert await state(database, fleet.device.id) == (False, NOON)


async def test_the_dead_are_buried(database: Database, fleet: Fleet) -> None:
    await execute(database, "UPDATE node SET seen = now() - interval '2 hours' WHERE id = $1", A)
    async with database.begin() as tx:
        await presence.beat(tx, B)
        assert [row["id"] for row in await tx.db.fetch("SELECT id FROM node")] == [B]
