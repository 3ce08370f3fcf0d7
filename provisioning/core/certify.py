"""What is done with authorities and certificates. Keys are made outside of the transaction: see `make_key`.

authorities   create, import, trust, rotate, distrust; a default one at first start
leaves        issue, renew, re-key, adopt
revocation    revoke, hold, release; predecessors whose successor is in use
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from provisioning.core import chain, pki
from provisioning.core.chain import malformed
from provisioning.core.pki import NOWHERE, Issuer, KeyType, PrivateKey, PublicKey, Request, Urls
from provisioning.model.certificate import (
    NOBODY,
    Authority,
    AuthorityCreated,
    AuthorityDistrusted,
    AuthorityRestored,
    AuthorityRotated,
    Certificate,
    CertificateAdopted,
    CertificateEvent,
    CertificateExpiring,
    CertificateHeld,
    CertificateIssued,
    CertificateReleased,
    CertificateRenewed,
    CertificateRevoked,
    Profile,
    Revocation,
    Status,
    Step,
    after,
)
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import authorities, certificates
from provisioning.store.database import Tx

DEFAULT_NAME: Final = "gatehouse"
AUTHORITY_YEARS: Final = 20
TRIES: Final = 2
"""Serials drawn for one leaf; two of 128 random bits do not meet unless the source of randomness is broken."""
THRESHOLDS: Final = (60, 30, 7)
"""Days before expiry at which a certificate is warned of."""


async def make_key(kind: KeyType = KeyType.P256) -> PrivateKey:
    """A new private key; RSA is made in a thread, so that the loop goes on."""
    if kind in {KeyType.P256, KeyType.P384}:
        return pki.new_key(kind)
    return await asyncio.to_thread(pki.new_key, kind)


# --- authorities -----------------------------------------------------------------------------------------------------


async def create_authority(
    tx: Tx,
    name: str,
    key: PrivateKey,
    *,
    now: datetime,
    common_name: str = "",
    organization: str = "",
    years: int = AUTHORITY_YEARS,
    path_length: int = 0,
    permitted_dns: Sequence[str] = (),
) -> Authority:
    """A new self-signed authority; the first one that can sign is the default.

    Raises:
        Refusal: DUPLICATE, when its name or its subject is taken; MALFORMED.
    """
    _check_name(name)
    await authorities.serialize(tx)
    subject = pki.make_subject(common_name or f"Gatehouse CA {name}", organization)
    if await authorities.find(tx, name):
        raise Refusal(Reason.DUPLICATE, field="authority")
    await _check_new_subject(tx, subject)
    certificate = pki.make_authority(
        subject,
        key,
        now=now,
        years=years,
        serial=pki.new_serial(),
        path_length=path_length,
        permitted_dns=permitted_dns,
    )
    return await _add(tx, name, 1, Issuer(certificate, key))


async def import_authority(tx: Tx, name: str, issuer: Issuer) -> Authority:
    """A company's own authority, as `pki.read_authority` has checked it.

    Raises:
        Refusal: DUPLICATE, when the name is taken (for its next generation: `rotate`) or the certificate is known.
    """
    _check_name(name)
    await authorities.serialize(tx)
    if await authorities.find(tx, name):
        raise Refusal(Reason.DUPLICATE, field="authority")
    return await _add(tx, name, 1, issuer)


async def trust_authority(tx: Tx, name: str, certificate: x509.Certificate) -> Authority:
    """An authority whose key is elsewhere, as `pki.read_anchor` has checked it.

    What it issued is known here only when it is adopted.

    Raises:
        Refusal: DUPLICATE.
    """
    _check_name(name)
    await authorities.serialize(tx)
    if await authorities.find(tx, name):
        raise Refusal(Reason.DUPLICATE, field="authority")
    return await _add(tx, name, 1, certificate)


async def rotate(
    tx: Tx,
    authority: Authority,
    successor: PrivateKey | Issuer | x509.Certificate,
    *,
    now: datetime,
    years: int = AUTHORITY_YEARS,
) -> Authority:
    """The next generation of an authority.

    `successor`: a new key for a self-signed one; what was read for one that others issue. The generation before issues
    no more; it is trusted until it expires, and signs its CRL and OCSP responses as ever.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is retired already; MALFORMED, field `key`, when others issue it and no
            certificate from them comes along; DUPLICATE.
    """
    await authorities.serialize(tx)
    authority = await authorities.lock(tx, authority)
    if authority.retired_at:
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="retired", step="rotate")
    if not isinstance(successor, Issuer | x509.Certificate):
        if authority.chain or not authority.has_key:
            raise malformed(
                "key", f"is not enough: {authority} was issued elsewhere, and so must its next generation be"
            )
        successor = Issuer(_next_generation(authority, successor, now, years), successor)
        await _check_new_subject(tx, successor.certificate.subject)
    await authorities.retire(tx, authority, now)
    new = await _add(tx, authority.name, authority.generation + 1, successor, is_default=authority.is_default)
    tx.emit(AuthorityRotated(device_id=0, identity=NOBODY, serial=new.serial))
    return new


def _next_generation(authority: Authority, key: PrivateKey, now: datetime, years: int) -> x509.Certificate:
    """As the one before, under its own name: a client that looks for the issuer of a certificate finds one."""
    old = pki.read_certificate(authority.certificate)
    base = pki.first_attribute(old.subject, "CN").removesuffix(f" G{authority.generation}")
    own_name = x509.NameAttribute(NameOID.COMMON_NAME, f"{base[:56]} G{authority.generation + 1}")
    basic = chain.extension(old, x509.BasicConstraints)
    constraints = chain.extension(old, x509.NameConstraints)
    trees = constraints.permitted_subtrees or () if isinstance(constraints, x509.NameConstraints) else ()
    return pki.make_authority(
        x509.Name([*(each for each in old.subject if each.oid != NameOID.COMMON_NAME), own_name]),
        key,
        now=now,
        years=years,
        serial=pki.new_serial(),
        path_length=(basic.path_length or 0) if isinstance(basic, x509.BasicConstraints) else 0,
        permitted_dns=[tree.value for tree in trees if isinstance(tree, x509.DNSName)],
    )


async def default_authority(tx: Tx) -> Authority:
    """Raises: Refusal UNKNOWN, when there is none yet."""
    if found := await authorities.default(tx):
        return found
    raise Refusal(Reason.UNKNOWN, authority="default")


async def ensure_default(tx: Tx, key: PrivateKey, *, now: datetime) -> Authority:
    """The default authority, made with `key` when there is none. Of two processes that start at once one makes it."""
    if found := await authorities.default(tx):
        return found
    await authorities.serialize(tx)
    return await authorities.default(tx) or await create_authority(tx, DEFAULT_NAME, key, now=now)


async def set_default(tx: Tx, authority: Authority, *, now: datetime) -> None:
    """Raises: Refusal ILLEGAL_TRANSITION, when it may not issue."""
    await authorities.serialize(tx)
    (await authorities.lock(tx, authority)).check_may_issue(now)
    await authorities.set_default(tx, authority)


async def distrust(tx: Tx, authority: Authority, *, now: datetime) -> Authority:
    """Accept nothing more that it issued. Its CRL and OCSP responses go on.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is distrusted already; IN_USE, when it is the default: rotate it first.
    """
    authority = await authorities.lock(tx, authority)
    if authority.is_default:
        raise Refusal(Reason.IN_USE, authority=str(authority), rule="it is the default: rotate it, or set another one")
    if authority.distrusted_at:
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="distrusted", step="distrust")
    await authorities.distrust(tx, authority, now)
    tx.emit(AuthorityDistrusted(device_id=0, identity=NOBODY, serial=authority.serial))
    return replace(authority, distrusted_at=now)


async def restore(tx: Tx, authority: Authority) -> Authority:
    """Trust it again. Raises: Refusal ILLEGAL_TRANSITION, when it is not distrusted."""
    authority = await authorities.lock(tx, authority)
    if not authority.distrusted_at:
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="trusted", step="restore")
    await authorities.distrust(tx, authority, None)
    tx.emit(AuthorityRestored(device_id=0, identity=NOBODY, serial=authority.serial))
    return replace(authority, distrusted_at=None)


async def authority(tx: Tx, name: str, generation: int | None = None) -> Authority:
    """A generation of an authority, the latest unless stated. Raises: Refusal UNKNOWN."""
    if found := await authorities.find(tx, name, generation):
        return found
    raise Refusal(Reason.UNKNOWN, authority=name if generation is None else f"{name}/{generation}")


async def _check_new_subject(tx: Tx, subject: x509.Name) -> None:
    """Issuer and serial number name a certificate: no two authorities that are made here share their subject."""
    if any(each.subject == subject.rfc4514_string() for each in await authorities.every(tx)):
        raise Refusal(Reason.DUPLICATE, field="subject")


def _check_name(name: str) -> None:
    plain = name.isascii() and name.replace("-", "").isalnum() and name == name.lower() and name[0] != "-"
    if not plain or len(name) > 40:  # noqa: PLR2004 - as the constraint authority_name has it
        raise malformed("name", "must be 1 to 40 lower-case letters, digits and hyphens")


async def _add(
    tx: Tx, name: str, generation: int, what: Issuer | x509.Certificate, *, is_default: bool | None = None
) -> Authority:
    """`is_default` None: when there is no other."""
    issuer, own = (what, what.certificate) if isinstance(what, Issuer) else (None, what)
    der = _der(own)
    if await authorities.by_certificate(tx, der):
        raise Refusal(Reason.DUPLICATE, field="certificate")
    if is_default is None:
        is_default = issuer is not None and await authorities.default(tx) is None
    added = await authorities.add(
        tx,
        Authority(
            name=name, generation=generation, certificate=der,
            chain=tuple(_der(each) for each in issuer.chain) if issuer else (),
            key_type=pki.key_type(pki.check_key(own.public_key(), "certificate")), has_key=issuer is not None,
            serial=pki.write_checked_serial(own.serial_number), subject=own.subject.rfc4514_string(),
            not_before=own.not_valid_before_utc, not_after=own.not_valid_after_utc,
            is_default=is_default and issuer is not None,
        ),
        pki.write_key(issuer.key) if issuer else "",
    )  # fmt: skip
    if generation == 1:
        tx.emit(AuthorityCreated(device_id=0, identity=NOBODY, serial=added.serial))
    return added


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def path_of(authority: Authority) -> list[x509.Certificate]:
    """The authority's certificate and those above it."""
    return [x509.load_der_x509_certificate(der) for der in (authority.certificate, *authority.chain)]


