"""What strangers and devices may do to the door, and what it does to them."""

import asyncio
import time
from typing import Any

import pytest

from broker import packets
from broker.connection import FORFEITS, WRITE_BUFFER
from broker.packets import Connack, Disconnect, Pingresp, Puback, Suback
from provisioning.model.admission import Notice, SessionLimits
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Message
from provisioning.model.refusal import Reason
from provisioning.protocols.enos.mqtt import Enos
from provisioning.sections import Enos as EnosSettings
from tests.broker.conftest import OpenDoor
from tests.broker.door import POST, REPORT, SYS, Door
from tests.conftest import until
from tests.devices import login

pytestmark = pytest.mark.server

CONNECT_BYTES = packets.write_connect(Door.connect())
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(194)


async def gone(door: Door) -> None:
    await until(lambda: door.is_empty, "nothing to be left of the connections")


# --- strangers ---


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packets.PINGREQ, "malformed: the first packet is not CONNECT"),
        (packets.write_subscribe(1, [("a", 0)], 4), "malformed: the first packet is not CONNECT"),
        (b"\x11" + CONNECT_BYTES[1:], "malformed: the first packet is not CONNECT"),
        (b"\x00", "malformed: the first packet is not CONNECT"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed: the first packet is not CONNECT"),
        (CLIENT_HELLO, "malformed: the first packet is not CONNECT"),
        (b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00", "malformed: unknown protocol name"),
        (b"\x10\xff\xff\xff\xff\x01", "malformed: length of more than four bytes"),
        (b"\x10\xff\xff\xff\x7f", "packet of 268435460 bytes"),
        (b"\x10\x80\x80\x04", "packet of 65540 bytes"),
    ],
)
async def test_what_is_no_connect_is_cut_off_without_an_answer(door: Door, data: bytes, reason: str) -> None:
    async with door.client() as client:
        client.send(data)
        assert await client.read() is None
    await gone(door)
    (line,) = door.logged("mqtt.login")
    assert (line["outcome"], line["reason"]) == ("refused", reason)
    assert door.judge.asked == 0


async def test_silence_ends_at_the_connect_deadline(opened: OpenDoor) -> None:
    door = await opened(limits={"connect_timeout": 0.2})
    async with door.client() as silent, door.client() as half:
        half.send(CONNECT_BYTES[:-5])
        started = time.monotonic()
        assert await silent.read(2) is None
        assert await half.read(2) is None
        assert 0.1 < time.monotonic() - started < 1.5
    await gone(door)
    assert [line["reason"] for line in door.logged("mqtt.login")] == ["connect_timeout"] * 2


