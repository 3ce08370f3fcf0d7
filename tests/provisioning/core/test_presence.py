import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest

from provisioning.core import presence as module
from provisioning.core.presence import Presence, present
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import devices
from provisioning.store import presence as store
from provisioning.store.changes import Change, Listener, What, listening
from provisioning.store.database import Database
from provisioning.store.presence import Lost
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


# --- one session for each device ---

SECOND = 10**9


class Node:
    """A process with one session at most. Its clock is its own: it is far from those of the others."""

    def __init__(self, database: Database, skew: int = 0) -> None:
        self._skew = skew
        self._lag = 0
        self.live = False
        self.told: list[Change] = []
        self.presence = Presence(database, self._taken_over, clock=self._clock)

    def _clock(self) -> int:
        return time.monotonic_ns() + self._skew - self._lag

    def came(self, device_id: int, *, ago: int = 0) -> None:
        """A login as it was so many seconds ago."""
        self._lag = ago * SECOND
        self.presence.came(device_id)
        self.live, self._lag = True, 0

    def went(self, device_id: int) -> None:
        self.presence.went(device_id)
        self.live = False

    def _taken_over(self, identity: Identity, device_id: int) -> None:
        assert self.live, f"{identity} has no session here"
        self.went(device_id)

    def hear(self) -> None:
        for change in self.told:
            if change.node == str(self.presence.node):
                identity = Identity(change.protocol, change.product, change.device)
                self.presence.taken(Lost(change.id, change.login, identity))
        self.told.clear()


class Nodes:
    """Processes on one database: what they tell each other arrives when the test says so."""

    def __init__(self, database: Database, count: int) -> None:
        self._database = database
        self._marks = 0
        self.all = [Node(database, skew) for skew in (0, 10**18, 10**15)[:count]]

    def on_change(self, change: Change) -> None:
        if change.what is What.KICKED:
            self._marks += 1
        for node in self.all:
            node.told.append(change)

    async def flush(self, node: Node) -> None:
        """Returns when everybody has been told of it, heard or not."""
        seen = self._marks
        await node.presence.flush()
        await execute(self._database, """SELECT pg_notify('gatehouse', '{"change":"kicked"}')""")
        await until(lambda: self._marks > seen, "the reports")

    async def settle(self) -> None:
        for _ in range(3):
            for node in self.all:
                await self.flush(node)
                node.hear()
        assert all(node.presence.depth == 0 for node in self.all)

    @property
    def live(self) -> list[Node]:
        return [node for node in self.all if node.live]


@asynccontextmanager
async def nodes(database: Database, count: int = 2) -> AsyncIterator[Nodes]:
    made = Nodes(database, count)
    for node in made.all:
        async with database.begin() as tx:
            await store.beat(tx, node.presence.node)
    async with listening(Listener(database.url, on_change=made.on_change, on_back=lambda: None, on_lost=lambda: None)):
        yield made


async def row(database: Database, device_id: int) -> tuple[object, bool]:
    async with database.read() as tx:
        found = await tx.db.fetchrow("SELECT node, online FROM presence WHERE device_id = $1", device_id)
    assert found is not None
    return found["node"], found["online"]


async def test_a_session_that_has_a_newer_one_elsewhere_ends(database: Database, fleet: Fleet) -> None:
    async with nodes(database) as both:
        one, two = both.all
        one.came(fleet.device.id, ago=20)
        await both.flush(one)
        two.came(fleet.device.id, ago=10)
        await both.flush(two)
        assert one.live
        one.hear()
        two.hear()
        assert both.live == [two]
        await both.settle()
        assert await row(database, fleet.device.id) == (two.presence.node, True)


async def test_who_comes_back_is_not_ended_by_what_is_heard_late(database: Database, fleet: Fleet) -> None:
    async with nodes(database) as both:
        one, two = both.all
        one.came(fleet.device.id, ago=30)
        await both.flush(one)
        two.came(fleet.device.id, ago=20)
        await both.flush(two)
        one.came(fleet.device.id, ago=10)
        one.hear()
        assert one.live, "it is newer than the one that was taken over"
        await both.settle()
        assert both.live == [one]
        assert await row(database, fleet.device.id) == (one.presence.node, True)


