"""X.509 without storage: keys, serial numbers, certificates, requests, names. Sources: RFC 5280, RFC 2986 (requests).

Everything is a function of its arguments: the clock, the serial number and the keys come from outside.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from provisioning.core import chain
from provisioning.core.chain import UNREADABLE, malformed

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

SERIAL_BITS: Final = 128
MOST_SERIAL_BITS: Final = 159
"""20 octets with a sign bit (RFC 5280, 4.1.2.2)."""
SMALLEST_RSA: Final = 2048
LARGEST_RSA: Final = 4096
SMALLEST_EXPONENT: Final = 65_537
LARGEST_EXPONENT_BITS: Final = 32
LARGEST_CSR: Final = 16_384
LARGEST_FILE: Final = 131_072
MOST_NAMES: Final = 100
CURVES: Final = (ec.SECP256R1, ec.SECP384R1)

CSR_LABELS: Final = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
CERTIFICATE_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE")
LONGEST_HOST: Final = 253
"""RFC 1035, 2.3.4, without the root."""
HOST: Final = re.compile(
    r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE | re.ASCII
)

ATTRIBUTES: Final = {
    "C": NameOID.COUNTRY_NAME, "ST": NameOID.STATE_OR_PROVINCE_NAME, "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME, "CN": NameOID.COMMON_NAME,
    "emailAddress": NameOID.EMAIL_ADDRESS, "serialNumber": NameOID.SERIAL_NUMBER,
}  # fmt: skip
# RFC 5280, appendix A.1: upper bounds, in characters.
LONGEST: Final = {
    NameOID.COUNTRY_NAME: 2, NameOID.STATE_OR_PROVINCE_NAME: 128, NameOID.LOCALITY_NAME: 128,
    NameOID.EMAIL_ADDRESS: 255,
}  # fmt: skip
LONGEST_OTHER: Final = 64


class KeyType(StrEnum):
    P256 = "p256"
    P384 = "p384"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"


# --- keys ------------------------------------------------------------------------------------------------------------


def new_key(kind: KeyType = KeyType.P256) -> PrivateKey:
    """Blocks: RSA takes a good part of a second. On a loop, ask `ca.make_key`."""
    match kind:
        case KeyType.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return rsa.generate_private_key(65_537, int(kind.removeprefix("rsa")))


def key_type(key: PublicKey) -> str:
    """As in `KeyType`, or `rsa` and the bits of an accepted size between."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa{key.key_size}"
    return {"secp256r1": "p256", "secp384r1": "p384"}[key.curve.name]