async def signer(tx: Tx, authority: Authority) -> tuple[Issuer, bool]:
    """What signs for the authority, and whether it may still sign certificates, as it stands now.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it has no key here.
    """
    pem, may_issue = await authorities.key(tx, authority)
    if not pem:
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="without a key", step="sign")
    own, *above = path_of(authority)
    return Issuer(own, pki.read_key(pem, ours=True), tuple(above)), may_issue


# --- leaves ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WithKey:
    """A certificate and its private key, which nobody keeps: hand it over now."""

    certificate: Certificate
    key: str = field(repr=False)
    """PKCS#8 PEM."""


async def issue_from_csr(
    tx: Tx,
    authority: Authority,
    request: Request,
    *,
    now: datetime,
    days: int,
    device: Device | None = None,
    profile: Profile = Profile.DEVICE,
    subject: x509.Name | None = None,
    names: Sequence[x509.GeneralName] = (),
    urls: Urls = NOWHERE,
) -> Certificate:
    """A leaf for whoever made the request.

    `subject`: in place of the request's own. `names`: the alternative names that it gets; those that the request asks
    for count only when the caller passes them on.

    Raises:
        Refusal: MALFORMED, as `pki.issue`; ILLEGAL_TRANSITION, when the authority may not issue; IN_USE from the
            transaction, when the device was deleted just now.
    """
    subject = request.subject if subject is None else subject
    issued = await _issue(
        tx,
        authority,
        request.key,
        subject,
        now=now,
        days=days,
        owner=_owner(device),
        profile=profile,
        names=names,
        urls=urls,
    )
    _tell(tx, CertificateIssued, issued)
    return issued


