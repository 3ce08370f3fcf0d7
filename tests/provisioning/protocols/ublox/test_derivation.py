"""Keys, nonces and messages against the vectors of the contract, section 8."""

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.protocols.ublox import derivation
from tests.ublox import ROOT_SECRET

VECTORS = json.loads((Path(__file__).parents[3] / "vectors.json").read_text("utf-8"))["ublox"]


def vectors(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["name"])


def inputs(vector: dict[str, Any], name: str) -> tuple[bytes, bytes]:
    """The root secret, and the header, KeyID or KIV of that name."""
    stated = vector["inputs"][name]
    return bytes.fromhex(vector["inputs"]["root_hex"]), b64decode(stated) if name == "KIV" else bytes.fromhex(stated)


def base64(value: bytes) -> str:
    return b64encode(value).decode()


@vectors("e2e_symmetrickey")
def test_symmetric_keys(vector: dict[str, Any]) -> None:
    root, key_id = inputs(vector, "KeyID")
    assert base64(derivation.symmetric_key(root, key_id, vector["inputs"]["KeyLength"])) == vector["expected"]


@vectors("e2e_uplink_protection")
def test_uplink_protection(vector: dict[str, Any]) -> None:
    root, header = inputs(vector, "EncryptedHeader")
    assert {
        "Key": base64(derivation.uplink_key(root, header)),
        "Nonce": base64(derivation.uplink_nonce(header)),
        "KIV": base64(derivation.uplink_kiv(header)),
        "MACLength": derivation.MAC_BITS,
        "CipherSuite": derivation.UPLINK_SUITE,
    } == vector["expected"]


@vectors("e2e_uplink_integrity")
def test_uplink_integrity(vector: dict[str, Any]) -> None:
    root, header = inputs(vector, "EncryptedHeader")
    assert base64(derivation.uplink_integrity_key(root, header)) == vector["expected"]["AuthenticationKey"]
    assert base64(derivation.uplink_kiv(header)) == vector["expected"]["KIV"]


@vectors("e2e_uplink_message")
def test_messages_from_devices(vector: dict[str, Any]) -> None:
    root, header = inputs(vector, "EncryptedHeader")
    plaintext = vector["inputs"]["plaintext_utf8"].encode()
    message = derivation.seal_uplink(root, header, plaintext)
    assert message.hex() == vector["expected"]
    assert derivation.open_uplink(root, message, len(header)) == plaintext


@vectors("e2e_downlink_protection")
def test_downlink_protection(vector: dict[str, Any]) -> None:
    keys = derivation.downlink_keys(*inputs(vector, "KIV"))
    expected = vector["expected"]
    assert (base64(keys.encryption), base64(keys.authentication), base64(keys.iv)) == (
        expected["EncryptionKey"], expected["AuthenticationKey"], expected["AESIV"]
    )  # fmt: skip
    assert expected["CipherSuite"] == derivation.DOWNLINK_SUITE


@vectors("e2e_downlink_integrity")
def test_downlink_integrity(vector: dict[str, Any]) -> None:
    key = derivation.downlink_integrity_key(*inputs(vector, "KIV"))
    assert base64(key) == vector["expected"]["AuthenticationKey"]


@vectors("header_uid")
def test_headers_name_the_end_of_a_uid(vector: dict[str, Any]) -> None:
    assert derivation.tail(bytes.fromhex(vector["inputs"]["hex"])) == vector["expected"]


@vectors("kiv_layout")
def test_a_kiv_is_head_uid_epoch_counter(vector: dict[str, Any]) -> None:
    kiv = b64decode(vector["inputs"]["KIV"])
    assert (kiv.hex(), derivation.tail(kiv)) == (vector["expected"]["hex"], vector["expected"]["uid_low32"])
    made = derivation.downlink_kiv("00020000" + vector["expected"]["uid_low32"], kiv[8:14], 0x0208)
    assert made.hex() == "11010100" + kiv.hex()[8:], "the contract's head, then as the seed has it"


def test_a_header_of_a_device_names_it() -> None:
    header = derivation.header_of("0002000089282257", bytes.fromhex("621f7593c47f"), 0)
    assert header.hex() == "1101000089282257621f7593c47f0000"
    assert (derivation.middle(header), derivation.tail(header)) == ("0000", "89282257")
    assert derivation.header_of("0002abcd89282257", b"\x31\x24", 256, version=2).hex() == "2901abcd8928225731240100"


def test_the_counter_changes_the_nonce_and_not_the_key() -> None:
    first, second = (derivation.header_of("0002000089282257", bytes(6), counter) for counter in (1, 2))
    assert derivation.uplink_key(ROOT_SECRET, first) == derivation.uplink_key(ROOT_SECRET, second)
    assert derivation.uplink_nonce(first) != derivation.uplink_nonce(second)


@given(message=st.binary(max_size=80), header_bytes=st.sampled_from((16, 12, 11)))
def test_what_is_no_message_is_refused(message: bytes, header_bytes: int) -> None:
    with pytest.raises(ValueError, match="not of this device, or damaged"):
        derivation.open_uplink(ROOT_SECRET, message, header_bytes)


def test_a_damaged_message_is_refused() -> None:
    message = derivation.seal_uplink(ROOT_SECRET, derivation.header_of("0002000089282257", bytes(6), 1), b"hello")
    for at in range(len(message)):
        damaged = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
        with pytest.raises(ValueError, match="damaged"):
            derivation.open_uplink(ROOT_SECRET, damaged)
    with pytest.raises(ValueError, match="not of this device"):
        derivation.open_uplink(bytes(32), message)