async def test_bytes_now_and_then_do_not_move_the_connect_deadline(opened: OpenDoor) -> None:
    door = await opened(limits={"connect_timeout": 0.3})
    async with door.client() as client:
        started = time.monotonic()

        async def drip() -> None:
            for byte in CONNECT_BYTES:
                client.send(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await client.read(3) is None
        assert time.monotonic() - started < 1.5
        dripping.cancel()


async def test_a_look_at_the_port_is_not_worth_a_line(door: Door) -> None:
    async with door.client():
        await until(lambda: door.connections, "the connection")
    await gone(door)
    assert [line["log_level"] for line in door.logged("mqtt.login")] == ["debug"]


# --- CONNECT and what comes with it ---


async def test_byte_by_byte(door: Door) -> None:
    async with door.client() as client:
        for byte in CONNECT_BYTES + packets.write_subscribe(1, [(SYS + "#", 1)], 4) + packets.PINGREQ:
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert isinstance(await client.read(), Connack)
        assert await client.read() == Suback(1, (1,))
        assert await client.read() == Pingresp()


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_pipelined_behind_connect_waits_for_the_verdict(door: Door, late: bool) -> None:
    if late:
        door.judge.hold = asyncio.Event()
    message = Message(POST, REPORT, qos=1)
    async with door.client() as client:
        client.send(
            CONNECT_BYTES
            + packets.write_subscribe(1, [(f"{POST}_reply", 1)], 4)
            + packets.write_publish(message, level=4, packet_id=9)
            + packets.PINGREQ
        )
        if door.judge.hold:
            await until(lambda: any(c._verdict for c in door.connections), "the question")
            assert door.judge.asked == 0
            door.judge.hold.set()
        assert await client.read() == Connack(session_present=False, code=0)
        assert await client.read() == Suback(1, (1,))
        assert await client.read() == Puback(9)
        assert (await client.read_publish()).message.topic == f"{POST}_reply"
        assert await client.read() == Pingresp()


async def test_many_packets_in_one_segment(door: Door) -> None:
    async with door.device() as client:
        client.send(packets.PINGREQ * 2_000)
        for _ in range(2_000):
            assert await client.read() == Pingresp()


async def test_a_flood_lets_the_others_have_their_turn(door: Door) -> None:
    async with door.device("dk1") as flooder, door.device("dk2") as other:
        (connection,) = (c for c in door.connections if c._admission and c._admission.identity.device == "dk1")
        flooder.send(packets.write_publish(Message("/sys/pk1/dk1/x", b""), level=4) * 5_000)
        await until(lambda: connection._resting, "the flooder to be interrupted")
        received = door.listener.totals.received
        assert 0 < received < 5_000
        assert await other.ping() == []
        await flooder.ping()
        assert door.listener.totals.received == 5_000


async def test_a_second_connect_ends_the_session(door: Door) -> None:
    async with door.device() as client:
        client.send(CONNECT_BYTES)
        assert await client.read() is None
    await gone(door)
    assert door.logged("mqtt.disconnect")[0]["reason"].startswith("malformed: ")
    assert len(door.sessions) == 0


async def test_refused(door: Door) -> None:
    async with door.client() as client:
        client.send(packets.write_connect(Door.connect()).replace(b"dk1&pk1", b"dk2&pk1") + packets.PINGREQ)
        assert await client.read() == Connack(session_present=False, code=4)
        assert await client.read() is None
    await gone(door)
    assert not door.logged("mqtt.login"), "the admission writes that line"
    assert not door.logged("mqtt.disconnect")


async def test_the_client_goes_while_the_verdict_is_pending(door: Door) -> None:
    door.judge.hold = asyncio.Event()
    async with door.client() as client:
        client.send(CONNECT_BYTES)
        await until(lambda: any(c._verdict for c in door.connections), "the question")
    # Reading is paused: the end is noticed when the verdict comes, at the latest.
    door.judge.hold.set()
    await gone(door)
    assert not door.present


async def test_cancelled_verdicts_get_a_line(door: Door) -> None:
    door.judge.hold = asyncio.Event()
    async with door.client() as client:
        client.send(CONNECT_BYTES)
        await until(lambda: any(c._verdict for c in door.connections), "the question")
        await door.listener.stop()
        assert await client.read() is None
    assert [line["reason"] for line in door.logged("mqtt.login")] == ["shutdown"]


async def test_a_pending_verdict_buffers_little(door: Door) -> None:
    door.judge.hold = asyncio.Event()
    async with door.client() as client:
        client.send(CONNECT_BYTES)
        await until(lambda: any(c._verdict for c in door.connections), "the question")
        (connection,) = door.connections
        client.send(packets.PINGREQ * 2_000_000)
        for _ in range(20):
            await asyncio.sleep(0.005)
            assert len(connection._buffer) <= 512 * 1024
        assert connection._transport is not None
        assert not connection._transport.is_reading()
        client._writer.transport.abort()
        door.judge.hold.set()
    await gone(door)


@pytest.mark.parametrize("how", ["raises", "fails", "is cancelled"])
async def test_a_decision_that_breaks_its_contract_is_not_the_devices_fault(
    door: Door, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def fail() -> Any:
        if how == "is cancelled":
            raise asyncio.CancelledError
        raise RuntimeError(how)

    def admit(connect: Connect, peer: object) -> Any:
        if how == "raises":
            raise RuntimeError(how)
        return asyncio.ensure_future(fail())

    monkeypatch.setattr(door.listener, "admit", admit)
    async with door.client() as client:
        client.send(CONNECT_BYTES)
        assert await client.read() == Connack(session_present=False, code=3)
        assert await client.read() is None
    assert door.logged("mqtt.login")[0]["reason"] == "internal"


@pytest.mark.parametrize(("level", "code"), [(3, 1), (6, 1), (4, 0), (5, 0)])
async def test_levels(door: Door, level: int, code: int) -> None:
    name = b"\x00\x06MQIsdp" if level == 3 else b"\x00\x04MQTT"
    data = CONNECT_BYTES[3:].replace(b"\x00\x04MQTT\x04", name + bytes([level]))
    if level == 5:
        data = packets.write_connect(Door.connect(level=5))[3:]
    async with door.client() as client:
        client.level = 5 if level == 5 else 4
        client.send(bytes([0x10, 0x80 | len(data) & 0x7F, len(data) >> 7]) + data)
        answer = await client.read()
        assert isinstance(answer, Connack)
        assert answer.code == code
        if code:
            assert await client.read() is None


# --- caps ---


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"\x30\xff\xff\xff\x7f", "PUBLISH"), (b"\x82\x80\x80\x04", "SUBSCRIBE"), (b"\xa2\x80\x80\x04", "")],
)
async def test_an_announced_size_above_the_cap_closes_at_once(door: Door, head: bytes, kind: str) -> None:
    async with door.device() as client:
        (connection,) = door.connections
        client.send(head)
        assert await client.read() is None
        assert not connection._buffer, "nothing is kept"
    assert door.logged("mqtt.disconnect")[0]["reason"].startswith("packet of ")