async def check_name_is_free(tx: Tx, common_name: str, *, now: datetime) -> None:
    """Before an issue under a common name that must be unique; holds the name until the transaction ends.

    Raises:
        Refusal: DUPLICATE, field `cn`: a certificate that is not revoked has it.
    """
    await certificates.lock_name(tx, common_name)
    if await certificates.is_name_in_use(tx, common_name, now):
        raise Refusal(Reason.DUPLICATE, field="cn")


async def issue_with_key(
    tx: Tx,
    authority: Authority,
    key: PrivateKey,
    subject: x509.Name,
    *,
    now: datetime,
    days: int,
    device: Device | None = None,
    profile: Profile = Profile.DEVICE,
    names: Sequence[x509.GeneralName] = (),
    urls: Urls = NOWHERE,
) -> WithKey:
    """A leaf for a key that was made for it (`make_key`). The key is returned once and never stored.

    Raises:
        Refusal: as `issue_from_csr`.
    """
    issued = await _issue(
        tx, authority, key.public_key(), subject, now=now, days=days, owner=_owner(device), profile=profile,
        names=names, urls=urls,
    )  # fmt: skip
    _tell(tx, CertificateIssued, issued)
    return WithKey(issued, pki.write_key(key))


async def renew(
    tx: Tx, authority: Authority, certificate: Certificate, *, now: datetime, days: int, urls: Urls = NOWHERE
) -> Certificate:
    """The same key, subject and names under a new serial number.

    The certificate before stays valid: see `revoke_replaced`. An expired one may be renewed; whether its holder may ask
    is for the caller to judge.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is held or revoked; as `issue_from_csr`.
    """
    return await _succeed(tx, authority, certificate, None, now=now, days=days, urls=urls)


