"""A session that must be pushed a secret. Source: EnOS reference, section 9."""

import asyncio
import time
from typing import Any

import pytest

from broker import packets
from broker.packets import Puback, Publish, Suback, Unsuback
from provisioning.model.mqtt import Message
from provisioning.model.refusal import Reason
from tests.broker.conftest import OpenDoor
from tests.broker.door import POST, PUSH, REPORT, SYS, Door
from tests.conftest import Serve, load_rows, until
from tests.devices import PRODUCT, Raw, connect, login, raw

pytestmark = pytest.mark.server

REPLY = f"{PUSH}_reply"
FAST = {"push_delay": 0.1, "push_interval": 0.1}
PAYLOAD = (
    b'{"id":"1","version":"1.0","method":"thing.activate.info","params":'
    b'{"assetId":"as1","productKey":"pk1","deviceKey":"dk1","deviceSecret":"ds1"}}'
)
YES = b'{"id":"1","code":200,"data":null,"message":"ok"}'
NOT_YET = b'{"id":"1","code":1101,"data":null,"message":"handler not registered"}'


@pytest.fixture
async def fast(opened: OpenDoor) -> Door:
    return await opened(enos=FAST)


def push(*, dup: bool = False) -> Publish:
    return Publish(Message(PUSH, PAYLOAD, qos=1), 0xFFFF, dup)


async def quiet(client: Raw, seconds: float = 0.35) -> None:
    """Nothing comes for longer than a repeat would take."""
    with pytest.raises(TimeoutError):
        await client.read(seconds)


def outcome(door: Door) -> dict[str, Any]:
    (line,) = door.logged("mqtt.activate")
    return {name: line[name] for name in ("outcome", "reason", "pushes", "acknowledged") if name in line}


async def test_pushed_200_ms_after_connack_without_a_subscription(door: Door) -> None:
    async with door.device(mode="3") as client:
        started = time.monotonic()
        assert await client.read() == push()
        assert 0.1 <= time.monotonic() - started <= 0.4
        client.send(packets.write_puback(0xFFFF))
        assert await client.ping() == []
    assert outcome(door) == {"outcome": "accepted", "pushes": 1, "acknowledged": True}
    assert [str(admission.identity) for admission in door.acknowledged] == ["enos/pk1/dk1"]


async def test_the_secret_is_in_no_line(fast: Door) -> None:
    async with fast.device(mode="3") as client:
        await client.read()
        client.send(packets.write_puback(0xFFFF))
        await client.ping()
    assert "ds1" not in repr(fast.lines.entries)


async def test_repeated_twice_at_most(fast: Door) -> None:
    async with fast.device(mode="3") as client:
        started = time.monotonic()
        assert [await client.read() for _ in range(3)] == [push(), push(dup=True), push(dup=True)]
        assert 0.25 < time.monotonic() - started < 1.2
        await quiet(client)
        assert outcome(fast) == {"outcome": "failed", "reason": "unacknowledged", "pushes": 3, "acknowledged": False}
        assert await client.ping() == [], "the session stays: the device may still ask"


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_reply_of_200_ends_it(fast: Door, qos: int) -> None:
    async with fast.device(mode="3") as client:
        await client.read()
        client.publish(REPLY, YES, qos=qos, packet_id=4)
        if qos:
            assert await client.read() == Puback(4)
        await quiet(client)
    assert outcome(fast)["outcome"] == "accepted"


@pytest.mark.parametrize("puback", ["none", "before", "after"])
async def test_a_device_that_was_not_ready_gets_it_again(fast: Door, puback: str) -> None:
    """Its library acknowledges the packet whether somebody listens or not, before or after the reply."""
    async with fast.device(mode="3") as client:
        await client.read()
        if puback == "before":
            client.send(packets.write_puback(0xFFFF))
        client.publish(REPLY, NOT_YET)
        if puback == "after":
            client.send(packets.write_puback(0xFFFF))
        assert await client.read() == push(dup=puback == "none")
        client.publish(REPLY, YES)
        await quiet(client)
    assert len(fast.acknowledged) == 1


async def test_a_device_that_is_never_ready_gets_it_three_times(fast: Door) -> None:
    async with fast.device(mode="3") as client:
        for _ in range(3):
            assert isinstance(await client.read(), Publish)
            client.send(packets.write_puback(0xFFFF))
            client.publish(REPLY, NOT_YET)
        await quiet(client)


