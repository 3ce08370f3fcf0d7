"""Several processes on one database."""

import time
from contextlib import AsyncExitStack

import asyncpg
import pytest

from broker import packets
from provisioning.app import Running
from provisioning.model.identity import Identity
from tests.conftest import Serve, Spawn, load_rows, service_environment, until
from tests.devices import DEVICE, PRODUCT, connect, login, raw

pytestmark = pytest.mark.server

DK1 = Identity("enos", "pk1", "dk1")


async def is_at(running: Running, *, online: bool = True) -> None:
    """Waits until the registry says that the device is, or was last, at this process."""

    async def check() -> bool:
        async with running.database.read() as tx:
            row = await tx.db.fetchrow("SELECT node, online FROM presence")
        return row is not None and (row["node"], row["online"]) == (running.presence.node, online)

    await until(check, f"the device to be {'online' if online else 'seen last'} at this process")


@pytest.mark.parametrize("level", [4, 5])
async def test_a_login_elsewhere_ends_the_older_session(serve: Serve, level: int) -> None:
    one, two = await serve(), await serve()
    await load_rows(one, PRODUCT, DEVICE)
    async with raw(one.mqtt.port) as older, raw(two.mqtt.port) as newer:
        await older.login(connect(login(), level=level))
        await is_at(one)
        await newer.login(connect(login(), level=level))
        began = time.monotonic()
        packet = await older.read()
        assert time.monotonic() - began < 1.5
        if level == 5:
            assert isinstance(packet, packets.Disconnect)
            assert packet.code == 0x8E
            packet = await older.read()
        assert packet is None
        await until(lambda: len(one.sessions) == 0, "the end of the session")
        await until(lambda: one.presence.depth + two.presence.depth == 0, "the last word of both")
        await is_at(two)
        assert await newer.ping() == []
    await is_at(two, online=False)


async def test_two_logins_before_anybody_has_written_either(serve: Serve) -> None:
    one, two = await serve(), await serve()
    await load_rows(one, PRODUCT, DEVICE)
    async with raw(one.mqtt.port) as older, raw(two.mqtt.port) as newer:
        await older.login(connect(login()))
        await a_while()
        await newer.login(connect(login()))
        assert await older.is_closed(1.5)
        assert await newer.ping() == []
        await is_at(two)


async def a_while() -> None:
    """As long as a device needs at least to give up one connection and make another."""
    then = time.monotonic() + 0.05
    await until(lambda: time.monotonic() > then, "time")


async def test_a_device_that_flips_between_two_processes_has_one_session_the_newest(serve: Serve) -> None:
    one, two = await serve(), await serve()
    await load_rows(one, PRODUCT, DEVICE)
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(10):
            running = (one, two)[number % 2]
            clients.append(await stack.enter_async_context(raw(running.mqtt.port)))
            await clients[-1].login(connect(login()))
            if number % 3 == 0:
                await is_at(running)
            else:
                await a_while()
        for number, client in enumerate(clients[:-1]):
            assert await client.is_closed(), f"session {number} is still there"
        await until(lambda: len(one.sessions) == 0, "the end of the older sessions")
        await until(lambda: one.presence.depth + two.presence.depth == 0, "the last word of both")
        await is_at(two)
        assert await clients[-1].ping() == []
        assert len(two.sessions) == 1
    await is_at(two, online=False)


async def test_what_a_process_missed_while_it_was_deaf_is_made_up_for(serve: Serve) -> None:
    one, two = await serve(), await serve()
    await load_rows(one, PRODUCT, DEVICE)
    async with raw(one.mqtt.port) as older, raw(two.mqtt.port) as newer:
        await older.login(connect(login()))
        await is_at(one)
        # Nobody hears of this one: the trigger is off.
        await run(one, "ALTER TABLE presence DISABLE TRIGGER presence_taken_over")
        await newer.login(connect(login()))
        await is_at(two)
        assert await older.ping() == []
        await run(
            one, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' "
            "AND datname = current_database()"
        )  # fmt: skip
        assert await older.is_closed()
        assert await newer.ping() == []
        await is_at(two)


async def run(running: Running, statement: str) -> None:
    connection = await asyncpg.connect(running.database.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_process_that_is_killed_ends_nothing_elsewhere(serve: Serve, spawn: Spawn, database_url: str) -> None:
    one = await serve()
    await load_rows(one, PRODUCT, DEVICE, {**DEVICE, "deviceKey": "dk2", "deviceSecret": "ds2"})
    process = await spawn("serve", **service_environment(database_url))
    ports = await process.ready()
    async with raw(one.mqtt.port) as stays, raw(ports["mqtt"]) as lost, raw(one.mqtt.port) as again:
        await stays.login(connect(login("dk2", "ds2")))
        await lost.login(connect(login()))
        await until(lambda: count_online(one, 2), "both to be online")
        await process.kill()
        assert await lost.is_closed()
        await again.login(connect(login()))
        await until(lambda: count_at(one, 2), "both to be here")
        assert await stays.ping() == []
        assert await again.ping() == []
        assert len(one.sessions) == 2


async def count_online(running: Running, count: int) -> bool:
    async with running.database.read() as tx:
        return bool(await tx.db.fetchval("SELECT count(*) = $1 FROM presence WHERE online", count))


async def count_at(running: Running, count: int) -> bool:
    async with running.database.read() as tx:
        return bool(
            await tx.db.fetchval(
                "SELECT count(*) = $2 FROM presence WHERE online AND node = $1", running.presence.node, count
            )
        )


async def is_activated(running: Running) -> bool:
    async with running.database.read() as tx:
        return bool(await tx.db.fetchval("SELECT state = 'activated' FROM device"))


async def test_an_emptied_registry_is_forgotten_and_its_sessions_end(service: Running) -> None:
    await load_rows(service, PRODUCT, DEVICE)
    async with raw(service.mqtt.port) as client, raw(service.mqtt.port) as later:
        assert (await client.login(connect(login()))).code == 0
        assert len(service.credentials) == 1
        # TRUNCATE would meet what the login still has to write, and one of them would be turned away as a deadlock.
        await until(lambda: is_activated(service), "the first login to be written")
        await is_at(service)
        await until(lambda: service.presence.depth == 0, "the flush")
        await run(service, "TRUNCATE device CASCADE")
        assert await client.is_closed()
        assert service.credentials.get(DK1) is None
        assert (await later.login(connect(login()))).code != 0