async def rekey(
    tx: Tx, authority: Authority, certificate: Certificate, request: Request, *, now: datetime, days: int,
    urls: Urls = NOWHERE,
) -> Certificate:  # fmt: skip
    """A new key under the same subject and names, which the request must repeat (RFC 7030, 4.2.2).

    Raises:
        Refusal: MALFORMED, field `csr`, when subject, names or key do not do; as `renew`.
    """
    old = pki.read_certificate(certificate.der)
    if request.subject != old.subject:
        raise malformed("csr", "must have the subject of the certificate that it replaces")
    if set(request.names) != set(chain.alternative_names(old)):
        raise malformed("csr", "must have the alternative names of the certificate that it replaces")
    if request.key == old.public_key():
        raise malformed("csr", "has the key of the certificate that it replaces: renew it instead")
    return await _succeed(tx, authority, certificate, request.key, now=now, days=days, urls=urls)


async def adopt(
    tx: Tx, authority: Authority, certificate: x509.Certificate, *, now: datetime, device: Device | None
) -> Certificate:
    """Take a device certificate that others issued into the inventory. Its authority must be trusted here.

    Raises:
        Refusal: MALFORMED, field `certificate`: its path does not hold; DUPLICATE, field `certificate`: it is known.
    """
    own, *above = path_of(authority)
    chain.verify_leaf(certificate, [own], now, pool=above, profile=Profile.DEVICE)
    pki.check_key(certificate.public_key(), "certificate")
    pki.write_checked_serial(certificate.serial_number)
    added = await certificates.add(tx, inventory_row(authority, certificate, _owner(device), Profile.DEVICE))
    if added is None:
        raise Refusal(Reason.DUPLICATE, field="certificate")
    _tell(tx, CertificateAdopted, added)
    return added


def bundle(authority: Authority, certificate: Certificate) -> str:
    """PEM: the certificate, its authority and those above it but the anchor (RFC 8446, 4.4.2: it may be left out)."""
    above = (authority.certificate, *authority.chain)
    return pki.write_pem(certificate.der, *above[:-1])


Owner = tuple[int | None, Identity | None]


def _owner(device: Device | None) -> Owner:
    return (device.id, device.identity) if device else (None, None)


async def _issue(
    tx: Tx, authority: Authority, key: PublicKey, subject: x509.Name, *, now: datetime, days: int,
    owner: Owner, profile: Profile, names: Sequence[x509.GeneralName], urls: Urls,
) -> Certificate:  # fmt: skip
    authority.check_may_issue(now)
    issuer, may_issue = await signer(tx, authority)
    if not may_issue:  # since it was read
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="retired or distrusted", step="issue")
    for _ in range(TRIES):
        leaf = pki.issue(
            issuer, key, subject, profile=profile, now=now, days=days, serial=pki.new_serial(), names=names, urls=urls
        )
        if added := await certificates.add(tx, inventory_row(authority, leaf, owner, profile)):
            return added
    raise Refusal(Reason.INTERNAL, error="two random serial numbers were taken: is the source of randomness sound?")


def inventory_row(authority: Authority, leaf: x509.Certificate, owner: Owner, profile: Profile) -> Certificate:
    der = _der(leaf)
    return Certificate(
        authority_id=authority.id, serial=pki.write_serial(leaf.serial_number), fingerprint=pki.fingerprint(der),
        der=der, profile=profile, cn=pki.first_attribute(leaf.subject, "CN"), not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc, device_id=owner[0], identity=owner[1],
    )  # fmt: skip


async def _succeed(
    tx: Tx, authority: Authority, certificate: Certificate, key: PublicKey | None, *, now: datetime, days: int,
    urls: Urls,
) -> Certificate:  # fmt: skip
    certificate = await certificates.lock_with_device(tx, certificate)
    after(certificate.status, Step.RENEW)
    old = pki.read_certificate(certificate.der)
    key = key or pki.check_key(old.public_key(), "certificate")
    issued = await _issue(
        tx, authority, key, old.subject, now=now, days=days, owner=(certificate.device_id, certificate.identity),
        profile=certificate.profile, names=chain.alternative_names(old), urls=urls,
    )  # fmt: skip
    await certificates.supersede(tx, certificate, issued)
    _tell(tx, CertificateRenewed, issued)
    return issued