async def test_what_comes_before_the_push_acknowledges_nothing(fast: Door) -> None:
    async with fast.device(mode="3") as client:
        client.send(packets.write_puback(0xFFFF))
        client.publish(REPLY, YES)
        client.publish(REPLY, NOT_YET)
        assert await client.read() == push()
        assert not fast.acknowledged


async def test_a_puback_that_refuses_acknowledges_nothing(fast: Door) -> None:
    async with fast.device(mode="3", level=5) as client:
        await client.read()
        client.send(packets.write_puback(0xFFFF, 0x83))
        client.send(packets.write_puback(77))
        await client.ping()
        assert not fast.acknowledged


@pytest.mark.parametrize("topic_filter", [PUSH, "/ext/session/pk1/dk1/#", "/ext/session/pk1/dk1/thing/+/info"])
@pytest.mark.parametrize("acknowledged", [False, True])
async def test_a_subscriber_gets_suback_and_then_the_push(door: Door, topic_filter: str, acknowledged: bool) -> None:
    async with door.device(mode="3") as client:
        if acknowledged:  # by the library, before the application was there
            assert await client.read() == push()
            client.send(packets.write_puback(0xFFFF))
        assert await client.subscribe((topic_filter, 1)) == (1,)
        assert await client.read() == push()
        client.publish(REPLY, YES)
        client.send(packets.write_puback(0xFFFF))
        assert await client.subscribe((topic_filter, 1)) == (1,)
        assert await client.ping() == [], "who holds the secret is not told again"


async def test_a_refused_or_other_filter_brings_no_push(door: Door) -> None:
    async with door.device("dk2", mode="3") as client:
        assert await client.subscribe((PUSH, 1), ("#", 1), ("/ext/session/pk1/+/#", 1), (f"{SYS}#", 1)) == (0x80,) * 4
        assert await client.ping() == []


async def test_subscriptions_are_granted_with_limits(opened: OpenDoor) -> None:
    door = await opened(limits={"max_subscriptions": 2})
    async with door.device(mode="3") as client:
        assert await client.subscribe((SYS + "a", 2), (SYS + "b", 0), (SYS + "c", 1)) == (1, 0, 0x80)
        assert await client.subscribe((SYS + "a", 0)) == (0,), "one that is there may change"
        client.send(packets.write_unsubscribe(5, [SYS + "a", SYS + "never"], 4))
        assert await client.read() == Unsuback(5)
        assert await client.subscribe((SYS + "c", 1)) == (1,)
        assert await client.subscribe(("/sys/pk1/dk1/" + "a/" * 40, 1)) == (0x80,)


async def test_unsubscribe_of_mqtt_5(door: Door) -> None:
    async with door.device(mode="3", level=5) as client:
        await client.subscribe((SYS + "a", 1))
        client.send(packets.write_unsubscribe(5, [SYS + "a", SYS + "never"], 5))
        assert await client.read() == Unsuback(5, (0, 0x11))


async def test_until_it_is_acknowledged_nothing_else_may_be_published(fast: Door) -> None:
    async with fast.device("dk2") as other, fast.device(mode="3") as client:
        await other.ping()
        client.publish(POST, REPORT, qos=1, packet_id=3)
        assert await client.read() == Puback(3)
        refusal = (await client.read_publish()).message
        assert (refusal.topic, refusal.qos) == (f"{POST}_reply", 0)
        assert (
            refusal.payload == b'{"id":"1","code":1009,"data":"","message":"Publish to topic with no write permission"}'
        )
        client.publish(PUSH, b"forged")
        assert (await client.read_publish()).message.topic == f"{PUSH}_reply"


@pytest.mark.parametrize("subscribed", ["before", "after"])
async def test_afterwards_it_is_a_session_like_any_other(fast: Door, subscribed: str) -> None:
    async with fast.device(mode="3") as client:
        if subscribed == "before":
            assert await client.subscribe((f"{POST}_reply", 1)) == (1,)
        await client.read()
        client.publish(REPLY, YES)
        if subscribed == "after":
            assert await client.subscribe((f"{POST}_reply", 1)) == (1,)
        client.publish(POST, REPORT, qos=1, packet_id=3)
        assert await client.read() == Puback(3)
        reply = await client.read_publish()
        assert reply.message.payload == b'{"id":"1","code":200,"data":""}'
        assert reply.packet_id != 0xFFFF
        client.publish(REPLY, YES, qos=1, packet_id=5)
        assert await client.read() == Puback(5)


