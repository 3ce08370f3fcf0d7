"""What a device sends and gets once it is in the broker; what waits for it while it is away."""

import asyncio
from typing import Any

import pytest

from broker import packets
from broker.client import Client
from broker.embedded import EmbeddedBroker, Limits
from broker.outbox import LAST_PACKET_ID
from broker.packets import Connack, Puback, Publish, Suback, Unsuback
from provisioning.model.admission import Admission, Answer, Rights, SessionLimits
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Message
from provisioning.model.refusal import Reason
from provisioning.protocols.enos.mqtt import Enos
from provisioning.sections import Enos as EnosSettings
from tests.broker.conftest import OpenDoor
from tests.broker.door import POST, REPORT, SYS, Door, Judge
from tests.conftest import until
from tests.devices import Raw

pytestmark = pytest.mark.server

SMALL = b"x" * 10


def client_of(door: Door, key: str = "dk1") -> Client:
    client = door.broker._client(str(door.identity(key)))
    assert client is not None, f"{key} has no place in the broker"
    return client


async def leave(door: Door, client: Raw) -> None:
    client.send(packets.write_disconnect(level=client.level))
    assert await client.read() is None
    await until(lambda: not door.connections, "the device to be gone")


def send(door: Door, topic: str, payload: bytes = SMALL, qos: int = 1) -> None:
    """As the service does."""
    door.broker.route(Message(topic, payload, qos=qos))


# --- publish ---


@pytest.mark.parametrize(("published", "granted", "delivered"), [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1), (1, 2, 1)])
async def test_qos_is_the_lower_of_publish_and_grant(door: Door, published: int, granted: int, delivered: int) -> None:
    async with door.device() as client:
        assert await client.subscribe((SYS + "x", granted)) == (min(granted, 1),)
        client.publish(SYS + "x", b"1", qos=published, packet_id=3)
        got = [await client.read() for _ in range(1 + published)]
        (publish,) = (packet for packet in got if isinstance(packet, Publish))
        assert publish.message == Message(SYS + "x", b"1", qos=delivered)
        assert (Puback(3) in got) == bool(published)


async def test_overlapping_filters_deliver_once(door: Door) -> None:
    async with door.device() as client:
        assert await client.subscribe((SYS + "x", 0), (SYS + "+", 1), (SYS + "#", 0), (SYS + "x", 0)) == (0, 1, 0, 0)
        client.publish(SYS + "x", b"1", qos=1, packet_id=3)
        assert {type(await client.read()) for _ in range(2)} == {Publish, Puback}
        assert await client.ping() == []


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize(("params", "code"), [(REPORT, 200), (b"{", 1220), (b"", 1251)])
async def test_a_report_is_answered_by_the_subscription(door: Door, qos: int, params: bytes, code: int) -> None:
    async with door.device() as client:
        await client.subscribe((f"{POST}_reply", 1))
        client.publish(POST, params, qos=qos, packet_id=3)
        if qos:
            assert await client.read() == Puback(3)
        reply = (await client.read_publish()).message
        assert (reply.topic, reply.qos) == (f"{POST}_reply", qos)
        assert f'"code":{code}'.encode() in reply.payload
        await client.subscribe((f"{POST}_reply", 0))
        client.publish(POST, params, qos=qos, packet_id=3)
        replies = [packet for packet in await client.ping() if isinstance(packet, Publish)]
        assert [packet.message.qos for packet in replies] == [0]


async def test_without_a_subscription_the_reply_comes_unasked(door: Door) -> None:
    async with door.device() as client:
        client.publish(POST, REPORT, qos=1, packet_id=3)
        puback, reply = await client.ping()
        assert puback == Puback(3)
        assert isinstance(reply, Publish)
        assert (reply.message.topic, reply.message.qos) == (f"{POST}_reply", 0)


@pytest.mark.parametrize(
    "topic", ["/sys/pk1/dk2/x", "a", "/sys/pk1/dk1", "$SYS/x", "/", "/ext/session/pk1/dk1/thing/activate/info"]
)
@pytest.mark.parametrize("level", [4, 5])
async def test_a_foreign_topic_is_refused_to_the_publisher(door: Door, topic: str, level: int) -> None:
    async with door.device("dk2") as other, door.device(level=level) as client:
        await other.subscribe(("/sys/pk1/dk2/#", 1), ("/ext/session/pk1/dk2/#", 1))
        client.publish(topic, b'{"id":"77"}', qos=1, packet_id=3, retain=True)
        expected = f"{topic}_reply"
        assert await client.read() == Puback(3, 0x87 if level == 5 else 0)
        refusal = (await client.read_publish()).message
        assert refusal.topic == expected
        assert refusal.payload.startswith(b'{"id":"77","code":1009,')
        assert await other.ping() == []
        assert not door.broker.retained


