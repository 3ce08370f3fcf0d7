"""Devices that register by themselves, are claimed by an account, get certificates, and are released.

    REGISTERED   known by its product's token and its id; it polls until it is claimed
    ALLOCATED    claimed: it may have tokens and certificates
    ACTIVATED    and it has connected with one

Whether a device is claimed, the table of claims says; its secret is a random value that nobody uses.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from provisioning.core import certify, generate, inventory, tokens
from provisioning.core.pki import PrivateKey
from provisioning.core.signing import NOWHERE, Urls
from provisioning.model.certificate import Authority, Certificate, Revocation, Status
from provisioning.model.claim import (
    Claim,
    DeviceClaimed,
    DeviceReleased,
    DeviceReregistered,
    ReregistrationAsked,
    TokenEnd,
    TokenIssued,
)
from provisioning.model.events import DeviceRegistered
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Product
from provisioning.store import certificates, claims, devices, products
from provisioning.store import tokens as token_store
from provisioning.store.database import Tx

MOST_UNSEEN: Final = 8
"""Certificates of a device that it was given and has not shown: who asks again and again gets no more than these."""
OVERLAP: Final = timedelta(hours=24)
"""For which a certificate outlives its successor's making, when the device does not come with the new one."""


async def device(tx: Tx, protocol: str, key: str) -> Device:
    """Raises: Refusal UNKNOWN."""
    if found := await claims.find(tx, protocol, key):
        return found
    raise Refusal(Reason.UNKNOWN, device=key)


async def claim_of(tx: Tx, which: Device) -> Claim | None:
    """None: it is not claimed."""
    return (await claims.of(tx, [which.id])).get(which.id)


async def register(
    tx: Tx,
    product: Product,
    key: str,
    body: Mapping[str, object],
    *,
    name: str = "",
    test: bool = False,
    claim: Claim | None = None,
    now: datetime,
) -> tuple[Device, Claim | None]:
    """A device of the product says that it is there, and all of itself in `body`. Safe to repeat.

    `claim`: what the device states itself; it counts when nobody has claimed it.

    Raises:
        Refusal: DUPLICATE, field `device`, when it belongs to another product.
    """
    which = await claims.find(tx, product.protocol, key)
    if which is None:
        which = await claims.add(tx, product, key, name)
        if which is not None:
            tx.emit(DeviceRegistered(device_id=which.id, identity=which.identity))
        else:
            which = await claims.find(tx, product.protocol, key)  # another request has registered it just now
    if which is None:  # and an administrator has deleted it since
        raise Refusal(Reason.UNAVAILABLE, error="the device was registered and deleted at the same time")
    if which.product != product.key:
        raise Refusal(Reason.DUPLICATE, field="device")
    held = await claim_of(tx, which)
    if held is None and claim is not None:
        held = await take(tx, which, claim)
    if held is not None:
        await devices.hold(tx, which.id)  # the order of locks is the same for all: first the device
    await claims.describe(tx, which.id, body, test=test, now=now)
    return which, held


async def take(tx: Tx, which: Device, claim: Claim) -> Claim:
    """Claim the device, or get the claim that it has."""
    which = await devices.lock(tx, which)
    if held := await claim_of(tx, which):
        return held
    if which.state is State.REGISTERED:
        product = await products.find(tx, which.protocol, which.product)
        assert product is not None  # the device refers to it
        which = replace(which, state=State.ALLOCATED, secret=generate.secret())
        await devices.allocate(tx, which, product.id)
    await claims.put(tx, [(which.id, claim)])
    tx.emit(DeviceClaimed(device_id=which.id, identity=which.identity))
    return claim


async def claim(tx: Tx, which: Device, stated: Claim) -> Claim:
    """Give the device to an account. Safe to repeat.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is claimed otherwise: release it first.
    """
    held = await take(tx, which, stated)
    if not held.is_same(stated):
        whose = f"claimed by account {held.account} in cloud {held.cloud_name} ({held.cloud_type}, {held.cloud_region})"
        raise Refusal(Reason.ILLEGAL_TRANSITION, state=whose, step="claim")
    return held


