"""MQTT on the wire: bytes -> value -> bytes. No I/O; every limit is checked.

MQTT 3.1 (name "MQIsdp", level 3), 3.1.1 ("MQTT", 4) and 5 ("MQTT", 5), both directions of each packet: the server's
for the listener, the client's for the simulator and the tests. QoS 2 and enhanced authentication are not served.
Sections and [MQTT-…] statements are those of 3.1.1 where both versions agree, else "v5" stands before them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from broker import properties as v5
from broker.properties import (
    Value,
    decode_length,
    read_binary,
    read_text,
    read_topic,
    read_u16,
    write_binary,
    write_length,
    write_text,
    write_topic,
    write_u16,
)
from provisioning.model.mqtt import Connect, Message

Malformed: TypeAlias = v5.Malformed

MQTT_3_1: Final = 3
MQTT_3_1_1: Final = 4
MQTT_5: Final = 5

CONNECT: Final = 0x10
"""The only first byte that a CONNECT may have (3.1.1); `read_connect` gets what follows the length."""
PINGREQ: Final = b"\xc0\x00"
PINGRESP: Final = b"\xd0\x00"

_NAMES: Final = (
    "packet of type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip
"""2.2.1 Control Packet types."""
PUBLISH_TYPE: Final = 3
_DUP: Final = 0x08
_RETAIN: Final = 0x01
_AT_LEAST_ONCE: Final = 1
_EXACTLY_ONCE: Final = 2
_SHARED: Final = "$share/"

# V5 2.4: codes from 0x80 on are failures, and which of them fits is the sender's affair; below, each packet has its own
_FAILURES: Final = frozenset(range(0x80, 0x100))
_CONNACK_CODES: Final = frozenset(range(6))  # 3.2.2.3
_CONNACK_CODES_5: Final = _FAILURES | {0}
_PUBACK_CODES_5: Final = _FAILURES | {0, 0x10}
_SUBACK_CODES: Final = frozenset({0, 1, 2, 0x80})  # 3.9.3
_SUBACK_CODES_5: Final = _FAILURES | {0, 1, 2}
_UNSUBACK_CODES_5: Final = _FAILURES | {0, 0x11}
_DISCONNECT_CODES_5: Final = _FAILURES | {0, 4}


class UnsupportedLevel(Exception):  # noqa: N818 - named like Malformed, beside which it is caught
    """A CONNECT of a `level` that nobody here speaks: answer CONNACK 1 [MQTT-3.1.2-2] (v5: 0x84)."""

    def __init__(self, level: int) -> None:
        super().__init__(f"protocol level {level}")
        self.level = level


class TooLarge(Exception):  # noqa: N818 - as above
    """A packet of `size` bytes, its fixed header included, is announced, and that is over the limit."""

    def __init__(self, size: int) -> None:
        super().__init__(f"packet of {size} bytes")
        self.size = size


class UnsupportedAuthentication(Malformed):
    """A CONNECT that asks for enhanced authentication (v5 4.12): answer 0x8C."""


class UnsupportedQos(Malformed):
    """A PUBLISH of QoS 2; in v5 answer DISCONNECT 0x9B."""


@dataclass(frozen=True, slots=True)
class Publish:
    message: Message
    packet_id: int | None
    """None: QoS 0."""
    dup: bool = False


@dataclass(frozen=True, slots=True)
class Puback:
    packet_id: int
    code: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    packet_id: int
    filters: tuple[tuple[str, int], ...]
    """Topic filter and the greatest QoS asked for."""


@dataclass(frozen=True, slots=True)
class Suback:
    packet_id: int
    codes: tuple[int, ...]
    """In the order of the filters: the QoS granted, or 0x80 and above."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsuback:
    packet_id: int
    codes: tuple[int, ...] = ()
    """Empty below level 5."""


@dataclass(frozen=True, slots=True)
class Pingreq:
    pass


@dataclass(frozen=True, slots=True)
class Pingresp:
    pass


