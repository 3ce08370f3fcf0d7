"""How many come in, how they race, how they are taken down, and that nothing of them stays."""

import asyncio
import gc
import socket
from pathlib import Path

import pytest

from broker import packets
from broker.packets import Connack, Disconnect, Pingresp, Publish
from provisioning.model.mqtt import Message
from tests.broker.conftest import OpenDoor
from tests.broker.door import SYS, Door
from tests.conftest import until
from tests.devices import Raw, raw

pytestmark = pytest.mark.server

CONNECT_BYTES = packets.write_connect(Door.connect())
FILES = Path("/proc/self/fd")


def open_files() -> int:
    return len(list(FILES.iterdir()))


async def gone(door: Door) -> None:
    await until(lambda: door.is_empty, "nothing to be left of the connections")


async def test_max_connections(opened: OpenDoor) -> None:
    door = await opened(limits={"max_connections": 2})
    async with door.device("dk1") as one, door.device("dk2"):
        async with door.client() as third:
            assert await third.read() is None
        assert len(door.connections) == 2
        (line,) = door.logged("mqtt.overload")
        assert (line["reason"], line["connections"]) == ("too_many_connections", 2)
        one.abort()
        await until(lambda: len(door.connections) == 1, "the first to go")
        async with door.device("dk3"):
            pass


async def test_max_per_address(opened: OpenDoor) -> None:
    door = await opened(limits={"max_per_address": 1})
    async with door.device() as client:
        async with door.client() as second:
            assert await second.read() is None
        await client.ping()
    await gone(door)


async def test_racing_logins_leave_one(door: Door) -> None:
    door.judge.hold = asyncio.Event()
    clients: list[Raw] = []
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        clients.append(Raw(reader, writer))
        clients[-1].send(CONNECT_BYTES)
    await until(lambda: sum(c._verdict is not None for c in door.connections) == 20, "twenty questions")
    door.judge.hold.set()
    await until(lambda: len(door.connections) == 1, "nineteen to be taken over")
    assert len(door.sessions) == 1
    alive = []
    for client in clients:
        assert await client.read() == Connack(session_present=False, code=0)
        client.send(packets.PINGREQ)
        alive.append(await client.read() == Pingresp())
    assert alive.count(True) == 1
    for client in clients:
        client.abort()
    await gone(door)
    assert len(door.logged("mqtt.disconnect")) == 20
    assert [line["reason"] for line in door.logged("mqtt.disconnect")].count("taken_over") == 19


async def test_stop_closes_everything(door: Door) -> None:
    async with door.device() as one, door.device("dk2", level=5) as two, door.client() as stranger:
        await until(lambda: len(door.connections) == 3, "three connections")
        port = door.port
        await door.listener.stop()
        assert await one.read() is None
        assert await two.read() == Disconnect(0x8B)
        assert await stranger.read() is None
        assert door.is_empty
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
    assert {line["reason"] for line in door.logged("mqtt.disconnect")} == {"shutdown"}


async def test_nothing_is_left_of_500_connections_of_all_kinds(opened: OpenDoor) -> None:
    door = await opened(limits={"connect_timeout": 0.1}, enos={"push_delay": 0.1})
    will = Message(SYS + "will", b"", qos=1)
    to_everything = packets.write_subscribe(1, [(SYS + "#", 1)], 4)
    kinds = [
        b"",
        b"\x10",
        CONNECT_BYTES[:20],
        b"\xc0\x00",
        CONNECT_BYTES,
        CONNECT_BYTES + to_everything,
        packets.write_connect(Door.connect("dk2", will=will)),
        packets.write_connect(Door.connect("dk3", mode="3")),
        packets.write_connect(Door.connect("dk4", mode="3", will=will)) + to_everything,
        packets.write_connect(Door.connect("dk5", level=5)) + packets.write_disconnect(level=5),
        packets.write_connect(Door.connect("dk6", level=5, session_expiry=9))
        + packets.write_disconnect(session_expiry=0, level=5),
    ]  # fmt: skip
    await asyncio.sleep(0)
    tasks, files = len(asyncio.all_tasks()), open_files()
    loop = asyncio.get_running_loop()
    for number in range(500):
        connection = socket.socket()
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", door.port))
        if data := kinds[number % len(kinds)]:
            await loop.sock_sendall(connection, data)
        if number % 3 == 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
        if number % 5 == 0:
            await asyncio.sleep(0)
        connection.close()
    await gone(door)
    gc.collect()
    assert len(asyncio.all_tasks()) == tasks
    assert open_files() == files
    assert not door.broker._sessions
    assert not door.broker._subscriptions
    assert not len(door.broker.deadlines)
    assert not door.present
    assert not [line for line in door.lines.entries if line["log_level"] in {"error", "critical"}]


async def test_totals(door: Door) -> None:
    async with door.device() as client:
        await client.subscribe((SYS + "#", 0))
        client.publish(SYS + "x", b"1")
        assert isinstance(await client.read(), Publish)
    assert (door.listener.totals.received, door.listener.totals.sent) == (1, 1)


async def test_further_addresses_share_the_limits(opened: OpenDoor) -> None:
    door = await opened(limits={"max_connections": 2})
    await door.listener.start("127.0.0.1", 0)
    first, second = door.listener.ports
    assert (first, first != second) == (door.port, True)
    async with raw(first) as one, raw(second) as other:
        for client, key in ((one, "dk1"), (other, "dk2")):
            assert (await client.login(Door.connect(key))).code == 0
        async with raw(second) as third:
            assert await third.read() is None
    await gone(door)
    await door.listener.stop()
    for port in (first, second):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
