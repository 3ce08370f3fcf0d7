"""provisioning/core/pki.py"""

import base64
import re
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core import chain, pki, signing
from provisioning.core.pki import KeyType
from provisioning.core.signing import Issuer
from provisioning.model.refusal import Reason, Refusal
from tests.material import (
    CN,
    DC,
    DER,
    KEY,
    KEYS,
    NOW,
    ORGANIZATION,
    PEM,
    WEAK,
    csr_of,
    issuer_of,
    leaf_of,
    raw_name,
    refusal,
)
from tests.openssl import made, openssl, outcome

pytestmark = pytest.mark.slow

# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_survives_writing_and_reading(kind: KeyType) -> None:
    text = pki.write_key(KEYS[kind])
    assert text.startswith("-----BEGIN PRIVATE KEY-----")
    for ours in (False, True):
        key = pki.read_key(text, ours=ours)
        assert key.public_key() == KEYS[kind].public_key()
        assert pki.key_type(key.public_key()) == kind


def test_an_encrypted_key_opens_with_its_password_only() -> None:
    pem = KEY.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"right"))
    assert pki.read_key(pem, b"right").public_key() == KEY.public_key()
    assert "state its password" in str(refusal(pki.read_key, pem))
    assert "another password" in str(refusal(pki.read_key, pem, b"wrong"))
    assert "leave the password out" in str(refusal(pki.read_key, pki.write_key(KEY), b"right"))


def unencrypted(key: Any) -> bytes:
    pem: bytes = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem


@pytest.mark.parametrize(
    ("pem", "rule"),
    [
        (unencrypted(WEAK), "1024 bits; 2048 to 4096"),
        (unencrypted(ec.generate_private_key(ec.SECP256K1())), "secp256k1; P-256 and P-384"),
        (unencrypted(ed25519.Ed25519PrivateKey.generate()), "must be EC"),
        (b"", "cannot be read"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (b"x" * (pki.LARGEST_FILE + 1), "more than"),
    ],
)
def test_refuses_a_key(pem: bytes, rule: str) -> None:
    refused = refusal(pki.read_key, pem)
    assert refused.reason is Reason.MALFORMED
    assert refused.detail["field"] == "key"
    assert rule in str(refused.detail["rule"])


def test_refuses_a_small_exponent() -> None:
    assert "exponent" in str(refusal(pki.check_key, rsa.generate_private_key(3, 2048).public_key()))


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_any_key_is_read_or_refused(data: bytes | str) -> None:
    assert refusal(pki.read_key, data).detail["field"] == "key"


# --- serial numbers, names -------------------------------------------------------------------------------------------


def test_serials_are_random_and_fit_their_field() -> None:
    serials = {pki.new_serial() for _ in range(1_000)}
    assert len(serials) == 1_000
    assert all(0 < serial < 2**128 for serial in serials)
    assert max(serials).bit_length() > 120, "the random bits do not fill the serial"


@given(st.integers(1, 2**pki.MOST_SERIAL_BITS - 1), st.booleans())
def test_a_serial_is_read_as_people_paste_it(serial: int, upper: bool) -> None:
    stored = pki.write_serial(serial)
    padded = stored.zfill(len(stored) + len(stored) % 2)
    pasted = ":".join(re.findall("..", padded.upper() if upper else padded))
    assert pki.read_serial(pasted) == pki.read_serial(f"0x{stored} ") == pki.write_checked_serial(serial) == stored


@given(st.text(max_size=60))
def test_any_serial_is_read_or_refused(text: str) -> None:
    found = outcome(pki.read_serial, text)
    if isinstance(found, Refusal):
        assert found.detail["field"] == "serial"
    else:
        assert re.fullmatch("[1-9a-f][0-9a-f]{0,39}", found)


@pytest.mark.parametrize("serial", [0, -1, 2**159])
def test_refuses_a_foreign_serial(serial: int) -> None:
    assert "20 octets" in str(refusal(pki.write_checked_serial, serial))


def test_names_are_told_from_addresses() -> None:
    assert pki.read_names(["Mqtt.Example", "*.example", "192.0.2.1", "2001:db8::1", "localhost"]) == (
        x509.DNSName("mqtt.example"), x509.DNSName("*.example"), x509.IPAddress(ip_address("192.0.2.1")),
        x509.IPAddress(ip_address("2001:db8::1")), x509.DNSName("localhost"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a..b", "-a", "exämple", "a" * 64, ".".join(["a" * 60] * 5), "a.*.b", "https://a", "a\u212a.example"],
)
def test_refuses_a_name(name: str) -> None:
    assert refusal(pki.read_names, [name]).detail["field"] == "names"


# --- requests --------------------------------------------------------------------------------------------------------


def forms(csr: x509.CertificateSigningRequest) -> dict[str, bytes | str]:
    der, pem = csr.public_bytes(DER), csr.public_bytes(PEM).decode()
    head, body, tail = re.fullmatch("(-----BEGIN .*?-----)(.*)(-----END .*?-----)\n", pem, re.DOTALL).groups()  # type: ignore[union-attr]
    return {
        "DER": der,
        "PEM": pem,
        "PEM as bytes": pem.encode(),
        "CRLF": pem.replace("\n", "\r\n"),
        "no line breaks": pem.replace("\n", ""),
        "spaces for line breaks": pem.replace("\n", " "),
        "line breaks spelled out": pem.replace("\n", "\\n"),
        "text before and after": f"Certificate Request:\n    Data\n{pem}\nthanks\n",
        "byte order mark": "\ufeff" + pem,
        "old label": f"{head.replace('CERT', 'NEW CERT')}{body}{tail.replace('CERT', 'NEW CERT')}",
        "base64": base64.b64encode(der),
        "base64 in lines": base64.encodebytes(der),
    }


@pytest.mark.parametrize("kind", KEYS)
def test_reads_a_request_in_every_form(kind: KeyType) -> None:
    names = pki.read_names(["device-1.example"])
    for form, data in forms(csr_of(KEYS[kind], names=names)).items():
        request = pki.read_csr(data)
        assert request.key == KEYS[kind].public_key(), form
        assert (request.attribute("CN"), request.attribute("O"), request.attribute("L")) == ("device-1", "Example", "")
        assert request.names == names


def changed(csr: x509.CertificateSigningRequest) -> bytes:
    return csr.public_bytes(DER).replace(b"device-1", b"device-2")


REFUSED: dict[str, tuple[bytes | str, str]] = {
    "nothing": (b"", "cannot be read"),
    "garbage": (b"\x30\x82\xff\xff", "cannot be read"),
    "cut": (csr_of().public_bytes(DER)[:-1], "cannot be read"),
    "more": (csr_of().public_bytes(DER) + b"\0", "cannot be read"),
    "a certificate": (issuer_of().certificate.public_bytes(PEM), "no block -----BEGIN CERTIFICATE REQUEST"),
    "a private key": (pki.write_key(KEY), "no block"),
    "too large": (b"\x30" * (pki.LARGEST_CSR + 1), f"more than {pki.LARGEST_CSR} bytes"),
    "not base64": ("-----BEGIN CERTIFICATE REQUEST-----\n!!\n-----END CERTIFICATE REQUEST-----", "neither PEM nor DER"),
    "changed after it was signed": (changed(csr_of()), "signature that does not hold"),
    "small key": (csr_of(WEAK).public_bytes(PEM), "1024 bits"),
    "other curve": (csr_of(ec.generate_private_key(ec.SECP521R1())).public_bytes(PEM), "secp521r1"),
    "other kind": (csr_of(ed25519.Ed25519PrivateKey.generate(), digest=None).public_bytes(PEM), "must have an EC"),
    "SHA-224": (csr_of(digest=hashes.SHA224).public_bytes(PEM), "SHA-256, SHA-384 or SHA-512"),
    "two common names": (csr_of(subject=raw_name((CN, "a"), (CN, "b"))).public_bytes(PEM), "CN twice"),
    "empty attribute": (csr_of(subject=raw_name((CN, ""))).public_bytes(PEM), "64"),
    "long attribute": (csr_of(subject=raw_name((CN, "a" * 65))).public_bytes(PEM), "64"),
    "NUL": (csr_of(subject=raw_name((CN, "good\0bad"))).public_bytes(PEM), "cannot be printed"),
    "line break": (csr_of(subject=raw_name((ORGANIZATION, "a\nb"))).public_bytes(PEM), "cannot be printed"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_a_request(case: str) -> None:
    data, rule = REFUSED[case]
    refused = refusal(pki.read_csr, data)
    assert (refused.reason, refused.detail["field"]) == (Reason.MALFORMED, "csr")
    assert rule in str(refused.detail["rule"])


def test_domain_components_may_repeat() -> None:
    subject = raw_name((DC, "example"), (DC, "plant"), (CN, "a"))
    assert pki.read_csr(csr_of(subject=subject).public_bytes(PEM)).subject == subject


def test_a_subject_may_have_to_have_attributes() -> None:
    subject = raw_name((NameOID.COUNTRY_NAME, "DE"), (CN, "a"))
    pki.check_subject(subject, required=("C", "CN"))
    assert "must have O, OU" in str(refusal(pki.check_subject, subject, required=("C", "O", "OU", "CN")))
    assert "two letters" in str(refusal(pki.check_subject, raw_name((NameOID.COUNTRY_NAME, "D1"))))


GOOD_DER = [csr_of(KEYS[kind], names=pki.read_names(["a.example", "192.0.2.1"])).public_bytes(DER) for kind in KEYS]


GOOD_AUTHORITY = issuer_of(permitted_dns=["example"]).certificate.public_bytes(DER)
ANYWHERE = st.integers(0, 9_999)  # signatures differ in length from run to run


@given(st.binary(max_size=400) | st.text(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes | str) -> None:
    assert refusal(pki.read_csr, data).detail["field"] == "csr"


@settings(max_examples=300)
@given(st.sampled_from(GOOD_DER), st.data())
def test_a_damaged_request_is_refused_or_still_holds(der: bytes, data: st.DataObject) -> None:
    """One changed byte cannot slip by: whatever is accepted was signed by the key in it."""
    damaged = bytearray(der)
    damaged[data.draw(ANYWHERE) % len(der)] ^= data.draw(st.integers(1, 255))
    request = outcome(pki.read_csr, bytes(damaged))
    if isinstance(request, Refusal):
        assert request.reason is Reason.MALFORMED
    else:
        assert x509.load_der_x509_csr(bytes(damaged)).is_signature_valid
        assert request.key in [each.public_key() for each in KEYS.values()]


def der(tag: int, content: bytes) -> bytes:
    length = len(content)
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([length]) if length < 128 else bytes([0x80 | len(octets)]) + octets) + content


def signed(content: bytes, key: Any) -> bytes:
    """A request or certificate around whatever stands in it, with a signature that holds."""
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    signature = der(3, b"\0" + key.sign(content, ec.ECDSA(hashes.SHA256())))
    return der(0x30, content + ecdsa_with_sha256 + signature)


RICH_NAMES = (
    x509.DNSName("a.example"), x509.RFC822Name("a@b.example"), x509.UniformResourceIdentifier("http://c.example/"),
    x509.IPAddress(ip_address("192.0.2.1")),
)  # fmt: skip
RICH_SUBJECT = x509.Name.from_rfc4514_string("1.2.840.113549.1.9.1=a@b.example,CN=a.example,OU=o,O=z,L=y,ST=x,C=DE")
RICH = csr_of(subject=RICH_SUBJECT, names=RICH_NAMES).tbs_certrequest_bytes
KEEPER = made(
    "Keeper", constraints=([x509.DNSName("a.example"), x509.RFC822Name("b.example")], [x509.DNSName("x.a.example")])
)
DAMAGE = st.lists(
    st.tuples(ANYWHERE, st.sampled_from((0x00, 0x0C, 0x13, 0x16, 0x1E, 0x80, 0xFF)) | st.integers(0, 255)),
    min_size=1,
    max_size=3,
)


def damaged_by(content: bytes, damage: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for at, value in damage:
        changed[at % len(changed)] = value
    return bytes(changed)


@settings(max_examples=500)
@given(DAMAGE)
def test_a_strange_request_is_refused_or_becomes_a_certificate(damage: list[tuple[int, int]]) -> None:
    """Its signature holds, so that everything in it is read and judged."""
    request = outcome(pki.read_csr, signed(damaged_by(RICH, damage), KEY))
    if isinstance(request, Refusal):
        assert request.reason is Reason.MALFORMED
        return
    issuer = Issuer(KEEPER.certificate, KEEPER.key)
    leaf = outcome(leaf_of, issuer, subject=request.subject, names=request.names)
    if isinstance(leaf, Refusal):
        assert leaf.reason is Reason.MALFORMED
    else:
        assert outcome(chain.verify_leaf, leaf, [KEEPER.certificate], NOW) == [KEEPER.certificate]


@settings(max_examples=500)
@given(DAMAGE)
def test_a_strange_authority_is_refused_or_issues(damage: list[tuple[int, int]]) -> None:
    content = damaged_by(KEEPER.certificate.tbs_certificate_bytes, damage)
    issuer = outcome(
        signing.read_authority, pki.write_pem(signed(content, KEEPER.key)), pki.write_key(KEEPER.key), now=NOW
    )
    if isinstance(issuer, Refusal):
        assert issuer.reason is Reason.MALFORMED
        return
    leaf = outcome(leaf_of, issuer, names=RICH_NAMES[:1])
    if isinstance(leaf, Refusal):
        assert leaf.reason is Reason.MALFORMED
    else:
        assert outcome(chain.verify_leaf, leaf, [issuer.certificate], NOW) == [issuer.certificate]


@pytest.mark.parametrize("address", ["no address", "a@bücher.example"])
def test_refuses_a_mail_address_in_the_subject_that_is_none(address: str) -> None:
    subject = raw_name((NameOID.EMAIL_ADDRESS, address), (CN, "x"))
    assert "not a mail address" in str(refusal(leaf_of, issuer_of(), subject=subject))


def test_a_file_of_beginnings_is_read_in_one_pass() -> None:
    begun = time.perf_counter()
    refusal(pki.read_certificates, ("-----BEGIN CERTIFICATE-----" * 9_999)[: pki.LARGEST_FILE])
    assert time.perf_counter() - begun < 1


@given(st.binary(max_size=400) | st.text(max_size=400))
def test_any_certificate_file_is_read_or_refused(data: bytes | str) -> None:
    assert refusal(pki.read_certificates, data).reason is Reason.MALFORMED


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_certificate_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(GOOD_AUTHORITY)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(ANYWHERE) % len(damaged)] = data.draw(st.integers(0, 255))
    found = outcome(signing.read_authority, base64.b64encode(damaged), pki.write_key(KEY), now=NOW)
    if isinstance(found, Refusal):
        assert found.reason is Reason.MALFORMED
    else:
        assert found.certificate.public_key() == KEY.public_key()


def test_pem_round_trip() -> None:
    ders = [issuer_of(serial=n).certificate.public_bytes(DER) for n in (1, 2)]
    text = pki.write_pem(*ders)
    assert [each.public_bytes(DER) for each in pki.read_certificates(text)] == ders
    assert text == "".join(each.public_bytes(PEM).decode() for each in pki.read_certificates(text))


@pytest.mark.server
def test_a_request_of_openssl_is_read_and_sha1_is_not(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text(pki.write_key(KEYS[KeyType.RSA2048]))
    wanted = (
        "req",
        "-new",
        "-key",
        key,
        "-subj",
        "/C=DE/O=Example/CN=device-9",
        "-addext",
        "subjectAltName=DNS:d9.example",
    )
    request = pki.read_csr(openssl(*wanted, "-sha256"))
    assert (request.attribute("C"), request.attribute("CN")) == ("DE", "device-9")
    assert request.names == (x509.DNSName("d9.example"),)
    for digest in ("-sha1", "-md5"):
        assert "SHA-256, SHA-384 or SHA-512" in str(refusal(pki.read_csr, openssl(*wanted, digest)))


def test_a_key_is_in_no_repr() -> None:
    assert "key" not in repr(issuer_of())