@dataclass(frozen=True, slots=True)
class Disconnect:
    code: int = 0
    session_expiry: int | None = None
    """MQTT 5: seconds, in place of those in CONNECT; None: not stated."""


@dataclass(frozen=True, slots=True)
class Connack:
    session_present: bool
    code: int
    properties: dict[int, Value] = field(default_factory=dict)


Packet: TypeAlias = Publish | Puback | Subscribe | Unsubscribe | Pingreq | Disconnect
"""What a client may send after CONNECT."""
ServerPacket: TypeAlias = Connack | Publish | Puback | Suback | Unsuback | Pingresp | Disconnect
"""What a server may send."""


def frame(buffer: bytes | bytearray, start: int, limit: int) -> tuple[int, int] | None:
    """2.2: where the packet whose fixed header begins at `start` has its body, and where it ends.

    None: the header is not complete. The end may lie behind the buffer: wait for the rest.

    Raises:
        Malformed: the remaining length has five bytes or more, or more than it needs.
        TooLarge: the packet is to have more than `limit` bytes; raised before any of them is needed.
    """
    decoded = decode_length(buffer[start + 1 : start + 5])
    if decoded is None:
        return None
    length, taken = decoded
    body = start + 1 + taken
    end = body + length
    if end - start > limit:
        raise TooLarge(end - start)
    return body, end


# 3.1 CONNECT


def read_connect(body: bytes) -> Connect:
    """3.1: what follows the fixed header of a CONNECT.

    Raises:
        Malformed: it breaks the protocol.
        UnsupportedAuthentication: it names an authentication method.
        UnsupportedLevel: a known protocol name, and a level that does not belong to it.
    """
    level, at = _read_level(body)
    if at + 3 > len(body):
        raise Malformed("truncated")
    flags = body[at]
    keepalive, at = read_u16(body, at + 1)
    _check_connect_flags(flags, level)
    stated: dict[int, Value] = {}
    if level == MQTT_5:
        stated, at = v5.read(body, at, v5.CONNECT)
        if v5.AUTHENTICATION_METHOD in stated:
            raise UnsupportedAuthentication("authentication method is not supported")
    client_id, at = read_text(body, at)
    will = username = password = None
    if flags & 0x04:
        will, at = _read_will(flags, body, at, level)
    if flags & 0x80:
        username, at = read_text(body, at)
    if flags & 0x40:
        password, at = read_binary(body, at)
    if at != len(body):
        raise Malformed("more than the flags announce")
    if not stated:
        return Connect(level, client_id, username, password, bool(flags & 0x02), keepalive, will)
    return Connect(
        level,
        client_id,
        username,
        password,
        bool(flags & 0x02),
        keepalive,
        will,
        session_expiry=_integer(stated, v5.SESSION_EXPIRY),
        receive_maximum=_integer(stated, v5.RECEIVE_MAXIMUM) or v5.MAX_U16,
        maximum_packet=_integer(stated, v5.MAXIMUM_PACKET),
    )


def _read_level(body: bytes) -> tuple[int, int]:
    """3.1.2.1 Protocol Name, 3.1.2.2 Protocol Level."""
    known: tuple[int, ...]
    if body.startswith(b"\0\4MQTT"):
        at, known = 6, (MQTT_3_1_1, MQTT_5)
    elif body.startswith(b"\0\6MQIsdp"):
        at, known = 8, (MQTT_3_1,)
    else:
        raise Malformed("unknown protocol name")
    if at == len(body):
        raise Malformed("truncated")
    if body[at] not in known:
        raise UnsupportedLevel(body[at])
    return body[at], at + 1


def _check_connect_flags(flags: int, level: int) -> None:
    """3.1.2.3: bits 7 to 0 are user name, password, will retain, will QoS (2), will, clean, reserved."""
    if flags & 0x01:
        raise Malformed("reserved flag set")  # [MQTT-3.1.2-3]
    if not flags & 0x04 and flags & 0x38:
        raise Malformed("will QoS or will retain without will")  # [MQTT-3.1.2-13], [MQTT-3.1.2-15]
    if flags & 0x18 == 0x18:  # noqa: PLR2004 - both bits of the QoS
        raise Malformed("will QoS 3")  # [MQTT-3.1.2-14]
    if flags & 0xC0 == 0x40 and level < MQTT_5:  # noqa: PLR2004 - bits 7 and 6
        raise Malformed("password without user name")  # [MQTT-3.1.2-22]; v5 allows it


