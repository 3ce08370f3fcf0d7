"""What authorities sign with, and the certificates that they sign: authorities and leaves. Source: RFC 5280.

Everything is a function of its arguments: the clock, the serial number and the keys come from outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID

from provisioning.core import chain, pki
from provisioning.core.chain import UNREADABLE, malformed, words
from provisioning.core.pki import PrivateKey, PublicKey
from provisioning.model.certificate import Profile
from provisioning.model.refusal import Reason, Refusal

BACKDATE: Final = timedelta(minutes=5)
"""Devices have clocks of their own: a certificate is valid a little before it is made."""
MOST_DAYS: Final = 36_500


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
    serial: int,
    years: int = 0,
    days: int = 0,
    path_length: int = 0,
    permitted_dns: Sequence[str] = (),
) -> x509.Certificate:
    """A self-signed authority.

    Valid for `years` of 365 days and `days`. `path_length`: how many authorities may stand below it. `permitted_dns`:
    the only DNS trees that it may certify; empty: any.

    Raises:
        Refusal: MALFORMED, fields `years`, `path_length`, `subject` or `names`.
    """
    life = 365 * years + days
    if not 1 <= life <= MOST_DAYS:
        raise malformed("years", f"must be 1 to {MOST_DAYS // 365}")
    if not 0 <= path_length < chain.LONGEST:
        raise malformed("path_length", f"must be 0 to {chain.LONGEST - 1}")
    pki.check_subject(subject)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=life))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if permitted_dns:
        trees = pki.read_names([name.removeprefix(".") for name in permitted_dns])
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
    signer = pki.read_key(key, password)
    own, *above = pki.read_certificates(certificate)
    above += pki.read_certificates(others, "chain") if others else []
    stated = pki.read_certificates(anchor, "anchor") if anchor else None
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
    own = pki.read_certificate(certificate)
    try:
        _check_trusted(own, [], [own], now)
    except UNREADABLE as error:
        raise malformed("certificate", f"cannot be read: {error}"[:200]) from None
    return own


def _check_trusted(
    own: x509.Certificate, above: list[x509.Certificate], anchors: list[x509.Certificate] | None, now: datetime
) -> list[x509.Certificate]:
    pki.check_key(own.public_key(), "certificate")
    pki.write_checked_serial(own.serial_number)
    chain.check_authority(own, "certificate")
    path = chain.climb(own, [own, *above], anchors, now)
    if path is None:
        end = "the anchor that was stated" if anchors else "a self-signed certificate"
        raise malformed("chain", f"does not lead from {words(own.subject)} (issued by {words(own.issuer)}) to {end}")
    chain.check_path([own, *path], now, "chain" if path else "certificate")
    if strange := [each for each in above if each not in (own, *path) and each not in (anchors or ())]:
        raise malformed("chain", f"holds {words(strange[0].subject)}, which is not above {words(own.subject)}")
    return path


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
    pki.check_key(key, "key")
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
    pki.check_subject(subject)
    if len(names) > pki.MOST_NAMES:
        raise malformed("names", f"are more than {pki.MOST_NAMES}")
    kinds = (x509.DNSName, x509.IPAddress, x509.UniformResourceIdentifier, x509.RFC822Name)
    if strange := next((name for name in names if not isinstance(name, kinds)), None):
        raise malformed("names", f"of the kind {type(strange).__name__} are not certified")
    for name in names:
        value = name.value
        if isinstance(value, str) and not (value.isascii() and value.isprintable() and " " not in value):
            raise malformed("names", "have characters that do not belong there")
        if isinstance(name, x509.DNSName) and not pki.is_host(name.value):
            raise malformed("names", f"have {name.value[:80]!r}, which is not a DNS name")
    if profile is Profile.SERVER and not names:
        raise malformed("names", "must have a DNS name or an IP address: clients look at nothing else")


def authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """From the issuer's own identifier where it has one: it need not be the hash of its key (RFC 5280, 4.2.1.1)."""
    own = chain.extension(issuer, x509.SubjectKeyIdentifier)
    if isinstance(own, x509.SubjectKeyIdentifier):
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(pki.check_key(issuer.public_key(), "certificate"))


def _usage(*, sign_certificates: bool = False, encipher: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates, content_commitment=False, key_encipherment=encipher,
        data_encipherment=False, key_agreement=False, key_cert_sign=sign_certificates, crl_sign=sign_certificates,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
