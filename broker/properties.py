"""The properties of MQTT 5 (2.2.2), and the data types under all packets (1.5). No I/O; every length is checked.

Readers take the bytes and an offset, return the value and the offset behind it, and raise Malformed. Writers return
bytes and raise ValueError. Sections are those of MQTT 5.0 unless 3.1.1 is named.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

MAX_LENGTH: Final = 268_435_455
"""1.5.5: the largest variable byte integer."""
MAX_U16: Final = 65_535
MAX_U32: Final = 4_294_967_295
CONTINUES: Final = 0x80
"""1.5.5: another byte of the integer follows."""

Value: TypeAlias = int | str | bytes


class Malformed(Exception):  # noqa: N818 - the standard's own word for such a packet
    """Bytes that break the protocol; the text is a short reason for the log and repeats nothing of the content."""


# 1.5 Data representation


def read_u16(body: bytes, at: int) -> tuple[int, int]:
    """1.5.2 Two Byte Integer."""
    end = at + 2
    if end > len(body):
        raise Malformed("truncated")
    return int.from_bytes(body[at:end], "big"), end


def read_u32(body: bytes, at: int) -> tuple[int, int]:
    """1.5.3 Four Byte Integer."""
    end = at + 4
    if end > len(body):
        raise Malformed("truncated")
    return int.from_bytes(body[at:end], "big"), end


def decode_length(head: bytes | bytearray) -> tuple[int, int] | None:
    """1.5.5 Variable Byte Integer: its value and how many bytes it took; None: bytes are missing.

    It takes at most four bytes, and MUST take the fewest that hold it [MQTT-1.5.5-1]; 3.1.1 (2.2.3) does not say so,
    yet nobody writes it otherwise.
    """
    value = 0
    for index, byte in enumerate(head[:4]):
        value |= (byte & ~CONTINUES) << 7 * index
        if byte < CONTINUES:
            if index and not byte:
                raise Malformed("length in more bytes than it needs")
            return value, index + 1
    if len(head) < 4:  # noqa: PLR2004 - as above
        return None
    raise Malformed("length of more than four bytes")


def read_length(body: bytes, at: int) -> tuple[int, int]:
    decoded = decode_length(body[at : at + 4])
    if decoded is None:
        raise Malformed("truncated")
    return decoded[0], at + decoded[1]


def read_binary(body: bytes, at: int) -> tuple[bytes, int]:
    """1.5.6 Binary Data: a two byte length, then as many bytes."""
    start = at + 2
    end = start + int.from_bytes(body[at:start], "big")
    if end > len(body):
        raise Malformed("truncated")
    return body[start:end], end


def read_text(body: bytes, at: int) -> tuple[str, int]:
    """1.5.4 UTF-8 Encoded String: no surrogates [MQTT-1.5.4-1], no U+0000 [MQTT-1.5.4-2]."""
    raw, at = read_binary(body, at)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Malformed("text is not UTF-8") from None
    if "\0" in text:
        raise Malformed("NUL in text")
    return text, at


def read_topic(body: bytes, at: int) -> tuple[str, int]:
    """4.7 Topic Name: not empty [MQTT-4.7.3-1], no wildcard [MQTT-3.3.2-2]."""
    topic, at = read_text(body, at)
    if not topic:
        raise Malformed("empty topic")
    if "+" in topic or "#" in topic:
        raise Malformed("wildcard in topic name")
    return topic, at


def write_u16(value: int, least: int = 0) -> bytes:
    if not least <= value <= MAX_U16:
        raise ValueError(f"{value} is not within {least}..{MAX_U16}")
    return value.to_bytes(2, "big")


def write_u32(value: int, least: int = 0) -> bytes:
    if not least <= value <= MAX_U32:
        raise ValueError(f"{value} is not within {least}..{MAX_U32}")
    return value.to_bytes(4, "big")


def write_length(value: int) -> bytes:
    if not 0 <= value <= MAX_LENGTH:
        raise ValueError(f"{value} bytes do not fit into a packet")
    coded = bytearray()
    while value >= CONTINUES:
        coded.append(value & ~CONTINUES & 0xFF | CONTINUES)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def write_binary(value: bytes) -> bytes:
    if len(value) > MAX_U16:
        raise ValueError(f"{len(value)} bytes, and a field holds {MAX_U16}")
    return len(value).to_bytes(2, "big") + value


def write_text(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("NUL in text")
    return write_binary(value.encode())


def write_topic(topic: str) -> bytes:
    if not topic or "+" in topic or "#" in topic:
        raise ValueError(f"not a topic name: {topic!r}")
    return write_text(topic)


# 2.2.2 Properties


def _read_flag(body: bytes, at: int) -> tuple[int, int]:
    # Each property of one byte is 0 or 1; "it is a Protocol Error" to be anything else
    flag = body[at : at + 1]
    if flag not in {b"\0", b"\1"}:
        raise Malformed("flag is neither 0 nor 1" if flag else "truncated")
    return flag[0], at + 1


def _read_positive_u16(body: bytes, at: int) -> tuple[int, int]:
    value, at = read_u16(body, at)
    if not value:
        raise Malformed("0 is not allowed")
    return value, at


def _read_positive_u32(body: bytes, at: int) -> tuple[int, int]:
    value, at = read_u32(body, at)
    if not value:
        raise Malformed("0 is not allowed")
    return value, at


def _write_flag(value: int) -> bytes:
    if value not in {0, 1}:
        raise ValueError(f"{value} is neither 0 nor 1")
    return bytes((value,))


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a value looks on the wire."""

    type: type[Value]
    read: Callable[[bytes, int], tuple[Value, int]]
    write: Callable[[Any], bytes]