async def test_a_large_packet_in_small_pieces(opened: OpenDoor) -> None:
    door = await opened()
    async with door.device() as client:
        await client.subscribe((SYS + "#", 0))
        data = packets.write_publish(Message(SYS + "a", bytes(500_000)), level=4)
        for at in range(0, len(data), 1_000):
            client.send(data[at : at + 1_000])
            await asyncio.sleep(0)
        assert len((await client.read_publish()).message.payload) == 500_000


async def test_a_topic_too_long_or_too_deep_closes(door: Door) -> None:
    for topic in (SYS + "x" * 2_000, SYS + "/".join("x" * 40)):
        async with door.device() as client:
            client.publish(topic, b"")
            assert await client.read() is None
    assert {line["reason"] for line in door.logged("mqtt.disconnect")} == {"malformed: topic too long or too deep"}


# --- time ---


async def test_keepalive(door: Door) -> None:
    async with door.device("dk1", keepalive=1) as silent, door.device("dk2", keepalive=1) as lively:
        started = time.monotonic()

        async def pings() -> None:
            while True:
                await asyncio.sleep(0.5)
                await lively.ping()

        pinging = asyncio.create_task(pings())
        assert await silent.read(5) is None
        assert 1.4 < time.monotonic() - started < 2.4
        pinging.cancel()
        await asyncio.gather(pinging, return_exceptions=True)
        assert door.sessions.find(door.identity("dk2")), "PINGREQ keeps the connection"
    assert door.logged("mqtt.disconnect")[0]["reason"] == "keepalive_timeout"


async def test_the_time_that_a_verdict_takes_is_not_the_devices(door: Door) -> None:
    door.judge.hold = asyncio.Event()
    async with door.client() as client:
        client.send(packets.write_connect(Door.connect(keepalive=1)))
        await until(lambda: any(c._verdict for c in door.connections), "the question")
        (connection,) = door.connections
        connection._seen -= 10
        door.judge.hold.set()
        assert isinstance(await client.read(), Connack)
        await asyncio.sleep(0.3)
        assert await client.ping() == []


@pytest.mark.parametrize(("asked", "counted"), [(0, 300), (60, 60), (1_200, 1_200), (65_535, 1_200)])
async def test_keepalive_default_and_cap(door: Door, asked: int, counted: int) -> None:
    async with door.client() as client:
        answer = await client.login(Door.connect(level=5, keepalive=asked))
        assert answer.properties.get(0x13) == (None if asked == counted else counted)
        (connection,) = door.connections
        assert connection._keepalive == counted * 1.5


async def test_a_reader_that_never_reads_cannot_make_answers_pile_up(door: Door) -> None:
    async with door.device() as client:
        (connection,) = door.connections
        transport = connection._transport
        assert transport is not None
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        while transport.is_reading() and sent < 200_000_000:
            client.send(packets.PINGREQ * 50_000)
            sent += 100_000
            await asyncio.sleep(0)
        await until(lambda: not transport.is_reading(), "the listener to stop reading")
        assert transport.get_write_buffer_size() <= 2 * WRITE_BUFFER + 300_000
        assert len(connection._buffer) <= 512 * 1024
        client._writer.transport.resume_reading()  # type: ignore[attr-defined]
        while not transport.is_reading():
            assert await client._reader.read(2**20)