def _read_will(flags: int, body: bytes, at: int, level: int) -> tuple[Message, int]:
    """3.1.3.2, 3.1.3.3; v5 3.1.3.2 Will Properties."""
    block = b""
    if level == MQTT_5:
        block, at = v5.read_block(body, at, v5.WILL)
    topic, at = read_topic(body, at)
    payload, at = read_binary(body, at)
    return Message(topic, payload, flags >> 3 & 3, bool(flags & 0x20), block), at


def _integer(stated: Mapping[int, Value], identifier: int) -> int | None:
    value = stated.get(identifier)
    assert value is None or isinstance(value, int)
    return value


def write_connect(connect: Connect) -> bytes:
    """3.1; what belongs to MQTT 5 is left out at a lower level.

    Raises:
        ValueError: an unknown level, or a field that does not fit.
    """
    if connect.level not in {MQTT_3_1, MQTT_3_1_1, MQTT_5}:
        raise ValueError(f"no protocol level {connect.level}")
    newest = connect.level == MQTT_5
    if connect.password is not None and connect.username is None and not newest:
        raise ValueError("password without user name")  # [MQTT-3.1.2-22]
    flags = connect.clean << 1
    tail = [write_text(connect.client_id)]
    if will := connect.will:
        if will.qos not in {0, _AT_LEAST_ONCE, _EXACTLY_ONCE}:
            raise ValueError(f"no QoS {will.qos}")
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        if newest:
            tail.append(v5.write_block(will.properties, v5.WILL))
        tail += write_topic(will.topic), write_binary(will.payload)
    if connect.username is not None:
        flags |= 0x80
        tail.append(write_text(connect.username))
    if connect.password is not None:
        flags |= 0x40
        tail.append(write_binary(connect.password))
    name = write_text("MQIsdp" if connect.level == MQTT_3_1 else "MQTT")
    head = [name, bytes((connect.level, flags)), write_u16(connect.keepalive)]
    if newest:
        head.append(_write_connect_properties(connect))
    return _packet(CONNECT, *head, *tail)


def _write_connect_properties(connect: Connect) -> bytes:
    """V5 3.1.2.11; what equals its default is left out."""
    stated: dict[int, Value] = {}
    if connect.session_expiry is not None:
        stated[v5.SESSION_EXPIRY] = connect.session_expiry
    if connect.receive_maximum != v5.MAX_U16:
        stated[v5.RECEIVE_MAXIMUM] = connect.receive_maximum
    if connect.maximum_packet is not None:
        stated[v5.MAXIMUM_PACKET] = connect.maximum_packet
    return v5.write(stated, v5.CONNECT)


# 3.2 CONNACK


def _read_connack(body: bytes, level: int) -> Connack:
    if len(body) < 2:  # noqa: PLR2004 - flags and code
        raise Malformed("truncated")
    flags, code = body[0], body[1]
    if level == MQTT_3_1:
        flags = 0  # "reserved, not used"
    if flags & 0xFE:
        raise Malformed("reserved flag set")  # 3.2.2.1
    _check_codes((code,), _CONNACK_CODES_5 if level == MQTT_5 else _CONNACK_CODES)
    if flags and code:
        raise Malformed("session present in a refusal")  # [MQTT-3.2.2-4]
    values, at = v5.read(body, 2, v5.CONNACK) if level == MQTT_5 else ({}, 2)
    _check_end(body, at)
    return Connack(bool(flags), code, values)


_NONE: Final[Mapping[int, int | str]] = {}


