"""provisioning/protocols/enos/certificate_wire.py"""

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from provisioning.core import pki
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.enos import certificate_wire
from tests.openssl import outcome

DAYS = {"days": 730, "most_days": 1_000}


def said(found: object) -> tuple[int, object, str]:
    """What the reply to a refusal says."""
    assert isinstance(found, Refusal), f"it was read: {found}"
    status, body = certificate_wire.write_error(found, "id")
    return status, body["code"], str(body["msg"])


def make_csr() -> str:
    names = {"C": "DE", "ST": "Bayern", "L": "Hof", "O": "Example", "OU": "Pumps", "CN": "asset1"}
    subject = x509.Name([x509.NameAttribute(pki.ATTRIBUTES[name], value) for name, value in names.items()])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(pki.new_key(), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


CSR = make_csr()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"csr": None}, "csr:csr is missing"),
        ({"csr": 5}, "csr:csr is missing"),
        ({"csr": "garbage"}, "csr:csr is neither PEM nor DER"),
        ({"validDay": 0}, "validDay:validDay must be a whole number of days, 1 to 1000"),
        ({"validDay": 1_001}, "validDay:validDay must be a whole number of days, 1 to 1000"),
        ({"validDay": True}, "validDay:validDay must be a whole number of days, 1 to 1000"),
        ({"validDay": "10"}, "validDay:validDay must be a whole number of days, 1 to 1000"),
        ({"validDay": 1.5}, "validDay:validDay must be a whole number of days, 1 to 1000"),
        ({"validDay": 10**60}, "validDay:validDay must be a whole number of days, 1 to 1000"),
        ({"issueAuthority": "DSA"}, "issueAuthority:issueAuthority must be RSA or ECC"),
        ({"issueAuthority": 1}, "issueAuthority:issueAuthority must be RSA or ECC"),
        ({"issueAuthority": "RSA"}, "issueAuthority:issueAuthority is RSA (RSA unless stated), and the key is ECC"),
        ({"issueAuthority": None}, "issueAuthority:issueAuthority is RSA (RSA unless stated), and the key is ECC"),
    ],
)
def test_fields_of_apply(fields: dict[str, Any], words: str) -> None:
    found = outcome(
        certificate_wire.read_action, {"action": "apply", "csr": CSR, "issueAuthority": "ECC"} | fields, **DAYS
    )
    assert said(found) == (400, 99400, f"Invalid Argument {words}")


@pytest.mark.parametrize("action", ["renew", "revoke"])
@pytest.mark.parametrize("serial", [None, "", 0, -1, True, "xyz", "0", [1], 10**60, 1.5])
def test_serial_numbers(action: str, serial: object) -> None:
    status, code, words = said(outcome(certificate_wire.read_action, {"action": action, "certSn": serial}, **DAYS))
    assert (status, code) == (400, 99400)
    assert words.startswith("Invalid Argument certSn:certSn ")


@pytest.mark.parametrize("reason", [2, 7, 10, -1, "x", "10", True, [], {}, 1.0])
def test_reasons(reason: object) -> None:
    found = outcome(certificate_wire.read_action, {"action": "revoke", "certSn": "1f", "reason": reason}, **DAYS)
    assert said(found) == (400, 99400, "Invalid Argument reason:reason must be one of 0, 1, 3, 4, 5, 6, 9")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["apply", "renew", "revoke"]) | JSON,
        "csr": st.sampled_from([CSR, ""]) | JSON,
        "certSn": st.text("0123456789abcdef:", max_size=50) | JSON,
        "certSN": JSON,
        "validDay": st.integers(-5, 2_000) | JSON,
        "issueAuthority": st.sampled_from(["RSA", "ECC"]) | JSON,
        "reason": st.integers(-1, 11) | JSON,
        "assetId": st.text("ab/", max_size=3) | JSON,
        "productKey": st.text("ab/", max_size=3) | JSON,
        "deviceKey": st.text("ab/", max_size=3) | JSON,
    },
)


@given(FIELDS)
@example({"action": "revoke", "certSn": "0" * 100})
@example({"action": ["apply"]})
@example({"action": {"apply": 1}})
@example({"reason": {"a": 1}, "action": "revoke", "certSn": "1"})
def test_any_fields_are_read_or_refused(fields: dict[str, Any]) -> None:
    for found in (outcome(certificate_wire.read_action, fields, **DAYS), outcome(certificate_wire.read_target, fields)):
        if isinstance(found, Refusal):
            assert found.reason is Reason.MALFORMED
            status, body = certificate_wire.write_error(found, "id")
            assert (status, body["code"]) == (400, 99400)
        elif isinstance(found, certificate_wire.Renew | certificate_wire.Apply):
            assert 1 <= found.days <= 1_000


def test_the_table_of_refusals_is_total() -> None:
    assert set(certificate_wire.REFUSALS) == set(Reason)
    for reason in Reason:
        for detail in (
            {},
            {"field": "f"},
            {"field": "f", "rule": "{x}"},
            {"authority": "a/1", "state": "s", "step": "t"},
        ):
            status, body = certificate_wire.write_error(Refusal(reason, **detail), "id")
            assert status >= 400
            assert body["msg"]
