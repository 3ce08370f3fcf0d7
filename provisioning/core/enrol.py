"""A proven claimant gets its device. One verb decides for all vendors whether a device may have a secret."""

import secrets
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from provisioning.core.generate import HOUSE
from provisioning.model.credential import DeviceCredential, ProductCredential
from provisioning.model.events import DeviceAllocated, DeviceRegistered
from provisioning.model.lifecycle import State, Step, after
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group
from provisioning.model.spec import Forms
from provisioning.store import devices, groups
from provisioning.store.database import Tx

NOBODY: Final = secrets.token_urlsafe(24)
"""Stands for the secret of what does not exist: the proof is computed all the same, so that time tells nothing."""
MOST_CANDIDATES: Final = 8
"""How many groups may share a serial number before a claim that names no group is turned down."""


class Again(StrEnum):
    """What a device gets that has connected with its secret, and asks for it again."""

    DENY = "deny"
    SAME = "same"
    """The secret that it has."""
    ROTATE = "rotate"
    """A new one; its session ends."""


class Grant(StrEnum):
    """What a device may have."""

    CREATE = "create"
    """Its secret, and it comes to be in the first place."""
    SECRET = "secret"  # noqa: S105 - a word
    """The secret that it has."""
    NEW_SECRET = "new_secret"  # noqa: S105 - a word
    """Another one in its place."""


def may_have_secret(product: ProductCredential, device: DeviceCredential | None, again: Again = Again.DENY) -> Grant:
    """May a device that has proven its product's secret have its own? Pure. None: the product has no such device.

    Raises:
        Refusal: ACTIVATION_OFF, DEVICE_UNKNOWN, DISABLED, ACTIVATION_SPENT; in this order.
    """
    if not product.dynamic_activation:
        raise Refusal(Reason.ACTIVATION_OFF)
    if device is None:
        if not product.auto_create:
            raise Refusal(Reason.DEVICE_UNKNOWN)
        return Grant.CREATE
    if device.disabled:
        raise Refusal(Reason.DISABLED)
    if not device.activated or again is Again.SAME:
        return Grant.SECRET
    if again is Again.DENY:
        raise Refusal(Reason.ACTIVATION_SPENT)
    return Grant.NEW_SECRET


class Proof(Protocol):
    def proven_by(self, secret: str) -> bool:
        """Does the proof hold with this password? In constant time."""
        ...

    def is_fresh(self, seconds: int) -> bool:
        """Was the proof made within so many seconds of now? 0: any time."""
        ...


