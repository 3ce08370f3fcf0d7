"""The admission as plugins of a stock amqtt broker, on a TCP port of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from amqtt.broker import Broker  # type: ignore[import-untyped]  # amqtt has no py.typed
from amqtt.contexts import Action  # type: ignore[import-untyped]  # as above
from amqtt.session import Session  # type: ignore[import-untyped]  # as above
from structlog.testing import LogCapture

from broker import packets
from broker.packets import Puback, Publish
from broker.plugin import ADMISSION, OWNER, UNACKNOWLEDGED, Admitted, SessionRights, admission_of, connect_of
from provisioning.model.mqtt import Connect, Message
from tests import tencent
from tests.broker.door import POST, PUSH, SYS, Door, Judge
from tests.conftest import settings_for, until
from tests.devices import PRODUCT, connect, login, raw

pytestmark = pytest.mark.server

REPLY = f"{PUSH}_reply"
FAST = {"push_delay": 0.1, "push_interval": 0.2}
opened: list[str] = []
"""What the factory below did."""


@asynccontextmanager
async def factory() -> AsyncIterator[Callable[..., object]]:
    task = asyncio.current_task()
    async with asyncio.timeout(60):  # must be left by the task that entered it
        opened.append("entered")
        yield Judge(**FAST).admit
    assert asyncio.current_task() is task
    opened.append("left")


@asynccontextmanager
async def broken() -> AsyncIterator[Callable[..., object]]:
    opened.append("tried")
    if opened:
        raise RuntimeError("the database is away")
    yield print


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def stock(**options: Any) -> AsyncIterator[tuple[Broker, int]]:
    """A stock broker that listens on a port of its own."""
    port = free_port()
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"broker.plugin.Admitted": options, "broker.plugin.SessionRights": {}},
        }
    )
    await broker.start()
    try:
        yield broker, port
    finally:
        await asyncio.wait_for(broker.shutdown(), 5)


@pytest.fixture
async def port(lines: LogCapture) -> AsyncIterator[int]:
    async with stock(admit=Judge(**FAST).admit) as (_, port):
        yield port


async def refused(port: int, wanted: Connect) -> bool:
    async with raw(port) as client:
        answer = await client.login(wanted)
        return answer.code == 5


async def test_static_login(port: int) -> None:
    async with raw(port) as client:
        assert (await client.login(Door.connect())).code == 0
        await client.subscribe((f"{POST}_reply", 1), (SYS + "x", 1))
        client.publish(SYS + "x", b"1", qos=1)
        assert {type(await client.read()) for _ in range(2)} == {Puback, Publish}
    assert await refused(port, connect(login(secret="guessed")))
    assert await refused(port, Connect(4, "x", None, None, True, 60))


async def test_foreign_topics(port: int) -> None:
    async with raw(port) as one, raw(port) as two:
        await one.login(Door.connect("dk1"))
        await two.login(Door.connect("dk2"))
        assert await one.subscribe(("#", 1), ("/sys/pk1/dk2/#", 1), ("/sys/+/dk1/#", 1), (SYS + "#", 1)) == (
            0x80,
            0x80,
            0x80,
            1,
        )
        two.publish(SYS + "x", b"forged", qos=1)
        assert await two.ping() == [Puback(7)]
        assert await one.ping() == []


async def test_the_push_is_acknowledged_by_puback(port: int, lines: LogCapture) -> None:
    async with raw(port) as other, raw(port) as client:
        await other.login(Door.connect("dk2"))
        await other.subscribe(("#", 1), (PUSH, 1))
        assert (await client.login(Door.connect(mode="3"))).code == 0
        pushed = await client.read_publish()
        assert (pushed.message.topic, pushed.message.qos, pushed.message.retain) == (PUSH, 1, False)
        assert b'"deviceSecret":"ds1"' in pushed.message.payload
        client.send(packets.write_puback(pushed.packet_id or 0))
        await until(lambda: activations(lines), "the line")
        assert activations(lines) == [("accepted", 1)]
        assert await client.ping() == []
        assert await other.ping() == []
    assert "ds1" not in repr(lines.entries)


def activations(lines: LogCapture) -> list[tuple[str, int]]:
    return [(line["outcome"], line["pushes"]) for line in lines.entries if line["event"] == "mqtt.activate"]


async def test_the_push_is_repeated(port: int, lines: LogCapture) -> None:
    async with raw(port) as client:
        await client.login(Door.connect(mode="3"))
        for _ in range(3):
            assert (await client.read_publish()).message.topic == PUSH
        await until(lambda: activations(lines), "the end")
        assert activations(lines) == [("failed", 3)]
        assert await client.ping() == []


async def test_replies(port: int, lines: LogCapture) -> None:
    async with raw(port) as client:
        await client.login(Door.connect(mode="3"))
        pushed = await client.read_publish()
        client.publish(REPLY, b'{"id":"1","code":1101}')
        client.send(packets.write_puback(pushed.packet_id or 0))
        assert (await client.read_publish()).message.topic == PUSH, "it was not ready"
        client.publish(REPLY, b'{"id":"1","code":200}')
        await until(lambda: activations(lines), "the end")
        assert activations(lines) == [("accepted", 2)]


async def test_until_the_push_is_acknowledged_nothing_may_be_published(port: int) -> None:
    async with raw(port) as client:
        await client.login(Door.connect(mode="3"))
        await client.subscribe((SYS + "#", 1))
        client.publish(SYS + "x", b"too early")
        pushed = await client.read_publish()
        assert pushed.message.topic == PUSH
        client.send(packets.write_puback(pushed.packet_id or 0))
        await client.ping()
        client.publish(SYS + "x", b"now")
        assert (await client.read_publish()).message.payload == b"now"


async def test_a_will_has_no_more_rights_than_its_device(port: int) -> None:
    async with raw(port) as device:
        await device.login(Door.connect("dk1"))
        await device.subscribe((SYS + "#", 1), ("/ext/session/pk1/dk1/#", 1))
        for key, mode in (("dk2", "2"), ("dk3", "3")):
            for topic in (PUSH, SYS + "x"):
                async with raw(port) as forger:
                    await forger.login(Door.connect(key, mode=mode, will=Message(topic, b"forged", qos=1, retain=True)))
                    forger.abort()
        assert await device.ping() == []
        async with raw(port) as other:
            wanted = Door.connect("dk4", will=Message("/sys/pk1/dk4/will", b"1"))
            await other.login(wanted)
            other.abort()


async def test_a_push_does_not_follow_a_client_id_to_another_device(lines: LogCapture) -> None:
    """amqtt finds sessions by client id, and anybody may state one."""
    async with stock(admit=Judge(push_delay=0.3, push_interval=0.2).admit) as (_, port):
        one, two = (login(key, "ps1", mode="3", client="same", at="1") for key in ("dk1", "dk2"))
        assert one["identifier"] == two["identifier"]
        async with raw(port) as client, raw(port) as other:
            assert (await client.login(connect(one))).code == 0
            assert (await other.login(connect(two))).code == 0
            for _ in range(3):
                assert b'"deviceKey":"dk2"' in (await other.read_publish()).message.payload
            assert await other.ping() == []


async def test_a_stored_session_is_not_handed_to_another_device(port: int, lines: LogCapture) -> None:
    one = login("dk1", client="same", at="1")
    two = login("dk2", client="same", at="1")
    async with raw(port) as client:
        assert (await client.login(connect(one, clean=False))).code == 0
        await client.subscribe((SYS + "#", 1))
        client.send(packets.write_disconnect(level=4))
        await client.read()
    assert await refused(port, connect(two, clean=False))
    assert [line["reason"] for line in lines.entries if line["event"] == "mqtt.login"] == ["session_of_another"]


# --- the plugin by itself ---


def session_of(wanted: Connect) -> Session:
    """As amqtt's handler makes it."""
    made = Session()
    made.client_id, made.username = wanted.client_id, wanted.username
    made.password = (wanted.password or b"").decode()
    made.clean_session, made.keep_alive = wanted.clean, wanted.keepalive
    made.remote_address, made.remote_port = "192.0.2.1", 5
    return made


