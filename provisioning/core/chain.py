"""Certification paths: build, check, and what the authorities above forbid. Pure. Source: RFC 5280, 4.2 and 6.1.

Stricter than the RFC where that costs nobody anything: each authority needs keyUsage with keyCertSign, extended key
usages of authorities bind what is below (as OpenSSL has it), and policy constraints are refused because no policies are
issued.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from provisioning.model.certificate import Profile
from provisioning.model.refusal import Reason, Refusal

LONGEST: Final = 8
"""Certificates in a path, leaf included."""
LARGEST_POOL: Final = 32
UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension,
                     x509.UnsupportedGeneralNameType, x509.InvalidVersion, OverflowError, UserWarning)  # fmt: skip
"""What cryptography raises at bytes that are not what they should be; warnings, where those are errors."""
# Said of other people's names while they are read; they are refused, which says it to whom it concerns.
warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)
DIGESTS: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
PURPOSES: Final[Mapping[Profile, x509.ObjectIdentifier]] = {
    Profile.DEVICE: ExtendedKeyUsageOID.CLIENT_AUTH,
    Profile.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Profile.OCSP: ExtendedKeyUsageOID.OCSP_SIGNING,
}
UNDERSTOOD: Final = frozenset({
    ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.NAME_CONSTRAINTS, ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.CERTIFICATE_POLICIES,
    ExtensionOID.INHIBIT_ANY_POLICY,
})  # fmt: skip
HOST_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+\.?", re.IGNORECASE | re.ASCII)


def malformed(name: str, rule: str) -> Refusal:
    return Refusal(Reason.MALFORMED, field=name, rule=rule)


def words(name: x509.Name) -> str:
    """A distinguished name for people, RFC 4514, cut to a line."""
    return name.rfc4514_string()[:120] or "(no subject)"


# --- one certificate -------------------------------------------------------------------------------------------------


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.ExtensionType | None:
    """Raises: ValueError and its kin (`UNREADABLE`) when the extensions cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def is_self_signed(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and is_issued_by(certificate, certificate)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Do the names match, and does the signature hold?"""
    try:
        certificate.verify_directly_issued_by(issuer)
    except UNREADABLE:
        return False
    return True


def check_time(certificate: x509.Certificate, now: datetime, field: str) -> None:
    """Raises: Refusal MALFORMED, when it is not valid now."""
    who = words(certificate.subject)
    if now < certificate.not_valid_before_utc:
        raise malformed(field, f"{who} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
    if now > certificate.not_valid_after_utc:
        raise malformed(field, f"{who} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")


def check_authority(certificate: x509.Certificate, field: str) -> None:
    """Raises: Refusal MALFORMED, when it may not sign certificates."""
    who = words(certificate.subject)
    basic = extension(certificate, x509.BasicConstraints)
    if not isinstance(basic, x509.BasicConstraints) or not basic.ca:
        raise malformed(field, f"{who} is not an authority: basicConstraints must say CA:TRUE")
    usage = extension(certificate, x509.KeyUsage)
    if not isinstance(usage, x509.KeyUsage) or not usage.key_cert_sign:
        raise malformed(field, f"{who} may not sign certificates: keyUsage must have keyCertSign")


def _check_extensions(certificate: x509.Certificate, field: str) -> None:
    for each in certificate.extensions:
        if each.critical and each.oid not in UNDERSTOOD:
            name = each.oid._name if each.oid._name != "Unknown OID" else each.oid.dotted_string  # noqa: SLF001 - no public name
            raise malformed(
                field, f"{words(certificate.subject)} has a critical extension that is not understood: {name}"
            )


def _check_digest(certificate: x509.Certificate, field: str) -> None:
    if not isinstance(certificate.signature_hash_algorithm, DIGESTS):
        raise malformed(field, f"{words(certificate.subject)} must be signed with SHA-256, SHA-384 or SHA-512")


# --- paths -----------------------------------------------------------------------------------------------------------


def climb(
    certificate: x509.Certificate,
    pool: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate] | None,
    now: datetime,
) -> list[x509.Certificate] | None:
    """The authorities above `certificate`, nearest first, the last one an anchor; None: there is no such path.

    `anchors` None: any self-signed certificate of the pool will do. Each certificate is tried once, those that are
    valid now first, so that the work is bounded whatever the pool holds.
    """
    ends = [each for each in pool if is_self_signed(each)] if anchors is None else list(anchors)
    if certificate in ends:
        return []
    untried = [*ends, *(each for each in pool if each not in ends)]
    untried.sort(key=lambda each: not each.not_valid_before_utc <= now <= each.not_valid_after_utc)
    return _climb(certificate, untried, ends, LONGEST - 1)


def _climb(
    certificate: x509.Certificate, untried: list[x509.Certificate], ends: list[x509.Certificate], room: int
) -> list[x509.Certificate] | None:
    if not room:
        return None
    for candidate in list(untried):
        if (
            candidate not in untried
            or candidate.subject != certificate.issuer
            or not is_issued_by(certificate, candidate)
        ):
            continue
        untried.remove(candidate)
        if candidate in ends:
            return [candidate]
        if (rest := _climb(candidate, untried, ends, room - 1)) is not None:
            return [candidate, *rest]
    return None


def check_path(path: Sequence[x509.Certificate], now: datetime, field: str) -> None:
    """May a leaf stand below `path`, the authorities from the issuing one up to the anchor?

    Raises:
        Refusal: MALFORMED with words: not an authority, not valid now, weak signature, too long, a forbidden name.
    """
    below = 0
    for index, each in enumerate(path):
        check_authority(each, field)
        check_time(each, now, field)
        _check_extensions(each, field)
        if index < len(path) - 1:  # nobody needs the signature of an anchor
            _check_digest(each, field)
            check_names(path[index + 1 :], each.subject, (), field)
        basic = extension(each, x509.BasicConstraints)
        assert isinstance(basic, x509.BasicConstraints)
        if basic.path_length is not None and below > basic.path_length:
            raise malformed(
                field, f"{words(each.subject)} allows {basic.path_length} authorities below it, and here are {below}"
            )
        below += each.subject != each.issuer  # self-issued ones do not count: RFC 5280, 6.1.4 (l)


def check_purpose(path: Iterable[x509.Certificate], profile: Profile, field: str) -> None:
    """Raises: Refusal MALFORMED, when an authority of `path` is kept to other extended key usages."""
    for each in path:
        usage = extension(each, x509.ExtendedKeyUsage)
        allowed = set(usage) if isinstance(usage, x509.ExtendedKeyUsage) else None
        if allowed is not None and not allowed & {PURPOSES[profile], ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}:
            raise malformed(
                field, f"{words(each.subject)} may not issue for the profile {profile}: its extendedKeyUsage"
            )


def verify_leaf(
    leaf: x509.Certificate,
    anchors: Sequence[x509.Certificate],
    now: datetime,
    *,
    pool: Sequence[x509.Certificate] = (),
    profile: Profile | None = None,
) -> list[x509.Certificate]:
    """The path from the issuer of `leaf` up to one of `anchors`, checked; `pool`: other authorities that may be on it.

    Says nothing about revocation.

    Raises:
        Refusal: MALFORMED, field `certificate`, with the rule that is broken.
    """
    field = "certificate"
    try:
        if len(pool) + len(anchors) > LARGEST_POOL:
            raise malformed(field, f"comes with more than {LARGEST_POOL} authorities")
        check_time(leaf, now, field)
        _check_extensions(leaf, field)
        _check_digest(leaf, field)
        path = climb(leaf, pool, anchors, now)
        if not path:
            issuer = words(leaf.issuer)
            raise malformed(
                field, "is self-signed" if is_self_signed(leaf) else f"was issued by {issuer}, which is not trusted"
            )
        check_path(path, now, field)
        check_names(path, leaf.subject, alternative_names(leaf), field)
        usage = extension(leaf, x509.ExtendedKeyUsage)
        if profile and isinstance(usage, x509.ExtendedKeyUsage) and PURPOSES[profile] not in usage:
            raise malformed(field, f"is not for the profile {profile}: its extendedKeyUsage")
        if profile:
            check_purpose(path, profile, field)
    except UNREADABLE as error:
        raise malformed(field, f"cannot be read: {error}"[:200]) from None
    return path


def alternative_names(of: x509.Certificate | x509.CertificateSigningRequest) -> tuple[x509.GeneralName, ...]:
    """The subject alternative names."""
    try:
        return tuple(of.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


# --- name constraints (RFC 5280, 4.2.1.10) ---------------------------------------------------------------------------


def check_names(
    path: Iterable[x509.Certificate], subject: x509.Name, names: Sequence[x509.GeneralName], field: str = "names"
) -> None:
    """Raises: Refusal MALFORMED, when an authority of `path` forbids a name."""
    claimed = _claimed(subject, names)
    for each in path:
        constraints = extension(each, x509.NameConstraints)
        if not isinstance(constraints, x509.NameConstraints):
            continue
        for name in claimed:
            permitted = [c for c in constraints.permitted_subtrees or () if type(c) is type(name)]
            excluded = [c for c in constraints.excluded_subtrees or () if type(c) is type(name)]
            if (permitted and not any(_within(name, c) for c in permitted)) or any(_touches(name, c) for c in excluded):
                value = words(name.value) if isinstance(name, x509.DirectoryName) else name.value
                raise malformed(field, f"{words(each.subject)} may not certify the name {str(value)[:120]}")


def _claimed(subject: x509.Name, names: Sequence[x509.GeneralName]) -> list[x509.GeneralName]:
    """All names that the constraints speak of: those of the subject count as well.

    A common name that looks like a host name is one as long as no DNS name is stated: clients take it for one, and
    OpenSSL checks it.
    """
    claimed = list(names)
    if subject.rdns:
        claimed.append(x509.DirectoryName(subject))
    for each in subject:
        value = each.value if isinstance(each.value, str) else ""
        if each.oid == NameOID.EMAIL_ADDRESS:
            claimed.append(_mail_name(value))
        elif (
            each.oid == NameOID.COMMON_NAME
            and HOST_NAME.fullmatch(value)
            and not any(isinstance(name, x509.DNSName) for name in names)
        ):
            claimed.append(x509.DNSName(value))
    return claimed


def _mail_name(value: str) -> x509.RFC822Name:
    try:
        if "@" in value:
            return x509.RFC822Name(value)
    except ValueError:
        pass
    raise malformed("subject", "has an emailAddress that is not a mail address in ASCII")


def _below(host: str, tree: str) -> bool:
    host, tree = host.lower().rstrip("."), tree.lower().rstrip(".")
    return not tree or host == tree or host.endswith(tree if tree.startswith(".") else f".{tree}")


def _host_in(host: str, constraint: str) -> bool:
    """Mail and URI: a leading dot means the hosts below, otherwise it is one host."""
    return _below(host, constraint) if constraint.startswith(".") else host.lower() == constraint.lower()


def _mailbox_in(address: str, constraint: str) -> bool:
    """A constraint with `@` is one mailbox; the part before it has letters of two cases."""
    box, _, host = address.rpartition("@")
    wanted, at, wanted_host = constraint.rpartition("@")
    return box == wanted and host.lower() == wanted_host.lower() if at else _host_in(host, constraint)


def _within(name: x509.GeneralName, constraint: x509.GeneralName) -> bool:
    match name, constraint:
        case x509.DNSName(), x509.DNSName():
            return _below(name.value, constraint.value)
        case x509.IPAddress(), x509.IPAddress():
            return _in_network(name.value, constraint.value)
        case x509.RFC822Name(), x509.RFC822Name():
            return _mailbox_in(name.value, constraint.value)
        case x509.UniformResourceIdentifier(), x509.UniformResourceIdentifier():
            return bool(host := _uri_host(name.value)) and _host_in(host, constraint.value)
        case x509.DirectoryName(), x509.DirectoryName():
            tree = _plain(constraint.value)
            return _plain(name.value)[: len(tree)] == tree
    return False


def _touches(name: x509.GeneralName, constraint: x509.GeneralName) -> bool:
    """As `_within`, for what is excluded: whatever cannot be told from it counts."""
    if _within(name, constraint):
        return True
    if isinstance(name, x509.DNSName) and isinstance(constraint, x509.DNSName) and name.value.startswith("*."):
        return _below(constraint.value.removeprefix("."), name.value[2:])
    if isinstance(name, x509.UniformResourceIdentifier):
        return not _uri_host(name.value)
    known = x509.DNSName | x509.IPAddress | x509.RFC822Name | x509.DirectoryName
    return not isinstance(name, known)


def _in_network(address: object, network: object) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(address, IPv4Address) and address in network
    return isinstance(network, IPv6Network) and isinstance(address, IPv6Address) and address in network


def _uri_host(uri: str) -> str:
    """Empty when there is none, or when it is an address."""
    try:
        host = urlsplit(uri).hostname or ""
    except ValueError:
        return ""
    try:
        ip_address(host)
    except ValueError:
        return host
    return ""


def _plain(name: x509.Name) -> list[frozenset[tuple[str, str]]]:
    """RFC 5280, 7.1: case and runs of spaces do not matter."""
    return [
        frozenset((each.oid.dotted_string, " ".join(str(each.value).casefold().split())) for each in rdn)
        for rdn in name.rdns
    ]