async def test_a_device_that_is_slow_to_take_what_it_is_sent_is_alive(door: Door) -> None:
    async with door.device(keepalive=60) as client:
        (connection,) = door.connections
        transport = connection._transport
        assert transport is not None
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection.write(bytes(20_000_000))
        size = transport.get_write_buffer_size()
        assert not transport.is_reading()
        connection._seen -= 1_000
        client._writer.transport.resume_reading()  # type: ignore[attr-defined]
        while transport.get_write_buffer_size() >= size:
            assert await client._reader.read(2**20)
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        now = asyncio.get_running_loop().time()
        assert connection.expired(now) == now + 90
        assert connection.expired(now) is None, "it took nothing since"
        client.abort()
    await gone(door)
    assert door.logged("mqtt.disconnect")[0]["reason"] == "keepalive_timeout"


async def test_a_closing_connection_that_takes_nothing_is_cut(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.connection.LINGER", 0.2)
    async with door.device() as client:
        (connection,) = door.connections
        assert connection._transport is not None
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection._transport.write(bytes(20_000_000))
        connection.close("test")
        await gone(door)


# --- one identity, one session ---


async def test_the_newest_takes_over(door: Door) -> None:
    async with door.device() as older, door.device() as newer:
        assert await older.read() is None
        await newer.subscribe((SYS + "#", 1))
        newer.publish(SYS + "x", b"1")
        assert (await newer.read_publish()).message.payload == b"1"
        await until(lambda: len(door.connections) == 1, "the older to be gone")
        assert len(door.sessions) == 1
        assert len(door.present) == 1, "one of them is here"
        (line,) = door.logged("mqtt.disconnect")
        assert line["reason"] == "taken_over"
    await gone(door)
    assert not door.present


@pytest.mark.parametrize("clean", [True, False])
async def test_an_impostor_does_not_touch_the_real_device(door: Door, clean: bool) -> None:
    will = Message(SYS + "will", b"gone")
    async with door.device(clean=clean, will=will) as real:
        await real.subscribe((SYS + "#", 1))
        for impostors in (True, False):
            async with door.client() as impostor:
                wrong = login("dk1", "guessed")
                wanted = Connect(4, wrong["identifier"], wrong["username"], wrong["password"].encode(), impostors, 60)
                assert (await impostor.login(wanted)).code == 4
                assert await impostor.read() is None
        real.publish(SYS + "x", b"still here")
        assert (await real.read_publish()).message == Message(SYS + "x", b"still here")
        assert await real.ping() == []
        assert len(door.sessions) == 1
    assert not [line for line in door.logged("mqtt.disconnect") if line["reason"] == "taken_over"]


# --- the end ---


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packets.write_disconnect(level=4), "disconnected"),
        (b"", "closed_by_peer"),
        (b"\xf0\x00", "malformed: AUTH from a client"),
        (b"\x34\x05\x00\x01a\x00\x01", "malformed: PUBLISH with QoS 2"),
    ],
)  # fmt: skip
async def test_one_line_for_each_session_with_its_reason(door: Door, data: bytes, reason: str) -> None:
    async with door.device() as client:
        if data:
            client.send(data)
            assert await client.read() is None
        else:
            await client.close()
        await gone(door)
    (line,) = door.logged("mqtt.disconnect")
    if reason.startswith("malformed: AUTH"):
        assert line["reason"].startswith("malformed: ")
    else:
        assert line["reason"] == reason
    assert (line["protocol"], line["product"], line["device"]) == ("enos", "pk1", "dk1")
    assert line["seconds"] < 5
    assert not door.present


async def test_a_disabled_device_is_told_and_may_answer(opened: OpenDoor) -> None:
    door = await opened(enos={"farewell_timeout": 5})
    async with door.device() as client:
        started = time.monotonic()
        assert door.sessions.kick(door.identity(), Reason.DISABLED)
        command = (await client.read_publish()).message
        assert command.topic == "/sys/pk1/dk1/thing/disable"
        assert command.payload == b'{"id":"1","version":"1.0","method":"thing.disable","params":{}}'
        door.sessions.kick(door.identity(), Reason.DISABLED)  # twice is once
        client.publish(f"{command.topic}_reply", b'{"id":"1","code":200}', qos=1, packet_id=3)
        assert await client.read() == Puback(3)
        assert await client.read() is None
        assert time.monotonic() - started < 2
    await gone(door)
    assert [line["reason"] for line in door.logged("mqtt.disconnect")] == ["disabled"]