@pytest.fixture
async def admitted(lines: LogCapture) -> AsyncIterator[Admitted]:
    async with stock(admit=Judge(**FAST).admit) as (broker, _):
        yield broker.plugins_manager.get_plugin("Admitted")


async def test_attributes_of_an_earlier_login_count_for_nothing(admitted: Admitted) -> None:
    session = session_of(Door.connect(mode="3"))
    assert await admitted.authenticate(session=session)
    assert admission_of(session) is not None
    assert session.attributes[UNACKNOWLEDGED]
    session.password = "guessed"
    assert not await admitted.authenticate(session=session)
    assert admission_of(session) is None
    rights = SessionRights(admitted.context)
    for action in Action:
        assert not await rights.topic_filtering(session=session, topic=SYS + "x", action=action)
    session.attributes[ADMISSION] = "anything"
    assert admission_of(session) is None


async def test_an_owner_stays_though_a_login_failed_in_between(admitted: Admitted) -> None:
    session = session_of(Door.connect("dk1"))
    assert await admitted.authenticate(session=session)
    session.password = "guessed"
    assert not await admitted.authenticate(session=session)
    other = Door.connect("dk2")
    session.client_id, session.username, session.password = (
        other.client_id,
        other.username,
        (other.password or b"").decode(),
    )
    assert not await admitted.authenticate(session=session)
    assert str(session.attributes[OWNER]) == "enos/pk1/dk1"
    assert admission_of(session) is None