@pytest.mark.parametrize("level", [4, 5])
async def test_a_payload_above_the_protocols_limit(door: Door, level: int) -> None:
    async with door.device(level=level) as client:
        await client.subscribe((SYS + "#", 1))
        client.publish(SYS + "x", b'{"id":"9"' + bytes(524_288), qos=1, packet_id=3)
        assert await client.read() == Puback(3, 0x97 if level == 5 else 0)
        refusal = (await client.read_publish()).message
        assert refusal.topic == SYS + "x_reply"
        assert b'"code":1008' in refusal.payload
        assert await client.ping() == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x34\x05\x00\x01a\x00\x01",  # QoS 2
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x30\x03\x00\x01#",
        b"\x30\x03\x00\x01+",
        b"\x30\x02\x00\x00",
        b"\x30\x03\x00\x01\x00",
        b"\x30\x03\x00\x01\xff",
        b"\x32\x05\x00\x01a\x00\x00",  # packet id 0
        b"\x82\x02\x00\x01",  # no filter
        b"\x82\x06\x00\x01\x00\x01a\x03",  # QoS 3
        b"\x82\x06\x00\x01\x00\x03a#b\x00",
        b"\x80\x06\x00\x01\x00\x01a\x00",
        b"\x40\x01\x00",
        b"\x50\x02\x00\x01",
        b"\x62\x02\x00\x01",
    ],
)
async def test_malformed_packets_close(door: Door, data: bytes) -> None:
    async with door.device() as client:
        client.send(data)
        assert await client.read() is None
    await until(lambda: door.is_empty, "nothing to be left")
    assert door.logged("mqtt.disconnect")[0]["reason"].startswith("malformed: ")


# --- subscribe ---


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+", "+/pk1/dk1/#", "/+/pk1/dk1/#", "/sys/#", "/sys/+/dk1/#", "/sys/pk1/+/x", "/sys/pk1/dk2/#",
     "/sys/pk1/dk1", "/sys/pk1/#", "$SYS/#", "$share/g/sys/pk1/dk1/#", "$share/g//sys/pk1/dk1/#",
     SYS + "x" * 1_024, SYS + "/" * 40],
)  # fmt: skip
async def test_forbidden_filters(door: Door, topic_filter: str) -> None:
    async with door.device() as client, door.device("dk2", level=5) as newest:
        assert await client.subscribe((topic_filter, 1), (SYS + "ok", 1)) == (0x80, 1)
        assert await newest.subscribe((topic_filter.replace("dk2", "dk1"), 1)) == (0x87,)
        assert list(door.broker._subscriptions) == [SYS + "ok"]


async def test_the_opening_of_the_c_sdk(door: Door) -> None:
    """It unsubscribes what it never subscribed, then sends 27 SUBSCRIBEs."""
    names = ["service/+", "event/+/post_reply", "measurepoint/post_reply", *(f"x{n}/+/reply" for n in range(24))]
    async with door.device() as client:
        client.send(packets.write_unsubscribe(1, [SYS + "ota/device/upgrade"], 4))
        for number, name in enumerate(names, 2):
            client.send(packets.write_subscribe(number, [(f"{SYS}thing/{name}", 0)], 4))
        assert await client.read() == Unsuback(1)
        for number in range(2, 29):
            assert await client.read() == Suback(number, (0,))
        client.publish(f"{SYS}thing/event/e1/post", REPORT.replace(b"measurepoint", b"event.e1"))
        assert (await client.read_publish()).message.payload == b'{"id":"1","code":200,"data":""}'


async def test_unsubscribe_leaves_nothing(door: Door) -> None:
    async with door.device(level=5) as client:
        await client.subscribe((SYS + "x", 1), (SYS + "+", 1))
        client.send(packets.write_unsubscribe(2, [SYS + "x", SYS + "+", SYS + "never"], 5))
        assert await client.read() == Unsuback(2, (0, 0, 0x11))
        assert not door.broker._subscriptions
        client.publish(SYS + "x", b"1")
        assert await client.ping() == []