_FLAG: Final = _Kind(int, _read_flag, _write_flag)
_U16: Final = _Kind(int, read_u16, write_u16)
_POSITIVE_U16: Final = _Kind(int, _read_positive_u16, partial(write_u16, least=1))
_U32: Final = _Kind(int, read_u32, write_u32)
_POSITIVE_U32: Final = _Kind(int, _read_positive_u32, partial(write_u32, least=1))
_TEXT: Final = _Kind(str, read_text, write_text)
_TOPIC: Final = _Kind(str, read_topic, write_topic)
_BINARY: Final = _Kind(bytes, read_binary, write_binary)

WILL_DELAY: Final = 0x18
USER_PROPERTY: Final = 0x26
AUTHENTICATION_METHOD: Final = 0x15
AUTHENTICATION_DATA: Final = 0x16
SESSION_EXPIRY: Final = 0x11
RECEIVE_MAXIMUM: Final = 0x21
MAXIMUM_PACKET: Final = 0x27

_KINDS: Final[Mapping[int, tuple[str, _Kind]]] = {  # 2.2.2.2
    0x01: ("payload format indicator", _FLAG),
    0x02: ("message expiry interval", _U32),
    0x03: ("content type", _TEXT),
    0x08: ("response topic", _TOPIC),  # [MQTT-3.3.2-14]
    0x09: ("correlation data", _BINARY),
    SESSION_EXPIRY: ("session expiry interval", _U32),
    0x12: ("assigned client identifier", _TEXT),
    0x13: ("server keep alive", _U16),
    AUTHENTICATION_METHOD: ("authentication method", _TEXT),
    AUTHENTICATION_DATA: ("authentication data", _BINARY),
    0x17: ("request problem information", _FLAG),
    WILL_DELAY: ("will delay interval", _U32),
    0x19: ("request response information", _FLAG),
    0x1A: ("response information", _TEXT),
    0x1C: ("server reference", _TEXT),
    0x1F: ("reason string", _TEXT),
    RECEIVE_MAXIMUM: ("receive maximum", _POSITIVE_U16),  # 3.1.2.11.3
    0x22: ("topic alias maximum", _U16),
    0x24: ("maximum QoS", _FLAG),
    0x25: ("retain available", _FLAG),
    MAXIMUM_PACKET: ("maximum packet size", _POSITIVE_U32),  # 3.1.2.11.4
    0x28: ("wildcard subscription available", _FLAG),
    0x29: ("subscription identifier available", _FLAG),
    0x2A: ("shared subscription available", _FLAG),
}
_NAMES: Final[Mapping[int, str]] = {
    **{identifier: name for identifier, (name, _) in _KINDS.items()},
    USER_PROPERTY: "user property",
    # Never taken: no subscription identifier is asked for or accepted, no topic alias granted
    0x0B: "subscription identifier",
    0x23: "topic alias",
}

