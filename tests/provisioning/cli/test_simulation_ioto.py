"""provisioning/cli/simulation_ioto.py: what agents could not use, is a wrong answer."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from provisioning.cli.simulation import WrongAnswerError
from provisioning.cli.simulation_ioto import check_certificate, context_of, fields_of
from provisioning.core import pki
from provisioning.protocols.ioto import wire

NAME = "SIM-1"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEY = pki.new_key()


def certificate(name: str) -> str:
    subject = x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, wire.product_key("T")),
        x509.NameAttribute(NameOID.COMMON_NAME, name),
    ])  # fmt: skip
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 1, NOW, NOW)
    return pki.write_pem(pki.der(builder.sign(KEY, hashes.SHA256())))


GOOD: dict[str, Any] = {
    "certificate": certificate(NAME), "key": pki.write_key(KEY), "endpoint": "mqtt.example.org", "port": 8883,
    "accountId": "A",
}  # fmt: skip


def test_what_an_agent_connects_with() -> None:
    check_certificate(GOOD, NAME)
    assert context_of(GOOD, GOOD["certificate"]).check_hostname


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"certificate": "x"}, "cannot be read"), ({"certificate": None}, "cannot be read"),
        ({"key": ""}, "cannot be read"), ({"key": pki.write_key(pki.new_key())}, "the key is not that"),
        ({"certificate": certificate("SIM-2")}, "another device's"), ({"endpoint": "127.0.0.1"}, "no DNS name"),
        ({"endpoint": None, "port": "8883"}, "no port"), ({"port": True}, "no port"),
        ({"accountId": None}, "no account"),
    ],
)  # fmt: skip
def test_what_an_agent_could_not_use(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongAnswerError, match=words):
        check_certificate(GOOD | changed, NAME)


def test_an_answer_is_told_without_its_values() -> None:
    assert fields_of({"token": "secret", "id": 1}) == "id, token"
    assert fields_of({}) == "no fields"