async def test_a_thousand_subscriptions(opened: OpenDoor) -> None:
    door = await opened(broker={"max_subscriptions": 1_000})
    async with door.device() as client:
        wanted = [(f"{SYS}{number}", 1) for number in range(1_001)]
        codes = await client.subscribe(*wanted)
        assert codes == (1,) * 1_000 + (0x80,)
        assert await client.subscribe(wanted[0], wanted[-1]) == (1, 0x80)
        client.send(packets.write_unsubscribe(2, [wanted[0][0]], 4))
        await client.read()
        assert await client.subscribe(wanted[-1]) == (1,)
    await until(lambda: not door.broker._subscriptions, "the filters to be gone with the session")


# --- retained ---


async def test_retained_messages(door: Door) -> None:
    async with door.device() as client:
        await client.subscribe((SYS + "#", 1))
        client.publish(SYS + "x", b"1", retain=True)
        assert (await client.read_publish()).message == Message(SYS + "x", b"1"), "as it passes it is like any other"
        assert await client.subscribe((SYS + "+", 1)) == (1,)
        assert (await client.read_publish()).message == Message(SYS + "x", b"1", retain=True)
        client.publish(SYS + "x", b"", retain=True)
        assert (await client.read_publish()).message.payload == b""
        await client.subscribe((SYS + "+", 1))
        assert await client.ping() == []


async def test_retained_messages_reach_only_who_asks_and_may(door: Door) -> None:
    async with door.device() as client, door.device("dk2") as other:
        client.publish(SYS + "x", b"1", retain=True, qos=1, packet_id=3)
        assert await client.ping() == [Puback(3)], "who did not subscribe gets nothing"
        assert await other.subscribe((SYS + "x", 1), ("/sys/pk1/dk2/#", 1)) == (0x80, 1)
        assert await other.ping() == []
    async with door.device() as client:
        assert await client.ping() == [], "nothing comes with CONNECT"


async def test_the_limit_of_retained_messages(opened: OpenDoor) -> None:
    door = await opened(broker={"max_retained": 2})
    async with door.device() as client:
        for name in "abc":
            client.publish(SYS + name, b"1", retain=True, qos=1)
            await client.read()
        await client.subscribe((SYS + "#", 0))
        assert [packet.message.topic for packet in await client.ping() if isinstance(packet, Publish)] == [
            SYS + "a",
            SYS + "b",
        ]
        assert door.broker.dropped == 1


# --- wills ---


@pytest.fixture
async def observer(door: Door) -> Any:
    """What `dk1` publishes is seen by nobody else: its stored session is the observer."""
    async with door.device(clean=False) as client:
        await client.subscribe((SYS + "#", 1))
        await leave(door, client)


def seen(door: Door) -> list[Message]:
    return list(client_of(door)._outbox._queue)


@pytest.mark.usefixtures("observer")
@pytest.mark.parametrize(
    ("level", "ending", "published"),
    [
        (4, "abort", True),
        (4, "disconnect", False),
        (4, "malformed", True),
        (5, "abort", True),
        (5, "disconnect", False),
        (5, "disconnect with will", True),
        (5, "disconnect with error", True),
    ],
)
async def test_wills(door: Door, level: int, ending: str, published: bool) -> None:
    will = Message(SYS + "will", b"gone", qos=2)
    async with door.device(level=level, clean=False, will=will, session_expiry=60 if level == 5 else None) as client:
        match ending:
            case "abort":
                client.abort()
            case "malformed":
                client.send(b"\xf0\x00")
            case "disconnect":
                client.send(packets.write_disconnect(level=level))
            case "disconnect with will":
                client.send(packets.write_disconnect(4, level=5))
            case "disconnect with error":
                client.send(packets.write_disconnect(0x80, level=5))
        await until(lambda: not door.connections, "the connection to end")
    assert seen(door) == ([Message(SYS + "will", b"gone", qos=1)] if published else [])


@pytest.mark.usefixtures("observer")
async def test_the_will_of_a_session_that_is_taken_over(door: Door) -> None:
    async with (
        door.device(clean=False, will=Message(SYS + "will", b"gone", qos=1)) as older,
        door.device(clean=False) as newer,
    ):
        assert await older.read() is None
        assert (await newer.read_publish()).message.topic == SYS + "will"