def test_connect_of() -> None:
    wanted = Door.connect()
    assert connect_of(session_of(wanted)) == wanted
    session = Session()
    session.password = "\udcff"
    assert connect_of(session).password == b"\xed\xb3\xbf"
    assert admission_of(None) is None


async def test_pending_verdicts(lines: LogCapture) -> None:
    judge = Judge()
    judge.hold = asyncio.Event()
    judge.hold.set()
    async with stock(admit=judge.admit) as (_, port), raw(port) as client:
        assert (await client.login(Door.connect())).code == 0


async def test_without_a_function_nobody_gets_in(lines: LogCapture) -> None:
    async with stock() as (_, port):
        assert await refused(port, Door.connect())


async def test_the_factory_is_entered_and_left(lines: LogCapture) -> None:
    opened.clear()
    async with stock(open="tests.broker.test_plugin:factory") as (broker, port):
        plugin = broker.plugins_manager.get_plugin("Admitted")
        # Importmode importlib: the broker has imported a twin of this module.
        from tests.broker import test_plugin as twin

        assert twin.opened == ["entered"]
        async with raw(port) as client:
            assert (await client.login(Door.connect())).code == 0
            async with raw(port) as waiting:
                await waiting.login(Door.connect("dk2", mode="3"))
                await until(lambda: plugin._deliveries, "the push to be under way")
    assert twin.opened == ["entered", "left"]
    assert not plugin._deliveries
    assert not [task for task in asyncio.all_tasks() if "Admitted" in repr(task)]


async def test_a_factory_that_fails_refuses_everybody_and_says_so(lines: LogCapture) -> None:
    async with stock(open="tests.broker.test_plugin:broken") as (_, port):
        assert await refused(port, Door.connect())
    (line,) = (line for line in lines.entries if line["event"] == "plugin.open")
    assert (line["outcome"], line["reason"]) == ("failed", "the database is away")


async def test_the_registry_behind_a_stock_broker(
    database_url: str, monkeypatch: pytest.MonkeyPatch, lines: LogCapture
) -> None:
    from provisioning import app
    from provisioning.core.importing import import_rows
    from provisioning.opening import registry
    from provisioning.protocols.enos import rows
    from provisioning.protocols.tencent import rows as tencent_rows

    settings = settings_for(database_url, enos={"push_delay": 0.1})
    monkeypatch.setattr(app, "load", lambda: settings)
    async with registry(settings) as database:
        import json

        new = {"type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": "dk1"}
        every = [PRODUCT, new, *tencent.ROWS]
        readers = {"enos": rows.read_row, "tencent": tencent_rows.read_row}
        assert not (await import_rows(database, map(json.dumps, every), readers)).failed
    async with stock(open="provisioning.app:admissions") as (_, port), raw(port) as client:
        assert (await client.login(Door.connect(mode="3"))).code == 0
        pushed = await client.read_publish()
        client.send(packets.write_puback(pushed.packet_id or 0))
        secret = pushed.message.payload.split(b'"deviceSecret":"')[1].split(b'"')[0].decode()
        async with raw(port) as again:
            assert (await again.login(connect(login(secret=secret)))).code == 0
        assert await refused(port, connect(login(secret="guessed")))
        assert await refused(port, tencent.connect(secret=tencent.psk("wrong")))
        async with raw(port) as other:
            will = Message(f"{tencent.KEYS}/d1/data", b"gone")
            assert (await other.login(tencent.connect(will=will))).code == 0
            assert await other.subscribe((f"{tencent.KEYS}/d1/control", 1)) == (1,)
            assert await other.subscribe((f"{tencent.KEYS}/d2/control", 1), packet_id=2) == (0x80,)
        assert await refused(port, tencent.connect()), "too soon"
