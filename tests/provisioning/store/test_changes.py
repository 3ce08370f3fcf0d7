import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioning.model.registry import Product
from provisioning.store import devices, presence, products
from provisioning.store.changes import Change, Listener, What, listening, read_change
from provisioning.store.database import Database
from tests.conftest import until
from tests.provisioning.store.registry import PROTOCOL, Fleet, add_device, add_fleet, execute, locked_out


class Heard:
    def __init__(self, url: str) -> None:
        self.changes: list[Change] = []
        self.states: list[str] = []
        self.listener = Listener(
            url,
            on_change=self.changes.append,
            on_back=lambda: self.states.append("back"),
            on_lost=lambda: self.states.append("lost"),
        )


@asynccontextmanager
async def hearing(url: str) -> AsyncIterator[Heard]:
    heard = Heard(url)
    async with listening(heard.listener):
        yield heard


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


@pytest.fixture
async def heard(database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Heard]:
    monkeypatch.setattr("provisioning.store.changes.CHECK_EVERY", 0.1)
    async with hearing(database.url) as heard:
        yield heard


async def told(database: Database, heard: Heard, statement: str) -> list[Change]:
    """What is heard of a statement that somebody runs by hand; a mark of our own ends it."""
    heard.changes.clear()
    await execute(database, statement)
    await execute(database, """SELECT pg_notify('gatehouse', '{"change":"kicked","device":"mark"}')""")
    mark = Change(What.KICKED, device="mark")
    await until(lambda: mark in heard.changes, "the mark")
    return heard.changes[: heard.changes.index(mark)]


DEVICE = (PROTOCOL, "pk", "dk")


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("UPDATE device SET disabled = true WHERE key = 'dk'", [Change(What.DISABLED, *DEVICE)]),
        ("UPDATE device SET disabled = false WHERE key = 'dk'", []),
        ("UPDATE device SET secret = 'x' WHERE key = 'dk'", [Change(What.RESET, *DEVICE)]),
        ("UPDATE device SET secret = 'x', disabled = true WHERE key = 'dk'", [Change(What.DISABLED, *DEVICE)]),
        ("UPDATE device SET secret = NULL, state = 'registered' WHERE key = 'dk'", [Change(What.RESET, *DEVICE)]),
        ("UPDATE device SET asset = 'x' WHERE key = 'dk'", [Change(What.CHANGED, *DEVICE)]),
        ("UPDATE device SET key = 'new' WHERE key = 'dk'", [Change(What.RESET, *DEVICE), Change(What.ADDED)]),
        ("UPDATE device SET name = 'x', timezone = 'UTC', activations = 3 WHERE key = 'dk'", []),
        ("UPDATE device SET state = 'activated', activated_at = now() WHERE key = 'dk'", []),
        ("DELETE FROM device WHERE key = 'dk'", [Change(What.DELETED, *DEVICE)]),
        (
            "DELETE FROM device",
            [Change(What.DELETED, *DEVICE), Change(What.DELETED, PROTOCOL, "pk", "dk-sn")],
        ),
        ("UPDATE product SET dynamic_activation = false", [Change(What.PRODUCT, PROTOCOL, "pk")]),
        (
            "DELETE FROM device; DELETE FROM enrolment_group; DELETE FROM product",
            [
                Change(What.DELETED, *DEVICE),
                Change(What.DELETED, PROTOCOL, "pk", "dk-sn"),
                Change(What.PRODUCT, PROTOCOL, "pk"),
            ],
        ),
        ("INSERT INTO product (protocol, key, secret) VALUES ('p', 'new', '')", [Change(What.ADDED)]),
        ("UPDATE enrolment_group SET auto_activation = false", []),
    ],
)
async def test_every_change_that_a_login_is_judged_by_is_told(
    database: Database, heard: Heard, statement: str, changes: list[Change]
) -> None:
    def settled(told_changes: list[Change]) -> list[Change]:
        """In which order a statement deletes its rows is its own affair."""
        return sorted(told_changes, key=lambda change: change.device if change.what is What.DELETED else "~")

    assert settled(await told(database, heard, statement)) == settled(changes)


async def test_enabling_is_told(database: Database, fleet: Fleet) -> None:
    await execute(database, "UPDATE device SET disabled = true")
    async with hearing(database.url) as heard:
        assert await told(database, heard, "UPDATE device SET disabled = false WHERE key = 'dk'") == [
            Change(What.CHANGED, *DEVICE)
        ]


async def test_what_our_own_code_does_is_told(database: Database, fleet: Fleet, heard: Heard) -> None:
    async with database.begin() as tx:
        await add_device(tx, fleet.product, "new")
    await until(lambda: heard.changes == [Change(What.ADDED)], "the new device")
    async with database.begin() as tx:
        await devices.kick(tx, fleet.device)
        await products.update(tx, replace(fleet.product, secret="new"))
        await products.add(tx, Product(protocol=PROTOCOL, key="p2", secret="s"))
    expected = [Change(What.KICKED, *DEVICE), Change(What.PRODUCT, PROTOCOL, "pk"), Change(What.ADDED)]
    await until(lambda: heard.changes[1:] == expected, "the rest")


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("TRUNCATE device CASCADE", [Change(What.TRUNCATED)]),
        ("TRUNCATE product CASCADE", [Change(What.TRUNCATED)]),
        ("TRUNCATE certificate CASCADE", [Change(What.TRUNCATED)]),
        ("TRUNCATE authority CASCADE", [Change(What.TRUNCATED)]),
        ("TRUNCATE node, presence, event", []),
    ],
)
async def test_an_emptied_table_is_told(
    database: Database, heard: Heard, statement: str, changes: list[Change]
) -> None:
    assert await told(database, heard, statement) == changes