@pytest.mark.parametrize(
    ("topic", "size"), [("/sys/pk1/dk2/x", 1), ("a", 1), (SYS + "x", 60_000), (SYS + "x" * 1_024, 1)]
)
async def test_a_will_has_no_more_rights_than_its_device(opened: OpenDoor, topic: str, size: int) -> None:
    door = await opened(enos={"max_payload": 50_000})
    async with door.device("dk2") as other:
        await other.subscribe(("/sys/pk1/dk2/#", 1))
        async with door.device(will=Message(topic, bytes(size), qos=1, retain=True)) as client:
            client.abort()
        await until(lambda: door.logged("mqtt.will"), "the refusal")
        assert await other.ping() == []
        assert not door.broker.retained
        (line,) = door.logged("mqtt.will")
        assert (line["device"], line["outcome"], line["reason"]) == ("dk1", "refused", "forbidden")


async def test_a_retained_will(door: Door) -> None:
    async with door.device(will=Message(SYS + "will", b"gone", retain=True)) as client:
        client.abort()
    await until(lambda: not door.connections, "the connection to be lost")
    async with door.device() as client:
        await client.subscribe((SYS + "#", 1))
        assert (await client.read_publish()).message == Message(SYS + "will", b"gone", retain=True)


# --- stored sessions ---


@pytest.mark.parametrize(
    ("first", "second", "present"),
    [(True, True, False), (True, False, False), (False, True, False), (False, False, True)],
)
@pytest.mark.parametrize("overlapping", [False, True])
async def test_session_present(door: Door, first: bool, second: bool, present: bool, overlapping: bool) -> None:
    async with door.device(clean=first) as older:
        await older.subscribe((SYS + "x", 1))
        if not overlapping:
            await leave(door, older)
        async with door.client() as newer:
            assert await newer.login(Door.connect(clean=second)) == Connack(session_present=present, code=0)
            newer.publish(SYS + "x", b"1")
            assert bool(await newer.ping()) == present, "subscriptions go on with the session"
    await until(lambda: not door.connections, "both to be gone")
    assert len(door.broker._sessions) == (not second)


async def test_clean_1_destroys_what_was_stored(door: Door) -> None:
    async with door.device(clean=False) as client:
        await client.subscribe((SYS + "x", 1))
    async with door.device(clean=True):
        assert not door.broker._sessions
        assert not door.broker._subscriptions
    async with door.client() as client:
        assert not (await client.login(Door.connect(clean=False))).session_present


async def test_what_comes_while_the_device_is_away_waits_in_order(door: Door) -> None:
    async with door.device(clean=False) as client:
        await client.subscribe((SYS + "#", 1))
        await leave(door, client)
    for number in range(200):
        send(door, f"{SYS}{number}", qos=number % 2)
    assert door.broker.queued == 100, "QoS 0 does not wait"
    async with door.device(clean=False) as client:
        for number in range(1, 200, 2):
            packet = await client.read_publish()
            assert packet.message.topic == f"{SYS}{number}"
            assert not packet.dup
            assert packet.packet_id is not None
            client.send(packets.write_puback(packet.packet_id))
        assert await client.ping() == []
    assert door.broker.queued == 0
    assert client_of(door)._outbox._held_bytes == 0


async def test_what_was_not_acknowledged_comes_again_with_dup_and_its_id(door: Door) -> None:
    async with door.device(clean=False) as client:
        await client.subscribe((SYS + "#", 1))
        for number in range(3):
            send(door, f"{SYS}{number}")
        first = [await client.read_publish() for _ in range(3)]
        client.send(packets.write_puback(first[1].packet_id or 0))
        await client.ping()
        client.abort()
    await until(lambda: not door.connections, "the connection to be lost")
    send(door, SYS + "later")
    async with door.device(clean=False) as client:
        again = [await client.read_publish() for _ in range(3)]
        assert [(p.message.topic, p.packet_id, p.dup) for p in again] == [
            (SYS + "0", first[0].packet_id, True),
            (SYS + "2", first[2].packet_id, True),
            (SYS + "later", 4, False),
        ]