def write_connack(
    code: int, *, level: int, session_present: bool = False, properties: Mapping[int, int | str] = _NONE
) -> bytes:
    """3.2; `code` is one of that level. MQTT 3.1 has no session present flag, only MQTT 5 has properties.

    Raises:
        ValueError: a code that the level does not have, session present in a refusal, a property that CONNACK does
            not have.
    """
    if session_present and code:
        raise ValueError("session present in a refusal")  # [MQTT-3.2.2-4]
    present = bytes((session_present and level != MQTT_3_1,))
    coded = _write_codes((code,), _CONNACK_CODES_5 if level == MQTT_5 else _CONNACK_CODES)
    return _packet(0x20, present, coded, v5.write(properties, v5.CONNACK) if level == MQTT_5 else b"")


# 3.3 PUBLISH


def _read_publish(first: int, body: bytes, level: int) -> Publish:
    qos = first >> 1 & 3
    if qos > _AT_LEAST_ONCE:
        if qos == _EXACTLY_ONCE:
            raise UnsupportedQos("PUBLISH with QoS 2")
        raise Malformed("PUBLISH with QoS 3")  # [MQTT-3.3.1-4]
    dup = bool(first & _DUP)
    if dup and not qos:
        raise Malformed("DUP with QoS 0")  # [MQTT-3.3.1-2]
    topic, at = read_topic(body, 0)
    packet_id = None
    if qos:
        packet_id, at = _read_packet_id(body, at)
    block = b""
    if level == MQTT_5:
        block, at = v5.read_block(body, at, v5.PUBLISH)
    return Publish(Message(topic, body[at:], qos, bool(first & _RETAIN), block), packet_id, dup)


def write_publish(message: Message, *, level: int, packet_id: int | None = None, dup: bool = False) -> bytes:
    """3.3; the properties are left out below level 5.

    Raises:
        ValueError: not a topic name; a QoS above 1; a packet id or DUP with QoS 0, or none with QoS 1; properties that
            PUBLISH does not have; a packet over 256 MiB.
    """
    parts = [write_topic(message.topic)]
    if message.qos == 0:
        if packet_id is not None or dup:
            raise ValueError("QoS 0 has no packet id and no DUP")
    elif message.qos == _AT_LEAST_ONCE:
        if packet_id is None:
            raise ValueError("QoS 1 needs a packet id")
        parts.append(write_u16(packet_id, least=1))
    else:
        raise ValueError(f"QoS {message.qos} is not served")
    if level == MQTT_5:
        parts.append(v5.write_block(message.properties, v5.PUBLISH))
    return _packet(0x30 | dup << 3 | message.qos << 1 | message.retain, *parts, message.payload)


# 3.4 PUBACK


def _read_puback(body: bytes, level: int) -> Puback:
    packet_id, at = _read_packet_id(body, 0)
    code = 0
    if level == MQTT_5 and at < len(body):  # v5 3.4.2.1: code 0 may be left out
        code, _, at = _read_code(body, at, _PUBACK_CODES_5, v5.REPLY)
    _check_end(body, at)
    return Puback(packet_id, code)


def write_puback(packet_id: int, code: int = 0) -> bytes:
    """3.4. Only MQTT 5 has codes other than 0.

    Raises:
        ValueError: a packet id outside 1..65535, or no code of PUBACK.
    """
    return _packet(0x40, write_u16(packet_id, least=1), _write_codes((code,), _PUBACK_CODES_5) if code else b"")


# 3.8 SUBSCRIBE, 3.9 SUBACK


def _read_subscribe(body: bytes, level: int) -> Subscribe:
    packet_id, at = _read_packet_id(body, 0)
    if level == MQTT_5:
        _, at = v5.read(body, at, v5.REQUEST)
    filters = []
    while at < len(body):
        topic_filter, at = _read_filter(body, at)
        if at == len(body):
            raise Malformed("truncated")
        filters.append((topic_filter, _read_options(body[at], topic_filter, level)))
        at += 1
    if not filters:
        raise Malformed("SUBSCRIBE without topic filter")  # [MQTT-3.8.3-3]
    return Subscribe(packet_id, tuple(filters))


