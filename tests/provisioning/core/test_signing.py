"""provisioning/core/signing.py"""

import re
import ssl
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from provisioning.core import pki, signing
from provisioning.core.pki import KeyType
from provisioning.core.signing import Issuer
from provisioning.model.certificate import Profile
from provisioning.model.refusal import Reason
from tests.material import (
    CN,
    DER,
    KEYS,
    NOW,
    ORGANIZATION,
    PEM,
    TODAY,
    URLS,
    WEAK,
    csr_of,
    issuer_of,
    leaf_of,
    raw_dns,
    raw_name,
    refusal,
)
from tests.openssl import Made, made, openssl, verify

pytestmark = pytest.mark.slow

# --- authorities -----------------------------------------------------------------------------------------------------


def test_an_authority_is_what_rfc_5280_wants() -> None:
    own = issuer_of(path_length=1, permitted_dns=[".plant.example"]).certificate
    basic = own.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = own.extensions.get_extension_for_class(x509.KeyUsage)
    constraints = own.extensions.get_extension_for_class(x509.NameConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 1)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    assert (constraints.critical, constraints.value.permitted_subtrees) == (True, [x509.DNSName("plant.example")])
    assert own.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert own.not_valid_after_utc == NOW + timedelta(days=3_650)


@pytest.mark.parametrize(
    ("more", "field"),
    [({"years": 0}, "years"), ({"years": 101}, "years"), ({"path_length": -1}, "path_length"),
     ({"permitted_dns": ["192.0.2.1"]}, "names"), ({"permitted_dns": ["a b"]}, "names")],
)  # fmt: skip
def test_refuses_to_make_an_authority(more: dict[str, Any], field: str) -> None:
    assert refusal(issuer_of, **more).detail["field"] == field


# --- a company's own authority ---------------------------------------------------------------------------------------

ROOT = made("Root", serial=1)
MIDDLE = made("Middle", ROOT)
OWN = made("Issuing", MIDDLE, path_length=0)
STRANGER = made("Stranger")


def read(own: Made, *above: Made, **more: Any) -> Issuer:
    others = b"".join(each.pem for each in above)
    wanted: dict[str, Any] = {"key": pki.write_key(own.key), "others": others, "now": NOW} | more
    return signing.read_authority(own.pem, **wanted)


def test_reads_an_authority_with_what_stands_above_it() -> None:
    wanted = (MIDDLE.certificate, ROOT.certificate)
    assert read(OWN, MIDDLE, ROOT).chain == wanted
    assert read(OWN, ROOT, MIDDLE).chain == wanted, "the order of a file says nothing"
    assert read(OWN, MIDDLE, ROOT, MIDDLE, OWN).chain == wanted, "twice is once"
    assert signing.read_authority(OWN.pem + MIDDLE.pem + ROOT.pem, pki.write_key(OWN.key), now=NOW).chain == wanted
    assert read(ROOT).chain == ()


def test_a_chain_may_end_at_a_stated_anchor() -> None:
    assert read(OWN, anchor=MIDDLE.pem).chain == (MIDDLE.certificate,)
    assert read(OWN, MIDDLE, anchor=MIDDLE.pem).chain == (MIDDLE.certificate,)
    assert read(OWN, anchor=OWN.pem).chain == ()
    assert "the anchor that was stated" in str(refusal(read, OWN, MIDDLE, ROOT, anchor=STRANGER.pem))


LATER = NOW + timedelta(days=36_500)
BAD_AUTHORITIES: dict[str, tuple[list[Made], dict[str, Any], str, str]] = {
    "no chain": ([OWN], {}, "chain", "CN=Issuing (issued by CN=Middle) to a self-signed certificate"),
    "a gap": ([OWN, ROOT], {}, "chain", "does not lead from CN=Issuing"),
    "somebody else's chain": ([OWN, STRANGER], {}, "chain", "does not lead"),
    "a certificate too many": (
        [OWN, MIDDLE, ROOT, STRANGER],
        {},
        "chain",
        "CN=Stranger, which is not above CN=Issuing",
    ),
    "another key": ([OWN, MIDDLE, ROOT], {"key": pki.write_key(ROOT.key)}, "key", "is not the key of CN=Issuing"),
    "expired": ([OWN, MIDDLE, ROOT], {"now": LATER}, "chain", "expired on"),
    "too early": ([ROOT], {"now": NOW - timedelta(days=9_000)}, "certificate", "is not valid before"),
    "not an authority": ([made("Leaf", ROOT, ca=False), ROOT], {}, "certificate", "must say CA:TRUE"),
    "no keyUsage": ([made("No usage", usage=None)], {}, "certificate", "keyUsage must have keyCertSign"),
    "no keyCertSign": ([made("No sign", usage="crl_sign")], {}, "certificate", "keyUsage must have keyCertSign"),
    "no cRLSign": ([made("No CRL", usage="key_cert_sign")], {}, "certificate", "keyUsage must have cRLSign"),
    "the parent is no authority": (
        [made("A", leaf := made("Leaf", ROOT, ca=False)), leaf, ROOT],
        {},
        "chain",
        "CN=Leaf is not an authority",
    ),
    "too long a path": (
        [made("B", zero := made("Zero", path_length=0)), zero],
        {},
        "chain",
        "CN=Zero allows 0 authorities below it, and here are 1",
    ),
    "a parent that expired": (
        [made("C", gone := made("Gone", not_after=NOW - timedelta(days=1))), gone],
        {},
        "chain",
        "CN=Gone expired on",
    ),
    "a name its parent forbids": (
        [
            made(
                "D", tree := made("Tree", constraints=([x509.DirectoryName(raw_name((ORGANIZATION, "Plant")))], None))
            ),
            tree,
        ],
        {},
        "chain",
        "CN=Tree may not certify the name CN=D",
    ),
    "weak signature": ([made("E", ROOT, digest=hashes.SHA224()), ROOT], {}, "chain", "must be signed with SHA-256"),
    "weak key": ([made("F", key=WEAK)], {}, "key", "1024 bits"),
    "policy constraints": (
        [made("G", extra=[(x509.PolicyConstraints(0, None), True)])],
        {},
        "certificate",
        "is not understood: policyConstraints",
    ),
    "a critical extension that nobody knows": (
        [made("H", extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)])],
        {},
        "certificate",
        "is not understood: 1.2.3.4",
    ),
}


