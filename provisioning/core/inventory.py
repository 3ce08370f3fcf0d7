"""What becomes of issued certificates: found by serial number, held, revoked, replaced, warned of before expiry."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from provisioning.core import pki
from provisioning.model.certificate import (
    NOBODY,
    Authority,
    Certificate,
    CertificateEvent,
    CertificateExpiring,
    CertificateHeld,
    CertificateReleased,
    CertificateRevoked,
    Revocation,
    Status,
    Step,
    after,
)
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import certificates
from provisioning.store.database import Tx

THRESHOLDS: Final = (60, 30, 7)
"""Days before expiry at which a certificate is warned of."""


def tell(tx: Tx, kind: type[CertificateEvent], certificate: Certificate) -> None:
    tx.emit(
        kind(device_id=certificate.device_id or 0, identity=certificate.identity or NOBODY, serial=certificate.serial)
    )


async def find(tx: Tx, serial: str, authority: Authority | None = None) -> Certificate:
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
    tell(tx, kind, certificate)
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
        tell(tx, CertificateExpiring, each)
    return due
