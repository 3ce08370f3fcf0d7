"""Gateways: a device with a connection speaks for others that have none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from provisioning.core.enrol import NOBODY
from provisioning.model.certificate import Status
from provisioning.model.credential import Credential, DeviceCredential
from provisioning.model.events import DeviceActivated, DeviceBound, DeviceUnbound
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import bindings, certificates, logins
from provisioning.store.database import Database, Tx
from provisioning.store.sealing import SealError


class Outcome(StrEnum):
    """What became of a gateway's request for one device. A protocol owns a total table from here to its own codes."""

    DONE = "done"
    NOT_BOUND = "not_bound"
    """The device is not this gateway's."""
    UNKNOWN = "unknown"
    NOT_PROVEN = "not_proven"
    TAKEN = "taken"
    """It is another gateway's."""
    REPEATED = "repeated"
    """It is this gateway's already."""
    NOT_ORDINARY = "not_ordinary"
    """It speaks for others itself, or is the gateway."""
    NOT_ALLOWED = "not_allowed"
    """It is disabled; or the gateway is behind another one, or has as many as it may."""
    UNSUPPORTED = "unsupported"
    """The proof is of another kind than its product's devices have."""


class BindClaim(Protocol):
    """A gateway claims to speak for a device, and shows a proof that the device has made."""

    @property
    def identity(self) -> Identity: ...
    @property
    def by_certificate(self) -> bool | None:
        """Is it made with the device's certificate, or with its secret? None: not stated."""
        ...

    def proven_by(self, secret: str) -> bool:
        """In constant time."""
        ...

    def proven_by_certificate(self, der: bytes) -> bool:
        """In constant time."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How a gateway and the devices that it asks for stand to each other."""

    gateway_id: int
    is_bound: bool
    """The gateway is behind another one."""
    free: int
    """How many more devices it may speak for."""
    gateways: Mapping[int, int]
    """Device id -> gateway id."""
    with_sub_devices: frozenset[int]


def judge(claim: BindClaim, credential: Credential, ders: Sequence[bytes], standing: Standing) -> Outcome:
    """May the gateway speak for this device? `ders`: the certificates by which the device may prove itself."""
    product, device = credential.product, credential.device
    if product is None or device is None:
        claim.proven_by(NOBODY)
        return Outcome.UNKNOWN
    if claim.by_certificate is not None and claim.by_certificate != product.certificate_login:
        return Outcome.UNSUPPORTED
    if product.certificate_login:
        proven = any(claim.proven_by_certificate(der) for der in ders)
    else:
        proven = claim.proven_by(device.secret)
    if not proven:
        return Outcome.NOT_PROVEN
    if device.id == standing.gateway_id or device.id in standing.with_sub_devices:
        return Outcome.NOT_ORDINARY
    bound_to = standing.gateways.get(device.id)
    if bound_to is not None:
        return Outcome.REPEATED if bound_to == standing.gateway_id else Outcome.TAKEN
    return Outcome.NOT_ALLOWED if device.disabled or standing.is_bound or standing.free <= 0 else Outcome.DONE


