"""Packets both ways from one list; each malformed case by name; any bytes are read or refused."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import packets, properties
from broker.packets import (
    Connack,
    Disconnect,
    Malformed,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    TooLarge,
    Unsuback,
    Unsubscribe,
    UnsupportedAuthentication,
    UnsupportedLevel,
    UnsupportedQos,
)
from broker.properties import Value
from provisioning.model.mqtt import Connect, Message

LIMIT = 1 << 20
Any: TypeAlias = Connect | packets.Packet | packets.ServerPacket
REFUSED = (Malformed, UnsupportedLevel)


def write(value: Any, level: int) -> bytes:  # noqa: C901, PLR0911 - one line for each packet
    match value:
        case Connect():
            return packets.write_connect(value)
        case Connack():
            stated = {key: item for key, item in value.properties.items() if not isinstance(item, bytes)}
            return packets.write_connack(
                value.code, level=level, session_present=value.session_present, properties=stated
            )
        case Publish():
            return packets.write_publish(value.message, level=level, packet_id=value.packet_id, dup=value.dup)
        case Puback():
            return packets.write_puback(value.packet_id, value.code)
        case Subscribe():
            return packets.write_subscribe(value.packet_id, value.filters, level)
        case Suback():
            return packets.write_suback(value.packet_id, value.codes, level)
        case Unsubscribe():
            return packets.write_unsubscribe(value.packet_id, value.filters, level)
        case Unsuback():
            return packets.write_unsuback(value.packet_id, value.codes, level)
        case Pingreq():
            return packets.PINGREQ
        case Pingresp():
            return packets.PINGRESP
        case Disconnect():
            return packets.write_disconnect(value.code, level=level, session_expiry=value.session_expiry)


def read_body(first: int, body: bytes, level: int, kind: type[Any]) -> Any:
    if kind is Connect:
        return packets.read_connect(body)
    if kind in {Connack, Suback, Unsuback, Pingresp}:
        return packets.read_server(first, body, level)
    return packets.read(first, body, level)


def body_of(wire: bytes) -> bytes:
    framed = packets.frame(wire, 0, LIMIT)
    assert framed is not None
    start, end = framed
    assert end == len(wire)
    return wire[start:end]


def read_whole(wire: bytes, level: int, kind: type[Any]) -> Any:
    return read_body(wire[0], body_of(wire), level, kind)


@dataclass(frozen=True)
class Case:
    name: str
    level: int
    value: Any
    wire: str
    shorter: tuple[int, ...] = ()
    """Lengths at which a truncated body is a whole packet, though another one."""

    @property
    def coded(self) -> bytes:
        return bytes.fromhex(self.wire)


WILL = Message("w/t", b"gone", 1, retain=True)
CASES = [
    Case(
        "3.1 CONNECT",
        3,
        Connect(3, "c", "u", b"p", clean=True, keepalive=60),
        "10 15  00 06 4d 51 49 73 64 70 03 c2 00 3c  00 01 63  00 01 75  00 01 70",
    ),
    Case(  # 3.1.1 figure 3.6: user name, password, will of QoS 1, clean, 10 s
        "CONNECT of figure 3.6",
        4,
        Connect(4, "c", "u", b"p", clean=True, keepalive=10, will=replace(WILL, retain=False)),
        "10 1e  00 04 4d 51 54 54 04 ce 00 0a  00 01 63  00 03 77 2f 74 00 04 67 6f 6e 65  00 01 75  00 01 70",
    ),
    Case(
        "CONNECT, the least",
        4,
        Connect(4, "", None, None, clean=False, keepalive=0),
        "10 0c  00 04 4d 51 54 54 04 00 00 00  00 00",
    ),
    Case(  # v5 figure 3-6: as above, and a session expiry interval of 10 s
        "v5 CONNECT of figure 3-6",
        5,
        Connect(5, "c", "u", b"p", clean=True, keepalive=10, will=replace(WILL, retain=False), session_expiry=10),
        "10 25  00 04 4d 51 54 54 05 ce 00 0a 05 11 00 00 00 0a  00 01 63"
        "  00 00 03 77 2f 74 00 04 67 6f 6e 65  00 01 75  00 01 70",
    ),
    Case(
        "v5 CONNECT, password alone, all limits, will with properties",
        5,
        Connect(
            5,
            "c",
            None,
            b"p",
            clean=False,
            keepalive=1,
            will=replace(WILL, properties=b"\1\1"),
            session_expiry=0,
            receive_maximum=20,
            maximum_packet=256,
        ),
        "10 2c  00 04 4d 51 54 54 05 6c 00 01 0d 11 00 00 00 00 21 00 14 27 00 00 01 00  00 01 63"
        "  02 01 01 00 03 77 2f 74 00 04 67 6f 6e 65  00 01 70",
    ),
    Case("3.1 CONNACK", 3, Connack(session_present=False, code=4), "20 02 00 04"),
    Case("CONNACK, session present", 4, Connack(session_present=True, code=0), "20 02 01 00"),
    Case("CONNACK, refused", 4, Connack(session_present=False, code=5), "20 02 00 05"),
    Case(
        "v5 CONNACK with properties",
        5,
        Connack(session_present=True, code=0, properties={0x24: 1, 0x13: 300, 0x11: 60, 0x27: 1 << 20, 0x21: 8}),
        "20 15 01 00 12 24 01 13 01 2c 11 00 00 00 3c 27 00 10 00 00 21 00 08",
    ),
    Case(
        "v5 CONNACK with a reason",
        5,
        Connack(session_present=False, code=0x86, properties={0x1F: "no", 0x25: 0, 0x28: 0, 0x29: 0, 0x2A: 0}),
        "20 10 00 86 0d 1f 00 02 6e 6f 25 00 28 00 29 00 2a 00",
    ),
    Case(  # 3.1.1 figure 3.11: topic a/b, packet id 10
        "PUBLISH of figure 3.11",
        4,
        Publish(Message("a/b", b"hi", 1), 10),
        "32 09 00 03 61 2f 62 00 0a 68 69",
        shorter=(7, 8),
    ),
    Case(
        "PUBLISH of QoS 0, retained, no payload",
        4,
        Publish(Message("a/b", b"", retain=True), None),
        "31 05 00 03 61 2f 62",
    ),
    Case("PUBLISH again", 3, Publish(Message("a", b"", 1), 65_535, dup=True), "3a 05 00 01 61 ff ff"),
    Case("v5 PUBLISH", 5, Publish(Message("a", b"hi"), None), "30 06 00 01 61 00 68 69", shorter=(4, 5)),
    Case(
        "v5 PUBLISH with properties",
        5,
        Publish(Message("a", b"", 1, properties=bytes.fromhex("02 00 00 00 3c 26 00 01 6b 00 01 76")), 1),
        "32 12 00 01 61 00 01 0c 02 00 00 00 3c 26 00 01 6b 00 01 76",
    ),
    Case("PUBACK", 4, Puback(4660), "40 02 12 34"),
    Case("v5 PUBACK", 5, Puback(1), "40 02 00 01"),
    Case("v5 PUBACK with code", 5, Puback(1, 0x87), "40 03 00 01 87", shorter=(2,)),
    Case(  # 3.8.3.1: a/b with QoS 1, c/d with QoS 2
        "SUBSCRIBE of 3.8.3.1",
        4,
        Subscribe(10, (("a/b", 1), ("c/d", 2))),
        "82 0e 00 0a 00 03 61 2f 62 01 00 03 63 2f 64 02",
        shorter=(8,),
    ),
    Case("3.1 SUBSCRIBE", 3, Subscribe(1, (("#", 0),)), "82 06 00 01 00 01 23 00"),
    Case(
        "v5 SUBSCRIBE to a shared filter",
        5,
        Subscribe(1, (("$share/g/+", 1),)),
        "82 10 00 01 00 00 0a 24 73 68 61 72 65 2f 67 2f 2b 01",
    ),
    Case("SUBACK of 3.9.3.1", 4, Suback(10, (0, 2, 0x80)), "90 05 00 0a 00 02 80", shorter=(3, 4)),
    Case("v5 SUBACK", 5, Suback(10, (1, 0x9E)), "90 05 00 0a 00 01 9e", shorter=(4,)),
    Case(
        "UNSUBSCRIBE of 3.10.3.1", 4, Unsubscribe(10, ("a/b", "c/d")), "a2 0c 00 0a 00 03 61 2f 62 00 03 63 2f 64", (7,)
    ),
    Case("v5 UNSUBSCRIBE", 5, Unsubscribe(10, ("a/+",)), "a2 08 00 0a 00 00 03 61 2f 2b"),
    Case("UNSUBACK", 4, Unsuback(10), "b0 02 00 0a"),
    Case("v5 UNSUBACK", 5, Unsuback(10, (0, 0x11)), "b0 05 00 0a 00 00 11", shorter=(4,)),
    Case("PINGREQ", 4, Pingreq(), "c0 00"),
    Case("PINGRESP", 4, Pingresp(), "d0 00"),
    Case("DISCONNECT", 4, Disconnect(), "e0 00"),
    Case("v5 DISCONNECT", 5, Disconnect(), "e0 00"),
    Case("v5 DISCONNECT with will", 5, Disconnect(4), "e0 01 04", shorter=(0,)),
    Case("v5 DISCONNECT with session expiry", 5, Disconnect(0, 60), "e0 07 00 05 11 00 00 00 3c", shorter=(0, 1)),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_both_ways(case: Case) -> None:
    assert write(case.value, case.level).hex(" ") == case.coded.hex(" ")
    assert read_whole(case.coded, case.level, type(case.value)) == case.value


@every_case
def test_every_prefix_makes_frame_wait(case: Case) -> None:
    for size in range(len(case.coded)):
        framed = packets.frame(case.coded[:size], 0, LIMIT)
        assert framed is None or framed[1] > size


@every_case
def test_frame_in_the_middle_of_a_buffer(case: Case) -> None:
    buffer = bytearray(b"\xc0\x00" + case.coded + b"\xff\xff\xff\xff\xff")
    assert packets.frame(buffer, 2, LIMIT) == (4, 2 + len(case.coded))


@every_case
def test_truncated_bodies_are_refused(case: Case) -> None:
    body = body_of(case.coded)
    whole = []
    for size in range(len(body)):
        with suppress(Malformed):
            read_body(case.coded[0], body[:size], case.level, type(case.value))
            whole.append(size)
    assert tuple(whole) == case.shorter


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if not isinstance(case.value, Publish)],  # there the payload takes all
    ids=lambda case: case.name,
)
def test_nothing_may_follow(case: Case) -> None:
    with pytest.raises(Malformed):  # 0x7f is no length, no code and no identifier
        read_body(case.coded[0], body_of(case.coded) + b"\x7f", case.level, type(case.value))


# Frames


@pytest.mark.parametrize("size", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
def test_frame_knows_the_end_before_the_bytes_are_there(size: int) -> None:
    header = b"\x30" + properties.write_length(size)
    assert packets.frame(header, 0, 1 << 30) == (len(header), len(header) + size)


def test_frame_keeps_the_limit() -> None:
    assert packets.frame(b"\x30\x0e", 0, 16) == (2, 16)
    with pytest.raises(TooLarge) as refused:
        packets.frame(b"\x30\x0f", 0, 16)
    assert refused.value.size == 17
    with pytest.raises(TooLarge) as refused:
        packets.frame(b"\x30\xff\xff\xff\x7f", 0, LIMIT)
    assert refused.value.size == 268_435_460


@pytest.mark.parametrize("header", ["30 80 00", "30 ff 80 00", "30 80 80 80 80", "30 80 80 80 80 01"])
def test_frame_refuses_lengths_of_no_form(header: str) -> None:
    with pytest.raises(Malformed):
        packets.frame(bytes.fromhex(header), 0, LIMIT)


# Malformed CONNECTs: what follows the fixed header

HEAD = "00 04 4d 51 54 54 "
BAD_CONNECT = [
    ("empty", "", "unknown protocol name"),
    ("name of another protocol", "00 04 41 4d 51 50 04 02 00 00 00 00", "unknown protocol name"),
    ("name in lower case", "00 04 6d 71 74 74 04 02 00 00 00 00", "unknown protocol name"),
    ("name alone", HEAD, "truncated"),
    ("reserved flag", HEAD + "04 03 00 00 00 00", "reserved flag set"),
    ("will QoS without will", HEAD + "04 0a 00 00 00 00", "will QoS or will retain without will"),
    ("will retain without will", HEAD + "04 22 00 00 00 00", "will QoS or will retain without will"),
    ("will QoS 3", HEAD + "04 1e 00 00 00 00 00 01 61 00 00", "will QoS 3"),
    ("will topic empty", HEAD + "04 06 00 00 00 00 00 00 00 00", "empty topic"),
    ("will topic with +", HEAD + "04 06 00 00 00 00 00 01 2b 00 00", "wildcard in topic name"),
    ("will topic with #", HEAD + "04 06 00 00 00 00 00 01 23 00 00", "wildcard in topic name"),
    ("will topic with NUL", HEAD + "04 06 00 00 00 00 00 01 00 00 00", "NUL in text"),
    ("password without user name", HEAD + "04 42 00 00 00 00 00 01 70", "password without user name"),
    ("client id with NUL", HEAD + "04 02 00 00 00 01 00", "NUL in text"),
    ("client id with a surrogate", HEAD + "04 02 00 00 00 03 ed a0 80", "text is not UTF-8"),
    ("user name not UTF-8", HEAD + "04 82 00 00 00 00 00 01 ff", "text is not UTF-8"),
    ("user name behind the end", HEAD + "04 82 00 00 00 00 00 02 75", "truncated"),
    ("password missing", HEAD + "04 c2 00 00 00 00 00 01 75", "truncated"),
    ("user name without its flag", HEAD + "04 02 00 00 00 00 00 01 75", "more than the flags announce"),
    ("v5 without properties", HEAD + "05 02 00 00", "truncated"),
    ("v5 receive maximum 0", HEAD + "05 02 00 00 03 21 00 00 00 00", "receive maximum: 0 is not allowed"),
    ("v5 maximum packet 0", HEAD + "05 02 00 00 05 27 00 00 00 00 00 00", "maximum packet size: 0 is not allowed"),
    ("v5 property twice", HEAD + "05 02 00 00 04 17 00 17 00 00 00", "request problem information stated twice"),
    ("v5 unknown property", HEAD + "05 02 00 00 02 7f 00 00 00", "unknown property 0x7f"),
    ("v5 data without method", HEAD + "05 02 00 00 03 16 00 00 00 00", "authentication data without method"),
    (
        "v5 will with a topic alias",
        HEAD + "05 06 00 00 00 00 00 03 23 00 01 00 01 61 00 00",
        "topic alias not allowed here",
    ),
    ("v5 will with overlong properties", HEAD + "05 06 00 00 00 00 00 09 01 01 00 01 61 00 00", "truncated"),
]


@pytest.mark.parametrize(("body", "reason"), [case[1:] for case in BAD_CONNECT], ids=[case[0] for case in BAD_CONNECT])
def test_malformed_connect(body: str, reason: str) -> None:
    with pytest.raises(Malformed) as refused:
        packets.read_connect(bytes.fromhex(body))
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("body", "level"),
    [
        (HEAD + "06 02 00 00 00 00", 6),
        (HEAD + "03 02 00 00 00 00", 3),
        (HEAD + "84", 0x84),
        ("00 06 4d 51 49 73 64 70 04 02 00 00 00 00", 4),
    ],
)
def test_unknown_level(body: str, level: int) -> None:
    with pytest.raises(UnsupportedLevel) as refused:
        packets.read_connect(bytes.fromhex(body))
    assert refused.value.level == level
    assert not isinstance(refused.value, Malformed)


def test_authentication_method_is_not_served() -> None:
    with pytest.raises(UnsupportedAuthentication):
        packets.read_connect(bytes.fromhex(HEAD + "05 02 00 00 06 15 00 03 47 53 32 00 00"))


def test_connect_takes_every_property_of_its_own() -> None:
    stated = "11 00 00 00 3c 21 00 14 27 00 01 00 00 22 00 0a 19 01 17 00 26 00 01 61 00 01 62 26 00 01 61 00 01 62"
    block = bytes.fromhex(stated)
    body = bytes.fromhex(HEAD + "05 02 00 00") + bytes((len(block),)) + block + b"\0\0"
    assert packets.read_connect(body) == Connect(
        5, "", None, None, clean=True, keepalive=0, session_expiry=60, receive_maximum=20, maximum_packet=65_536
    )


def test_the_will_delay_does_not_travel() -> None:
    body = bytes.fromhex(HEAD + "05 06 00 00 00 00 00 07 18 00 00 00 05 01 01 00 01 61 00 00")
    assert packets.read_connect(body).will == Message("a", b"", properties=b"\1\1")


# Malformed packets of clients: level, first byte, body, reason

BAD = [
    ("second CONNECT", 4, "10", "00 04 4d 51 54 54 04 02 00 00 00 00", "CONNECT not allowed here"),
    ("type 0", 4, "00", "", "packet of type 0 not allowed here"),
    ("CONNACK", 4, "20", "00 00", "CONNACK not allowed here"),
    ("PUBREC", 4, "50", "00 01", "PUBREC not allowed here"),
    ("PUBREL", 4, "62", "00 01", "PUBREL not allowed here"),
    ("PUBCOMP", 4, "70", "00 01", "PUBCOMP not allowed here"),
    ("SUBACK", 4, "90", "00 01 00", "SUBACK not allowed here"),
    ("UNSUBACK", 4, "b0", "00 01", "UNSUBACK not allowed here"),
    ("PINGRESP", 4, "d0", "", "PINGRESP not allowed here"),
    ("AUTH", 5, "f0", "", "AUTH not allowed here"),
    ("PUBACK flags", 4, "42", "00 01", "PUBACK with wrong flags"),
    ("SUBSCRIBE flags", 4, "80", "00 01 00 01 61 00", "SUBSCRIBE with wrong flags"),
    ("SUBSCRIBE with DUP", 4, "8a", "00 01 00 01 61 00", "SUBSCRIBE with wrong flags"),
    ("UNSUBSCRIBE flags", 4, "a0", "00 01 00 01 61", "UNSUBSCRIBE with wrong flags"),
    ("PINGREQ flags", 4, "c1", "", "PINGREQ with wrong flags"),
    ("DISCONNECT flags", 4, "e8", "", "DISCONNECT with wrong flags"),
    ("PUBLISH of QoS 2", 4, "34", "00 01 61 00 01", "PUBLISH with QoS 2"),
    ("PUBLISH of QoS 3", 4, "36", "00 01 61 00 01", "PUBLISH with QoS 3"),
    ("DUP with QoS 0", 4, "38", "00 01 61", "DUP with QoS 0"),
    ("PUBLISH packet id 0", 4, "32", "00 01 61 00 00", "packet id 0"),
    ("PUBLISH without topic", 4, "30", "00 00", "empty topic"),
    ("PUBLISH with +", 4, "30", "00 03 61 2f 2b", "wildcard in topic name"),
    ("PUBLISH with #", 4, "30", "00 01 23", "wildcard in topic name"),
    ("PUBLISH with NUL", 4, "30", "00 01 00", "NUL in text"),
    ("PUBLISH not UTF-8", 4, "30", "00 01 ff", "text is not UTF-8"),
    ("v5 topic alias", 5, "30", "00 00 03 23 00 01", "empty topic"),
    ("v5 topic and alias", 5, "30", "00 01 61 03 23 00 01", "topic alias not allowed here"),
    ("v5 subscription identifier", 5, "30", "00 01 61 02 0b 01", "subscription identifier not allowed here"),
    ("v5 PUBLISH without properties", 5, "30", "00 01 61", "truncated"),
    ("PUBACK packet id 0", 4, "40", "00 00", "packet id 0"),
    ("PUBACK with a code in 3.1.1", 4, "40", "00 01 00", "longer than it may be"),
    ("SUBSCRIBE packet id 0", 4, "82", "00 00 00 01 61 00", "packet id 0"),
    ("SUBSCRIBE to nothing", 4, "82", "00 01", "SUBSCRIBE without topic filter"),
    ("SUBSCRIBE to an empty filter", 4, "82", "00 01 00 00 00", "not a topic filter"),
    ("SUBSCRIBE # not last", 4, "82", "00 01 00 03 23 2f 61 00", "not a topic filter"),
    ("SUBSCRIBE # within a level", 4, "82", "00 01 00 02 61 23 00", "not a topic filter"),
    ("SUBSCRIBE + within a level", 4, "82", "00 01 00 02 61 2b 00", "not a topic filter"),
    ("SUBSCRIBE with NUL", 4, "82", "00 01 00 01 00 00", "NUL in text"),
    ("SUBSCRIBE of QoS 3", 4, "82", "00 01 00 01 61 03", "SUBSCRIBE with QoS 3"),
    ("SUBSCRIBE reserved bit", 4, "82", "00 01 00 01 61 04", "reserved bit set in the options of a subscription"),
    ("v5 SUBSCRIBE reserved bit", 5, "82", "00 01 00 00 01 61 40", "reserved bit set in the options of a subscription"),
    ("v5 retain handling 3", 5, "82", "00 01 00 00 01 61 30", "retain handling 3"),
    (
        "v5 no local, shared",
        5,
        "82",
        "00 01 00 00 0a 24 73 68 61 72 65 2f 67 2f 61 05",
        "no local on a shared subscription",
    ),
    (
        "v5 SUBSCRIBE with identifier",
        5,
        "82",
        "00 01 02 0b 01 00 01 61 00",
        "subscription identifier not allowed here",
    ),
    ("UNSUBSCRIBE packet id 0", 4, "a2", "00 00 00 01 61", "packet id 0"),
    ("UNSUBSCRIBE from nothing", 5, "a2", "00 01 00", "UNSUBSCRIBE without topic filter"),
    ("UNSUBSCRIBE from an empty filter", 4, "a2", "00 01 00 00", "not a topic filter"),
    ("PINGREQ with a body", 4, "c0", "00", "longer than it may be"),
    ("DISCONNECT with a code in 3.1.1", 4, "e0", "00", "longer than it may be"),
    ("v5 DISCONNECT 5", 5, "e0", "05", "reserved code"),
    ("v5 DISCONNECT refers to a server", 5, "e0", "00 04 1c 00 01 61", "server reference not allowed here"),
]
BAD_SERVER = [
    ("PINGREQ", 4, "c0", "", "PINGREQ not allowed here"),
    ("DISCONNECT in 3.1.1", 4, "e0", "", "DISCONNECT from a server"),
    ("v5 DISCONNECT with session expiry", 5, "e0", "00 05 11 00 00 00 01", "session expiry interval not allowed here"),
    ("CONNACK flags", 4, "20", "02 00", "reserved flag set"),
    ("session present in a refusal", 4, "20", "01 05", "session present in a refusal"),
    ("CONNACK 6", 4, "20", "00 06", "reserved code"),
    ("v5 CONNACK 5", 5, "20", "00 05 00", "reserved code"),
    ("SUBACK of QoS 3", 4, "90", "00 01 03", "reserved code"),
    ("SUBACK with a code of v5", 4, "90", "00 01 87", "reserved code"),
    ("v5 PUBACK 1", 5, "40", "00 01 01", "reserved code"),
    ("v5 UNSUBACK 1", 5, "b0", "00 01 00 01", "reserved code"),
    ("SUBACK without code", 5, "90", "00 01 00", "SUBACK without code"),
    ("v5 UNSUBACK without code", 5, "b0", "00 01 00", "UNSUBACK without code"),
    ("PUBLISH of QoS 2", 4, "34", "00 01 61 00 01", "PUBLISH with QoS 2"),
    ("v5 topic alias", 5, "30", "00 01 61 03 23 00 01", "topic alias not allowed here"),
]


@pytest.mark.parametrize(
    ("reader", "level", "first", "body", "reason"),
    [pytest.param(packets.read, *case[1:], id=case[0]) for case in BAD]
    + [pytest.param(packets.read_server, *case[1:], id=f"server: {case[0]}") for case in BAD_SERVER],
)
def test_malformed(reader: Callable[[int, bytes, int], object], level: int, first: str, body: str, reason: str) -> None:
    with pytest.raises(Malformed) as refused:
        reader(int(first, 16), bytes.fromhex(body), level)
    assert str(refused.value) == reason
    assert isinstance(refused.value, UnsupportedQos) == (reason == "PUBLISH with QoS 2")


@pytest.mark.parametrize("first", [0x82, 0x8A])
def test_mqtt_3_1_repeats_requests_with_dup(first: int) -> None:
    assert packets.read(first, bytes.fromhex("00 01 00 01 61 00"), 3) == Subscribe(1, (("a", 0),))
    assert packets.read(first + 0x20, bytes.fromhex("00 01 00 01 61"), 3) == Unsubscribe(1, ("a",))


@pytest.mark.parametrize("options", range(0x30))
def test_options_of_a_v5_subscription_are_reduced_to_qos(options: int) -> None:
    body = bytes.fromhex("00 01 00 00 01 61") + bytes((options,))
    if options & 3 == 3:
        with pytest.raises(Malformed):
            packets.read(0x82, body, 5)
    else:
        assert packets.read(0x82, body, 5) == Subscribe(1, (("a", options & 3),))


def test_mqtt_3_1_reserves_the_flags_of_connack() -> None:
    assert packets.read_server(0x20, b"\xff\0", 3) == Connack(session_present=False, code=0)


def test_the_longest_fields_go_both_ways() -> None:
    connect = Connect(4, "c" * 65_535, "u" * 65_535, b"p" * 65_535, clean=True, keepalive=65_535)
    assert read_whole(packets.write_connect(connect), 4, Connect) == connect
    publish = Publish(Message("t" * 65_535, b"x" * 70_000), None)
    assert read_whole(write(publish, 4), 4, Publish) == publish


def test_a_server_may_disconnect_in_v5() -> None:
    assert packets.read_server(0xE0, packets.write_disconnect(0x8E, level=5)[2:], 5) == Disconnect(0x8E)


# What a level cannot say is left out; what no level can say is not written


def test_lower_levels_leave_out_what_they_do_not_have() -> None:
    message = Message("a", b"", properties=b"\1\1")
    assert packets.write_publish(message, level=4) == bytes.fromhex("30 03 00 01 61")
    assert packets.write_connack(0, level=3, session_present=True) == bytes.fromhex("20 02 00 00")
    assert packets.write_connack(0, level=4, properties={0x24: 1}) == bytes.fromhex("20 02 00 00")
    assert packets.write_unsuback(1, (0x11,), 4) == bytes.fromhex("b0 02 00 01")
    assert packets.write_disconnect(4, level=4, session_expiry=1) == bytes.fromhex("e0 00")
    connect = Connect(4, "c", None, None, clean=True, keepalive=0, will=message)
    limited = replace(connect, session_expiry=1, receive_maximum=1, maximum_packet=1)
    assert packets.write_connect(limited) == packets.write_connect(connect)
    assert packets.read_connect(packets.write_connect(connect)[2:]).will == Message("a", b"")


PLAIN = Connect(5, "c", "u", b"p", clean=True, keepalive=0)


@pytest.mark.parametrize(
    ("writer", "reason"),
    [
        (lambda: packets.write_connect(replace(PLAIN, level=6)), "no protocol level 6"),
        (lambda: packets.write_connect(replace(PLAIN, level=4, username=None)), "password without user name"),
        (lambda: packets.write_connect(replace(PLAIN, keepalive=65_536)), "not within"),
        (lambda: packets.write_connect(replace(PLAIN, client_id="x" * 65_536)), "65536 bytes"),
        (lambda: packets.write_connect(replace(PLAIN, client_id="a\0")), "NUL"),
        (lambda: packets.write_connect(replace(PLAIN, password=b"x" * 65_536)), "65536 bytes"),
        (lambda: packets.write_connect(replace(PLAIN, will=Message("a/#", b""))), "not a topic name"),
        (lambda: packets.write_connect(replace(PLAIN, will=Message("a", b"x" * 65_536))), "65536 bytes"),
        (lambda: packets.write_connect(replace(PLAIN, will=Message("a", b"", 3))), "no QoS 3"),
        (lambda: packets.write_connect(replace(PLAIN, receive_maximum=0)), "not within"),
        (lambda: packets.write_connect(replace(PLAIN, maximum_packet=0)), "not within"),
        (lambda: packets.write_connect(replace(PLAIN, session_expiry=1 << 32)), "not within"),
        (lambda: packets.write_connack(5, level=4, session_present=True), "session present in a refusal"),
        (lambda: packets.write_connack(0x86, level=4), "no code 0x86"),
        (lambda: packets.write_connack(5, level=5), "no code 0x05"),
        (lambda: packets.write_connack(0, level=5, properties={0x17: 1}), "no property 0x17"),
        (lambda: packets.write_publish(Message("", b""), level=4), "not a topic name"),
        (lambda: packets.write_publish(Message("a/+", b""), level=4), "not a topic name"),
        (lambda: packets.write_publish(Message("x" * 65_536, b""), level=4), "65536 bytes"),
        (lambda: packets.write_publish(Message("a", b""), level=4, packet_id=1), "QoS 0 has no packet id"),
        (lambda: packets.write_publish(Message("a", b""), level=4, dup=True), "QoS 0 has no packet id"),
        (lambda: packets.write_publish(Message("a", b"", 1), level=4), "QoS 1 needs a packet id"),
        (lambda: packets.write_publish(Message("a", b"", 1), level=4, packet_id=0), "not within"),
        (lambda: packets.write_publish(Message("a", b"", 1), level=4, packet_id=65_536), "not within"),
        (lambda: packets.write_publish(Message("a", b"", 2), level=4, packet_id=1), "QoS 2 is not served"),
        (lambda: packets.write_publish(Message("a", b"", properties=b"\x23\0\1"), level=5), "topic alias not allowed"),
        (lambda: packets.write_puback(0), "not within"),
        (lambda: packets.write_puback(1, 1), "no code 0x01"),
        (lambda: packets.write_subscribe(1, (), 4), "without topic filter"),
        (lambda: packets.write_subscribe(1, (("a#", 0),), 4), "not a topic filter"),
        (lambda: packets.write_subscribe(1, (("a", 3),), 4), "no QoS 3"),
        (lambda: packets.write_subscribe(0, (("a", 1),), 4), "not within"),
        (lambda: packets.write_suback(1, (), 4), "SUBACK without code"),
        (lambda: packets.write_suback(1, (0x87,), 4), "no code 0x87"),
        (lambda: packets.write_suback(1, (3,), 5), "no code 0x03"),
        (lambda: packets.write_unsubscribe(1, (), 5), "without topic filter"),
        (lambda: packets.write_unsubscribe(1, ("",), 5), "not a topic filter"),
        (lambda: packets.write_unsuback(1, (), 5), "UNSUBACK without code"),
        (lambda: packets.write_unsuback(1, (1,), 5), "no code 0x01"),
        (lambda: packets.write_disconnect(256, level=5), "no code 0x100"),
        (lambda: packets.write_disconnect(level=5, session_expiry=-1), "not within"),
    ],
)
def test_what_cannot_be_written(writer: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        writer()


# 4.7, the examples of its tables and text first


@pytest.mark.parametrize(
    ("topic_filter", "topic", "covered"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/broker", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/broker", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("$SYS/broker", "$SYS/broker", True),
        ("ACCOUNTS", "Accounts", False),
        ("/finance", "finance", False),
        ("a/b", "a/b", True),
        ("a/b", "a", False),
        ("+/#", "a", True),
        ("a/+/#", "a", False),
        ("a/+/c", "a//c", True),
        ("a/+/c", "a/b/d", False),
        ("a/b/#", "a/c/d", False),
        ("a/#", "ab", False),
    ],
)
def test_matches(topic_filter: str, topic: str, covered: bool) -> None:
    assert packets.matches(topic_filter, topic) is covered


# Any value reads back; any bytes are read or refused

levels = st.sampled_from([3, 4, 5])
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
topics = texts.map(lambda text: text.replace("+", "/").replace("#", "/")).filter(bool)
filters = st.lists(st.sampled_from(["a", "+", "", "sys", "\U0002a6d4"]), min_size=1, max_size=4).map("/".join)
filters = st.one_of(filters.filter(bool), filters.map(lambda text: f"{text}/#"), st.just("#"), topics)
ids = st.integers(1, 65_535)
u32s = st.integers(0, (1 << 32) - 1)
carried: dict[int, st.SearchStrategy[Value]] = {0x01: st.integers(0, 1), 0x02: u32s, 0x03: texts, 0x08: topics}
blocks = st.fixed_dictionaries({}, optional={**carried, 0x09: st.binary(max_size=12)}).map(
    lambda stated: properties.write(stated, properties.PUBLISH)[1:]  # less than 128 bytes
)


@st.composite
def messages(draw: st.DrawFn, level: int, greatest_qos: int) -> Message:
    block = draw(blocks) if level == 5 else b""
    return Message(
        draw(topics), draw(st.binary(max_size=300)), draw(st.integers(0, greatest_qos)), draw(st.booleans()), block
    )


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    level = draw(levels)
    username = draw(st.none() | texts)
    connect = Connect(
        level,
        draw(texts),
        username,
        None if username is None and level < 5 else draw(st.none() | st.binary(max_size=70)),
        draw(st.booleans()),
        draw(st.integers(0, 65_535)),
        draw(st.none() | messages(level, 2)),
    )
    if level < 5:
        return connect
    return replace(
        connect,
        session_expiry=draw(st.none() | u32s),
        receive_maximum=draw(ids),
        maximum_packet=draw(st.none() | u32s.filter(bool)),
    )


@st.composite
def values(draw: st.DrawFn) -> tuple[int, Any]:
    """A level, and what it can say in full."""
    level = draw(levels)
    failures = st.integers(0x80, 0xFF) if level == 5 else st.nothing()
    message = draw(messages(level, 1))
    refusal = draw(st.just(0) | failures if level == 5 else st.integers(0, 5))
    present = level > 3 and not refusal and draw(st.booleans())
    stated: dict[int, Value] = {0x13: draw(ids), 0x21: draw(ids), 0x1F: draw(texts)} if level == 5 else {}
    zero = st.just(0)
    choices: list[Any] = [
        Publish(message, draw(ids) if message.qos else None, bool(message.qos and draw(st.booleans()))),
        Puback(draw(ids), draw(zero | failures)),
        Subscribe(draw(ids), tuple(draw(st.lists(st.tuples(filters, st.integers(0, 2)), min_size=1, max_size=4)))),
        Suback(draw(ids), tuple(draw(st.lists(st.sampled_from([0, 1, 2, 0x80]) | failures, min_size=1, max_size=4)))),
        Unsubscribe(draw(ids), tuple(draw(st.lists(filters, min_size=1, max_size=4)))),
        Unsuback(draw(ids), tuple(draw(st.lists(zero | failures, min_size=1, max_size=4))) if level == 5 else ()),
        Connack(present, refusal, stated),
        Disconnect(draw(zero | failures), draw(st.none() | u32s) if level == 5 else None),
    ]
    return level, draw(st.sampled_from(choices))


@given(connects())
def test_every_connect_reads_back(connect: Connect) -> None:
    assert read_whole(packets.write_connect(connect), connect.level, Connect) == connect


@given(values())
def test_every_value_reads_back(case: tuple[int, Any]) -> None:
    level, value = case
    assert read_whole(write(value, level), level, type(value)) == value


@given(st.binary(max_size=12), st.integers(0, 3), st.integers(0, 300))
def test_frame_takes_any_bytes(buffer: bytes, start: int, limit: int) -> None:
    try:
        framed = packets.frame(buffer, start, limit)
    except (Malformed, TooLarge):
        return
    if framed is None:
        assert len(buffer) < start + 5
    else:
        body, end = framed
        assert start + 2 <= body <= end <= start + limit


@given(st.binary(max_size=60))
def test_read_connect_takes_any_bytes(rest: bytes) -> None:
    for head in ("", HEAD, HEAD + "04", HEAD + "05", "00 06 4d 51 49 73 64 70 03"):
        with suppress(*REFUSED):
            assert isinstance(packets.read_connect(bytes.fromhex(head) + rest), Connect)


@given(st.integers(0, 255), st.binary(max_size=40), levels)
def test_readers_take_any_bytes(first: int, body: bytes, level: int) -> None:
    for reader in (packets.read, packets.read_server):
        with suppress(Malformed):
            assert reader(first, body, level) is not None


@given(st.sampled_from(CASES), st.data())
def test_damaged_packets_are_read_or_refused(case: Case, data: st.DataObject) -> None:
    body = bytearray(body_of(case.coded))
    for _ in range(data.draw(st.integers(1, 3), label="damages")):
        at = data.draw(st.integers(0, len(body)), label="at")
        body[at : at + data.draw(st.integers(0, 2), label="taken")] = data.draw(st.binary(max_size=2), label="put")
    level = data.draw(levels, label="level")
    first = case.coded[0]
    with suppress(*REFUSED):
        value = read_body(first, bytes(body), level, type(case.value))
        if not isinstance(value, Connack):  # it may say more than we write
            level = value.level if isinstance(value, Connect) else level
            assert read_whole(write(value, level), level, type(value)) == value
