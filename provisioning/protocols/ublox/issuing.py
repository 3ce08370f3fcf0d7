"""What a security heartbeat does about the module's certificate: issue, renew, replace, remove. Contract: section 3.

A certificate is issued when ZTPV1 is enabled and a root CA is set, renewed when RenewBeforeExpiration is reached, and
replaced when another root CA is set; whatever an application has ordered comes first, ZTPV1 enabled or not.
"""

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from provisioning import log
from provisioning.core import pki as keys
from provisioning.core import roots as authorities
from provisioning.core.pki import PrivateKey, PublicKey, Request
from provisioning.model.certificate import Certificate, Status
from provisioning.model.lifecycle import State
from provisioning.model.module import Module, Properties
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.model.root import Order, OrderKind, Root
from provisioning.protocols.ublox import notices, refusals, wire
from provisioning.protocols.ublox.machine_wire import Kind
from provisioning.protocols.ublox.notices import Event, Notification
from provisioning.store import certificates, modules, roots, usage
from provisioning.store import notices as told
from provisioning.store.database import Tx
from provisioning.store.sealing import SealError

RENEWALS: Final = "CertificateRenewals"
UPDATES: Final = "CertificateUpdates"
PURPOSE: Final = b"uss/ztp"
NONCE_LENGTH: Final = 12
PRINTABLE: Final = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
"""X.680, 41.4: what a serialNumber may be made of (RFC 5280, appendix A.1)."""
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A heartbeat of an activated module, as far as certificates ask."""

    tx: Tx
    module: Module = field(repr=False)
    """Locked, as it is written: what was desired is current already. Its secret is looked up where it is not here."""
    csr: Request | None
    now: datetime


class NewCommand(NamedTuple):
    """A command for the module, to be sent until it has told what became of it."""

    kind: str
    body: Mapping[str, object]


async def certificate_commands(work: Heartbeat) -> list[NewCommand]:
    """Do what is due, and return what the module must be told.

    What cannot be done does not break a heartbeat: the account is told of it as an error of the device.

    Raises:
        Refusal: MALFORMED, field `CSR`: it repeats a key that is to be replaced.
    """
    try:
        return await _do_what_is_due(work)
    except Refusal as refusal:
        if refusal.reason is not Reason.ILLEGAL_TRANSITION:
            raise
        await _tell_error(work, f"The CA is {refusal.detail.get('state')}")  # since it was read, just now
        return []
    except SealError as error:
        log.get().error("account.certificate", outcome="failed", reason="internal", error=str(error))
        await _tell_error(work, "The CA cannot sign")
        return []


async def _do_what_is_due(work: Heartbeat) -> list[NewCommand]:
    module = work.module
    wanted = module.current_ca if _is_enabled(module.current) else None
    if module.certificate_id is None and wanted is None:
        return []
    order = (await roots.orders(work.tx, [module.id])).get(module.id)
    ids = (wanted, order.root_ca_id if order else None)
    known = await roots.by_ids(work.tx, [each for each in ids if each is not None])
    root = known.get(wanted) if wanted is not None else None
    if module.certificate_id is None:
        return [] if root is None or _is_done_with(module, order) else await _issue_first(work, root, order)
    present = await certificates.by_id(work.tx, module.certificate_id)
    assert present is not None, "the foreign key of module"
    if order is not None:
        return await _carry_out(work, order, known, present)
    if root is not None and root.id != module.issuer_id:
        return await _move(work, root, present)
    if root is not None and _is_renewal_due(root, present, work.now):
        return await _renew(work, root, present, root.device_days)
    return []


def _is_enabled(current: Properties) -> bool:
    return wire.ZTP in current and current[wire.ZTP][0] == wire.ENABLED


def _is_done_with(module: Module, order: Order | None) -> bool:
    """Was the certificate deleted, and has nobody provisioned the module anew since then?"""
    if order is None or order.kind is not OrderKind.DELETE:
        return False
    wanted = [at for name, (_, at) in module.desired.items() if name in {wire.ZTP, wire.CA_NAME}]
    return not any(at > order.ordered_at for at in wanted)


def _is_renewal_due(root: Root, present: Certificate, now: datetime) -> bool:
    """Not in the first half of its life, and not when the next one would end with it: that never came to an end."""
    if root.renew_before is None or not root.managed or present.status is not Status.VALID or not root.may_issue(now):
        return False
    due = max(
        present.not_after - root.renew_before * DAY, present.not_before + (present.not_after - present.not_before) / 2
    )
    return now >= due and min(now + root.device_days * DAY, root.not_after) >= present.not_after + DAY


# --- steps -----------------------------------------------------------------------------------------------------------


async def _issue_first(work: Heartbeat, root: Root, order: Order | None) -> list[NewCommand]:
    if not await _may_issue(work, root):
        return []
    if order is not None:
        await roots.drop_order(work.tx, work.module.id)
    return [await _install_new_key(work, root, is_renewal=False)]


async def _carry_out(
    work: Heartbeat, order: Order, known: Mapping[int, Root], present: Certificate
) -> list[NewCommand]:
    module, target = work.module, known[order.root_ca_id]
    if order.kind is OrderKind.DELETE or (order.kind is OrderKind.UPDATE and not order.removed):
        await roots.set_removed(work.tx, order)
        if order.kind is OrderKind.DELETE:
            await modules.update(work.tx, module.id, {"certificate_id": None, "issuer_id": None, "warn_at": None})
        return [_removal(present)]
    if order.kind is OrderKind.UPDATE and work.csr is not None and work.csr.key == _key_of(present):
        raise refusals.invalid("CSR")
    await roots.drop_order(work.tx, module.id)
    if order.kind is OrderKind.TRANSFER:
        return await _move(work, target, present)
    if order.kind is OrderKind.UPDATE:
        return await _update(work, target)
    return await _renew(work, target, present, order.days or target.device_days)


async def _update(work: Heartbeat, root: Root) -> list[NewCommand]:
    if not await _may_issue(work, root):
        return []
    command = await _install_new_key(work, root)
    await usage.count(work.tx, work.module.account_id, work.module.id, UPDATES, work.now)
    return [command]


async def _renew(work: Heartbeat, root: Root, present: Certificate, days: int) -> list[NewCommand]:
    if not await _may_issue(work, root):
        return []
    if present.status is not Status.VALID:
        await _tell_error(work, f"The certificate {present.serial} is revoked and cannot be renewed")
        return []
    issued = await _issue(work, root, _key_of(present), days)
    await usage.count(work.tx, work.module.account_id, work.module.id, RENEWALS, work.now)
    return [_installation(root, issued)]


async def _move(work: Heartbeat, root: Root, present: Certificate) -> list[NewCommand]:
    """To another root CA, which is the one that the module is provisioned with from now on.

    The key stays the same, unless its certificate is revoked.
    """
    if not await _may_issue(work, root):
        return []
    module = work.module
    if present.status is Status.VALID:
        issued = await _issue(work, root, _key_of(present), root.device_days, is_renewal=False)
        command = _installation(root, issued)
    else:
        command = await _install_new_key(work, root, is_renewal=False)
    changes: dict[str, object] = {}
    for name, properties in (("desired", module.desired), ("current", module.current)):
        if wire.CA_NAME in properties and properties[wire.CA_NAME][0] != root.name:
            changes |= {name: {**properties, wire.CA_NAME: (root.name, work.now)}, f"{name}_ca": root.id}
    await modules.update(work.tx, module.id, changes)
    return [command]


async def _install_new_key(work: Heartbeat, root: Root, *, is_renewal: bool = True) -> NewCommand:
    """For the key of the request that came along; without one, for a key that is made here and not kept."""
    if work.csr is not None:
        return _installation(root, await _issue(work, root, work.csr.key, root.device_days, is_renewal=is_renewal))
    key = keys.new_key()
    issued = await _issue(work, root, key.public_key(), root.device_days, is_renewal=is_renewal)
    secret = bytes.fromhex(await _secret(work))
    sealed = seal_key(secret, work.module.uid, key, issued.der)
    return _installation(root, issued, sealed)


async def _issue(work: Heartbeat, root: Root, key: PublicKey, days: int, *, is_renewal: bool = True) -> Certificate:
    """Issue, and make it the module's certificate. `is_renewal`: the account's webhooks hear of it."""
    module, now = work.module, work.now
    device = Device(id=module.id, protocol=wire.PROTOCOL, state=State.ACTIVATED, product=module.account, key=module.uid)
    subject = make_subject(module.uid, module.device_serial)
    issued = await authorities.issue(work.tx, root, key, subject, device, now=now, days=days)
    warn_at = authorities.next_warning(issued.not_after, now)
    await modules.update(
        work.tx, module.id, {"certificate_id": issued.id, "issuer_id": root.id, "warn_at": warn_at}
    )  # fmt: skip
    if is_renewal:
        payload = {
            "CertificateAuthorityName": root.name, "CertificateSerialNumber": issued.serial,
            "CertificateValidity": authorities.days_left(issued.not_after, now),
            "ExpirationDate": wire.write_time(issued.not_after),
        }  # fmt: skip
        await notices.announce(work.tx, module, Event.CERTIFICATE_RENEWAL, payload, now=now)
    return issued


async def _secret(work: Heartbeat) -> str:
    if work.module.secret:
        return work.module.secret
    found = await modules.by_uid(work.tx, work.module.uid, with_secret=True)
    assert found is not None, "the module is locked"
    return found.secret


async def _may_issue(work: Heartbeat, root: Root) -> bool:
    """If not, the account is told."""
    if not root.may_issue(work.now):
        await _tell_error(work, f"The CA {root.name} {'has expired' if root.deleted_at is None else 'was deleted'}")
        return False
    return True


async def _tell_error(work: Heartbeat, error: str) -> None:
    """Once, until there is another error to tell."""
    payload = {"Error": error}
    if await told.last_payload(work.tx, work.module.id, Notification.ERROR) == payload:
        return
    await notices.notify(work.tx, work.module, Notification.ERROR, payload, now=work.now)
    await notices.announce(work.tx, work.module, Event.ERRORS, payload, now=work.now)


# --- what stands in certificates and commands. Pure. ------------------------------------------------------------------


def make_subject(uid: str, device_serial: str | None) -> x509.Name:
    """CN = uid, serialNumber = `Device {serial}` (contract, section 7); without one that can stand there, CN alone."""
    pairs = [x509.NameAttribute(NameOID.COMMON_NAME, uid)]
    if device_serial and PRINTABLE.fullmatch(device_serial):
        pairs.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, f"Device {device_serial}"))
    return x509.Name(pairs)


def seal_key(secret: bytes, uid: str, key: PrivateKey, der: bytes) -> str:
    """A private key for the module alone: Base64 of nonce (12) and AES-256-GCM of its PKCS#8, for this certificate.

    The key of the cipher is HKDF-SHA256(root secret, salt = uid, info `uss/ztp`); `der` is authenticated with it.
    """
    plain = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    nonce = os.urandom(NONCE_LENGTH)
    sealed = AESGCM(HKDF(SHA256(), 32, salt=bytes.fromhex(uid), info=PURPOSE).derive(secret)).encrypt(nonce, plain, der)
    return base64.b64encode(nonce + sealed).decode()


def _key_of(certificate: Certificate) -> PublicKey:
    return keys.check_key(keys.read_certificate(certificate.der).public_key())


def _installation(root: Root, certificate: Certificate, private_key: str | None = None) -> NewCommand:
    body = {"Certificate": keys.write_pem(certificate.der), "CAName": root.name, "SerialNumber": certificate.serial}
    return NewCommand(Kind.INSTALL_CERTIFICATE, body if private_key is None else body | {"PrivateKey": private_key})


def _removal(certificate: Certificate) -> NewCommand:
    return NewCommand(Kind.REMOVE_CERTIFICATE, {"SerialNumber": certificate.serial})