CONNECT: Final = frozenset({0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27})  # 3.1.2.11
WILL: Final = frozenset({0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26})  # 3.1.3.2
CONNACK: Final = frozenset(
    {0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A}
)  # 3.2.2.3
PUBLISH: Final = frozenset({0x01, 0x02, 0x03, 0x08, 0x09, 0x26})  # 3.3.2.3
REQUEST: Final = frozenset({0x26})
"""SUBSCRIBE (3.8.2.1) and UNSUBSCRIBE (3.10.2.1)."""
REPLY: Final = frozenset({0x1F, 0x26})
"""PUBACK (3.4.2.2), SUBACK (3.9.2.1) and UNSUBACK (3.11.2.1)."""
DISCONNECT_OF_CLIENT: Final = frozenset({0x11, 0x1F, 0x26})
DISCONNECT_OF_SERVER: Final = frozenset({0x1C, 0x1F, 0x26})
"""3.14.2.2: the server MUST NOT send a session expiry interval; only the server refers to another server."""


def read(body: bytes, at: int, allowed: frozenset[int]) -> tuple[dict[int, Value], int]:
    """2.2.2: length and properties; each value by its identifier, and the offset behind them.

    User properties (0x26) may stand many times and mean nothing to us: they are checked and left out.

    Raises:
        Malformed: a property unknown, not allowed in this packet, stated twice, or not of its form.
    """
    items, _, end = _walk(body, at, allowed)
    values = {identifier: value for identifier, (value, _) in items.items()}
    if AUTHENTICATION_DATA in values and AUTHENTICATION_METHOD not in values:
        raise Malformed("authentication data without method")  # 3.1.2.11.10
    return values, end


def read_block(body: bytes, at: int, allowed: frozenset[int]) -> tuple[bytes, int]:
    """2.2.2: length and properties; as they stand, without the length, and the offset behind them.

    The will delay interval is left out: it belongs to the will, not to the message that it becomes.

    Raises:
        Malformed: as `read`.
    """
    items, start, end = _walk(body, at, allowed)
    if WILL_DELAY not in items:
        return body[start:end], end
    _, delay = items[WILL_DELAY]
    return body[start:delay] + body[delay + 5 : end], end


def _walk(body: bytes, at: int, allowed: frozenset[int]) -> tuple[dict[int, tuple[Value, int]], int, int]:
    """Each value and its offset, by identifier and without user properties; where the properties begin and end."""
    length, start = read_length(body, at)
    end = start + length
    if end > len(body):
        raise Malformed("truncated")
    items: dict[int, tuple[Value, int]] = {}
    at = start
    while at < end:
        offset, identifier = at, body[at]  # by 2.2.2.2 it is a variable byte integer; all that exist take one byte
        if identifier not in allowed:
            name = _NAMES.get(identifier)
            raise Malformed(f"{name} not allowed here" if name else f"unknown property {identifier:#04x}")
        if identifier == USER_PROPERTY:
            _, at = read_text(body, at + 1)
            _, at = read_text(body, at)
        else:
            name, kind = _KINDS[identifier]
            if identifier in items:
                raise Malformed(f"{name} stated twice")
            try:
                value, at = kind.read(body, at + 1)
            except Malformed as error:
                raise Malformed(f"{name}: {error}") from None
            items[identifier] = value, offset
        if at > end:
            raise Malformed("property reaches beyond its block")
    return items, start, end


def write(values: Mapping[int, Value], allowed: frozenset[int]) -> bytes:
    """2.2.2: length and properties, in the order given. User properties cannot be written.

    Raises:
        ValueError: a property that this packet does not have, or a value not of its form.
    """
    coded = bytearray()
    for identifier, value in values.items():
        if identifier not in allowed or identifier not in _KINDS:
            raise ValueError(f"no property {identifier:#04x} in this packet")
        name, kind = _KINDS[identifier]
        if not isinstance(value, kind.type):
            raise ValueError(f"{name}: {kind.type.__name__} expected")  # noqa: TRY004 - one exception for all writers
        coded.append(identifier)
        coded += kind.write(value)
    return write_length(len(coded)) + bytes(coded)


def write_block(properties: bytes, allowed: frozenset[int]) -> bytes:
    """2.2.2: length and properties that `read_block` gave.

    Raises:
        ValueError: they are not properties that this packet may carry.
    """
    block = write_length(len(properties)) + properties
    if properties:
        try:
            read_block(block, 0, allowed)
        except Malformed as error:
            raise ValueError(f"properties: {error}") from error
    return block
