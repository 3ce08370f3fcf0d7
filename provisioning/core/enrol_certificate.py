"""A device gets certificates by itself: it proves who it is and asks for its own name."""

from datetime import datetime
from hmac import compare_digest
from typing import Final

from provisioning.core import certify, pki
from provisioning.core.chain import malformed
from provisioning.core.enrol import NOBODY
from provisioning.core.pki import Request
from provisioning.core.signing import NOWHERE, Urls
from provisioning.model.certificate import Authority, Certificate, Profile, Status
from provisioning.model.identity import Identity
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import authorities, certificates, devices, logins
from provisioning.store.database import Tx
from provisioning.store.sealing import SealError

MOST_LIVE: Final = 32
"""Valid certificates of one device: firmware that enrols at each boot must not fill the inventory."""


async def by_secret(tx: Tx, identity: Identity, secret: str) -> Device:
    """The device whose own secret this is.

    Raises:
        Refusal: NOT_PROVEN for an unknown identity and for a wrong secret alike; DISABLED after a right one.
    """
    (found,) = await logins.look_up(tx, [identity])
    if isinstance(found, SealError):
        raise Refusal(Reason.INTERNAL, error=str(found))
    expected = found.device.secret if found.device else NOBODY
    proven = compare_digest(secret.encode("utf-8", "surrogatepass"), expected.encode())
    device = await devices.by_id(tx, found.device.id) if proven and found.device else None
    if device is None:
        raise Refusal(Reason.NOT_PROVEN)
    return _enabled(device)


async def by_certificate(tx: Tx, der: bytes, *, now: datetime) -> tuple[Device, Certificate]:
    """The device that has shown this certificate, whose key it has proven to the TLS layer.

    Raises:
        Refusal: NOT_PROVEN, when it is not in the inventory; CERTIFICATE_REQUIRED, when it is no longer or not yet
            good, or not a device's; NOT_ALLOCATED, when the device was reset; DISABLED.
    """
    found = await certificates.by_fingerprint(tx, pki.fingerprint(der))
    if found is None:
        raise Refusal(Reason.NOT_PROVEN)
    authority = await authorities.by_id(tx, found.authority_id)
    wrong = {
        "revoked": found.status is Status.REVOKED,
        "on hold": found.status is Status.HELD,
        "expired": now >= found.not_after,
        "not yet valid": now < found.not_before,
        "not a device's": found.profile is not Profile.DEVICE or found.device_id is None,
        "of an authority that is not trusted": authority is None
        or authority.distrusted_at is not None
        or now >= authority.not_after,
    }
    if said := next((said for said, holds in wrong.items() if holds), None):
        raise Refusal(Reason.CERTIFICATE_REQUIRED, certificate=said)
    device = await devices.by_id(tx, found.device_id or 0)
    if device is None:
        raise Refusal(Reason.NOT_PROVEN)
    if device.state is State.REGISTERED:  # it was reset, and must be given to a product again
        raise Refusal(Reason.NOT_ALLOCATED, serial=device.serial)
    return _enabled(device), found


def _enabled(device: Device) -> Device:
    if device.disabled:
        raise Refusal(Reason.DISABLED)
    return device


async def enrol(
    tx: Tx, authority: Authority, device: Device, request: Request, *, now: datetime, days: int, urls: Urls = NOWHERE
) -> Certificate:
    """A certificate under the device's own name. Alternative names that the request asks for are not granted.

    Raises:
        Refusal: MALFORMED, field `csr`, when the common name is not the device's key or asset id; IN_USE, when it has
            MOST_LIVE certificates; as `certify.issue_from_csr`.
    """
    names = {device.key, device.asset} - {""}
    if request.attribute("CN") not in names:
        raise malformed("csr", f"must have the device as CN of its subject: {' or '.join(sorted(names))}")
    await _check_room(tx, device, now)
    return await certify.issue_from_csr(tx, authority, request, now=now, days=days, device=device, urls=urls)


async def reenrol(
    tx: Tx,
    authority: Authority,
    device: Device,
    shown: Certificate | None,
    request: Request,
    *,
    now: datetime,
    days: int,
    urls: Urls = NOWHERE,
) -> Certificate:
    """The successor of the certificate that was shown; None: of the latest one with the subject of the request.

    The subject and the alternative names stay what they were (RFC 7030, 4.2.2); the key may be another one.

    Raises:
        Refusal: MALFORMED, field `csr`, when they do not, or there is nothing to succeed; IN_USE, when the device has
            MOST_LIVE certificates; as `certify.renew`.
    """
    current = shown or await _latest(tx, device, request)
    await _check_room(tx, device, now)
    old = pki.read_certificate(current.der)
    if request.key != old.public_key():
        issued = await certify.rekey(tx, authority, current, request, now=now, days=days, urls=urls)
    else:
        if request.subject != old.subject:
            raise malformed("csr", "must have the subject of the certificate that it replaces")
        issued = await certify.renew(tx, authority, current, now=now, days=days, urls=urls)
    if shown:  # after the row is locked, in the order of everybody else
        await certificates.note_seen(tx, {shown.id: now})
    return issued


async def _latest(tx: Tx, device: Device, request: Request) -> Certificate:
    for each in reversed(await certificates.of_device(tx, device.id)):
        if each.status is Status.VALID and pki.read_certificate(each.der).subject == request.subject:
            return each
    raise malformed("csr", "has a subject that no certificate of the device has: enrol it")


async def _check_room(tx: Tx, device: Device, now: datetime) -> None:
    live = [each for each in await certificates.of_device(tx, device.id) if _is_live(each, now)]
    if len(live) >= MOST_LIVE:
        raise Refusal(Reason.IN_USE, rule=f"the device has {len(live)} valid certificates: some must be revoked first")


def _is_live(certificate: Certificate, now: datetime) -> bool:
    return certificate.status is not Status.REVOKED and now < certificate.not_after
