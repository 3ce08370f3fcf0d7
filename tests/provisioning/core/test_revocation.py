"""provisioning/core/revocation.py"""

import base64
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core import pki, revocation, signing
from provisioning.core.revocation import OcspRequest, Responder, Standing
from provisioning.model.certificate import CrlEntry, Profile, Revocation, Status
from provisioning.model.refusal import Reason, Refusal
from tests.openssl import openssl, outcome, run, verify, write

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(microsecond=0)
NEXT = NOW + timedelta(days=1)
KINDS = (pki.KeyType.P256, pki.KeyType.P384, pki.KeyType.RSA2048)


@cache
def issuer_of(kind: pki.KeyType = pki.KeyType.P256) -> signing.Issuer:
    key = pki.new_key(kind)
    return signing.Issuer(signing.make_authority(pki.make_subject("Test CA"), key, now=NOW, years=1, serial=1), key)


@cache
def leaf_of(kind: pki.KeyType = pki.KeyType.P256, serial: int = 0xABC) -> x509.Certificate:
    key = pki.new_key().public_key()
    subject = pki.make_subject("device-1")
    return signing.issue(issuer_of(kind), key, subject, profile=Profile.DEVICE, now=NOW, days=90, serial=serial)


@cache
def responder_of(kind: pki.KeyType = pki.KeyType.P256) -> Responder:
    key, subject = pki.new_key(), pki.make_subject("OCSP")
    leaf = signing.issue(issuer_of(kind), key.public_key(), subject, profile=Profile.OCSP, now=NOW, days=30, serial=2)
    return Responder(leaf, key)


def refusal(data: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        revocation.read_ocsp_request(data)
    assert (caught.value.reason, caught.value.detail["field"]) == (Reason.MALFORMED, "request")
    return str(caught.value.detail["rule"])


def request_for(
    leaf: x509.Certificate,
    issuer: x509.Certificate,
    digest: hashes.HashAlgorithm | None = None,
    nonce: bytes | None = None,
) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, digest or hashes.SHA1())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


# --- CRL -------------------------------------------------------------------------------------------------------------


def crl_of(*entries: CrlEntry, kind: pki.KeyType = pki.KeyType.P256, number: int = 5) -> bytes:
    return revocation.build_crl(issuer_of(kind), entries, number=number, this_update=NOW, next_update=NEXT)


@pytest.mark.server
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_believes_the_crl(kind: pki.KeyType, tmp_path: Path) -> None:
    own, leaf = issuer_of(kind).certificate, leaf_of(kind)
    other = CrlEntry("fff", NOW, Revocation.KEY_COMPROMISE)
    for entry, good in ((None, True), (Revocation.SUPERSEDED, False), (Revocation.UNSPECIFIED, False)):
        entries = [other] if entry is None else [other, CrlEntry("abc", NOW, entry)]
        pem = revocation.write_crl_pem(crl_of(*entries, kind=kind)).encode()
        code, said = verify(tmp_path, leaf, own, crl=pem)
        assert (code == 0) == good, said
        assert good or "certificate revoked" in said


@pytest.mark.server
def test_openssl_reads_the_crl() -> None:
    entries = [CrlEntry(f"{n:x}", NOW, reason) for n, reason in enumerate([None, *Revocation], 0xA0)]
    text = openssl("crl", "-inform", "DER", "-text", "-noout", data=crl_of(*entries, number=77))
    for wanted in (
        "Version 2",
        "X509v3 CRL Number: \n                77",
        "Certificate Hold",
        "Key Compromise",
        "CA Compromise",
        "Affiliation Changed",
        "Superseded",
        "Cessation Of Operation",
        "Privilege Withdrawn",
    ):
        assert wanted in text, f"{wanted!r} is not in:\n{text}"
    assert text.count("Reason Code") == len(entries) - 1, "`unspecified` is said by saying nothing"
    assert NEXT.strftime("Next Update: %b %e %H:%M:%S %Y GMT") in text


def test_a_large_crl_is_made_in_linear_time() -> None:
    entries = [CrlEntry(f"{n:x}", NOW, Revocation.SUPERSEDED) for n in range(1, 30_001)]
    begun = time.perf_counter()
    der = crl_of(*entries)
    assert len(x509.load_der_x509_crl(der)) == 30_000
    assert time.perf_counter() - begun < 10