async def test_a_device_that_got_it_and_disconnects_is_content(fast: Door) -> None:
    async with fast.device(mode="3") as client:
        await client.read()
        client.send(packets.write_disconnect(level=4))
        assert await client.read() is None
    await until(lambda: fast.logged("mqtt.activate"), "the line")
    assert outcome(fast) == {"outcome": "accepted", "reason": "disconnected", "pushes": 1, "acknowledged": False}
    assert not fast.acknowledged, "the strict setting counts PUBACK and reply alone"


@pytest.mark.parametrize("pushed", [False, True])
async def test_a_lost_connection_is_no_success(fast: Door, pushed: bool) -> None:
    async with fast.device(mode="3") as client:
        if pushed:
            await client.read()
    await until(lambda: fast.logged("mqtt.activate"), "the line")
    assert outcome(fast) == {
        "outcome": "failed", "reason": "connection_lost", "pushes": int(pushed), "acknowledged": False
    }  # fmt: skip
    await until(lambda: fast.is_empty, "nothing to be left")


@pytest.mark.parametrize("said", ["puback", "reply"])
async def test_a_device_is_there_once_it_has_the_secret(fast: Door, said: str) -> None:
    """Step 9 of the reference; CONNACK alone says only that somebody knows the product's secret."""
    async with fast.device(mode="3") as client:
        assert await client.read() == push()
        assert not fast.present
        if said == "puback":
            client.send(packets.write_puback(0xFFFF))
        else:
            client.publish(REPLY, YES)
        await client.ping()
        assert len(fast.present) == 1
    await until(lambda: not fast.present, "the device to be gone")


async def test_a_session_that_gave_way_to_an_activation_is_not_there(fast: Door) -> None:
    async with fast.device() as older:
        assert len(fast.present) == 1
        async with fast.device(mode="3"):
            assert await older.read() is None
            assert not fast.present
        await until(lambda: fast.is_empty, "nothing to be left")
    assert not fast.present


async def test_nobody_else_sees_it(fast: Door) -> None:
    async with fast.device("dk2") as other, fast.device("dk3") as third:
        for client in (other, third):
            key = "dk2" if client is other else "dk3"
            wanted = (("#", 1), ("+/#", 1), ("/ext/#", 1), (PUSH, 1), (f"/ext/session/pk1/{key}/#", 1))
            assert await client.subscribe(*wanted) == (0x80, 0x80, 0x80, 0x80, 1)
        async with fast.device(mode="3") as client:
            assert await client.read() == push()
            client.publish(REPLY, YES)
            await client.ping()
        assert await other.ping() == []
        assert await third.ping() == []


async def test_it_is_not_retained(fast: Door) -> None:
    async with fast.device(mode="3") as client:
        await client.read()
        client.publish(REPLY, YES, retain=True)
        await client.ping()
    assert not fast.broker.retained
    async with fast.device() as client:
        await client.subscribe(("/ext/session/pk1/dk1/#", 1))
        assert await client.ping() == []


@pytest.mark.parametrize(("key", "mode"), [("dk1", "2"), ("dk2", "2"), ("dk1", "3")])
async def test_no_will_forges_it(fast: Door, key: str, mode: str) -> None:
    will = Message(PUSH, b"forged", qos=1, retain=True)
    async with fast.device("dk1") as device:
        await device.subscribe((PUSH, 1))
        async with fast.device(key, mode=mode, will=will) as forger:
            if mode == "3":
                await forger.read()
                forger.send(packets.write_puback(0xFFFF))
                await forger.ping()
            forger.abort()
        await until(lambda: fast.logged("mqtt.will"), "the refusal")
        if key != "dk1":
            assert await device.ping() == []
    assert not fast.broker.retained
    async with fast.device("dk1") as device:
        await device.subscribe((PUSH, 1))
        assert await device.ping() == []


async def test_the_will_counts_only_once_the_secret_is_there(fast: Door) -> None:
    async with fast.device("dk2", clean=False) as observer:
        await observer.subscribe(("/sys/pk1/dk2/#", 1))
        observer.send(packets.write_disconnect(level=4))
    for acknowledges in (False, True):
        async with fast.device("dk2", mode="3", clean=False, will=Message("/sys/pk1/dk2/will", b"1", qos=1)) as client:
            await client.read()
            if acknowledges:
                client.send(packets.write_puback(0xFFFF))
                await client.ping()
            client.abort()
        await until(lambda: fast.is_empty or len(fast.sessions) == 0, "the connection to be lost")
        assert fast.broker.queued == int(acknowledges)


