"""The embedded broker as a whole: what it is of amqtt, and what of amqtt it must not be.

The contract tests fail when a new release of amqtt changes something that broker/ stands on: read its change, then mend
broker/ or the list here.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import pytest
from amqtt import broker as amqtt_broker  # type: ignore[import-untyped]  # amqtt has no py.typed
from amqtt import contexts, events, session
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler  # type: ignore[import-untyped]  # as above
from amqtt.plugins import base  # type: ignore[import-untyped]  # as above

from broker.client import Client
from broker.embedded import EmbeddedBroker, Limits
from broker.plugin import SessionRights
from provisioning.model.mqtt import Message
from tests.broker.conftest import OpenDoor
from tests.broker.door import SYS, Door
from tests.conftest import Serve, load_rows, until
from tests.devices import DEVICE, PRODUCT, connect, device, login, raw

pytestmark = pytest.mark.server


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    behind = EmbeddedBroker(Limits())
    await behind.start()
    yield behind
    await behind.shutdown()


# --- the contract with amqtt ---


def test_the_release() -> None:
    assert version("amqtt") == "0.12.1", "read the changes of amqtt, and run the contract tests, before it is raised"


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (amqtt_broker.Broker.__init__, "self config loop plugin_namespace"),
        (amqtt_broker.Broker.start, "self"),
        (amqtt_broker.Broker.shutdown, "self"),
        (amqtt_broker.Broker.add_subscription, "self subscription session"),
        (amqtt_broker.Broker.retain_message, "self source_session topic_name data qos"),
        (amqtt_broker.Broker._broadcast_message, "self session topic data force_qos"),
        (amqtt_broker.Broker._broadcast_loop, "self"),
        (amqtt_broker.Broker._session_monitor, "self"),
        (amqtt_broker.Broker._cleanup_session, "self client_id"),
        (amqtt_broker.RetainedApplicationMessage.__init__, "self source_session topic data qos"),
        (session.Session._init_states, "self"),
        (session.Session.clear_queues, "self"),
        (BrokerProtocolHandler.stop, "self"),
        (BrokerProtocolHandler.mqtt_publish, "self topic data qos retain ack_timeout"),
        (base.BaseAuthPlugin.authenticate, "self session"),
        (base.BaseTopicPlugin.topic_filtering, "self session topic action"),
        (base.BasePlugin.close, "self"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_functions_that_are_overridden_or_called(function: Any, parameters: str) -> None:
    assert " ".join(inspect.signature(function).parameters) == parameters
    assert inspect.iscoroutinefunction(function) == (
        function.__name__ not in {"__init__", "_init_states", "clear_queues"}
    )


async def test_what_a_broker_is_made_of(broker: EmbeddedBroker) -> None:
    for name, kind in (("_sessions", dict), ("_subscriptions", dict), ("_retained_messages", dict), ("_servers", dict)):
        assert isinstance(vars(broker).get(name), kind), f"Broker.{name} is gone or has changed"
    assert broker._loop is asyncio.get_running_loop()
    assert broker.sessions is broker._sessions
    assert broker.subscriptions is broker._subscriptions, "it must be our table"
    assert broker.retained_messages is broker.retained, "it must be our table"


def test_what_a_session_is_made_of() -> None:
    names = vars(session.Session())
    for name in (
        "client_id", "clean_session", "keep_alive", "username", "password", "remote_address", "remote_port",
        "attributes", "parent", "will_flag", "will_topic", "transitions",
    ):  # fmt: skip
        assert name in names, f"Session.{name} is gone"


def test_the_state_machine_is_asked_no_more_than_ours_answers() -> None:
    used = inspect.getsource(amqtt_broker) + inspect.getsource(inspect.getmodule(BrokerProtocolHandler) or session)
    asked = {word.split("(")[0].split()[0].strip(":)],\n") for word in used.split("session.transitions.")[1:]}
    assert asked <= {"connect", "disconnect", "is_connected", "state"}


def test_plugins() -> None:
    assert {action.name for action in contexts.Action} == {"SUBSCRIBE", "PUBLISH", "RECEIVE"}
    names = {f"on_{event}" for event in events.BrokerEvents}
    assert names >= {
        "on_broker_pre_start", "on_broker_client_connected", "on_broker_client_disconnected",
        "on_broker_message_received",
    }  # fmt: skip
    assert contexts.ListenerType.EXTERNAL.value == "external"


# --- amqtt's own ways ---


def test_the_handlers_of_our_sessions_are_what_amqtt_calls(door: Door) -> None:
    for name in ("stop", "mqtt_publish"):
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (Client, BrokerProtocolHandler))
        assert list(ours) == list(theirs)


async def test_nothing_of_amqtt_runs_for_nothing(broker: EmbeddedBroker) -> None:
    def running() -> list[str]:
        names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
        return [name for name in names if "Broker." in name or "broadcast" in name]

    await until(lambda: not running(), "amqtt's loops to be over")
    assert broker._broadcast_queue.empty()


async def test_nobody_comes_in_past_the_listener(broker: EmbeddedBroker) -> None:
    # Without a socket: with one, shutdown() would wait for ever for idle connections from Python 3.12 on.
    assert [type(server) for server in broker._servers.values()] == [amqtt_broker.ExternalServer]
    assert all(server.instance is None for server in broker._servers.values())
    assert not await broker._authenticate(session.Session(), None), "no plugin authenticates"
    rights = broker.plugins_manager.get_plugin("SessionRights")
    assert isinstance(rights, SessionRights)
    for action in contexts.Action:
        assert not await rights.topic_filtering(session=session.Session(), topic="a", action=action)


async def test_what_a_plugin_does_goes_our_ways(door: Door) -> None:
    context = door.broker.plugins_manager.app_context
    async with door.device() as client, door.device("dk2") as other:
        await client.subscribe((SYS + "+", 1))
        await other.subscribe(("/sys/pk1/dk2/#", 1))
        await context.broadcast_message(SYS + "x", b"1", 2)
        assert (await client.read_publish()).message == Message(SYS + "x", b"1", qos=1)
        await context.retain_message(SYS + "y", b"2", 1)
        assert await client.ping() == []
        await client.subscribe((SYS + "y", 0))
        assert (await client.read_publish()).message == Message(SYS + "y", b"2", retain=True)
        await context.retain_message(SYS + "y", b"")
        assert not door.broker.retained
        name = str(door.identity())
        await context.add_subscription(name, SYS + "z", 2)
        assert await door.broker.add_subscription(("#", 1), context.get_session(name)) == 0x80
        _, handler = door.broker.sessions[name]
        await handler.mqtt_publish(SYS + "w", b"3", 2, retain=False)
        assert (await client.read_publish()).message == Message(SYS + "w", b"3", qos=1)
        assert await other.ping() == []
        await door.broker._cleanup_session(name)
        assert door.broker._client(name) is None
        assert list(door.broker._subscriptions) == ["/sys/pk1/dk2/#"]


async def test_start_again_begins_empty(broker: EmbeddedBroker) -> None:
    broker.retain(None, Message("x", b"1", retain=True))
    await broker.shutdown()
    assert not broker.retained
    await broker.start()
    assert list(broker.retained.matching([("#", 1)])) == []


@pytest.mark.parametrize("load", ["stored", "live"])
async def test_shutdown_under_load(opened: OpenDoor, load: str) -> None:
    door = await opened()
    async with door.device(clean=False) as client:
        await client.subscribe((SYS + "#", 1))
        if load == "stored":
            client.abort()
            await until(lambda: not door.connections, "the connection to be lost")
        for _ in range(500):
            door.broker.route(Message(SYS + "x", bytes(1_000), qos=1))
        await asyncio.wait_for(door.broker.shutdown(), 2)
        left = (door.broker._sessions, door.broker._subscriptions, door.broker.deadlines)
        assert [len(part) for part in left] == [0, 0, 0]
        await door.listener.stop()
        assert [len(part) for part in left] == [0, 0, 0]
        await door.broker.start()  # the fixture shuts it down again


async def test_a_connection_that_outlives_the_broker_is_served_no_tracebacks(opened: OpenDoor) -> None:
    door = await opened()
    async with door.device() as client:
        await client.subscribe((SYS + "#", 1))
        await door.broker.shutdown()
        assert await client.subscribe((SYS + "x", 1)) == (1,)
        client.publish(SYS + "x", b"1")
        await client.ping()
        await client.close()
        await until(lambda: door.is_empty, "the connection to end")
    assert not door.broker._subscriptions
    await door.broker.start()


# --- through the whole service ---


async def test_an_ordinary_mqtt_library(serve: Serve) -> None:
    service = await serve()
    await load_rows(service, PRODUCT, {**DEVICE})
    async with device(service.mqtt.port, login()) as client:
        await client.subscribe(SYS + "thing/measurepoint/post_reply", qos=1)
        await client.publish(
            SYS + "thing/measurepoint/post",
            b'{"id":"7","version":"1.0","method":"thing.measurepoint.post","params":{"measurepoints":{}}}',
            qos=1,
        )
        message = await anext(aiter(client.messages))
        assert message.payload == b'{"id":"7","code":200,"data":""}'


async def test_an_impostor_meets_the_real_scheme(serve: Serve) -> None:
    service = await serve()
    await load_rows(service, PRODUCT, {**DEVICE})
    async with raw(service.mqtt.port) as real:
        assert (await real.login(connect(login(), clean=False))).code == 0
        await real.subscribe((SYS + "#", 1))
        async with raw(service.mqtt.port) as impostor:
            assert (await impostor.login(connect(login(secret="guessed"), clean=True))).code == 4
        real.publish(SYS + "x", b"1")
        assert (await real.read_publish()).message.topic == SYS + "x"