# --- OCSP ------------------------------------------------------------------------------------------------------------


STANDINGS = {
    "good": Standing(Status.VALID),
    "revoked": Standing(Status.REVOKED, NOW, Revocation.KEY_COMPROMISE),
    "held": Standing(Status.HELD, NOW),
    "unknown": None,
}


@pytest.mark.server
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_openssl_asks_and_believes(kind: pki.KeyType, digest: str, tmp_path: Path) -> None:
    own, leaf = write(tmp_path / "ca.pem", issuer_of(kind).certificate), write(tmp_path / "leaf.pem", leaf_of(kind))
    asked, answered = tmp_path / "asked.der", tmp_path / "answered.der"
    about = ("ocsp", "-issuer", own, f"-{digest}", "-cert", leaf)
    openssl(*about, "-reqout", asked, "-nonce")
    request = revocation.read_ocsp_request(asked.read_bytes())
    assert (request.serial, request.digest.name) == ("abc", digest)
    assert request.nonce is not None
    assert revocation.is_about(request, issuer_of(kind).certificate)
    assert not revocation.is_about(request, responder_of(kind).certificate)
    for word, standing in STANDINGS.items():
        answered.write_bytes(
            revocation.build_ocsp_response(request, standing, responder_of(kind), now=NOW, next_update=NEXT)
        )
        said = openssl(*about, "-no_nonce", "-respin", answered, "-CAfile", own)
        assert "Response verify OK" in said
        assert f"leaf.pem: {'revoked' if word == 'held' else word}" in said
        assert ("certificateHold" in said, "keyCompromise" in said) == (word == "held", word == "revoked"), said
        said = openssl(
            "ocsp", "-reqin", asked, "-respin", answered, "-CAfile", own, "-issuer", own
        )  # compares the nonces
        assert "no nonce" not in said
        assert "Response verify OK" in said


@pytest.mark.server
def test_a_response_of_a_stranger_is_not_believed(tmp_path: Path) -> None:
    """The judge can say no."""
    own, leaf = write(tmp_path / "ca.pem", issuer_of().certificate), write(tmp_path / "leaf.pem", leaf_of())
    key = pki.new_key()
    subject = pki.make_subject("Not a responder")
    plain = signing.issue(issuer_of(), key.public_key(), subject, profile=Profile.DEVICE, now=NOW, days=9, serial=9)
    request = revocation.read_ocsp_request(request_for(leaf_of(), issuer_of().certificate))
    answered = tmp_path / "answered.der"
    answered.write_bytes(
        revocation.build_ocsp_response(
            request, Standing(Status.VALID), Responder(plain, key), now=NOW, next_update=NEXT
        )
    )
    _, said = run("ocsp", "-issuer", own, "-cert", leaf, "-respin", answered, "-CAfile", own)
    assert "Response Verify Failure" in said


@pytest.mark.parametrize("length", [1, 16, 32, 33, 128])
def test_a_nonce_is_echoed_up_to_32_octets(length: int) -> None:
    nonce = bytes(range(length))
    request = revocation.read_ocsp_request(request_for(leaf_of(), issuer_of().certificate, nonce=nonce))
    der = revocation.build_ocsp_response(request, Standing(Status.VALID), responder_of(), now=NOW, next_update=NEXT)
    extensions = ocsp.load_der_ocsp_response(der).extensions
    echoed = [each.value.nonce for each in extensions if isinstance(each.value, x509.OCSPNonce)]
    assert echoed == ([nonce] if length <= 32 else [])


@pytest.mark.parametrize("length", [0, 129])
def test_refuses_an_illegal_nonce(length: int) -> None:
    assert "nonce" in refusal(request_for(leaf_of(), issuer_of().certificate, nonce=bytes(length)))