@pytest.mark.parametrize(("limits", "kept"), [({"max_queued": 3}, 3), ({"max_queued_bytes": 1_024}, 2)])
async def test_the_queue_has_an_end(opened: OpenDoor, limits: dict[str, Any], kept: int) -> None:
    door = await opened(broker=limits)
    async with door.device(clean=False) as client:
        await client.subscribe((SYS + "#", 1))
        await leave(door, client)
    for number in range(10):
        send(door, f"{SYS}{number}", bytes(400))
    assert (door.broker.queued, door.broker.dropped) == (kept, 10 - kept)
    async with door.device(clean=False) as client:
        got = [packet.message.topic for packet in await client.ping() if isinstance(packet, Publish)]
        assert got == [f"{SYS}{number}" for number in range(kept)], "the oldest are kept, in order"


@pytest.mark.parametrize("level", [4, 5])
async def test_a_stored_session_expires(opened: OpenDoor, level: int) -> None:
    door = await opened(broker={"session_expiry": 1 if level == 4 else 100})
    expiry: dict[str, Any] = {"session_expiry": 1} if level == 5 else {}
    async with door.device(level=level, clean=False, **expiry) as client:
        await client.subscribe((SYS + "#", 1))
        await leave(door, client)
    assert len(door.broker._sessions) == 1
    await until(lambda: not door.broker._sessions, "the session to expire", 3)
    assert not door.broker._subscriptions
    async with door.client() as client:
        assert not (await client.login(Door.connect(level=level, clean=False))).session_present


@pytest.mark.parametrize(
    ("connect", "disconnect", "stored"), [(None, None, False), (60, None, True), (60, 0, False), (60, 1_000, True)]
)
async def test_session_expiry_of_mqtt_5(door: Door, connect: int | None, disconnect: int | None, stored: bool) -> None:
    async with door.device(level=5, clean=False, session_expiry=connect) as client:
        client.send(packets.write_disconnect(level=5, session_expiry=disconnect))
        assert await client.read() is None
    await until(lambda: not door.connections, "the connection to end")
    assert bool(door.broker._sessions) == stored


async def test_reconnecting_for_ever_leaves_one_deadline(door: Door) -> None:
    for _ in range(20):
        async with door.device(clean=False) as client:
            await leave(door, client)
    assert len(door.broker.deadlines) == 1
    async with door.device(clean=False):
        assert len(door.broker.deadlines) == 0


async def test_a_device_that_is_forgotten_leaves_nothing(door: Door) -> None:
    async with door.device(clean=False, will=Message(SYS + "will", b"1", retain=True)) as client:
        await client.subscribe((SYS + "#", 1))
        client.publish(SYS + "x", b"1", retain=True)
        await client.read_publish()
        door.broker.forget_device(door.identity())
        client.abort()
    await until(lambda: door.is_empty, "nothing to be left of the connection")
    broker = door.broker
    left = (broker._sessions, broker._subscriptions, broker.retained, broker.deadlines)
    assert [len(part) for part in left] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("reason", "stored"), [(Reason.NOT_PROVEN, False), (Reason.UNKNOWN, False), (Reason.BLOCKED, True)]
)
async def test_what_a_dismissal_leaves(door: Door, reason: Reason, stored: bool) -> None:
    async with door.device(clean=False) as client:
        await client.subscribe((SYS + "#", 1))
        door.sessions.kick(door.identity(), reason)
        assert await client.read() is None
    await until(lambda: not door.connections, "the connection to end")
    assert bool(door.broker._sessions) == bool(door.broker._subscriptions) == stored


# --- flow ---


async def test_the_window(opened: OpenDoor) -> None:
    door = await opened(broker={"max_inflight": 2})
    async with door.device() as client:
        await client.subscribe((SYS + "#", 1))
        for number in range(5):
            send(door, f"{SYS}{number}")
        send(door, SYS + "qos0", qos=0)
        first = await client.ping()
        assert [p.message.topic for p in first if isinstance(p, Publish)] == [SYS + "0", SYS + "1", SYS + "qos0"]
        client.send(packets.write_puback(99) + packets.write_puback(1))
        assert (await client.read_publish()).message.topic == SYS + "2"
        client.send(packets.write_puback(1))
        assert await client.ping() == [], "an id that is not under way acknowledges nothing"