def _read_options(options: int, topic_filter: str, level: int) -> int:
    """3.8.3: the requested QoS. v5 3.8.3.1: retain handling (bits 5, 4), retain as published (3), no local (2)."""
    qos = options & 0x03
    if qos > _EXACTLY_ONCE:
        raise Malformed("SUBSCRIBE with QoS 3")  # [MQTT-3-8.3-4]
    if options & (0xC0 if level == MQTT_5 else 0xFC):
        raise Malformed("reserved bit set in the options of a subscription")
    if options & 0x30 == 0x30:  # noqa: PLR2004 - both bits
        raise Malformed("retain handling 3")
    if options & 0x04 and topic_filter.startswith(_SHARED):
        raise Malformed("no local on a shared subscription")  # v5 [MQTT-3.8.3-4]
    return qos


def write_subscribe(packet_id: int, filters: Iterable[tuple[str, int]], level: int) -> bytes:
    """3.8.

    Raises:
        ValueError: no filter, not a topic filter, a QoS above 2, or a packet id outside 1..65535.
    """
    parts = [write_u16(packet_id, least=1), b"\0" if level == MQTT_5 else b""]
    for topic_filter, qos in filters:
        if qos not in {0, _AT_LEAST_ONCE, _EXACTLY_ONCE}:
            raise ValueError(f"no QoS {qos}")
        parts += _write_filter(topic_filter), bytes((qos,))
    if len(parts) == 2:  # noqa: PLR2004 - nothing beside the head
        raise ValueError("SUBSCRIBE without topic filter")
    return _packet(0x82, *parts)


def _read_suback(body: bytes, level: int) -> Suback:
    packet_id, at = _read_packet_id(body, 0)
    if level == MQTT_5:
        _, at = v5.read(body, at, v5.REPLY)
    codes = tuple(body[at:])
    if not codes:
        raise Malformed("SUBACK without code")
    _check_codes(codes, _SUBACK_CODES_5 if level == MQTT_5 else _SUBACK_CODES)  # [MQTT-3.9.3-2]
    return Suback(packet_id, codes)


def write_suback(packet_id: int, codes: Iterable[int], level: int) -> bytes:
    """3.9; one code for each filter, in their order: the granted QoS, or 0x80 (v5: and above).

    Raises:
        ValueError: no code, one that the level does not have, or a packet id outside 1..65535.
    """
    coded = _write_codes(codes, _SUBACK_CODES_5 if level == MQTT_5 else _SUBACK_CODES)
    if not coded:
        raise ValueError("SUBACK without code")
    return _packet(0x90, write_u16(packet_id, least=1), b"\0" if level == MQTT_5 else b"", coded)


# 3.10 UNSUBSCRIBE, 3.11 UNSUBACK


def _read_unsubscribe(body: bytes, level: int) -> Unsubscribe:
    packet_id, at = _read_packet_id(body, 0)
    if level == MQTT_5:
        _, at = v5.read(body, at, v5.REQUEST)
    filters = []
    while at < len(body):
        topic_filter, at = _read_filter(body, at)
        filters.append(topic_filter)
    if not filters:
        raise Malformed("UNSUBSCRIBE without topic filter")  # [MQTT-3.10.3-2]
    return Unsubscribe(packet_id, tuple(filters))


def write_unsubscribe(packet_id: int, filters: Iterable[str], level: int) -> bytes:
    """3.10.

    Raises:
        ValueError: no filter, not a topic filter, or a packet id outside 1..65535.
    """
    coded = [_write_filter(topic_filter) for topic_filter in filters]
    if not coded:
        raise ValueError("UNSUBSCRIBE without topic filter")
    return _packet(0xA2, write_u16(packet_id, least=1), b"\0" if level == MQTT_5 else b"", *coded)