async def test_who_writes_last_does_not_win_by_that(database: Database, fleet: Fleet) -> None:
    async with nodes(database) as both:
        one, two = both.all
        one.came(fleet.device.id, ago=20)
        two.came(fleet.device.id, ago=10)
        await both.flush(two)
        await both.flush(one)
        assert both.live == [two]
        await both.settle()
        assert both.live == [two]
        assert await row(database, fleet.device.id) == (two.presence.node, True)


async def test_what_was_missed_is_looked_up(database: Database, fleet: Fleet) -> None:
    async with nodes(database) as both:
        one, two = both.all
        one.came(fleet.device.id, ago=20)
        one.came(fleet.enrolled.id, ago=20)
        await both.flush(one)
        two.came(fleet.device.id, ago=10)
        await both.flush(two)
        one.told.clear()  # it was deaf
        one.presence.hold()
        two.presence.hold()
        await both.flush(one)
        await both.flush(two)
        assert both.live == [two]
        await both.settle()
        assert await row(database, fleet.device.id) == (two.presence.node, True)
        assert await row(database, fleet.enrolled.id) == (one.presence.node, True)


async def test_a_lost_table_of_sessions_is_written_again(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 1)
    async with present(database) as who:
        who.came(fleet.device.id)
        who.came(fleet.enrolled.id)
        await until(lambda: who.depth == 0, "the flush")
        await execute(database, "TRUNCATE presence")
        assert not await online(database, fleet.device.id)
        who.hold()
        for device in (fleet.device, fleet.enrolled):
            await until(partial(online, database, device.id), "both to be written again")


async def test_what_was_not_looked_up_is_looked_up_later(postgres: str, database: Database, fleet: Fleet) -> None:
    async with present(database) as who:
        who.came(fleet.device.id)
        await until(lambda: who.depth == 0, "the flush")
        await execute(database, "TRUNCATE presence")
        async with locked_out(postgres, database.url):
            who.hold()
            with pytest.raises(Refusal):
                await who.flush()
        await is_online(database, fleet)


async def test_who_comes_back_during_the_look_up_stays(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = store.hold

    async def back_meanwhile(*arguments: object) -> list[Lost]:
        one.came(fleet.device.id)
        return await hold(*arguments)  # type: ignore[arg-type]

    async with nodes(database) as both:
        one, two = both.all
        one.came(fleet.device.id, ago=20)
        await both.flush(one)
        two.came(fleet.device.id, ago=10)
        await both.flush(two)
        monkeypatch.setattr(store, "hold", back_meanwhile)
        one.presence.hold()
        await both.flush(one)
        assert one.live
        await both.settle()
        assert both.live == [one]
        assert await row(database, fleet.device.id) == (one.presence.node, True)


@pytest.mark.parametrize("seed", range(12))
async def test_however_a_device_flips_the_newest_session_alone_stays(
    database: Database, fleet: Fleet, seed: int
) -> None:
    """Logins, ends, flushes and reports in any order; then everybody settles."""
    dice = random.Random(seed)
    device_id, steps = fleet.device.id, 30
    async with nodes(database, 3) as three:
        newest = three.all[0]
        for step in range(steps):
            node = dice.choice(three.all)
            match dice.randrange(7):
                case 0 | 1:
                    node.came(device_id, ago=10 * (steps - step))
                    newest = node
                case 2 | 3:
                    await three.flush(node)
                case 4:
                    node.hear()
                case 5:
                    node.presence.hold()
                case 6 if node.live:
                    node.went(device_id)
        newest.came(device_id, ago=5)
        await three.settle()
        assert three.live == [newest]
        assert await row(database, device_id) == (newest.presence.node, True)
        newest.went(device_id)
        await three.settle()
        assert three.live == []
        assert await row(database, device_id) == (newest.presence.node, False)