@pytest.mark.parametrize("case", BAD_AUTHORITIES)
def test_refuses_an_authority(case: str) -> None:
    (own, *above), more, field, rule = BAD_AUTHORITIES[case]
    refused = refusal(read, own, *above, **more)
    assert (refused.reason, refused.detail["field"]) == (Reason.MALFORMED, field), refused
    assert rule in str(refused.detail["rule"])


def test_an_imported_authority_is_kept_to_its_limits() -> None:
    clients = made("Clients", extra=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)])
    assert leaf_of(read(clients))
    names = pki.read_names(["mqtt.example"])
    refused = refusal(leaf_of, read(clients), profile=Profile.SERVER, names=names)
    assert (refused.detail["field"], "may not issue for the profile server" in str(refused)) == ("profile", True)
    tree = made("Tree", constraints=([x509.DNSName("plant.example")], None))
    below = read(made("Below", tree), tree)
    assert leaf_of(below, profile=Profile.SERVER, names=pki.read_names(["mqtt.plant.example"]))
    refused = refusal(leaf_of, below, profile=Profile.SERVER, names=names)
    assert refused.detail == {"field": "names", "rule": "CN=Tree may not certify the name mqtt.example"}


def test_an_anchor_needs_no_key_and_no_chain() -> None:
    assert signing.read_anchor(OWN.pem, now=NOW) == OWN.certificate
    assert "CA:TRUE" in str(refusal(signing.read_anchor, made("Leaf", ROOT, ca=False).pem, now=NOW))
    assert "expired" in str(refusal(signing.read_anchor, OWN.pem, now=LATER))


# --- leaves ----------------------------------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(
    ("profile", "purpose"), [(Profile.DEVICE, "sslclient"), (Profile.SERVER, "sslserver"), (Profile.OCSP, "ocsphelper")]
)
def test_openssl_accepts_what_is_issued(tmp_path: Path, kind: KeyType, profile: Profile, purpose: str) -> None:
    issuer = issuer_of(KEYS[kind], now=TODAY)
    names = pki.read_names(["mqtt.example", "192.0.2.1"]) if profile is Profile.SERVER else ()
    leaf = leaf_of(issuer, profile=profile, now=TODAY, key=KEYS[kind], names=names, urls=URLS)
    code, said = verify(tmp_path, leaf, issuer.certificate, purpose=purpose)
    assert code == 0, said
    other = {"sslclient": "sslserver", "sslserver": "sslclient", "ocsphelper": "sslclient"}[purpose]
    if profile is not Profile.OCSP:
        code, said = verify(tmp_path, leaf, issuer.certificate, purpose=other)
        assert (code, "unsuitable certificate purpose" in said) == (2, True), said


@pytest.mark.server
def test_openssl_reads_what_the_certificate_says(tmp_path: Path) -> None:
    issuer = issuer_of(now=TODAY)
    serial = pki.new_serial()
    leaf = leaf_of(
        issuer,
        profile=Profile.SERVER,
        now=TODAY,
        serial=serial,
        urls=URLS,
        names=pki.read_names(["mqtt.example", "192.0.2.1"]),
    )
    text = openssl("x509", "-text", "-noout", data=leaf.public_bytes(PEM))
    plain = re.sub(r"\s+", " ", text)
    for wanted in (
        "Version: 3", "Signature Algorithm: ecdsa-with-SHA256", "Issuer: O = Example, CN = Test CA", "CN = device-1",
        "Basic Constraints: critical CA:FALSE", "Key Usage: critical Digital Signature X509v3",
        "Extended Key Usage: TLS Web Server Authentication", "DNS:mqtt.example, IP Address:192.0.2.1",
        "CRL Distribution Points: Full Name: URI:http://pki.example/c.crl",
        "OCSP - URI:http://pki.example/ocsp", "CA Issuers - URI:http://pki.example/c.cer",
    ):  # fmt: skip
        assert wanted in plain, f"{wanted!r} is not in:\n{text}"
    shown = re.search(r"Serial Number:\s+([0-9a-f:]+)", text)
    assert shown
    assert pki.read_serial(shown[1]) == pki.write_serial(serial)
    responder = leaf_of(issuer, profile=Profile.OCSP, now=TODAY, urls=URLS)
    text = openssl("x509", "-text", "-noout", data=responder.public_bytes(PEM))
    assert "OCSP No Check" in text
    assert "OCSP Signing" in text
    assert "pki.example" not in text


