"""Registration in products whose devices log in with certificates."""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from cryptography import x509

from provisioning.core import ca, pki, register_certificate
from provisioning.core.register import Request
from provisioning.core.register_certificate import Outcome
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent import payload, wire
from provisioning.protocols.x509.wire import urls
from provisioning.store.database import Tx
from provisioning.web.operation import note
from provisioning.web.world import WORLD

LONGEST_CN: Final = 64
"""Characters of a common name (RFC 5280, appendix A: ub-common-name)."""
LARGEST_PLAINTEXT: Final = 3_600
"""Bytes that leave the whole answer, in Base64, below the 5 KiB that the C SDK has room for."""


async def register(request: web.Request, asked: Request, claim: wire.Register, *, organization: str) -> bytes:
    """The plaintext of the payload: a certificate of ours with its key, or the one that the device has brought.

    Raises:
        Refusal: as `core.register.check`; MALFORMED with the field.
    """
    if claim.encryption == payload.KEY_ENCRYPTION:
        raise wire.malformed("EncryptionType")
    if claim.certificate is not None:
        outcome = await _adopt(request, asked, claim.certificate)
    else:
        outcome = await _issue(request, asked, claim, organization)
    note(request, certificate=outcome.certificate.serial)
    return payload.write_certificate(pki.write_pem(outcome.certificate.der), outcome.key)


async def _issue(request: web.Request, asked: Request, claim: wire.Register, organization: str) -> Outcome:
    common_name = f"{claim.product}{claim.device}"
    if len(common_name) > LONGEST_CN:
        raise wire.malformed("DeviceName")
    world, key, now = request.app[WORLD], await ca.make_key(), _now()

    async def work(tx: Tx, asked: Request) -> Outcome | None:
        authority = await ca.default(tx)
        subject = pki.make_subject(common_name, organization)
        return await register_certificate.issue(
            tx, asked, authority, key, subject=subject, now=now, days=world.pki.leaf_days,
            urls=urls(world.pki.base, authority),
        )  # fmt: skip

    try:
        return await world.registrations.alone(asked, work)
    except Refusal as refusal:
        if refusal.reason in {Reason.UNKNOWN, Reason.ILLEGAL_TRANSITION, Reason.MALFORMED}:  # it is about our authority
            raise Refusal(Reason.INTERNAL, error=str(refusal)) from refusal
        raise


async def _adopt(request: web.Request, asked: Request, pem: str) -> Outcome:
    try:
        brought = _read(pem)

        async def work(tx: Tx, asked: Request) -> Outcome | None:
            return await register_certificate.adopt(tx, asked, brought, now=_now())

        return await request.app[WORLD].registrations.alone(asked, work)
    except Refusal as refusal:
        if refusal.reason in {Reason.MALFORMED, Reason.DUPLICATE}:
            raise Refusal(Reason.MALFORMED, **{**refusal.detail, "field": "ClientCert"}) from refusal
        raise


def _read(pem: str) -> x509.Certificate:
    """Raises: Refusal MALFORMED."""
    brought = pki.read_certificate(pem)
    if len(payload.write_certificate(pki.write_pem(pki.der(brought)), None)) > LARGEST_PLAINTEXT:
        raise wire.malformed("ClientCert")
    return brought


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