class Gateways:
    """What gateways ask for. Each answer is durable, one outcome for each device, in their order.

    `most`: how many devices a gateway may speak for.

    Raises (all methods):
        Refusal: UNAVAILABLE when the database is away, INTERNAL when a secret does not open, UNKNOWN when the gateway
            itself is gone.
    """

    def __init__(self, database: Database, *, most: int) -> None:
        self._database = database
        self._most = most

    async def bind(self, gateway: Identity, claims: Sequence[BindClaim]) -> list[Outcome]:
        """Take devices in, by a proof of each."""
        async with self._database.begin() as tx:
            own, found = await _look_up(tx, gateway, [claim.identity for claim in claims])
            ids = {each.device.id for each in found if each.device}
            held = await bindings.lock(tx, ids | {own.id})
            if own.id not in held:
                raise Refusal(Reason.UNKNOWN, device=gateway.device)
            known = [each if each.device and each.device.id in held else Credential(each.identity) for each in found]
            gateways = await bindings.gateways_of(tx, held)
            free = self._most - await bindings.count(tx, own.id)
            others = frozenset(await bindings.with_sub_devices(tx, ids))
            outcomes: list[Outcome] = []
            new: list[int] = []
            for claim, credential in zip(claims, known, strict=True):
                standing = Standing(own.id, own.id in gateways, free - len(new), gateways, others)
                outcome = judge(claim, credential, await _certificates(tx, credential), standing)
                outcomes.append(outcome)
                if outcome is Outcome.DONE and credential.device:
                    new.append(credential.device.id)
                    gateways[credential.device.id] = own.id
                    tx.emit(DeviceBound(device_id=credential.device.id, identity=credential.identity))
            await bindings.add(tx, own.id, new)
        return outcomes

    async def unbind(self, gateway: Identity, devices: Sequence[Identity]) -> list[Outcome]:
        """Give devices up. No proof is needed: whoever has a device's secret can bind it again."""
        async with self._database.begin() as tx:
            own, found = await _look_up(tx, gateway, devices)
            gone = await bindings.remove(tx, own.id, [each.device.id for each in found if each.device])
            tx.emit(*(
                DeviceUnbound(device_id=each.device.id, identity=each.identity)
                for each in {each.identity: each for each in found}.values() if each.device and each.device.id in gone
            ))  # fmt: skip
            left = set(gone)
            return [_outcome(each, lambda device: _take(left, device.id)) for each in found]

    async def online(self, gateway: Identity, devices: Sequence[Identity]) -> list[Outcome]:
        """Devices are there from now on, by way of the gateway. The first time activates them, as a login does."""
        async with self._database.begin() as tx:
            own, found = await _look_up(tx, gateway, devices)
            bound = await _bound_to(tx, own, found)
            outcomes = [_outcome(each, lambda device: device.id in bound, online=True) for each in found]
            ready = {
                each.device.id: each.identity
                for each, outcome in zip(found, outcomes, strict=True)
                if each.device and not each.device.activated and outcome is Outcome.DONE
            }
            first = await logins.activate(tx, ready.keys()) if ready else set()
            tx.emit(*(DeviceActivated(device_id=i, identity=ready[i]) for i in sorted(first)))
        return outcomes

    async def offline(self, gateway: Identity, devices: Sequence[Identity]) -> list[Outcome]:
        """Devices are no longer there."""
        async with self._database.read() as tx:
            own, found = await _look_up(tx, gateway, devices)
            bound = await _bound_to(tx, own, found)
            return [_outcome(each, lambda device: device.id in bound) for each in found]

    async def sub_devices(self, gateway: Identity) -> list[Identity]:
        """All devices that the gateway speaks for."""
        async with self._database.read() as tx:
            own, _ = await _look_up(tx, gateway, [])
            return await bindings.of_gateway(tx, own.id)


async def _look_up(tx: Tx, gateway: Identity, devices: Sequence[Identity]) -> tuple[DeviceCredential, list[Credential]]:
    found = []
    for each in await logins.look_up(tx, [gateway, *devices]):
        if isinstance(each, SealError):
            raise Refusal(Reason.INTERNAL, error=str(each))
        found.append(each)
    if found[0].device is None:
        raise Refusal(Reason.UNKNOWN, device=gateway.device)
    return found[0].device, found[1:]


async def _bound_to(tx: Tx, own: DeviceCredential, found: Sequence[Credential]) -> set[int]:
    gateways = await bindings.gateways_of(tx, [each.device.id for each in found if each.device])
    return {device_id for device_id, gateway_id in gateways.items() if gateway_id == own.id}


def _outcome(credential: Credential, is_ours: Callable[[DeviceCredential], bool], *, online: bool = False) -> Outcome:
    if credential.device is None:
        return Outcome.UNKNOWN
    if not is_ours(credential.device):
        return Outcome.NOT_BOUND
    return Outcome.NOT_ALLOWED if online and credential.device.disabled else Outcome.DONE


def _take(left: set[int], device_id: int) -> bool:
    """Named twice, a device is given up once."""
    if device_id not in left:
        return False
    left.discard(device_id)
    return True


async def _certificates(tx: Tx, credential: Credential) -> list[bytes]:
    """By which the device may prove itself now."""
    if credential.device is None or credential.product is None or not credential.product.certificate_login:
        return []
    now = datetime.now(UTC)
    found = await certificates.of_device(tx, credential.device.id)
    return [each.der for each in found if each.status is Status.VALID and each.not_before <= now < each.not_after]