async def test_receive_maximum(door: Door) -> None:
    async with door.device(level=5, clean=False, session_expiry=60) as client:
        await client.subscribe((SYS + "#", 1))
        for number in range(5):
            send(door, f"{SYS}{number}")
        assert len(await client.ping()) == 5
        client.abort()
    await until(lambda: not door.connections, "the connection to be lost")
    async with door.device(level=5, clean=False, session_expiry=60, receive_maximum=2) as client:
        got = await client.ping()
        assert len(got) == 2, "no more than two at a time, old ones too"
        for number in range(1, 6):
            client.send(packets.write_puback(number))
            got += await client.ping()
        assert [(p.message.topic, p.packet_id, p.dup) for p in got if isinstance(p, Publish)] == [
            (f"{SYS}{number}", number + 1, True) for number in range(5)
        ]
        assert door.broker.queued == 0


async def test_packets_that_the_client_does_not_take_are_dropped(door: Door) -> None:
    async with door.device(level=5, maximum_packet=100) as client:
        await client.subscribe((SYS + "#", 1))
        send(door, SYS + "x", bytes(100))
        send(door, SYS + "y", b"1")
        assert [p.message.topic for p in await client.ping() if isinstance(p, Publish)] == [SYS + "y"]
    assert door.broker.dropped == 1


async def test_packet_ids_wrap_around_and_spare_the_one_of_the_activation(door: Door) -> None:
    async with door.device() as client:
        await client.subscribe((SYS + "#", 1))
        send(door, SYS + "first")
        assert (await client.read_publish()).packet_id == 1
        client_of(door)._outbox._packet_id = LAST_PACKET_ID - 1
        for expected in (LAST_PACKET_ID, 2, 3):
            send(door, SYS + "x")
            assert (await client.read_publish()).packet_id == expected


async def test_a_slow_reader_gets_what_fits_and_in_order(opened: OpenDoor) -> None:
    door = await opened(broker={"max_queued": 50})
    async with door.device() as client:
        await client.subscribe((SYS + "#", 1))
        (connection,) = door.connections
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        count = 0
        while not door.broker.dropped:
            send(door, f"{SYS}{count}", bytes(100_000), qos=0)
            count += 1
            assert count < 1_000
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 400_000
        assert client_of(door).queued <= 50
        kept = count - 1
        client._writer.transport.resume_reading()  # type: ignore[attr-defined]
        for number in range(kept):
            assert (await client.read_publish()).message.topic == f"{SYS}{number}"
        assert client_of(door)._outbox._held_bytes == 0
        assert await client.ping() == []


async def test_who_does_not_acknowledge_holds_a_bounded_number_of_bytes(opened: OpenDoor) -> None:
    door = await opened(broker={"max_queued_bytes": 100_000})
    async with door.device() as client:
        await client.subscribe((SYS + "#", 1))
        for _ in range(100):
            send(door, SYS + "x", bytes(10_000))
            await client.ping()
        assert client_of(door)._outbox._held_bytes <= 100_000
        assert door.broker.dropped == 90
        async with door.device("dk2") as other:
            await other.subscribe(("/sys/pk1/dk2/#", 1))
            send(door, "/sys/pk1/dk2/x", bytes(200_000))
            assert len((await other.read_publish()).message.payload) == 200_000, "one may be larger"


async def test_many_devices_at_once(door: Door) -> None:
    async def live(key: str) -> None:
        prefix = f"/sys/pk1/{key}/"
        async with door.device(key) as client:
            await client.subscribe((prefix + "#", 1))
            for number in range(50):
                client.publish(f"{prefix}{number}", b"1", qos=1, packet_id=number + 1)
            topics: list[str] = []
            while len(topics) < 50:
                packet = await client.read()
                if isinstance(packet, Publish):
                    topics.append(packet.message.topic)
                    client.send(packets.write_puback(packet.packet_id or 0))
            assert topics == [f"{prefix}{number}" for number in range(50)]

    await asyncio.gather(*(live(f"dk{number}") for number in range(20)))
    await until(lambda: door.is_empty, "all to be gone")
    assert door.broker.delivered == 1_000


async def test_properties_of_mqtt_5_travel_with_the_message(door: Door) -> None:
    properties = b"\x03\x00\x04json"
    async with door.device(level=5) as client:
        await client.subscribe((SYS + "#", 1))
        client.send(packets.write_publish(Message(SYS + "x", b"1", properties=properties), level=5))
        assert (await client.read_publish()).message.properties == properties


