"""Root CAs of accounts: create, issue, revoke, delete; their CRLs; what is told before they or their leaves expire."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from provisioning import log
from provisioning.core import ca, certify, inventory, pki, publish
from provisioning.core.pki import PublicKey
from provisioning.model.account import Account
from provisioning.model.certificate import (
    NOBODY,
    Authority,
    AuthorityDistrusted,
    Certificate,
    CertificateExpiring,
    Status,
)
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.model.root import Expiring, Root
from provisioning.store import accounts, authorities, roots
from provisioning.store.database import Tx
from provisioning.store.sealing import SealError

MOST: Final = 15
"""Root CAs of an account."""
CRL_LIFE: Final = timedelta(days=7)
CRL_AGE: Final = timedelta(hours=24)
"""A CRL is made anew when it is that old."""
PROOF_DAYS: Final = 90
LEAF_THRESHOLDS: Final = (60, 30, 7)
"""Days before expiry at which an account is told of a module's certificate."""
ROOT_THRESHOLDS: Final = (180, 90, 60, 30, 7, 0)
"""The same, of a root CA."""
DAY: Final = timedelta(days=1)


def days_left(until: datetime, now: datetime) -> int:
    """Days until then, begun ones too; never negative."""
    return max(0, -((now - until) // DAY))


# --- root CAs --------------------------------------------------------------------------------------------------------


async def create(
    tx: Tx,
    account: Account,
    name: str,
    *,
    now: datetime,
    ca_days: int,
    device_days: int,
    renew_before: int | None = None,
) -> Root:
    """A new P-256 authority of the account, with its first CRL. Its name is its subject.

    Raises:
        Refusal: LIMIT_REACHED, when the account has `MOST`; DUPLICATE, also from the transaction, when the name is
            taken, by whomever.
    """
    await accounts.lock(tx, [account.id])
    if await roots.count(tx, account.id) >= MOST:
        raise Refusal(Reason.LIMIT_REACHED, limit=MOST)
    root_id = await roots.next_id(tx)
    authority = await ca.create_of_account(
        tx, f"account-ca-{root_id}", pki.new_key(), now=now, common_name=name, days=ca_days
    )
    root = Root(
        id=root_id, account_id=account.id, name=name, authority_id=authority.id, ca_days=ca_days,
        device_days=device_days, renew_before=renew_before, created_at=now, certificate=authority.certificate,
        not_after=authority.not_after, managed=account.certificates,
    )  # fmt: skip
    await roots.add(tx, root)
    await rebuild_crl(tx, root, now=now)
    return root


async def delete(tx: Tx, root: Root, *, now: datetime) -> None:
    """Delete a root CA that nothing refers to: see `roots.uses`. Needs `roots.lock` before it.

    Nothing is trusted by it from now on and its key is destroyed. Where it has issued certificates they stay in the
    inventory, and the modules that have them go on naming it.
    """
    authority = await _authority(tx, root)
    if await authorities.has_issued(tx, authority.id):
        await roots.set_deleted(tx, root, now)
        await _end(tx, authority, now)
    else:
        await roots.delete(tx, root)
        await authorities.delete(tx, authority.id)


async def retire_all(tx: Tx, account_id: int, now: datetime) -> int:
    """Before an account goes: all that it has had issue nothing more, are not trusted, and lose their keys.

    Returns how many there were.
    """
    ids = await roots.authorities_of(tx, account_id)
    for each in ids:
        authority = await authorities.by_id(tx, each)
        assert authority is not None, "the foreign key of root_ca"
        await _end(tx, authority, now)
    return len(ids)


async def _end(tx: Tx, authority: Authority, now: datetime) -> None:
    await authorities.end(tx, authority.id, now)
    if authority.distrusted_at is None:
        tx.emit(AuthorityDistrusted(device_id=0, identity=NOBODY, serial=authority.serial))


async def _authority(tx: Tx, root: Root) -> Authority:
    found = await authorities.by_id(tx, root.authority_id)
    assert found is not None, "the foreign key of root_ca"
    return found


# --- certificates ----------------------------------------------------------------------------------------------------


async def issue(
    tx: Tx, root: Root, key: PublicKey, subject: x509.Name, device: Device, *, now: datetime, days: int
) -> Certificate:
    """A leaf for a module, valid for `days` from `now` on, and never longer than the root CA.

    What the module had before stays as it is: whoever trusts the root CA knows which of them is in use.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when the root CA is deleted or not valid now.
    """
    authority = await _authority(tx, root)
    return await certify.issue_from_csr(tx, authority, pki.Request(subject, key), now=now, days=days, device=device)


async def prove_possession(tx: Tx, root: Root, code: str, *, now: datetime) -> Certificate:
    """A leaf whose common name is `code`, for a key that nobody has: it proves who holds the root CA's.

    Raises:
        Refusal: MALFORMED, field `subject`, for a code that cannot be a common name; ILLEGAL_TRANSITION, as `issue`.
    """
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    request = pki.Request(pki.make_subject(code), key)
    return await certify.issue_from_csr(tx, await _authority(tx, root), request, now=now, days=PROOF_DAYS)


async def revoke(tx: Tx, root: Root, certificate: Certificate, *, now: datetime) -> None:
    """Revoke a certificate of the root CA, and tell it in a new CRL. One that is revoked already stays so."""
    if certificate.status is not Status.REVOKED:
        await inventory.revoke(tx, certificate, now=now)
    await rebuild_crl(tx, root, now=now)


# --- CRLs ------------------------------------------------------------------------------------------------------------


async def rebuild_crl(tx: Tx, root: Root, *, now: datetime) -> None:
    await roots.lock_crl(tx, root.id)  # before the authority, as everybody does
    der = await publish.make_crl(tx, await _authority(tx, root), now=now, validity=CRL_LIFE)
    await roots.set_crl(tx, root.id, der, now)


async def refresh_crls(tx: Tx, *, now: datetime, limit: int = 100, among: Sequence[int] | None = None) -> int:
    """Make the CRLs anew that are a day old, or older than a revocation. Returns how many: call again at `limit`.

    `among`: of these root CAs alone. Otherwise one that cannot sign, because its key does not open, hinders no other.

    Raises:
        SealError: one of `among` cannot sign.
    """
    ids = await roots.stale_crls(tx, now=now, most_age=CRL_AGE, limit=limit, among=among)
    found = await roots.by_ids(tx, ids)
    done = 0
    for each in ids:
        try:
            async with tx.db.transaction():
                await rebuild_crl(tx, found[each], now=now)
            done += 1
        except SealError as error:
            if among is not None:
                raise
            log.get().error("account.crl", outcome="failed", reason="internal", ca=found[each].name, error=str(error))
    return done


# --- expiry ----------------------------------------------------------------------------------------------------------


def next_warning(not_after: datetime, now: datetime) -> datetime | None:
    """When an account is told next of a certificate that expires then: at the first of `LEAF_THRESHOLDS` to come."""
    return min((at for days in LEAF_THRESHOLDS if (at := not_after - days * DAY) > now), default=None)


async def take_expiring(tx: Tx, *, now: datetime, limit: int) -> tuple[list[Expiring], int]:
    """Modules whose certificate has reached one more of `LEAF_THRESHOLDS`, and how many were looked at.

    Each is returned once for each threshold; of several that have passed since the last time, for the last one.
    Revoked certificates and those that have expired meanwhile are left out. Call again at `limit`.
    """
    due = await roots.due_for_warning(tx, now, limit)
    await roots.set_warnings(tx, {each.module.id: next_warning(each.certificate.not_after, now) for each in due})
    found = [each for each in due if each.certificate.status is Status.VALID and each.certificate.not_after > now]
    for each in found:
        inventory.tell(tx, CertificateExpiring, each.certificate)
    return found, len(due)


async def take_expiring_roots(tx: Tx, *, now: datetime, limit: int) -> list[Root]:
    """Root CAs that have reached one more of `ROOT_THRESHOLDS`: each is returned once for each threshold."""
    return await roots.take_expiring_roots(tx, now, ROOT_THRESHOLDS, limit)