ONE, OTHER = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize(
    ("statement", "is_told"),
    [
        (f"UPDATE presence SET node = '{OTHER}', login = 8", True),
        (f"UPDATE presence SET node = '{OTHER}', login = 7, online = false", True),
        ("UPDATE presence SET login = 8, seen = now()", False),
        ("UPDATE presence SET online = false", False),
        (f"UPDATE presence SET online = false; UPDATE presence SET node = '{OTHER}', online = true", False),
    ],
)
async def test_a_session_that_moved_is_told_to_where_it_was(
    database: Database, fleet: Fleet, heard: Heard, statement: str, is_told: bool
) -> None:
    async with database.begin() as tx:
        await presence.note(tx, ONE, {fleet.device.id: presence.Stay(7, online=True, seen=7)}, 7)
    change = Change(What.TAKEN_OVER, *DEVICE, node=str(ONE), id=fleet.device.id, login=7)
    assert await told(database, heard, statement) == ([change] if is_told else [])


async def test_what_is_rolled_back_is_not_told(database: Database, fleet: Fleet, heard: Heard) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the refusal comes when the transaction ends
        async with database.begin() as tx:
            await devices.set_disabled(tx, fleet.device, disabled=True)
            raise ZeroDivisionError
    assert await told(database, heard, "SELECT 1") == []


async def test_a_lost_connection_is_told_and_comes_back(database: Database, fleet: Fleet, heard: Heard) -> None:
    assert heard.states == ["back"]
    await execute(
        database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' "
        "AND datname = current_database()"
    )  # fmt: skip
    await until(lambda: heard.states == ["back", "lost", "back"], "the return")
    assert await told(database, heard, "UPDATE device SET disabled = true WHERE key = 'dk'") == [
        Change(What.DISABLED, *DEVICE)
    ]


async def test_it_goes_on_trying_while_the_database_is_away(postgres: str, database: Database, heard: Heard) -> None:
    async with locked_out(postgres, database.url):
        await until(lambda: heard.states == ["back", "lost"], "the loss")
        assert not heard.listener.listening.is_set()
    await until(lambda: heard.states == ["back", "lost", "back"], "the return")
    assert heard.listener.listening.is_set()


async def test_a_connection_that_no_longer_answers_is_given_up(
    database: Database, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells when the other end of a network is unplugged."""
    fetchval = asyncpg.Connection.fetchval
    silent = {1}

    async def unplugged(self: object, query: str, *values: object, **options: object) -> object:
        if query == "SELECT 1" and silent:
            silent.clear()
            raise TimeoutError
        return await fetchval(self, query, *values, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncpg.Connection, "fetchval", unplugged)
    await until(lambda: heard.states == ["back", "lost", "back"], "the return")


async def test_a_mistake_does_not_end_it(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    fetchval = asyncpg.Connection.fetchval

    async def broken(*_arguments: object, **_options: object) -> object:
        monkeypatch.setattr(asyncpg.Connection, "fetchval", fetchval)
        raise ZeroDivisionError

    monkeypatch.setattr(asyncpg.Connection, "fetchval", broken)
    await until(lambda: heard.states == ["back", "lost", "back"], "the return")


async def test_others_may_say_what_they_like_on_our_channel(database: Database, heard: Heard) -> None:
    await execute(database, "SELECT pg_notify('gatehouse', 'nonsense'), pg_notify('gatehouse', '[]')")
    assert await told(database, heard, "DELETE FROM device WHERE key = 'dk'") == [Change(What.DELETED, *DEVICE)]


async def test_where_nobody_can_listen_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioning.store.changes.LONGEST_WAIT", 0.1)
    heard = Heard("postgresql://u@/d?host=/nowhere")
    with pytest.raises(TimeoutError):
        async with listening(heard.listener):
            pytest.fail("it listens")
    assert heard.states == []
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "changes"]


@given(st.text())
@example('{"change": "disabled", "protocol": null}')
@example('{"change": []}')
@example('{"change": {}}')
@example("[" * 7_999)  # the longest that PostgreSQL carries
@example('{"change": "kicked", "device": ["x"]}')
@example('{"change": "taken_over", "login": 1e999}')
@example('{"change": "taken_over", "id": [1]}')
def test_any_payload_is_read_or_passed_over(payload: str) -> None:
    change = read_change(payload)
    assert change is None or isinstance(change.device, str)


def test_read_change() -> None:
    assert read_change('{"change":"added"}') == Change(What.ADDED)
    assert read_change('{"change":"truncated"}') == Change(What.TRUNCATED)
    moved = '{"change":"taken_over","protocol":"p","product":"k","device":"d","node":"n","id":3,"login":4}'
    assert read_change(moved) == Change(What.TAKEN_OVER, "p", "k", "d", node="n", id=3, login=4)
    assert read_change('{"change":"certificate","authority":"x"}') is None
    assert read_change('{"change":"certificate","authority":5}') == Change(What.CERTIFICATE, authority="5")
    full = '{"change":"reset","protocol":"p","product":"k","device":"d"}'
    assert read_change(full) == Change(What.RESET, "p", "k", "d")
