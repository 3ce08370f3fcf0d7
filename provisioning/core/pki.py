"""X.509 without storage: keys, requests, authorities, leaves. Sources: RFC 5280 (profile), RFC 2986 (requests).

Everything is a function of its arguments: the clock, the serial number and the keys come from outside.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from provisioning.core import chain
from provisioning.core.chain import UNREADABLE, malformed, words
from provisioning.model.certificate import Profile
from provisioning.model.refusal import Reason, Refusal

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

SERIAL_BITS: Final = 128
MOST_SERIAL_BITS: Final = 159
"""20 octets with a sign bit (RFC 5280, 4.1.2.2)."""
BACKDATE: Final = timedelta(minutes=5)
"""Devices have clocks of their own: a certificate is valid a little before it is made."""
MOST_DAYS: Final = 36_500
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
    """Blocks: RSA takes a good part of a second. On a loop, ask `certify.make_key`."""
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


# --- authorities -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority that can sign."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...] = ()
    """From its issuer up to an anchor; empty for a self-signed one."""

    @property
    def path(self) -> tuple[x509.Certificate, ...]:
        return (self.certificate, *self.chain)


def digest_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    large = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)
    return hashes.SHA384() if large else hashes.SHA256()


def make_authority(
    subject: x509.Name,
    key: PrivateKey,
    *,
    now: datetime,
    years: int,
    serial: int,
    path_length: int = 0,
    permitted_dns: Sequence[str] = (),
) -> x509.Certificate:
    """A self-signed authority.

    `path_length`: how many authorities may stand below it. `permitted_dns`: the only DNS trees that it may certify;
    empty: any.

    Raises:
        Refusal: MALFORMED, fields `years`, `path_length`, `subject` or `names`.
    """
    if not 1 <= years <= MOST_DAYS // 365:
        raise malformed("years", f"must be 1 to {MOST_DAYS // 365}")
    if not 0 <= path_length < chain.LONGEST:
        raise malformed("path_length", f"must be 0 to {chain.LONGEST - 1}")
    check_subject(subject)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=365 * years))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if permitted_dns:
        trees = read_names([name.removeprefix(".") for name in permitted_dns])
        if not all(isinstance(tree, x509.DNSName) for tree in trees):
            raise malformed("names", "must be DNS names: an authority is kept to trees of them")
        builder = builder.add_extension(x509.NameConstraints(trees, None), critical=True)
    return builder.sign(key, digest_for(key))


def read_authority(
    certificate: bytes | str,
    key: bytes | str,
    *,
    now: datetime,
    others: bytes | str = b"",
    anchor: bytes | str = b"",
    password: bytes | None = None,
) -> Issuer:
    """A company's own authority. Blocks for a good part of a second when its key is RSA.

    `certificate`: PEM, its own certificate first; those above it come after it or in `others`, in any order. The chain
    must end at a self-signed certificate, or at `anchor` where that is stated.

    Raises:
        Refusal: MALFORMED with the field and the rule that is broken.
    """
    signer = read_key(key, password)
    own, *above = read_certificates(certificate)
    above += read_certificates(others, "chain") if others else []
    stated = read_certificates(anchor, "anchor") if anchor else None
    if own.public_key() != signer.public_key():
        raise malformed("key", f"is not the key of {words(own.subject)}")
    try:
        path = _check_trusted(own, above, stated, now)
        usage = chain.extension(own, x509.KeyUsage)
        if not isinstance(usage, x509.KeyUsage) or not usage.crl_sign:
            raise malformed(
                "certificate", "may not sign CRLs: keyUsage must have cRLSign, or nobody hears of a revocation"
            )
    except UNREADABLE as error:
        raise malformed("certificate", f"cannot be read: {error}"[:200]) from None
    return Issuer(own, signer, tuple(path))


def read_anchor(certificate: bytes | str, *, now: datetime) -> x509.Certificate:
    """An authority that is trusted because an operator says so; its key is elsewhere.

    Raises:
        Refusal: MALFORMED.
    """
    own = read_certificate(certificate)
    try:
        _check_trusted(own, [], [own], now)
    except UNREADABLE as error:
        raise malformed("certificate", f"cannot be read: {error}"[:200]) from None
    return own


def _check_trusted(
    own: x509.Certificate, above: list[x509.Certificate], anchors: list[x509.Certificate] | None, now: datetime
) -> list[x509.Certificate]:
    check_key(own.public_key(), "certificate")
    write_checked_serial(own.serial_number)
    chain.check_authority(own, "certificate")
    path = chain.climb(own, [own, *above], anchors, now)
    if path is None:
        end = "the anchor that was stated" if anchors else "a self-signed certificate"
        raise malformed("chain", f"does not lead from {words(own.subject)} (issued by {words(own.issuer)}) to {end}")
    chain.check_path([own, *path], now, "chain" if path else "certificate")
    if strange := [each for each in above if each not in (own, *path) and each not in (anchors or ())]:
        raise malformed("chain", f"holds {words(strange[0].subject)}, which is not above {words(own.subject)}")
    return path


def write_checked_serial(serial: int, field: str = "certificate") -> str:
    """As `write_serial`, for a serial number that others made.

    Raises:
        Refusal: MALFORMED: not positive, or longer than 20 octets.
    """
    if serial <= 0 or serial.bit_length() > MOST_SERIAL_BITS:
        raise malformed(field, "has a serial number that is not positive or has more than 20 octets")
    return write_serial(serial)


# --- leaves ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Where the issuer publishes; empty: not stated in the certificate."""

    crl: str = ""
    ocsp: str = ""
    ca: str = ""
    """Of the issuer's certificate in DER."""