class Link:
    """A connection that takes everything and acknowledges nothing."""

    level, is_open, is_writable, receive_maximum = 5, True, True, 65_535

    def __init__(self) -> None:
        self.sent: list[int | None] = []

    def write(self, _data: bytes) -> None: ...

    def publish(self, message: Message, packet_id: int | None = None, *, dup: bool = False) -> bool:
        assert (message.topic, dup) == (SYS + "x", False)
        self.sent.append(packet_id)
        return True

    def hold(self) -> None: ...

    def release(self) -> None: ...

    def close(self, _reason: str, *, code: int | None = 0x80) -> None:
        raise AssertionError(code)


async def test_the_window_never_uses_up_the_packet_ids() -> None:
    broker = EmbeddedBroker(Limits(max_inflight=65_535, max_queued=100_000))
    wanted = Door.connect(level=5)
    admission = Judge().decide(wanted)
    assert isinstance(admission, Admission)
    link = Link()
    client = broker.seat(link, admission, wanted, {})
    assert isinstance(client, Client)
    for _ in range(66_000):
        client.deliver(Message(SYS + "x", b"", qos=1), 1)
    assert link.sent == list(range(1, LAST_PACKET_ID + 1))
    assert client.queued == 66_000
    client.gone(clean=True)
    assert not broker._sessions


async def test_wildcards_are_capped_apart(opened: OpenDoor) -> None:
    """Each costs every match something."""
    door = await opened(broker={"max_wildcards": 3})
    async with door.device() as client:
        names = [f"{SYS}{number}/+" for number in range(4)]
        assert await client.subscribe(*((name, 0) for name in names)) == (0, 0, 0, 0x80)
        assert await client.subscribe((f"{SYS}plain", 0), (names[0], 1)) == (0, 1), "others, and known ones, are fine"
        client.send(packets.write_unsubscribe(3, [names[0]], 4))
        assert isinstance(await client.read(), packets.Unsuback)
        assert await client.subscribe((names[3], 0)) == (0,)


# --- what a protocol asks for ---


class Slow(Enos):
    """Answers each message when the test lets it, by what the test says."""

    def __init__(self) -> None:
        super().__init__(EnosSettings())
        self.asked: list[bytes] = []
        self.answers: asyncio.Queue[Answer | Exception] = asyncio.Queue()

    def on_message(self, identity: Identity, message: Message) -> Any:  # noqa: ARG002
        self.asked.append(message.payload)
        return self._answer()

    async def _answer(self) -> Answer:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_forbidden(self, identity: Identity, message: Message) -> Answer:  # noqa: ARG002
        return Answer(close=True)


@pytest.fixture
def slow(door: Door) -> Slow:
    door.judge.conduct = conduct = Slow()
    return conduct


def reply(payload: bytes) -> Answer:
    return Answer(reply=Message(SYS + "reply", payload))


async def test_an_answer_that_takes_its_time_holds_up_what_comes_behind(door: Door, slow: Slow) -> None:
    async with door.device() as client:
        for number in range(5):
            client.publish(SYS + "x", b"%d" % number, qos=1, packet_id=number + 1)
        client.send(packets.PINGREQ)
        for number in range(5):
            assert await client.read() == Puback(number + 1)
            assert slow.asked == [b"%d" % each for each in range(number + 1)], "one at a time"
            slow.answers.put_nowait(reply(b"%d" % number))
            assert (await client.read_publish()).message.payload == b"%d" % number
        assert isinstance(await client.read(), packets.Pingresp)


async def test_an_answer_for_nobody_is_dropped(door: Door, slow: Slow) -> None:
    async with door.device() as older:
        older.publish(SYS + "x", b"1")
        await until(lambda: slow.asked, "the message")
        async with door.device() as newer:
            assert await older.read() is None
            slow.answers.put_nowait(reply(b"late"))
            await until(lambda: not door.broker._work, "the answer")
            assert await newer.ping() == []


async def test_an_answer_that_fails_is_a_line_and_the_session_goes_on(door: Door, slow: Slow) -> None:
    async with door.device() as client:
        slow.answers.put_nowait(ZeroDivisionError("by accident"))
        client.publish(SYS + "x", b"1")
        assert await client.ping() == []
    (line,) = door.logged("mqtt.message")
    assert (line["outcome"], line["reason"], line["device"]) == ("failed", "internal", "dk1")