def _read_unsuback(body: bytes, level: int) -> Unsuback:
    packet_id, at = _read_packet_id(body, 0)
    if level < MQTT_5:
        _check_end(body, at)
        return Unsuback(packet_id)
    _, at = v5.read(body, at, v5.REPLY)
    codes = tuple(body[at:])
    if not codes:
        raise Malformed("UNSUBACK without code")
    _check_codes(codes, _UNSUBACK_CODES_5)
    return Unsuback(packet_id, codes)


def write_unsuback(packet_id: int, codes: Iterable[int], level: int) -> bytes:
    """3.11; v5: one code for each filter, in their order (0; 0x11: no such subscription). Lower levels have none.

    Raises:
        ValueError: v5 without code or with one that it does not have; a packet id outside 1..65535.
    """
    head = write_u16(packet_id, least=1)
    if level < MQTT_5:
        return _packet(0xB0, head)
    coded = _write_codes(codes, _UNSUBACK_CODES_5)
    if not coded:
        raise ValueError("UNSUBACK without code")
    return _packet(0xB0, head, b"\0", coded)


# 3.12 PINGREQ, 3.13 PINGRESP, 3.14 DISCONNECT


def _read_pingreq(body: bytes, _level: int) -> Pingreq:
    _check_end(body, 0)
    return Pingreq()


def _read_pingresp(body: bytes, _level: int) -> Pingresp:
    _check_end(body, 0)
    return Pingresp()


def _read_disconnect_of_client(body: bytes, level: int) -> Disconnect:
    return _read_disconnect(body, level, v5.DISCONNECT_OF_CLIENT)


def _read_disconnect_of_server(body: bytes, level: int) -> Disconnect:
    if level < MQTT_5:
        raise Malformed("DISCONNECT from a server")
    return _read_disconnect(body, level, v5.DISCONNECT_OF_SERVER)


def _read_disconnect(body: bytes, level: int, allowed: frozenset[int]) -> Disconnect:
    if level < MQTT_5 or not body:  # v5 3.14.2.1: code 0 may be left out
        _check_end(body, 0)
        return Disconnect()
    code, values, at = _read_code(body, 0, _DISCONNECT_CODES_5, allowed)
    _check_end(body, at)
    return Disconnect(code, _integer(values, v5.SESSION_EXPIRY))


def write_disconnect(code: int = 0, *, level: int, session_expiry: int | None = None) -> bytes:
    """3.14; code and session expiry (seconds, only a client may state it) are left out below level 5.

    Raises:
        ValueError: a value that does not fit.
    """
    if level < MQTT_5 or (not code and session_expiry is None):
        return _packet(0xE0)
    coded = _write_codes((code,), _DISCONNECT_CODES_5)
    if session_expiry is None:
        return _packet(0xE0, coded)
    return _packet(0xE0, coded, v5.write({v5.SESSION_EXPIRY: session_expiry}, v5.DISCONNECT_OF_CLIENT))


# 2.2.1, 2.2.2: which packets may come, by their whole first byte, since all but PUBLISH have fixed flags

_FROM_CLIENT: Final[Mapping[int, Callable[[bytes, int], Packet]]] = {
    0x40: _read_puback,
    0x82: _read_subscribe,
    0xA2: _read_unsubscribe,
    0xC0: _read_pingreq,
    0xE0: _read_disconnect_of_client,
}
_FROM_SERVER: Final[Mapping[int, Callable[[bytes, int], ServerPacket]]] = {
    0x20: _read_connack,
    0x40: _read_puback,
    0x90: _read_suback,
    0xB0: _read_unsuback,
    0xD0: _read_pingresp,
    0xE0: _read_disconnect_of_server,
}


def read(first: int, body: bytes, level: int) -> Packet:
    """What a client may send after CONNECT: `first` is the first byte, `body` what follows the remaining length.

    Raises:
        Malformed: it breaks the protocol, or a client may not send it now.
        UnsupportedQos: PUBLISH with QoS 2.
    """
    if first >> 4 == PUBLISH_TYPE:
        return _read_publish(first, body, level)
    if level == MQTT_3_1 and first in {0x8A, 0xAA}:
        first &= ~_DUP  # MQTT 3.1, 3.8 and 3.10: a repeated SUBSCRIBE or UNSUBSCRIBE says so
    reader = _FROM_CLIENT.get(first)
    if reader is None:
        raise _unexpected(first, _FROM_CLIENT)
    return reader(body, level)


