"""Properties and data types: both ways from one list; any bytes are read or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import properties
from broker.properties import Malformed, Value

LENGTHS = [  # 3.1.1 table 2.4, and the worked example of 321 in 2.2.3
    (0, "00"),
    (127, "7f"),
    (128, "80 01"),
    (321, "c1 02"),
    (16_383, "ff 7f"),
    (16_384, "80 80 01"),
    (2_097_151, "ff ff 7f"),
    (2_097_152, "80 80 80 01"),
    (268_435_455, "ff ff ff 7f"),
]

BLOCKS: list[tuple[frozenset[int], dict[int, Value], str]] = [
    (properties.CONNECT, {}, "00"),
    (properties.CONNECT, {0x11: 10}, "05 11 00 00 00 0a"),  # v5 figure 3-6
    (properties.CONNECT, {0x21: 20, 0x27: 65_536, 0x22: 0}, "0b 21 00 14 27 00 01 00 00 22 00 00"),
    (properties.CONNECT, {0x17: 0, 0x19: 1}, "04 17 00 19 01"),
    (properties.CONNECT, {0x15: "GS2", 0x16: b"\0\xff"}, "0b 15 00 03 47 53 32 16 00 02 00 ff"),
    (properties.WILL, {0x18: 5, 0x01: 1, 0x02: 3600}, "0c 18 00 00 00 05 01 01 02 00 00 0e 10"),
    (properties.PUBLISH, {0x03: "a", 0x08: "r/1", 0x09: b"\1"}, "0e 03 00 01 61 08 00 03 72 2f 31 09 00 01 01"),
    (properties.CONNACK, {0x24: 1, 0x25: 0, 0x28: 1, 0x29: 0, 0x2A: 0}, "0a 24 01 25 00 28 01 29 00 2a 00"),
    (properties.CONNACK, {0x12: "x", 0x13: 300, 0x1F: "no"}, "0c 12 00 01 78 13 01 2c 1f 00 02 6e 6f"),
    (properties.CONNACK, {0x1A: "i", 0x1C: "s"}, "08 1a 00 01 69 1c 00 01 73"),
]

MALFORMED = [
    ("nothing", "", "truncated"),
    ("length behind the end", "05 11 00", "truncated"),
    ("value behind the end", "03 11 00 00", "session expiry interval: truncated"),
    ("value behind its block", "02 21 00 14", "property reaches beyond its block"),
    ("identifier alone", "01 17", "request problem information: truncated"),
    ("unknown", "02 7f 00", "unknown property 0x7f"),
    ("identifier of two bytes", "03 81 01 00", "unknown property 0x81"),
    ("of another packet", "03 13 00 01", "server keep alive not allowed here"),
    ("subscription identifier", "02 0b 01", "subscription identifier not allowed here"),
    ("topic alias", "03 23 00 01", "topic alias not allowed here"),
    ("twice", "04 17 00 17 00", "request problem information stated twice"),
    ("flag 2", "02 19 02", "request response information: flag is neither 0 nor 1"),
    ("receive maximum 0", "03 21 00 00", "receive maximum: 0 is not allowed"),
    ("maximum packet size 0", "05 27 00 00 00 00", "maximum packet size: 0 is not allowed"),
    ("method not UTF-8", "04 15 00 01 ff", "authentication method: text is not UTF-8"),
    ("data without method", "03 16 00 00", "authentication data without method"),
    ("user property without value", "04 26 00 01 61", "truncated"),
    ("user property with NUL", "06 26 00 01 00 00 00", "NUL in text"),
    ("overlong length", "80 00", "length in more bytes than it needs"),
    ("five-byte length", "80 80 80 80 01", "length of more than four bytes"),
]

ALLOWED = [
    properties.CONNECT,
    properties.WILL,
    properties.CONNACK,
    properties.PUBLISH,
    properties.REQUEST,
    properties.REPLY,
    properties.DISCONNECT_OF_CLIENT,
    properties.DISCONNECT_OF_SERVER,
]


@pytest.mark.parametrize(("value", "wire"), LENGTHS)
def test_lengths_both_ways(value: int, wire: str) -> None:
    coded = bytes.fromhex(wire)
    assert properties.write_length(value) == coded
    assert properties.read_length(b"?" + coded + b"?", 1) == (value, 1 + len(coded))
    for size in range(len(coded)):
        assert properties.decode_length(coded[:size]) is None


@given(st.integers(0, properties.MAX_LENGTH))
def test_every_length_reads_back(value: int) -> None:
    coded = properties.write_length(value)
    assert properties.read_length(coded, 0) == (value, len(coded))


@pytest.mark.parametrize("value", [-1, properties.MAX_LENGTH + 1])
def test_a_length_out_of_range_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="do not fit into a packet"):
        properties.write_length(value)


def test_text_example_of_the_standard() -> None:
    wire = bytes.fromhex("00 05 41 f0 aa 9b 94")  # 1.5.3: "A" and U+2A6D4
    assert properties.read_text(wire, 0) == ("A\U0002a6d4", 7)
    assert properties.write_text("A\U0002a6d4") == wire


def test_a_byte_order_mark_stays() -> None:
    wire = bytes.fromhex("00 03 ef bb bf")  # [MQTT-1.5.3-3]
    assert properties.read_text(wire, 0) == ("\ufeff", 5)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\xed\xa0\x80", "not UTF-8"),  # a surrogate, [MQTT-1.5.3-1]
        (b"\xc0\x80", "not UTF-8"),  # overlong NUL
        (b"\xff", "not UTF-8"),
        (b"a\0b", "NUL"),  # [MQTT-1.5.3-2]
    ],
)
def test_text_that_is_none(raw: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        properties.read_text(len(raw).to_bytes(2, "big") + raw, 0)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 65_536])
def test_text_that_cannot_be_written(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - three causes, one promise
        properties.write_text(text)


@pytest.mark.parametrize(("allowed", "values", "wire"), BLOCKS)
def test_properties_both_ways(allowed: frozenset[int], values: dict[int, Value], wire: str) -> None:
    coded = bytes.fromhex(wire)
    assert properties.write(values, allowed) == coded
    assert properties.read(b"?" + coded + b"?", 1, allowed) == (values, 1 + len(coded))


@pytest.mark.parametrize(("allowed", "values", "wire"), BLOCKS)
def test_truncated_properties_are_refused(allowed: frozenset[int], values: dict[int, Value], wire: str) -> None:
    coded = bytes.fromhex(wire)
    for size in range(len(coded)):
        with pytest.raises(Malformed, match="truncated"):
            properties.read(coded[:size], 0, allowed)


@pytest.mark.parametrize(("wire", "reason"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_malformed_properties(wire: str, reason: str) -> None:
    with pytest.raises(Malformed) as refused:
        properties.read(bytes.fromhex(wire), 0, properties.CONNECT)
    assert str(refused.value) == reason


@pytest.mark.parametrize("topic", ["", "a/+", "#"])
def test_response_topic_is_a_topic_name(topic: str) -> None:
    wire = b"\x08" + properties.write_text(topic)
    with pytest.raises(Malformed, match="response topic: "):
        properties.read(bytes((len(wire),)) + wire, 0, properties.PUBLISH)
    with pytest.raises(ValueError, match="not a topic name"):
        properties.write({0x08: topic}, properties.PUBLISH)


def test_user_properties_repeat_and_are_left_out() -> None:
    wire = bytes.fromhex("13 26 00 01 61 00 01 62 26 00 01 61 00 01 62 11 00 00 00 01")
    assert properties.read(wire, 0, properties.CONNECT) == ({0x11: 1}, len(wire))


def test_a_block_travels_as_it_stood_without_the_will_delay() -> None:
    rest = bytes.fromhex("01 01 26 00 01 61 00 01 62 26 00 01 61 00 01 63")
    delay = bytes.fromhex("18 00 00 00 05")
    wire = properties.write_length(len(rest + delay)) + rest[:2] + delay + rest[2:]
    assert properties.read_block(wire, 0, properties.WILL) == (rest, len(wire))
    assert properties.read_block(properties.write_block(rest, properties.PUBLISH), 0, properties.PUBLISH)[0] == rest


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({0x11: 1 << 32}, "is not within"),
        ({0x21: 0}, "is not within"),
        ({0x21: 65_536}, "is not within"),
        ({0x27: 0}, "is not within"),
        ({0x27: -1}, "is not within"),
        ({0x17: 2}, "neither 0 nor 1"),
        ({0x17: "yes"}, "request problem information: int expected"),
        ({0x15: 1}, "authentication method: str expected"),
        ({0x16: "text"}, "authentication data: bytes expected"),
        ({0x13: 1}, "no property 0x13"),
        ({0x26: "a"}, "no property 0x26"),
        ({0x7F: 1}, "no property 0x7f"),
    ],
)
def test_properties_that_cannot_be_written(values: dict[int, Value], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        properties.write(values, properties.CONNECT)


def test_a_block_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="properties: topic alias not allowed here"):
        properties.write_block(bytes.fromhex("23 00 01"), properties.PUBLISH)


@given(st.sampled_from(ALLOWED), st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(allowed: frozenset[int], body: bytes) -> None:
    for wire in (body, bytes((len(body),)) + body):  # the second gets past the length
        for reader in (properties.read, properties.read_block):
            try:
                _, end = reader(wire, 0, allowed)
            except Malformed:
                continue
            assert 0 < end <= len(wire)


@given(st.sampled_from(ALLOWED), st.lists(st.tuples(st.integers(0, 0x2B), st.binary(max_size=6)), max_size=4))
def test_any_known_identifiers_are_read_or_refused(allowed: frozenset[int], items: list[tuple[int, bytes]]) -> None:
    body = b"".join(bytes((identifier,)) + value for identifier, value in items)
    try:
        values, end = properties.read(bytes((len(body),)) + body, 0, allowed)
    except Malformed:
        return
    assert end == 1 + len(body)
    assert set(values) <= allowed
    again = properties.write(values, allowed)
    assert properties.read(again, 0, allowed) == (values, len(again))
