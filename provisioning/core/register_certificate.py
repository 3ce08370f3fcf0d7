"""Registration by name of a device that is to log in with a certificate: it gets one, or brings its own along."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from cryptography import x509

from provisioning.core import ca, certify, chain, inventory, pki, register, signing
from provisioning.core.chain import malformed
from provisioning.core.enrol import Again
from provisioning.core.pki import PrivateKey
from provisioning.core.register import Registered, Request
from provisioning.model.certificate import Authority, Certificate, Revocation, Status
from provisioning.model.refusal import Refusal
from provisioning.model.registry import Device
from provisioning.store import authorities, certificates, devices
from provisioning.store.database import Tx


@dataclass(frozen=True, slots=True)
class Outcome:
    """The device's certificate, and its key when it was made here."""

    certificate: Certificate
    key: str | None = field(repr=False)
    """PKCS#8 PEM; nobody keeps it. None: the device has it."""


async def issue(
    tx: Tx,
    request: Request,
    authority: Authority,
    key: PrivateKey,
    *,
    subject: x509.Name,
    now: datetime,
    days: int,
    urls: signing.Urls,
) -> Outcome | None:
    """Register the device, and issue a certificate for `key`; those that it had before are revoked. None: read again.

    Raises:
        Refusal: as `register.check`; ILLEGAL_TRANSITION, when the authority may not issue.
    """
    device = await _device(tx, request)
    if device is None:
        return None
    await inventory.revoke_of_device(tx, device.id, now=now, reason=Revocation.SUPERSEDED)
    made = await certify.issue_with_key(tx, authority, key, subject, now=now, days=days, device=device, urls=urls)
    return Outcome(made.certificate, made.key)


async def adopt(tx: Tx, request: Request, brought: x509.Certificate, *, now: datetime) -> Outcome | None:
    """Register the device with a certificate that its product's authority has issued elsewhere. None: read again.

    Bringing the same certificate again is fine; others that the device had are revoked.

    Raises:
        Refusal: as `register.check`; MALFORMED, field `certificate`: the product has no such authority, the path does
            not hold, or the certificate is another device's or revoked.
    """
    product = request.standing.credential.product
    device = await _device(tx, request)
    if device is None or product is None:
        return None
    authority = await _authority(tx, product.client_authority, brought)
    fingerprint = pki.fingerprint(pki.der(brought))
    known = await certificates.by_fingerprint(tx, fingerprint)
    if known is not None and (known.device_id != device.id or known.status is not Status.VALID):
        raise malformed("certificate", "is another device's, on hold or revoked")
    for each in await certificates.lock_of_device(tx, device.id):
        if each.fingerprint != fingerprint:
            await inventory.revoke(tx, each, now=now, reason=Revocation.SUPERSEDED)
    if known is None:
        known = await certify.adopt(tx, authority, brought, now=now, device=device)
    else:
        own, *above = ca.path_of(authority)
        chain.verify_leaf(brought, [own], now, pool=above, profile=known.profile)
    return Outcome(known, None)


async def _device(tx: Tx, request: Request) -> Device | None:
    """The device, held until the transaction ends. What it had cannot be given again: its key was not kept."""
    again = Again.DENY if request.again is Again.SAME else request.again
    request = replace(request, again=again, is_told=False)
    register.check(request)
    (registered,) = await register.register(tx, [request])
    if isinstance(registered, Refusal):
        raise registered
    return await devices.by_id(tx, registered.device_id) if isinstance(registered, Registered) else None


async def _authority(tx: Tx, name: str, brought: x509.Certificate) -> Authority:
    """The generation that has issued the certificate. Raises: Refusal MALFORMED, field `certificate`."""
    for each in await authorities.every(tx):
        if (
            each.name == name
            and each.distrusted_at is None
            and chain.is_issued_by(brought, pki.read_certificate(each.certificate))
        ):
            return each
    raise malformed("certificate", "was not issued by the authority of the product")