async def test_a_device_that_waits_for_an_answer_is_alive(door: Door, slow: Slow) -> None:
    async with door.device(keepalive=1) as client:
        client.publish(SYS + "x", b"1")
        await until(lambda: slow.asked, "the message")
        (connection,) = door.connections
        far = asyncio.get_running_loop().time() + 1_000
        assert connection.expired(far) is not None
        slow.answers.put_nowait(reply(b"1"))
        await client.read_publish()
        assert connection.expired(far) is None, "it counts again"
        assert await client.read() is None


async def test_the_broker_waits_for_answers_when_it_stops(door: Door, slow: Slow) -> None:
    async with door.device() as client:
        client.publish(SYS + "x", b"1")
        await until(lambda: slow.asked, "the message")
        (work,) = door.broker._work
        stopping = asyncio.create_task(door.broker.shutdown())
        slow.answers.put_nowait(reply(b"1"))
        await stopping
        assert work.done()
        assert not work.cancelled()
    await door.broker.start()  # it stops once more with the test


async def test_rights_may_change(door: Door, slow: Slow) -> None:
    def only(*prefixes: str) -> Answer:
        return Answer(rights=lambda _before: Rights(prefixes))

    async with door.device() as client, door.device("dk2") as other:
        assert await client.subscribe((SYS + "a/#", 1), (SYS + "b", 1), ("/more/x", 1)) == (1, 1, 0x80)
        slow.answers.put_nowait(only(SYS + "a/", SYS + "x", "/more/"))
        client.publish(SYS + "x", b"1")
        assert await client.ping() == []
        assert await client.subscribe(("/more/x", 0)) == (0,)
        assert sorted(client_of(door).filters) == ["/more/x", SYS + "a/#"]
        assert door.broker._subscriptions.keys() == {"/more/x", SYS + "a/#"}
        for topic in (SYS + "a/1", SYS + "b", "/more/x"):
            send(door, topic)
        assert {packet.message.topic for packet in await client.ping() if isinstance(packet, Publish)} == {
            SYS + "a/1", "/more/x",
        }  # fmt: skip
        assert await other.ping() == []


async def test_rights_that_were_granted_on_the_way_end_with_the_connection(door: Door, slow: Slow) -> None:
    """A stored session keeps nothing of what its device may not have when it comes again."""
    async with door.device(clean=False) as client:
        slow.answers.put_nowait(Answer(rights=lambda _before: Rights((SYS, "/more/"))))
        client.publish(SYS + "x", b"1")
        assert await client.ping() == []
        assert await client.subscribe(("/more/x", 1)) == (1,)
        assert await client.subscribe((SYS + "a", 1)) == (1,)
    await until(lambda: not len(door.sessions), "the device to go")
    assert list(client_of(door).filters) == [SYS + "a"]
    for topic in ("/more/x", SYS + "a"):
        send(door, topic)
    async with door.device(clean=False) as client:
        assert (await client.read_publish()).message.topic == SYS + "a"
        assert await client.ping() == []


@pytest.mark.parametrize("level", [4, 5])
async def test_a_refusal_that_ends_the_session_acknowledges_nothing(door: Door, slow: Slow, level: int) -> None:
    async with door.device(level=level) as client:
        client.publish("/no", b"1", qos=1)
        assert await client.read() == (packets.Disconnect(0x87) if level == 5 else None)
    await until(lambda: door.logged("mqtt.disconnect"), "the line")
    assert door.logged("mqtt.disconnect")[0]["reason"] == "forbidden_publish"
    assert slow.asked == []


async def test_the_filters_of_one_subscribe(opened: OpenDoor) -> None:
    door = await opened(session=SessionLimits(filters=2))
    async with door.device() as client:
        assert await client.subscribe((SYS + "a", 1), (SYS + "b", 0), (SYS + "c", 1)) == (1, 0, 0x80)
        assert await client.subscribe((SYS + "c", 1)) == (1,)


async def test_wills_and_retained_messages_that_a_protocol_does_not_have(opened: OpenDoor) -> None:
    door = await opened(session=SessionLimits(wills=False, retained=False))
    async with door.device("dk1", will=Message(SYS + "will", b"1", retain=True)) as client:
        assert door.broker.queued == 0
        assert not door.broker._sessions, "a will that is ignored needs no place in the broker"
        await client.subscribe((SYS + "#", 1))
        client.publish(SYS + "x", b"1", retain=True)
        assert await client.read_publish()
    await until(lambda: not door.connections, "the device to be gone")
    assert not door.broker.retained