async def test_a_stored_session_goes_on_behind_it(fast: Door) -> None:
    async with fast.device(clean=False) as client:
        await client.subscribe((SYS + "a", 1))
        client.send(packets.write_disconnect(level=4))
        assert await client.read() is None
    async with fast.client() as client:
        assert (await client.login(Door.connect(mode="3", clean=False))).session_present
        assert await client.subscribe((SYS + "b", 1)) == (1,)
        await client.read()
        client.send(packets.write_puback(0xFFFF))
        for name in ("a", "b"):
            client.publish(SYS + name, b"")
            assert (await client.read_publish()).message.topic == SYS + name


async def test_what_was_granted_to_a_stored_session_stays_though_nothing_was_acknowledged(fast: Door) -> None:
    async with fast.device(mode="3", clean=False) as client:
        assert await client.subscribe((SYS + "a", 1)) == (1,)
        client.abort()
    await until(lambda: not len(fast.sessions), "the connection to be lost")
    async with fast.client() as client:
        assert (await client.login(Door.connect(clean=False))).session_present
        client.publish(SYS + "a", b"")
        assert (await client.read_publish()).message.topic == SYS + "a"


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_a_device_that_is_no_more_stores_nothing(fast: Door, acknowledged: bool) -> None:
    async with fast.device(mode="3", clean=False) as client:
        assert await client.subscribe((SYS + "a", 1)) == (1,)
        if acknowledged:
            await client.read()
            client.send(packets.write_puback(0xFFFF))
            await client.ping()
        fast.broker.forget_device(fast.identity())
        fast.sessions.kick(fast.identity(), Reason.NOT_PROVEN)
        assert await client.is_closed()
    await until(lambda: fast.is_empty, "the connection to end")
    assert not fast.broker._sessions


async def test_only_the_newest_session_gets_it(door: Door) -> None:
    async with door.device(mode="3") as older, door.device(mode="3") as newer:
        assert await older.read() is None
        assert await newer.read() == push()
    async with door.device(mode="3") as older:
        assert await older.read() == push()
        async with door.device() as newer:
            assert await older.read() is None
            await asyncio.sleep(0.3)
            assert await newer.ping() == []


async def test_a_client_whose_packets_are_too_small(fast: Door) -> None:
    async with fast.device(mode="3", level=5, maximum_packet=100) as client:
        await quiet(client)
        assert outcome(fast)["reason"] == "maximum_packet_of_client"
        client.send(packets.write_disconnect(level=5))
        assert await client.read() is None
    assert len(fast.logged("mqtt.activate")) == 1


async def test_a_reply_of_any_bytes_is_no_trouble(fast: Door) -> None:
    async with fast.device(mode="3") as client:
        await client.read()
        for payload in (b"", b"\xff", b"[" * 100_000, b"[]", b"null", b'{"code":null}', b'{"code":"1101"}'):
            client.publish(REPLY, payload)
        client.publish(REPLY, b'{"code":"200"}')
        await client.ping()
    assert len(fast.acknowledged) == 1


async def test_suback_comes_first(door: Door) -> None:
    async with door.device(mode="3") as client:
        client.send(packets.write_subscribe(1, [(PUSH, 1)], 4))
        assert [type(await client.read()) for _ in range(2)] == [Suback, Publish]


async def test_strict_activation_is_consumed_by_the_acknowledgement(serve: Serve) -> None:
    service = await serve(enos={"activation_strict": True, "push_delay": 0.1})
    await load_rows(service, PRODUCT)
    await load_rows(service, {"type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": "dk8"})
    wanted = login("dk8", "ps1", mode="3")
    async with raw(service.mqtt.port) as client:
        assert (await client.login(connect(wanted))).code == 0
        await client.read_publish()
    async with raw(service.mqtt.port) as client:
        assert (await client.login(connect(wanted))).code == 0, "nothing was acknowledged"
        await client.read_publish()
        client.send(packets.write_puback(0xFFFF))
        await client.ping()

    async def refused() -> bool:
        async with raw(service.mqtt.port) as client:
            return (await client.login(connect(wanted))).code == 5

    await until(refused, "the activation to be spent")


async def test_subscribing_over_and_over_brings_it_a_few_times_only(door: Door) -> None:
    async with door.device(mode="3") as client:
        client.send(b"".join(packets.write_subscribe(n, [(PUSH, 1)], 4) for n in range(1, 201)))
        came = await client.ping()
        assert len([packet for packet in came if isinstance(packet, Publish)]) == 3
        assert len(came) == 203, "each SUBSCRIBE is answered"
