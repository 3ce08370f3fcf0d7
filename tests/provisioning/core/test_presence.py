import asyncio
from contextlib import suppress

import pytest

from provisioning.core import presence as module
from provisioning.core.presence import Presence, present
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import devices
from provisioning.store import presence as store
from provisioning.store.database import Database
from tests.conftest import until
from tests.provisioning.store.registry import Fleet, add_fleet, execute, locked_out


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_EVERY", 0.01)


async def online(database: Database, device_id: int) -> bool:
    with suppress(Refusal):
        async with database.read() as tx:
            found = await devices.by_id(tx, device_id)
        return found is not None and found.online
    return False


async def is_online(database: Database, fleet: Fleet, expected: bool = True) -> None:
    async def check() -> bool:
        return await online(database, fleet.device.id) is expected

    await until(check, f"the device to be {'online' if expected else 'offline'}")


async def test_who_came_and_went(database: Database, fleet: Fleet) -> None:
    async with present(database) as who:
        who.came(fleet.device.id)
        await is_online(database, fleet)
        who.went(fleet.device.id)
        await is_online(database, fleet, expected=False)
        assert who.depth == 0


async def test_the_end_of_the_process_is_the_end_of_its_sessions(database: Database, fleet: Fleet) -> None:
    async with present(database) as who:
        who.came(fleet.device.id)
        await is_online(database, fleet)
    assert not await online(database, fleet.device.id)


async def test_a_session_that_moved_is_not_hidden_by_its_end_elsewhere(database: Database, fleet: Fleet) -> None:
    async with present(database) as one, present(database) as two:
        one.came(fleet.device.id)
        await is_online(database, fleet)
        two.came(fleet.device.id)
        await two.flush()
        one.went(fleet.device.id)
        await one.flush()
        assert await online(database, fleet.device.id)
        two.went(fleet.device.id)
        await is_online(database, fleet, expected=False)


async def test_only_the_last_word_on_a_device_is_written(database: Database, fleet: Fleet) -> None:
    who = Presence(database)
    for _ in range(100):
        who.came(fleet.device.id)
        who.went(fleet.device.id)
    assert who.depth == 1


async def test_what_happens_during_a_flush_is_not_lost(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = store.note

    async def went_meanwhile(*arguments: object) -> None:
        await note(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(store, "note", note)
        who.went(fleet.device.id)

    async with present(database) as who:
        monkeypatch.setattr(store, "note", went_meanwhile)
        who.came(fleet.device.id)
        await until(lambda: store.note is note and who.depth == 0, "both flushes")
        assert not await online(database, fleet.device.id)


async def test_many_at_once_go_in_parts(database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 1)
    async with present(database) as who:
        who.came(fleet.device.id)
        who.came(fleet.enrolled.id)
        await until(lambda: who.depth == 0, "both parts")
        assert await online(database, fleet.device.id)
        assert await online(database, fleet.enrolled.id)


async def test_the_database_away_and_back(postgres: str, database: Database, fleet: Fleet) -> None:
    async with present(database) as who:
        async with locked_out(postgres, database.url):
            who.came(fleet.device.id)
            with pytest.raises(Refusal) as caught:
                await who.flush()
            assert caught.value.reason is Reason.UNAVAILABLE
            assert who.depth == 1
        await is_online(database, fleet)


async def test_a_lost_table_of_processes_is_written_again(database: Database, fleet: Fleet) -> None:
    """The tables are unlogged: a crash of the database empties them."""
    monkey = pytest.MonkeyPatch()
    monkey.setattr(module, "BEAT_EVERY", 0.0)
    try:
        async with present(database) as who:
            await execute(database, "TRUNCATE node, presence")
            who.came(fleet.device.id)
            await is_online(database, fleet)
    finally:
        monkey.undo()


async def test_a_mistake_does_not_end_it(database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    note = store.note
    failed = asyncio.Event()

    async def broken(*arguments: object) -> None:
        monkeypatch.setattr(store, "note", note)
        failed.set()
        raise ZeroDivisionError

    async with present(database) as who:
        monkeypatch.setattr(store, "note", broken)
        who.came(fleet.device.id)
        await failed.wait()
        await is_online(database, fleet)