def read_server(first: int, body: bytes, level: int) -> ServerPacket:
    """What a server may send to a client that granted it no topic alias and asked for no subscription identifier.

    Raises:
        Malformed: it breaks the protocol, or a server may not send it.
        UnsupportedQos: PUBLISH with QoS 2.
    """
    if first >> 4 == PUBLISH_TYPE:
        return _read_publish(first, body, level)
    reader = _FROM_SERVER.get(first)
    if reader is None:
        raise _unexpected(first, _FROM_SERVER)
    return reader(body, level)


def _unexpected(first: int, known: Mapping[int, object]) -> Malformed:
    name = _NAMES[first >> 4]
    if any(first >> 4 == other >> 4 for other in known):
        return Malformed(f"{name} with wrong flags")  # [MQTT-2.2.2-2]
    return Malformed(f"{name} not allowed here")


# What several packets share


def _packet(first: int, *parts: bytes) -> bytes:
    """2.2. ValueError: over 256 MiB."""
    return b"".join((bytes((first,)), write_length(sum(map(len, parts))), *parts))


def _check_end(body: bytes, at: int) -> None:
    if at != len(body):
        raise Malformed("longer than it may be")


def _read_packet_id(body: bytes, at: int) -> tuple[int, int]:
    """2.3.1."""
    packet_id, at = read_u16(body, at)
    if not packet_id:
        raise Malformed("packet id 0")  # [MQTT-2.3.1-1]
    return packet_id, at


def _read_code(
    body: bytes, at: int, codes: frozenset[int], allowed: frozenset[int]
) -> tuple[int, dict[int, Value], int]:
    """V5 2.4: a reason code at `at`, which is inside; then properties, and none when nothing follows."""
    code = body[at]
    _check_codes((code,), codes)
    if at + 1 == len(body):
        return code, {}, at + 1
    values, at = v5.read(body, at + 1, allowed)
    return code, values, at


def _check_codes(codes: Iterable[int], known: frozenset[int]) -> None:
    if not known.issuperset(codes):
        raise Malformed("reserved code")


def _write_codes(codes: Iterable[int], known: frozenset[int]) -> bytes:
    codes = tuple(codes)
    for code in codes:
        if code not in known:
            raise ValueError(f"no code {code:#04x} in this packet at this level")
    return bytes(codes)


# 4.7 Topic Names and Topic Filters


def _is_filter(text: str) -> bool:
    """4.7.1: `#` is the last level [MQTT-4.7.1-2], and both wildcards fill theirs [MQTT-4.7.1-3]."""
    if "#" not in text and "+" not in text:
        return text != ""  # [MQTT-4.7.3-1]
    *parents, last = text.split("/")
    return (
        "#" not in "".join(parents)
        and all(level == "+" or "+" not in level for level in parents)
        and (last in {"#", "+"} or ("#" not in last and "+" not in last))
    )


def _read_filter(body: bytes, at: int) -> tuple[str, int]:
    text, at = read_text(body, at)
    if not _is_filter(text):
        raise Malformed("not a topic filter")
    return text, at


def _write_filter(text: str) -> bytes:
    if not _is_filter(text):
        raise ValueError(f"not a topic filter: {text!r}")
    return write_text(text)


def matches(topic_filter: str, topic: str) -> bool:
    """4.7: whether a topic filter covers a topic name; of a shared subscription, give what follows `$share/{name}/`."""
    if "#" not in topic_filter and "+" not in topic_filter:
        return topic_filter == topic
    if topic[:1] == "$" and topic_filter[0] in "#+":
        return False  # [MQTT-4.7.2-1]
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":  # 4.7.1.2: it covers the parent level too
        wanted.pop()
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(one in {"+", other} for one, other in zip(wanted, levels, strict=False))
