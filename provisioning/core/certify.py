"""Leaves: issue, renew, re-key, adopt. Keys are made outside of the transaction: see `ca.make_key`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from provisioning.core import ca, chain, inventory, pki, signing
from provisioning.core.chain import malformed
from provisioning.core.pki import PrivateKey, PublicKey, Request
from provisioning.core.signing import NOWHERE, Urls
from provisioning.model.certificate import (
    Authority,
    Certificate,
    CertificateAdopted,
    CertificateIssued,
    CertificateRenewed,
    Profile,
    Step,
    after,
)
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import certificates
from provisioning.store.database import Tx

TRIES: Final = 2
"""Serials drawn for one leaf; two of 128 random bits do not meet unless the source of randomness is broken."""


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
        Refusal: MALFORMED, as `signing.issue`; ILLEGAL_TRANSITION, when the authority may not issue; IN_USE from the
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
    inventory.tell(tx, CertificateIssued, issued)
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
    inventory.tell(tx, CertificateIssued, issued)
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
    own, *above = ca.path_of(authority)
    chain.verify_leaf(certificate, [own], now, pool=above, profile=Profile.DEVICE)
    pki.check_key(certificate.public_key(), "certificate")
    pki.write_checked_serial(certificate.serial_number)
    added = await certificates.add(tx, inventory_row(authority, certificate, _owner(device), Profile.DEVICE))
    if added is None:
        raise Refusal(Reason.DUPLICATE, field="certificate")
    inventory.tell(tx, CertificateAdopted, added)
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
    issuer, may_issue = await ca.signer(tx, authority)
    if not may_issue:  # since it was read
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="retired or distrusted", step="issue")
    for _ in range(TRIES):
        leaf = signing.issue(
            issuer, key, subject, profile=profile, now=now, days=days, serial=pki.new_serial(), names=names, urls=urls
        )
        if added := await certificates.add(tx, inventory_row(authority, leaf, owner, profile)):
            return added
    raise Refusal(Reason.INTERNAL, error="two random serial numbers were taken: is the source of randomness sound?")


def inventory_row(authority: Authority, leaf: x509.Certificate, owner: Owner, profile: Profile) -> Certificate:
    der = pki.der(leaf)
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
    inventory.tell(tx, CertificateRenewed, issued)
    return issued