def _tell(tx: Tx, kind: type[CertificateEvent], certificate: Certificate) -> None:
    tx.emit(
        kind(device_id=certificate.device_id or 0, identity=certificate.identity or NOBODY, serial=certificate.serial)
    )


# --- inventory and revocation ----------------------------------------------------------------------------------------


async def certificate(tx: Tx, serial: str, authority: Authority | None = None) -> Certificate:
    """By serial number, in any form that people paste.

    Raises:
        Refusal: MALFORMED; UNKNOWN; DUPLICATE, field `serial`: several authorities have issued it, so state which.
    """
    serial = pki.read_serial(serial)
    found = [
        each for each in await certificates.by_serial(tx, serial) if not authority or each.authority_id == authority.id
    ]
    if not found:
        raise Refusal(Reason.UNKNOWN, certificate=serial)
    if len(found) > 1:
        raise Refusal(Reason.DUPLICATE, field="serial")
    return found[0]


async def revoke(
    tx: Tx, certificate: Certificate, *, now: datetime, reason: Revocation = Revocation.UNSPECIFIED
) -> Certificate:
    """For good. Of a held one, the time of the hold stays the time since when it is bad.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is revoked already.
    """
    return await _step(tx, certificate, Step.REVOKE, CertificateRevoked, now=now, reason=reason)


async def hold(tx: Tx, certificate: Certificate, *, now: datetime) -> Certificate:
    """Not to be trusted until it is released. Raises: Refusal ILLEGAL_TRANSITION."""
    return await _step(tx, certificate, Step.HOLD, CertificateHeld, now=now)


async def release(tx: Tx, certificate: Certificate, *, now: datetime) -> Certificate:
    """End a hold. Raises: Refusal ILLEGAL_TRANSITION."""
    return await _step(tx, certificate, Step.RELEASE, CertificateReleased, now=now)


async def _step(
    tx: Tx, certificate: Certificate, step: Step, kind: type[CertificateEvent], *, now: datetime,
    reason: Revocation | None = None,
) -> Certificate:  # fmt: skip
    certificate = await certificates.lock(tx, certificate)
    status = after(certificate.status, step)
    since = None if status is Status.VALID else certificate.revoked_at or now
    certificate = replace(certificate, status=status, reason=reason, revoked_at=since)
    await certificates.set_status(tx, certificate)
    _tell(tx, kind, certificate)
    return certificate


async def revoke_of_device(
    tx: Tx, device_id: int, *, now: datetime, reason: Revocation = Revocation.CESSATION_OF_OPERATION
) -> list[Certificate]:
    """All that the device still has: before it is deleted, or when it is given away."""
    return [await revoke(tx, each, now=now, reason=reason) for each in await certificates.lock_of_device(tx, device_id)]


async def revoke_predecessor(tx: Tx, certificate: Certificate, *, now: datetime) -> Certificate:
    """Revoke a certificate because another has taken its place, once that other one is in use.

    Raises:
        Refusal: IN_USE, when no successor has been seen since the device last used this one; ILLEGAL_TRANSITION.
    """
    certificate = await certificates.lock(tx, certificate)
    after(certificate.status, Step.REVOKE)
    if not await certificates.is_successor_seen(tx, certificate, now):
        raise Refusal(Reason.IN_USE, certificate=certificate.serial, rule="its successor has not been seen in use")
    return await revoke(tx, certificate, now=now, reason=Revocation.SUPERSEDED)


async def revoke_replaced(tx: Tx, *, now: datetime, limit: int = 500) -> list[Certificate]:
    """Revoke every predecessor whose successor is in use; one without is left alone, so that nobody is stranded."""
    done = []
    for each in await certificates.replaced(tx, now, limit):
        try:
            done.append(await revoke_predecessor(tx, each, now=now))
        except Refusal as refusal:  # another process was faster, or the device has gone back to it just now
            if refusal.reason not in {Reason.IN_USE, Reason.ILLEGAL_TRANSITION}:
                raise
    return done


async def warn_expiring(
    tx: Tx, *, now: datetime, thresholds: Sequence[int] = THRESHOLDS, limit: int = 500
) -> list[Certificate]:
    """Tell of the certificates that have reached one more threshold (days before expiry).

    Each is told once for each threshold, whichever process asks. Call again as long as it returns `limit` of them.
    """
    due = await certificates.take_expiring(tx, now, thresholds, limit)
    for each in due:
        _tell(tx, CertificateExpiring, each)
    return due