class Claim(Proof, Protocol):
    """Somebody claims to be the serial number of a group."""

    @property
    def protocol(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def serial(self) -> str: ...
    @property
    def description(self) -> "Description": ...


class SerialClaim(Proof, Protocol):
    """Somebody claims to be a serial number and names no group."""

    @property
    def protocol(self) -> str: ...
    @property
    def serial(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a device tells of itself; applied when it registers, and never again."""

    name: str = ""
    name_i18n: dict[str, str] = field(default_factory=dict)
    timezone: str = ""


def check(proof: Proof, group: Group) -> None:
    """Raises: Refusal NOT_PROVEN or STALE."""
    if not proof.proven_by(group.password):
        raise Refusal(Reason.NOT_PROVEN, group=group.key)
    if not proof.is_fresh(group.freshness):
        raise Refusal(Reason.STALE, group=group.key)


async def enrol(tx: Tx, claim: Claim) -> Device:
    """Give a proven claimant its device; register and allocate it as far as its group allows. Safe to repeat.

    A device that must wait for an administrator is returned as it is, because its registration has to be kept and a
    refusal would roll it back: commit, then ask `allocated`.

    Raises:
        Refusal: UNKNOWN for a group that does not exist, or a serial number that may not register itself; NOT_PROVEN,
            STALE.
    """
    group = await groups.find(tx, claim.protocol, claim.group)
    if group is None:
        claim.proven_by(NOBODY)
        raise Refusal(Reason.UNKNOWN, group=claim.group)
    check(claim, group)
    return await admit_serial(tx, group, claim.serial, claim.description)


async def admit_serial(tx: Tx, group: Group, serial: str, description: Description) -> Device:
    """As `enrol`, for a serial number that a proven claimant speaks for.

    Raises:
        Refusal: UNKNOWN, when it may not register itself.
    """
    device = await devices.by_serial(tx, group, serial)
    if device is None:
        if not group.auto_register:
            raise Refusal(Reason.UNKNOWN, serial=serial)
        new = Device(
            protocol=group.protocol, state=State.REGISTERED, group=group.key, serial=serial, name=description.name,
            name_i18n=description.name_i18n, timezone=description.timezone,
        )  # fmt: skip
        if group.auto_activation and group.product_id:
            new = replace(outfit(new, group.product), certificate_login=group.certificate_login)
        if added := await devices.register(tx, group, new):
            tx.emit(DeviceRegistered(device_id=added.id, identity=added.identity, serial=serial))
            return added
        device = await devices.by_serial(tx, group, serial)  # another request has registered it just now
        if device is None:  # and an administrator has deleted it since
            raise Refusal(Reason.UNAVAILABLE, error="the device was registered and deleted at the same time")
    if device.state is State.REGISTERED and group.auto_activation and group.product_id:
        device = await devices.lock(tx, device)
        if device.state is State.REGISTERED:
            device = await allocate(tx, device, group.product, group.product_id)
            device = replace(device, certificate_login=group.certificate_login)
    return device


def allocated(device: Device) -> Device:
    """The device itself. Raises: Refusal NOT_ALLOCATED, when it still waits for an administrator."""
    if device.state is State.REGISTERED:
        raise Refusal(Reason.NOT_ALLOCATED, serial=device.serial)
    return device


def outfit(device: Device, product: str, key: str = "", secret: str = "", forms: Forms = HOUSE) -> Device:
    """The device as allocated in `product`; a key that it has had there before stays its own."""
    reserved = device.key if device.product == product else ""
    return replace(
        device, state=after(device.state, Step.ALLOCATE), product=product, key=key or reserved or forms.device_key(),
        secret=secret or forms.device_secret(), asset=device.asset or forms.asset_id(), activations=0,
    )  # fmt: skip


async def allocate(
    tx: Tx, device: Device, product: str, product_id: int, *, key: str = "", secret: str = "", forms: Forms = HOUSE
) -> Device:
    """Give a registered device its product, key and secret.

    Raises:
        Refusal: ILLEGAL_TRANSITION when it is allocated already; from the transaction DUPLICATE when the key is taken.
    """
    device = outfit(device, product, key, secret, forms)
    await devices.allocate(tx, device, product_id)
    tx.emit(DeviceAllocated(device_id=device.id, identity=device.identity, serial=device.serial))
    return device


async def recall(tx: Tx, claim: SerialClaim) -> tuple[Group, Device]:
    """The allocated device of a claimant that names its serial number only: the group whose password proves it, counts.

    Raises:
        Refusal: UNKNOWN, NOT_PROVEN, STALE, NOT_ALLOCATED.
    """
    group, device = await whose(tx, claim)
    return group, allocated(device)


async def whose(tx: Tx, claim: SerialClaim) -> tuple[Group, Device]:
    """Group and device of a claimant that names its serial number only.

    Raises:
        Refusal: UNKNOWN, NOT_PROVEN, STALE.
    """
    candidates = await devices.by_serial_anywhere(tx, claim.protocol, claim.serial, MOST_CANDIDATES)
    if not candidates:
        claim.proven_by(NOBODY)
        raise Refusal(Reason.UNKNOWN, serial=claim.serial)
    found = await groups.find_all(tx, claim.protocol, [device.group for device in candidates])
    for device in candidates:
        group = found.get(device.group)  # none: it has been deleted since, and the device with it
        if group is not None and claim.proven_by(group.password):
            check(claim, group)
            return group, device
    raise Refusal(Reason.NOT_PROVEN, serial=claim.serial)