NOWHERE: Final = Urls()


def issue(
    issuer: Issuer,
    key: PublicKey,
    subject: x509.Name,
    *,
    profile: Profile,
    now: datetime,
    days: int,
    serial: int,
    names: Sequence[x509.GeneralName] = (),
    urls: Urls = NOWHERE,
) -> x509.Certificate:
    """A leaf. It is never valid outside the validity of its issuer, whatever `days` says.

    Raises:
        Refusal: MALFORMED: `key`, `days`, `subject` or `names` are not acceptable, or an authority on the path forbids
            it; ILLEGAL_TRANSITION, when the issuer is not valid now.
    """
    check_key(key, "key")
    if not 1 <= days <= MOST_DAYS:
        raise malformed("days", f"must be 1 to {MOST_DAYS}")
    _check_named(subject, names, profile)
    own = issuer.certificate
    if not own.not_valid_before_utc <= now < own.not_valid_after_utc:
        state = "expired" if now >= own.not_valid_after_utc else "not yet valid"
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=words(own.subject), state=state, step="issue")
    chain.check_names(issuer.path, subject, names)
    chain.check_purpose(issuer.path, profile, "profile")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(own.subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(max(now - BACKDATE, own.not_valid_before_utc))
        .not_valid_after(min(now + timedelta(days=days), *(each.not_valid_after_utc for each in issuer.path)))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(encipher=profile is Profile.SERVER and isinstance(key, rsa.RSAPublicKey)), critical=True)
        .add_extension(x509.ExtendedKeyUsage([chain.PURPOSES[profile]]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority_key_id(own), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if profile is Profile.OCSP:
        # RFC 6960, 4.2.2.2.1: nobody asks whether the responder is revoked; its short life bounds the harm.
        return builder.add_extension(x509.OCSPNoCheck(), critical=False).sign(issuer.key, digest_for(issuer.key))
    if urls.crl:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(urls.crl)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
        for method, url in (
            (AuthorityInformationAccessOID.OCSP, urls.ocsp), (AuthorityInformationAccessOID.CA_ISSUERS, urls.ca),
        ) if url
    ]  # fmt: skip
    if access:
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
    return builder.sign(issuer.key, digest_for(issuer.key))


def _check_named(subject: x509.Name, names: Sequence[x509.GeneralName], profile: Profile) -> None:
    if not subject.rdns:
        raise malformed("subject", "is empty")
    check_subject(subject)
    if len(names) > MOST_NAMES:
        raise malformed("names", f"are more than {MOST_NAMES}")
    kinds = (x509.DNSName, x509.IPAddress, x509.UniformResourceIdentifier, x509.RFC822Name)
    if strange := next((name for name in names if not isinstance(name, kinds)), None):
        raise malformed("names", f"of the kind {type(strange).__name__} are not certified")
    for name in names:
        value = name.value
        if isinstance(value, str) and not (value.isascii() and value.isprintable() and " " not in value):
            raise malformed("names", "have characters that do not belong there")
        if isinstance(name, x509.DNSName) and not is_host(name.value):
            raise malformed("names", f"have {name.value[:80]!r}, which is not a DNS name")
    if profile is Profile.SERVER and not names:
        raise malformed("names", "must have a DNS name or an IP address: clients look at nothing else")


def authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """From the issuer's own identifier where it has one: it need not be the hash of its key (RFC 5280, 4.2.1.1)."""
    own = chain.extension(issuer, x509.SubjectKeyIdentifier)
    if isinstance(own, x509.SubjectKeyIdentifier):
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(check_key(issuer.public_key(), "certificate"))


def _usage(*, sign_certificates: bool = False, encipher: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates, content_commitment=False, key_encipherment=encipher,
        data_encipherment=False, key_agreement=False, key_cert_sign=sign_certificates, crl_sign=sign_certificates,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