def handshake(directory: Path, issuer: Issuer, server: Profile, client: Profile, version: ssl.TLSVersion) -> str:
    """Two sides of a TLS connection in memory, each with a leaf of `issuer`. Returns the words of who refuses whom."""
    trusted = issuer.path[-1].public_bytes(PEM).decode()
    sides = []
    for profile, is_server in ((server, True), (client, False)):
        key = pki.new_key()
        leaf = leaf_of(issuer, key=key, profile=profile, now=TODAY, names=pki.read_names(["mqtt.example"]))
        file = directory / f"{'server' if is_server else 'client'}.pem"
        above = [each.public_bytes(DER) for each in issuer.path[:-1]]
        file.write_text(pki.write_pem(leaf.public_bytes(DER), *above) + pki.write_key(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = context.maximum_version = version
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=trusted)
        context.load_cert_chain(file)
        pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if is_server else "mqtt.example"
        sides.append((context.wrap_bio(*pipes, server_side=is_server, server_hostname=name), pipes))
    try:
        for _ in range(6):
            for (side, pipes), (_, others) in (sides, sides[::-1]):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                others[0].write(pipes[1].read())
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    assert all(side.getpeercert() for side, _ in sides)
    return ""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", KEYS)
def test_tls_takes_what_is_issued(tmp_path: Path, kind: KeyType, version: ssl.TLSVersion) -> None:
    issuer = issuer_of(KEYS[kind], now=TODAY)
    assert handshake(tmp_path, issuer, Profile.SERVER, Profile.DEVICE, version) == ""
    for server, client in ((Profile.DEVICE, Profile.DEVICE), (Profile.SERVER, Profile.SERVER)):
        assert "purpose" in handshake(tmp_path, issuer, server, client, version)
    assert handshake(tmp_path, read(OWN, MIDDLE, ROOT), Profile.SERVER, Profile.DEVICE, version) == ""


def test_validity_never_leaves_that_of_the_issuer() -> None:
    issuer = issuer_of(years=1)
    own = issuer.certificate
    assert leaf_of(issuer, days=10).not_valid_after_utc == NOW + timedelta(days=10)
    assert leaf_of(issuer, days=10).not_valid_before_utc == NOW - signing.BACKDATE
    assert leaf_of(issuer, days=9_000).not_valid_after_utc == own.not_valid_after_utc
    first = own.not_valid_before_utc
    assert leaf_of(issuer, now=first + timedelta(seconds=1)).not_valid_before_utc == first


@pytest.mark.parametrize(("at", "state"), [(timedelta(days=-1), "not yet valid"), (timedelta(days=366), "expired")])
def test_an_issuer_that_is_not_valid_issues_nothing(at: timedelta, state: str) -> None:
    refused = refusal(leaf_of, issuer_of(years=1), now=NOW + at)
    assert (refused.reason, refused.detail["state"]) == (Reason.ILLEGAL_TRANSITION, state)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"days": 0}, "days"),
        ({"days": signing.MOST_DAYS + 1}, "days"),
        ({"subject": x509.Name([])}, "subject"),
        ({"subject": raw_name((CN, "a"), (CN, "b"))}, "subject"),
        ({"profile": Profile.SERVER}, "names"),
        ({"names": [x509.DNSName("a.example")] * 101}, "names"),
        ({"names": [x509.RegisteredID(CN)]}, "names"),
        ({"names": [raw_dns("good.example\0.evil.example")]}, "names"),
        ({"names": [raw_dns("*")]}, "names"),
        ({"names": [raw_dns("")]}, "names"),
        ({"names": [x509.UniformResourceIdentifier("http://a.example/\n")]}, "names"),
        ({"key": WEAK}, "key"),
    ],
)
def test_refuses_to_issue(more: dict[str, Any], field: str) -> None:
    refused = refusal(leaf_of, issuer_of(), **more)
    assert (refused.reason, refused.detail["field"]) == (Reason.MALFORMED, field)


def test_the_subject_of_a_request_is_kept_as_it_was_encoded() -> None:
    subject = x509.Name([x509.NameAttribute(CN, "device-1", _type=x509.name._ASN1Type.PrintableString)])
    request = pki.read_csr(csr_of(subject=subject).public_bytes(DER))
    assert leaf_of(issuer_of(), subject=request.subject).subject.public_bytes() == subject.public_bytes()