async def release(tx: Tx, which: Device, *, now: datetime) -> None:
    """Take the device from its account: tokens and certificates are revoked, its session ends.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is not claimed.
    """
    which = await devices.lock(tx, which)
    if await claim_of(tx, which) is None:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state="not claimed", step="release")
    await claims.drop(tx, which.id)
    if which.state is not State.REGISTERED:
        await devices.reset(tx, which)  # first: a session must hear of the release, not of its certificate
    await token_store.revoke_all(tx, which.id, TokenEnd.RELEASED, now)
    await inventory.revoke_of_device(tx, which.id, now=now)
    tx.emit(DeviceReleased(device_id=which.id, identity=which.identity))


async def hand_token(tx: Tx, which: Device, *, ask: bool, now: datetime) -> tuple[Claim, str] | None:
    """A token for a claimed device, and its claim as it stands now. None: it has to wait, and may ask again.

    Who asks again and again without using what it gets waits a minute: each token is a row, and each of them an event.
    `ask`: a device that uses a token gets no other one until an administrator has confirmed it.
    """
    which = await devices.lock(tx, which)
    held = await claim_of(tx, which)
    if held is None:  # released just now
        return None
    have = await tokens.count(tx, which, now=now)
    if have.recent >= tokens.MOST_UNUSED:
        return None
    if have.used and ask and not held.confirmed:
        if await claims.note_asked(tx, which.id, now):
            tx.emit(ReregistrationAsked(device_id=which.id, identity=which.identity))
        return None
    if held.asked_at is not None or held.confirmed:
        await claims.settle(tx, which.id)
    happened = DeviceReregistered if have.live else TokenIssued
    tx.emit(happened(device_id=which.id, identity=which.identity))
    return held, await tokens.issue(tx, which, now=now)


async def confirm(tx: Tx, which: Device, *, now: datetime) -> None:
    """Let a claimed device have another token, once.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is not claimed.
    """
    which = await devices.lock(tx, which)
    if await claim_of(tx, which) is None:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state="not claimed", step="confirm")
    await claims.confirm(tx, which.id, now)


async def certificate(
    tx: Tx,
    authority: Authority,
    which: Device,
    key: PrivateKey,
    *,
    now: datetime,
    days: int,
    urls: Urls = NOWHERE,
) -> tuple[Claim, certify.WithKey]:
    """A certificate for a key that was made for the device. Those that it has go once it has shown this one, or later.

    Its subject: the device's key as CN, its product's as OU.

    Raises:
        Refusal: NOT_ALLOCATED, when it is not claimed; DISABLED; as `certify.issue_with_key`.
    """
    which = await devices.lock(tx, which)
    held = await claim_of(tx, which)
    if held is None:
        raise Refusal(Reason.NOT_ALLOCATED)
    if which.disabled:
        raise Refusal(Reason.DISABLED)
    subject = x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, which.product),
        x509.NameAttribute(NameOID.COMMON_NAME, which.key),
    ])  # fmt: skip
    before = await certificates.lock_of_device(tx, which.id)
    issued = await certify.issue_with_key(tx, authority, key, subject, now=now, days=days, device=which, urls=urls)
    for each in before:
        if each.superseded_by is None:
            await certificates.supersede(tx, each, issued.certificate)
    unseen = [each for each in before if each.last_seen_at is None]
    for each in unseen[: max(0, len(unseen) - MOST_UNSEEN + 1)]:
        await inventory.revoke(tx, each, now=now, reason=Revocation.SUPERSEDED)
    return held, issued


async def revoke_outlived(tx: Tx, *, now: datetime, limit: int = 500) -> list[Certificate]:
    """Revoke certificates of claimed devices whose successors were made OVERLAP ago, whether or not they are in use.

    Those whose successor is in use go sooner: `inventory.revoke_replaced`.
    """
    done = []
    for certificate_id in await claims.outlived(tx, now - OVERLAP, limit):
        found = await certificates.by_id(tx, certificate_id)
        if found is None:
            continue
        found = await certificates.lock(tx, found)
        if found.status is not Status.REVOKED:  # else another process was faster
            done.append(await inventory.revoke(tx, found, now=now, reason=Revocation.SUPERSEDED))
    return done
