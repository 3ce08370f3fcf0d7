"""What authorities publish: CRLs and OCSP responses, from the inventory. For what stands in them: see `revocation`."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from provisioning.core import ca, certify, pki, revocation, signing
from provisioning.model.certificate import Authority, Profile
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import authorities, certificates
from provisioning.store.database import Tx

RESPONDER_DAYS: Final = 30
RESPONDER_RESERVE: Final = timedelta(days=10)
CRL_MEMORY: Final = timedelta(days=30)
"""How long an expired certificate stays on the CRL; longer than any CRL is valid."""
LARGE_CRL: Final = 500


async def make_crl(tx: Tx, authority: Authority, *, now: datetime, validity: timedelta = timedelta(days=7)) -> bytes:
    """A new CRL in DER, with the next number.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when the authority has no key here.
    """
    issuer, _ = await ca.signer(tx, authority)
    number = await authorities.next_crl_number(tx, authority)
    entries = await certificates.crl_entries(tx, authority.id, now - CRL_MEMORY)

    def build() -> bytes:
        since = now - signing.BACKDATE  # a client whose clock is a little behind takes it, too
        return revocation.build_crl(issuer, entries, number=number, this_update=since, next_update=now + validity)

    return build() if len(entries) < LARGE_CRL else await asyncio.to_thread(build)


async def answer_ocsp(
    tx: Tx, request: revocation.OcspRequest, *, now: datetime, validity: timedelta = timedelta(hours=1)
) -> bytes:
    """The response in DER, signed by the delegated responder of the authority that is asked about.

    May write (a new responder, now and then): needs `begin`, not `read`.
    `revocation.UNAUTHORIZED` for an authority that is not ours or not valid now.
    """
    for each in await authorities.every(tx):
        if each.has_key and revocation.is_about(request, x509.load_der_x509_certificate(each.certificate)):
            break
    else:
        return revocation.UNAUTHORIZED
    if not each.not_before <= now < each.not_after:
        return revocation.UNAUTHORIZED
    responder = await ensure_responder(tx, each, now=now)
    found = await certificates.find(tx, each.id, request.serial)
    standing = revocation.Standing(found.status, found.revoked_at, found.reason) if found else None
    until = min(now + validity, responder.certificate.not_valid_after_utc)
    return revocation.build_ocsp_response(request, standing, responder, now=now, next_update=until)


async def ensure_responder(tx: Tx, authority: Authority, *, now: datetime) -> revocation.Responder:
    """The delegated OCSP responder (RFC 6960, 4.2.2.2), renewed in time; of processes that ask at once one makes it.

    An authority that is kept from issuing one (its extended key usage or name constraints) signs itself.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when the authority is not valid now.
    """
    ends = min(each.not_valid_after_utc for each in ca.path_of(authority))
    until = min(now + RESPONDER_RESERVE, ends - timedelta(seconds=1))
    if found := await _responder(tx, authority, now, until):
        return found
    authority = await authorities.lock(tx, authority)
    if found := await _responder(tx, authority, now, until):
        return found
    issuer, _ = await ca.signer(tx, authority)
    key = pki.new_key()
    own_name = x509.NameAttribute(NameOID.COMMON_NAME, f"OCSP responder of {authority}")
    subject = x509.Name([*(a for a in issuer.certificate.subject if a.oid != NameOID.COMMON_NAME), own_name])
    try:
        leaf = signing.issue(
            issuer,
            key.public_key(),
            subject,
            profile=Profile.OCSP,
            now=now,
            days=RESPONDER_DAYS,
            serial=pki.new_serial(),
        )
    except Refusal as refusal:
        if refusal.reason is not Reason.MALFORMED:
            raise
        return revocation.Responder(issuer.certificate, issuer.key)
    added = await certificates.add(tx, certify.inventory_row(authority, leaf, (None, None), Profile.OCSP))
    assert added is not None, "a random serial number was taken"
    await authorities.prune_responders(tx, authority, now)
    await authorities.add_responder(tx, authority, added.id, added.serial, pki.write_key(key))
    return revocation.Responder(leaf, key)


async def _responder(tx: Tx, authority: Authority, now: datetime, until: datetime) -> revocation.Responder | None:
    found = await authorities.responder(tx, authority, now, until)
    if found is None:
        return None
    return revocation.Responder(x509.load_der_x509_certificate(found[0]), pki.read_key(found[1], ours=True))
