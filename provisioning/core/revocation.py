"""What tells the world that a certificate is no longer good: CRLs and OCSP. Pure.

Sources: RFC 5280 section 5, RFC 6960, RFC 5019 (one certificate per request; GET), RFC 9654 (nonce).
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from provisioning.core import pki, signing
from provisioning.core.chain import UNREADABLE, malformed
from provisioning.model.certificate import CrlEntry, Revocation, Status

LARGEST_REQUEST: Final = 2_048
"""Bytes. A request for one certificate with a nonce has about 120; a signed one with its certificate fits."""
LONGEST_NONCE: Final = 32
LONGEST_LEGAL_NONCE: Final = 128
DIGESTS: Final = (hashes.SHA1, hashes.SHA256, hashes.SHA384, hashes.SHA512)
"""Of names and keys in a CertID: they identify, they prove nothing."""

# OCSPResponseStatus alone (RFC 6960, 4.2.1): neither signed nor about a certificate.
MALFORMED_REQUEST: Final = ocsp.OCSPResponseBuilder.build_unsuccessful(
    ocsp.OCSPResponseStatus.MALFORMED_REQUEST
).public_bytes(serialization.Encoding.DER)
INTERNAL_ERROR: Final = ocsp.OCSPResponseBuilder.build_unsuccessful(
    ocsp.OCSPResponseStatus.INTERNAL_ERROR
).public_bytes(serialization.Encoding.DER)
TRY_LATER: Final = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(
    serialization.Encoding.DER
)
UNAUTHORIZED: Final = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED).public_bytes(
    serialization.Encoding.DER
)
"""Also what a responder says of an authority that it does not know (RFC 5019, 2.2.3)."""


def _flag(reason: Revocation | None) -> x509.ReasonFlags:
    return x509.ReasonFlags.certificate_hold if reason is None else x509.ReasonFlags(reason.value)


# --- CRL -------------------------------------------------------------------------------------------------------------


def build_crl(
    issuer: signing.Issuer, entries: Iterable[CrlEntry], *, number: int, this_update: datetime, next_update: datetime
) -> bytes:
    """A full CRL, version 2, DER. `number` must be greater than that of every CRL before.

    Blocks for about a second per hundred thousand entries: run a large one in an executor.
    """
    builder = (  # all entries at once: adding them one by one copies the list each time
        x509.CertificateRevocationListBuilder(revoked_certificates=[_entry(each) for each in entries])
        .issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(signing.authority_key_id(issuer.certificate), critical=False)
    )
    return builder.sign(issuer.key, signing.digest_for(issuer.key)).public_bytes(serialization.Encoding.DER)


def _entry(entry: CrlEntry) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(int(entry.serial, 16), entry.revoked_at)
    if entry.reason is not Revocation.UNSPECIFIED:  # RFC 5280, 5.3.1: absent instead
        builder = builder.add_extension(x509.CRLReason(_flag(entry.reason)), critical=False)
    return builder.build()


def write_crl_pem(der: bytes) -> str:
    return x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM).decode()


# --- OCSP ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """Somebody asks for the status of one certificate."""

    digest: hashes.HashAlgorithm
    name_hash: bytes
    key_hash: bytes
    serial: str
    nonce: bytes | None = None
    """To be echoed; None: there is none, or it is longer than 32 octets and is not echoed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a certificate."""

    status: Status
    revoked_at: datetime | None = None
    reason: Revocation | None = None


@dataclass(frozen=True, slots=True)
class Responder:
    """A delegated responder: a certificate of profile `ocsp` by the authority that it answers for."""

    certificate: x509.Certificate
    key: pki.PrivateKey = field(repr=False)


def read_ocsp_request(data: bytes) -> OcspRequest:
    """The body of a POST: an OCSPRequest in DER, about one certificate. A signature on it is not looked at (RFC 5019).

    Raises:
        Refusal: MALFORMED, field `request`: answer with `MALFORMED_REQUEST`.
    """
    if len(data) > LARGEST_REQUEST:
        raise malformed("request", f"has more than {LARGEST_REQUEST} bytes")
    try:
        request = ocsp.load_der_ocsp_request(data)
        digest, serial = request.hash_algorithm, request.serial_number
        name_hash, key_hash = request.issuer_name_hash, request.issuer_key_hash
        extensions = request.extensions
    except (*UNREADABLE, NotImplementedError) as error:
        raise malformed("request", f"cannot be read: {error}"[:200]) from None
    if not isinstance(digest, DIGESTS):
        raise malformed("request", f"names its issuer by {digest.name}; SHA-1, SHA-256, -384 and -512 are accepted")
    if not {len(name_hash), len(key_hash)} == {digest.digest_size}:
        raise malformed("request", "has hashes of a wrong length")
    nonce = None
    for each in extensions:
        if isinstance(each.value, x509.OCSPNonce):
            nonce = each.value.nonce
        elif each.critical and not isinstance(each.value, x509.OCSPAcceptableResponses):
            raise malformed("request", "has a critical extension that is not understood")
    if nonce is not None and not 1 <= len(nonce) <= LONGEST_LEGAL_NONCE:  # RFC 9654, 2.1
        raise malformed("request", f"has a nonce of {len(nonce)} octets; 1 to {LONGEST_LEGAL_NONCE} are legal")
    kept = nonce if nonce is not None and len(nonce) <= LONGEST_NONCE else None
    return OcspRequest(digest, name_hash, key_hash, pki.write_checked_serial(serial, "request"), kept)


def read_ocsp_path(text: str) -> OcspRequest:
    """What stands behind the responder's URL in a GET: base64 of the request, URL-encoded (RFC 6960, A.1).

    Raises:
        Refusal: MALFORMED, field `request`.
    """
    if len(text) > 3 * 2 * LARGEST_REQUEST:
        raise malformed("request", f"has more than {LARGEST_REQUEST} bytes")
    # A client that leaves `+` and `/` as they are means them; one that encodes a space meant `+`.
    plain = unquote(text).strip().replace(" ", "+").lstrip("/")
    try:
        return read_ocsp_request(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True))
    except (binascii.Error, ValueError):
        raise malformed("request", "is not base64") from None


def is_about(request: OcspRequest, issuer: x509.Certificate) -> bool:
    """Does the request speak of a certificate of this issuer? RFC 6960, 4.1.1: by the hashes of its name and key."""
    return (request.name_hash, request.key_hash) == issuer_hashes(issuer, request.digest)


def issuer_hashes(issuer: x509.Certificate, digest: hashes.HashAlgorithm) -> tuple[bytes, bytes]:
    bare = issuer.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _hash(digest, issuer.subject.public_bytes()), _hash(digest, _key_bits(bare))


def _hash(digest: hashes.HashAlgorithm, data: bytes) -> bytes:
    context = hashes.Hash(digest)
    context.update(data)
    return context.finalize()


def _key_bits(spki: bytes) -> bytes:
    """The BIT STRING of a SubjectPublicKeyInfo without tag, length and count of unused bits."""
    at = _enter(spki, 0)[0]
    start, length = _enter(spki, at)
    start, length = _enter(spki, start + length)
    return spki[start + 1 : start + length]


def _enter(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at `at` begins, and its length."""
    length = der[at + 1]
    if length < 0x80:  # noqa: PLR2004 - X.690, 8.1.3: the short form
        return at + 2, length
    octets = length & 0x7F
    return at + 2 + octets, int.from_bytes(der[at + 2 : at + 2 + octets], "big")


def build_ocsp_response(
    request: OcspRequest,
    standing: Standing | None,
    responder: Responder,
    *,
    now: datetime,
    next_update: datetime,
) -> bytes:
    """A signed response in DER. `standing` None: this authority issued no such certificate, status `unknown`."""
    status, revoked_at, reason = ocsp.OCSPCertStatus.UNKNOWN, None, None
    if standing is not None and standing.status is Status.VALID:
        status = ocsp.OCSPCertStatus.GOOD
    elif standing is not None:
        status, revoked_at = ocsp.OCSPCertStatus.REVOKED, standing.revoked_at or now
        held = standing.status is Status.HELD
        if held or standing.reason not in {None, Revocation.UNSPECIFIED}:
            reason = _flag(None if held else standing.reason)
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response_by_hash(
            request.name_hash, request.key_hash, int(request.serial, 16), request.digest, status, now, next_update,
            revoked_at, reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
        .certificates([responder.certificate])
    )  # fmt: skip
    if request.nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(request.nonce), critical=False)
    response = builder.sign(responder.key, signing.digest_for(responder.key))
    return response.public_bytes(serialization.Encoding.DER)