@pytest.mark.parametrize(
    "digest", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda d: d.name
)
@pytest.mark.parametrize("kind", KINDS)
def test_knows_its_issuer_by_every_digest(digest: hashes.HashAlgorithm, kind: pki.KeyType) -> None:
    request = revocation.read_ocsp_request(request_for(leaf_of(kind), issuer_of(kind).certificate, digest))
    assert [other for other in KINDS if revocation.is_about(request, issuer_of(other).certificate)] == [kind]


@pytest.mark.server
def test_refuses_a_request_about_two_certificates(tmp_path: Path) -> None:
    own = write(tmp_path / "ca.pem", issuer_of().certificate)
    asked = tmp_path / "asked.der"
    openssl("ocsp", "-issuer", own, "-serial", "1", "-serial", "2", "-reqout", asked)
    assert "cannot be read" in refusal(asked.read_bytes())


def test_refuses_a_request() -> None:
    good = request_for(leaf_of(), issuer_of().certificate)
    for data, rule in (
        (b"", "cannot be read"), (good[:-1], "cannot be read"), (good + b"\0", "cannot be read"),
        (b"\x30" * (revocation.LARGEST_REQUEST + 1), "more than"),
        (request_for(leaf_of(), issuer_of().certificate, hashes.SHA224()), "sha224"),
        (ocsp.OCSPRequestBuilder().add_certificate_by_hash(b"1" * 20, b"2" * 20, 2**200, hashes.SHA1()).build()
            .public_bytes(Encoding.DER), "20 octets"),
        (ocsp.OCSPRequestBuilder().add_certificate(leaf_of(), issuer_of().certificate, hashes.SHA1())
            .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"), critical=True).build()
            .public_bytes(Encoding.DER), "critical"),
    ):  # fmt: skip
        assert rule in refusal(data)


@given(st.binary(min_size=1, max_size=32), st.booleans(), st.booleans())
def test_get_reads_what_post_reads(nonce: bytes, encoded: bool, padded: bool) -> None:
    der = request_for(leaf_of(), issuer_of().certificate, nonce=nonce)
    text = base64.b64encode(der).decode()
    text = text if padded else text.rstrip("=")
    assert revocation.read_ocsp_path(quote(text, safe="") if encoded else f"/{text}").nonce == nonce


@given(st.binary(max_size=300), st.text(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes, text: str) -> None:
    refusal(data)
    for path in (text, base64.b64encode(data).decode()):
        with pytest.raises(Refusal):
            revocation.read_ocsp_path(path)


GOOD = [
    request_for(leaf_of(), issuer_of().certificate, digest, b"n" * 16) for digest in (hashes.SHA1(), hashes.SHA256())
]


@settings(max_examples=300)
@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_request_is_answered_or_refused(der: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(der)
    for at, value in damage:
        damaged[at % len(damaged)] = value
    request = outcome(revocation.read_ocsp_request, bytes(damaged))
    if isinstance(request, Refusal):
        assert request.reason is Reason.MALFORMED
    else:
        revocation.is_about(request, issuer_of().certificate)
        assert revocation.build_ocsp_response(request, None, responder_of(), now=NOW, next_update=NEXT)


@pytest.mark.parametrize(
    ("der", "status"),
    [(revocation.MALFORMED_REQUEST, ocsp.OCSPResponseStatus.MALFORMED_REQUEST),
     (revocation.INTERNAL_ERROR, ocsp.OCSPResponseStatus.INTERNAL_ERROR),
     (revocation.TRY_LATER, ocsp.OCSPResponseStatus.TRY_LATER),
     (revocation.UNAUTHORIZED, ocsp.OCSPResponseStatus.UNAUTHORIZED)],
)  # fmt: skip
def test_says_no_without_a_signature(der: bytes, status: ocsp.OCSPResponseStatus) -> None:
    assert ocsp.load_der_ocsp_response(der).response_status is status


def test_a_response_says_until_when_it_holds() -> None:
    request = OcspRequest(hashes.SHA1(), b"1" * 20, b"2" * 20, "abc")
    response = ocsp.load_der_ocsp_response(
        revocation.build_ocsp_response(request, Standing(Status.VALID), responder_of(), now=NOW, next_update=NEXT)
    )
    assert (response.this_update_utc, response.next_update_utc) == (NOW, NEXT)
    assert response.certificates == [responder_of().certificate]