def write_key(key: PrivateKey) -> str:
    """PKCS#8 PEM, unencrypted: seal it, or hand it to the one that it is for."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def read_key(pem: bytes | str, password: bytes | None = None, *, ours: bool = False) -> PrivateKey:
    """A private key in PEM (PKCS#8, PKCS#1 or SEC 1).

    `ours`: it was checked when it was stored; checking an RSA key takes up to a quarter of a second.

    Raises:
        Refusal: MALFORMED, field `key`.
    """
    raw = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
    if len(raw) > LARGEST_FILE:
        raise malformed("key", f"has more than {LARGEST_FILE} bytes")
    try:
        key = serialization.load_pem_private_key(raw, password, unsafe_skip_rsa_key_validation=ours)
    except TypeError:  # the one thing that it stands for here
        rule = "is not encrypted: leave the password out" if password else "is encrypted: state its password"
        raise malformed("key", rule) from None
    except UNREADABLE:  # its words may quote what was read
        raise malformed("key", "cannot be read: not a private key in PEM, damaged, or another password") from None
    if not isinstance(key, PrivateKey):
        raise malformed("key", "must be EC (P-256, P-384) or RSA")
    check_key(key.public_key(), "key")
    return key


def check_key(key: object, name: str = "csr") -> PublicKey:
    """Raises: Refusal MALFORMED for a type, curve, size or exponent that is not accepted."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, CURVES):
            raise malformed(name, f"has a key on {key.curve.name}; P-256 and P-384 are accepted")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if not SMALLEST_RSA <= key.key_size <= LARGEST_RSA:
            raise malformed(
                name, f"has an RSA key of {key.key_size} bits; {SMALLEST_RSA} to {LARGEST_RSA} are accepted"
            )
        exponent = key.public_numbers().e
        if exponent < SMALLEST_EXPONENT or exponent.bit_length() > LARGEST_EXPONENT_BITS:
            raise malformed(name, f"has an RSA key whose exponent is not between {SMALLEST_EXPONENT} and 2^32")
        return key
    raise malformed(name, "must have an EC (P-256, P-384) or RSA key")


# --- serial numbers, fingerprints ------------------------------------------------------------------------------------


def new_serial() -> int:
    """128 random bits, never zero: two issuers do not meet."""
    return secrets.randbits(SERIAL_BITS) or 1


def write_serial(serial: int) -> str:
    """Hexadecimal, lower case, no leading zeros: the one form in which serials are stored and compared."""
    return f"{serial:x}"


def read_serial(text: str) -> str:
    """A serial number as people paste it (`0A:1B…`, `0a1b…`), in the stored form.

    Raises:
        Refusal: MALFORMED, field `serial`.
    """
    digits = re.sub(r"[:\s]", "", text).lower().removeprefix("0x").lstrip("0")
    if not re.fullmatch(r"[0-9a-f]{1,40}", digits):
        raise malformed("serial", "must be 1 to 40 hexadecimal digits, and not zero")
    return digits


def write_checked_serial(serial: int, field: str = "certificate") -> str:
    """As `write_serial`, for a serial number that others made.

    Raises:
        Refusal: MALFORMED: not positive, or longer than 20 octets.
    """
    if serial <= 0 or serial.bit_length() > MOST_SERIAL_BITS:
        raise malformed(field, "has a serial number that is not positive or has more than 20 octets")
    return write_serial(serial)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def fingerprint(der: bytes) -> str:
    """SHA-256, hexadecimal, lower case."""
    return sha256(der).hexdigest()


# --- reading ---------------------------------------------------------------------------------------------------------


def _blocks(data: bytes | str, field: str, labels: Sequence[str], largest: int) -> list[bytes]:
    """DER out of PEM (line breaks may be absent or spelled out), bare base64, or DER.

    Raises:
        Refusal: MALFORMED.
    """
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if len(raw) > largest:
        raise malformed(field, f"has more than {largest} bytes")
    if raw.startswith(b"\x30") and not raw.isascii():
        return [raw]
    text = raw.decode("utf-8", "replace").replace("\\r", "").replace("\\n", "\n").strip("\ufeff\0 \r\n\t")
    found = list(_pem_bodies(text, labels)) if "-----" in text else [text]
    if not found:
        raise malformed(field, f"has no block -----BEGIN {labels[0]}-----")
    try:
        return [base64.b64decode("".join(body.split()), validate=True) for body in found]
    except (binascii.Error, ValueError):
        raise malformed(field, "is neither PEM nor DER") from None


def _pem_bodies(text: str, labels: Sequence[str]) -> Iterator[str]:
    """In one pass: a pattern that looks for each end from each beginning takes seconds for a file of beginnings."""
    for block in text.split("-----BEGIN ")[1:]:
        label, _, rest = block.partition("-----")
        body, end, _ = rest.partition(f"-----END {label}-----")
        if end and label in labels:
            yield body


def read_certificates(data: bytes | str, field: str = "certificate") -> list[x509.Certificate]:
    """All certificates of a PEM file, or the one in DER.

    Raises:
        Refusal: MALFORMED.
    """
    blocks = _blocks(data, field, CERTIFICATE_LABELS, LARGEST_FILE)
    if len(blocks) > chain.LARGEST_POOL:
        raise malformed(field, f"has more than {chain.LARGEST_POOL} certificates")
    try:
        found = [x509.load_der_x509_certificate(block) for block in blocks]
        for each in found:
            _ = each.subject, each.issuer, each.extensions, each.signature_hash_algorithm, each.serial_number
            _ = each.public_key(), each.not_valid_before_utc, each.not_valid_after_utc
    except UNREADABLE as error:
        raise malformed(field, f"cannot be read: {error}"[:200]) from None
    return found


def read_certificate(data: bytes | str, field: str = "certificate") -> x509.Certificate:
    """The first certificate. Raises: Refusal MALFORMED."""
    return read_certificates(data, field)[0]


def write_pem(*ders: bytes) -> str:
    """Certificates as PEM, one after the other."""
    return "".join(
        "-----BEGIN CERTIFICATE-----\n"
        + re.sub("(.{64})", r"\1\n", base64.b64encode(der).decode()).rstrip("\n")
        + "\n-----END CERTIFICATE-----\n"
        for der in ders
    )


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate signing request whose own signature holds: whoever made it has the key."""

    subject: x509.Name
    key: PublicKey
    names: tuple[x509.GeneralName, ...] = ()
    """Subject alternative names that it asks for: nothing has judged them."""

    def attribute(self, name: str) -> str:
        """The value of a subject attribute (`CN`, `O` … as in `ATTRIBUTES`); empty when there is none."""
        return first_attribute(self.subject, name)


def first_attribute(subject: x509.Name, name: str) -> str:
    values = subject.get_attributes_for_oid(ATTRIBUTES[name])
    return str(values[0].value) if values else ""


def read_csr(data: bytes | str) -> Request:
    """A request in PEM or base64 (with line breaks or without) or DER. Source: RFC 2986, section 4.

    Raises:
        Refusal: MALFORMED, field `csr`: not a request, its signature does not hold or is weak, its key or its subject
            is not accepted.
    """
    block = _blocks(data, "csr", CSR_LABELS, LARGEST_CSR)[0]
    try:
        csr = x509.load_der_x509_csr(block)
        key = check_key(csr.public_key())  # before any arithmetic with it
        if not isinstance(csr.signature_hash_algorithm, chain.DIGESTS):
            raise malformed("csr", "must be signed with SHA-256, SHA-384 or SHA-512")
        if not csr.is_signature_valid:
            raise malformed(
                "csr", "has a signature that does not hold: it was not made with its own key, or was changed"
            )
        subject, names = csr.subject, chain.alternative_names(csr)
    except UNREADABLE as error:
        raise malformed("csr", f"cannot be read: {error}"[:200]) from None
    check_subject(subject, "csr")
    return Request(subject, key, names)


def check_subject(subject: x509.Name, field: str = "subject", required: Sequence[str] = ()) -> None:
    """`required`: attributes (as in `ATTRIBUTES`) that must be there.

    Raises:
        Refusal: MALFORMED: an attribute twice (domain components excepted), empty, too long or with control characters.
    """
    seen: set[x509.ObjectIdentifier] = set()
    for each in subject:
        name = each.rfc4514_attribute_name
        if each.oid in seen and each.oid != NameOID.DOMAIN_COMPONENT:
            raise malformed(field, f"has {name} twice in its subject")
        seen.add(each.oid)
        value, longest = each.value, LONGEST.get(each.oid, LONGEST_OTHER)
        if not isinstance(value, str) or not value.isprintable():
            raise malformed(field, f"has characters in {name} of its subject that cannot be printed")
        if not value.strip() or len(value) > longest:
            raise malformed(field, f"must have 1 to {longest} characters in {name} of its subject")
        if each.oid == NameOID.COUNTRY_NAME and not re.fullmatch("[A-Za-z]{2}", value):
            raise malformed(field, "must have two letters in C of its subject")
    if missing := [name for name in required if ATTRIBUTES[name] not in seen]:
        raise malformed(field, f"must have {', '.join(missing)} in its subject")


def make_subject(common_name: str, organization: str = "") -> x509.Name:
    """Raises: Refusal MALFORMED, field `subject`."""
    pairs = [(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    try:
        subject = x509.Name(
            [x509.NameAttribute(oid, value) for oid, value in [*pairs, (NameOID.COMMON_NAME, common_name)]]
        )
    except ValueError as error:
        raise malformed("subject", str(error)) from None
    check_subject(subject)
    return subject


def is_host(text: str) -> bool:
    """A DNS name as certificates have it: letters, digits, hyphens, underscores; a leading `*.` is fine."""
    return len(text) <= LONGEST_HOST and HOST.fullmatch(text) is not None


def read_names(texts: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    """DNS names (a leading `*.` is fine) and IP addresses.

    Raises:
        Refusal: MALFORMED, field `names`.
    """
    names: list[x509.GeneralName] = []
    for text in texts:
        try:
            names.append(x509.IPAddress(ip_address(text)))
        except ValueError:
            if not is_host(text):
                raise malformed("names", f"{text[:80]!r} is neither a DNS name nor an IP address") from None
            names.append(x509.DNSName(text.lower()))
    return tuple(names)