async def test_a_disabled_device_that_is_silent_is_closed_in_time(opened: OpenDoor) -> None:
    door = await opened(enos={"farewell_timeout": 0.3})
    async with door.device() as client:
        started = time.monotonic()
        door.sessions.kick(door.identity(), Reason.DISABLED)
        await client.read_publish()
        assert await client.read() is None
        assert 0.2 < time.monotonic() - started < 1.5


class Talkative(Enos):
    """A protocol that tells its devices whatever happens to them."""

    def throttled(self, identity: Identity) -> Message | None:
        return Message(f"{SYS}slower", identity.device.encode(), qos=1)

    def farewell(self, identity: Identity, reason: Reason) -> Notice | None:
        return Notice(Message(f"{SYS}farewell", f"{reason} {identity.device}".encode()), f"{SYS}bye", 5.0)


@pytest.mark.parametrize("reason", sorted(FORFEITS))
async def test_who_has_lost_its_session_hears_of_it_and_of_nothing_else(opened: OpenDoor, reason: Reason) -> None:
    door = await opened()
    door.judge.conduct = Talkative(EnosSettings())
    async with door.device(clean=False, will=Message(SYS + "will", b"1")) as client, door.device("dk2") as other:
        assert await client.subscribe((SYS + "#", 1)) == (1,)
        door.sessions.kick(door.identity(), reason)
        assert (await client.read_publish()).message == Message(f"{SYS}farewell", f"{reason} dk1".encode())
        assert len(door.broker._sessions) == len(door.broker._subscriptions) == 0, "at once"
        door.broker.route(Message(SYS + "x", b"1", qos=1))
        client.publish(SYS + "x", b"2", qos=1)
        client.send(packets.write_subscribe(3, [(SYS + "#", 1)], 4))
        assert await client.ping() == []
        assert len(door.broker._subscriptions) == 0
        client.publish(SYS + "bye", b"", qos=1)
        assert await client.read() == Puback(7)
        assert await client.read() is None
        assert await other.ping() == []
    await gone(door)
    assert next(line["reason"] for line in door.logged("mqtt.disconnect")) == str(reason)


async def test_who_keeps_its_session_is_served_until_it_goes(opened: OpenDoor) -> None:
    door = await opened()
    door.judge.conduct = Talkative(EnosSettings())
    async with door.device(clean=False) as client:
        assert await client.subscribe((SYS + "#", 1)) == (1,)
        door.sessions.kick(door.identity(), Reason.BLOCKED)
        assert (await client.read_publish()).message.topic == f"{SYS}farewell"
        client.publish(SYS + "x", b"1")
        assert (await client.read_publish()).message.payload == b"1"
        client.publish(SYS + "bye", b"")
        assert await client.read() is None
    await gone(door)
    assert len(door.broker._sessions) == 1


async def test_other_reasons_have_no_farewell(door: Door) -> None:
    async with door.device() as client:
        door.sessions.kick(door.identity(), Reason.NOT_PROVEN)
        assert await client.read() is None
    assert not door.sessions.kick(door.identity("nobody"), Reason.NOT_PROVEN)


# --- MQTT 5 ---


async def test_connack_of_mqtt_5(door: Door) -> None:
    async with door.client() as client:
        answer = await client.login(Door.connect(level=5, session_expiry=4_294_967_295))
        assert answer == Connack(
            session_present=False, code=0, properties={0x24: 1, 0x27: 1_048_576, 0x29: 0, 0x2A: 0, 0x11: 86_400}
        )


async def test_refusals_of_mqtt_5(door: Door) -> None:
    async with door.client() as client:
        wrong = login("dk1", "guessed")
        wanted = Connect(5, wrong["identifier"], wrong["username"], wrong["password"].encode(), True, 60)
        assert await client.login(wanted) == Connack(session_present=False, code=0x86)
    async with door.client() as client:
        client.level = 5
        client.send(b"\x10\x15\x00\x04MQTT\x05\x02\x00\x3c\x08\x15\x00\x05PLAIN\x00\x00")
        assert await client.read() == Connack(session_present=False, code=0x8C)
        assert await client.read() is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x30\xff\xff\xff\x7f", 0x95),
        (b"\x34\x06\x00\x01a\x00\x01\x00", 0x9B),
        (b"\xf0\x00", 0x81),
        (b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05", 0x81),  # a session expiry that CONNECT did not state
        (packets.write_publish(Message(SYS + "x" * 2_000, b""), level=5), 0x90),
    ],
)
async def test_mqtt_5_is_told_what_it_did_wrong(door: Door, data: bytes, code: int) -> None:
    async with door.device(level=5) as client:
        client.send(data)
        assert await client.read() == Disconnect(code)
        assert await client.read() is None


