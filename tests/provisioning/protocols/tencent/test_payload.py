import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.protocols.tencent import payload
from provisioning.protocols.tencent.payload import Payload
from tests.conftest import ROOT

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((ROOT / "tests" / "vectors.json").read_text("utf-8"))["tencent"]


def vectors(operation: str) -> Any:
    return pytest.mark.parametrize("vector", VECTORS[operation], ids=lambda vector: str(vector["name"]))


@vectors("payload_encrypt")
def test_encryption_is_byte_for_byte_the_vendors(vector: dict[str, Any]) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    made = payload.encrypt(inputs["plaintext"].encode(), inputs["productSecret"])
    assert made == Payload(expected["Payload"], expected["Len"])


@vectors("payload_decrypt")
def test_decryption(vector: dict[str, Any]) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    assert payload.decrypt(Payload(inputs["Payload"], inputs["Len"]), inputs["productSecret"]) == (
        expected["plaintext"].encode()
    )


@vectors("payload_len")
def test_the_length_is_that_of_the_plaintext(vector: dict[str, Any]) -> None:
    made = payload.encrypt(bytes(vector["inputs"]["Len"]), "a secret of some length")
    assert made.length == vector["inputs"]["Len"]
    assert len(made.text) == len(vector["inputs"]["Payload"])


def test_a_psk_is_the_seeds_plaintext() -> None:
    made = payload.write_psk("lDZ6Uqt+I9E0wW7rvDUs7Q==")
    assert made == b'{"encryptionType":2,"psk":"lDZ6Uqt+I9E0wW7rvDUs7Q=="}'


def test_a_certificate_with_and_without_a_key() -> None:
    assert payload.write_certificate("C\n", "K\n") == b'{"encryptionType":1,"clientCert":"C\\n","clientKey":"K\\n"}'
    assert payload.write_certificate("C\n", None) == b'{"encryptionType":1,"clientCert":"C\\n"}'


@given(st.binary(max_size=200), st.text("abcXYZ019", min_size=16, max_size=32))
def test_what_is_encrypted_is_read_again(plaintext: bytes, secret: str) -> None:
    made = payload.encrypt(plaintext, secret)
    assert made.length == len(plaintext)
    assert payload.decrypt(made, secret) == plaintext


@pytest.mark.parametrize("text", ["****", "AAAA", "ä"])
def test_what_is_no_ciphertext_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        payload.decrypt(Payload(text, 3), "sixteen letters!")