async def test_mqtt_5_is_told_why_it_must_go(opened: OpenDoor) -> None:
    door = await opened()
    async with door.device(level=5) as older, door.device(level=5, keepalive=1) as newer:
        assert await older.read() == Disconnect(0x8E)
        assert await newer.read() == Disconnect(0x8D)
    async with door.device(level=5) as client:
        door.sessions.kick(door.identity(), Reason.NOT_PROVEN)
        assert await client.read() == Disconnect(0x98)


async def test_disconnect_is_not_answered(door: Door) -> None:
    async with door.device(level=5) as client:
        client.send(packets.write_disconnect(4, level=5))
        assert await client.read() is None


# --- the pace of a protocol ---


class Clock:
    """The loop, but for time: it stands still until the test lets it pass."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time()
        self.due: list[tuple[float, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Any) -> None:
        self.due.append((self.now + delay, callback))

    def passes(self, seconds: float) -> None:
        self.now += seconds
        ready = [callback for at, callback in self.due if at <= self.now]
        self.due = [(at, callback) for at, callback in self.due if at > self.now]
        for callback in ready:
            callback()


async def test_what_a_device_sends_too_fast_is_not_read_before_its_time(opened: OpenDoor) -> None:
    door = await opened(session=SessionLimits(up=3))
    async with door.device() as client:
        clock = door.listener.loop = Clock(door.listener.loop)  # type: ignore[assignment]
        (connection,) = door.connections
        for number in range(8):
            client.publish(SYS + "x", b"1", qos=1, packet_id=number + 1)
        client.send(packets.PINGREQ)
        for begin, end in ((0, 3), (3, 6), (6, 8)):
            assert [await client.read() for _ in range(begin, end)] == [Puback(each + 1) for each in range(begin, end)]
            assert connection._transport is not None
            await until(lambda: connection._resting == (end < 8), "the device to be held up")  # noqa: B023
            assert door.listener.totals.received == end
            clock.passes(0.999)
            assert door.listener.totals.received == end
            clock.passes(0.001)
        assert isinstance(await client.read(), Pingresp)


async def test_a_device_that_sends_too_fast_is_told_once_in_each_window(opened: OpenDoor) -> None:
    door = await opened(session=SessionLimits(up=2))
    door.judge.conduct = Talkative(EnosSettings())
    async with door.device() as client:
        clock = door.listener.loop = Clock(door.listener.loop)  # type: ignore[assignment]
        for number in range(5):
            client.publish(SYS + "x", b"1", qos=1, packet_id=number + 1)
        for first in (1, 3):
            assert [await client.read() for _ in range(2)] == [Puback(first), Puback(first + 1)]
            assert (await client.read_publish()).message == Message(f"{SYS}slower", b"dk1"), "QoS 0: it need not answer"
            await until(lambda: clock.due, "the device to be held up")
            clock.passes(1)
        assert await client.read() == Puback(5)
        assert await client.ping() == []


async def test_a_device_that_is_held_up_is_alive(opened: OpenDoor) -> None:
    """What it has sent to show that it lives waits behind its messages."""
    door = await opened(session=SessionLimits(up=1))
    async with door.device(keepalive=1) as client:
        clock = door.listener.loop = Clock(door.listener.loop)  # type: ignore[assignment]
        (connection,) = door.connections
        for number in range(4):
            client.publish(SYS + "x", b"1", qos=1, packet_id=number + 1)
        for number in range(4):
            assert await client.read() == Puback(number + 1)
            assert connection.expired(clock.now + 1.5) is not None
            clock.passes(1)
        assert connection.expired(clock.now + 1.4) is not None
        assert connection.expired(clock.now + 1.5) is None
        assert await client.read() is None


async def test_a_device_may_go_while_it_is_held_up(opened: OpenDoor) -> None:
    door = await opened(session=SessionLimits(up=1))
    async with door.device() as client:
        clock = door.listener.loop = Clock(door.listener.loop)  # type: ignore[assignment]
        client.publish(SYS + "x", b"1", qos=1)
        client.publish(SYS + "x", b"2", qos=1)
        assert await client.read() == Puback(7)
        await until(lambda: clock.due, "the device to be held up")
        (connection,) = door.connections
        connection.abort()
    await gone(door)
    clock.passes(1)
    assert door.listener.totals.received == 1
