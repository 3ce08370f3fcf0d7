"""Ioto over MQTT: a session stands on a certificate alone, which `http` has issued. Pure, but for the class at the end.

Agents send CONNECT without user name and password, with their id as client id, and subscribe to all below their topics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography import x509

from provisioning.core import pki
from provisioning.core.generate import HOUSE, ulid
from provisioning.core.login import CertificateRole, LoginClaim, Means
from provisioning.model.admission import (
    NOTHING,
    Admission,
    Answer,
    ConnackCodes,
    Notice,
    Rejection,
    Rights,
    SessionLimits,
)
from provisioning.model.credential import Credential
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Message, Peer
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import Spec
from provisioning.protocols.ioto import rows, wire
from provisioning.sections import Ioto as Settings

if TYPE_CHECKING:
    from aiohttp import web

    from provisioning.protocols.ioto.http import Operations
    from provisioning.web.operation import Handler

LEVEL: Final = 4
"""MQTT 3.1.1, and nothing else."""
LARGEST_PAYLOAD: Final = 131_072
"""Bytes: what the vendor's cloud takes in one message."""
CLOSE: Final = Answer(close=True)
FAREWELL_TIMEOUT: Final = 0.2
"""Seconds that a released device has to read the message: it does not answer."""

# Unknown devices 4, whatever else is wrong 5. But who finds us without our database comes again.
UNKNOWN: Final = ConnackCodes(4, 0x86)
NOT_AUTHORIZED: Final = ConnackCodes(5, 0x87)
LATER: Final = ConnackCodes(3, 0x88)
CONNACKS: Final[Mapping[Reason, ConnackCodes]] = MappingProxyType({
    Reason.MALFORMED: NOT_AUTHORIZED,
    Reason.MISSING: NOT_AUTHORIZED,
    Reason.UNSUPPORTED_VERSION: ConnackCodes(1, 0x84),
    Reason.UNSUPPORTED_MEDIA_TYPE: NOT_AUTHORIZED,
    Reason.TOO_LARGE: NOT_AUTHORIZED,
    Reason.UNKNOWN: UNKNOWN,
    Reason.DEVICE_UNKNOWN: UNKNOWN,
    Reason.NOT_PROVEN: UNKNOWN,
    Reason.STALE: NOT_AUTHORIZED,
    Reason.NOT_ALLOCATED: NOT_AUTHORIZED,
    Reason.DUPLICATE: NOT_AUTHORIZED,
    Reason.DISABLED: NOT_AUTHORIZED,
    Reason.ACTIVATION_OFF: NOT_AUTHORIZED,
    Reason.ACTIVATION_SPENT: NOT_AUTHORIZED,
    Reason.UNSUPPORTED: NOT_AUTHORIZED,
    Reason.CERTIFICATE_REQUIRED: NOT_AUTHORIZED,
    Reason.LIMIT_REACHED: NOT_AUTHORIZED,
    Reason.RATE_LIMITED: NOT_AUTHORIZED,
    Reason.BLOCKED: NOT_AUTHORIZED,
    Reason.KICKED: LATER,
    Reason.ILLEGAL_TRANSITION: LATER,
    Reason.IN_USE: LATER,
    Reason.UNAVAILABLE: LATER,
    Reason.INTERNAL: LATER,
})  # fmt: skip

# --- who connects ----------------------------------------------------------------------------------------------------


def read_certificate(der: bytes) -> tuple[str, str] | None:
    """Product key and device id in the subject of a certificate as we issue them; None: it is no such one."""
    try:
        subject = pki.read_certificate(der).subject
    except Refusal:
        return None
    product, device = _only(subject, "OU"), _only(subject, "CN")
    if product is None or device is None:
        return None
    return (product, device) if wire.PRODUCT_KEY.fullmatch(product) and wire.DEVICE_ID.fullmatch(device) else None


def _only(subject: x509.Name, name: str) -> str | None:
    found = subject.get_attributes_for_oid(pki.ATTRIBUTES[name])
    value = found[0].value if len(found) == 1 else None
    return value if isinstance(value, str) else None


def read_login(connect: Connect, der: bytes) -> Identity | None:
    """Whom a CONNECT over TLS claims to be, with the certificate that its peer has shown; None: it is not ours.

    Agents send neither user name nor password, and their id as client id.

    Raises:
        Refusal: UNSUPPORTED_VERSION; CERTIFICATE_REQUIRED, when the client id is another device's.
    """
    named = read_certificate(der) if der and connect.username is None and connect.password is None else None
    if named is None:
        return None
    if connect.level != LEVEL:
        raise Refusal(Reason.UNSUPPORTED_VERSION)
    product, device = named
    if connect.client_id != device:
        raise Refusal(Reason.CERTIFICATE_REQUIRED, certificate="of another device")
    return Identity(wire.PROTOCOL, product, device)


@dataclass(frozen=True, slots=True)
class CertificateClaim:
    """A device that names itself by its certificate alone."""

    identity: Identity
    means: Means = Means.DEVICE
    certificate_role: CertificateRole = CertificateRole.ALONE

    def proven_by(self, secret: str) -> bool:  # noqa: ARG002 - no secret proves it
        return False


# --- what a session may do -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionRights(Rights):
    """What a session may subscribe to stands below `prefixes`; what it may publish to, elsewhere."""

    own: tuple[str, ...] = ()

    def may_publish(self, topic: str) -> bool:
        return topic.startswith(self.own)


def rights(device: str, account: str = "") -> SessionRights:
    """Agents subscribe to all below each of the first, with a wildcard. `account`: of the device; empty: not known."""
    to_read = [f"ioto/device/{device}/", "ioto/account/all/", *([f"ioto/account/{account}/"] if account else [])]
    own = f"ioto/service/{device}/"
    return SessionRights(tuple(to_read), own=(own, f"$aws/rules/IotoDevice/{own}"))


# --- what the service says -------------------------------------------------------------------------------------------


def write_release(device: str, now: datetime) -> Message:
    """The agent erases its certificates and registers again; it takes no notice of a message that is 10 s old."""
    return Message(f"ioto/device/{device}/provision/release", str(int(now.timestamp() * 1000)).encode())


def write_throttle(device: str, now: datetime) -> Message:
    """The agent sends less for a while."""
    return Message(
        f"ioto/device/{device}/mqtt/throttle", f'{{"timestamp":{int(now.timestamp() * 1000)}}}'.encode(), qos=1
    )


def farewell(identity: Identity, reason: Reason, now: datetime) -> Notice | None:
    """What a session is told that ends: that the device was released, when its place in the registry is gone."""
    if reason not in {Reason.NOT_PROVEN, Reason.UNKNOWN}:
        return None
    return Notice(write_release(identity.device, now), f"ioto/service/{identity.device}/released", FAREWELL_TIMEOUT)


class Ioto:
    """The protocol as the rest of the house sees it, and the conduct of its sessions."""

    name = wire.PROTOCOL

    forms = replace(HOUSE, product_secret=ulid)

    def __init__(self, settings: Settings, names: Sequence[str] = ()) -> None:
        self._limits = SessionLimits(up=settings.messages_up)
        self._settings = settings
        self._names = names

    # --- the protocol ---

    @cached_property
    def _devices(self) -> "Operations":
        from provisioning.protocols.ioto.http import Operations  # noqa: PLC0415 - for who serves: commands do without

        return Operations(self._settings, self._names)

    def routes(self) -> "Iterable[web.RouteDef]":
        from provisioning.protocols.ioto import users  # noqa: PLC0415 - for who serves: commands do without

        return (*self._devices.routes(), *users.Operations(self._settings).routes())

    def register(self) -> "Handler":
        """For who dispatches `http.ROOT_REGISTER`, a path that protocols share."""
        return self._devices.register()

    def read_user(self, name: str) -> Identity | None:  # noqa: ARG002 - devices have no secret that a user name could go with
        return None

    def read_row(self, row: dict[str, object]) -> Spec:
        return rows.read_row(row)

    def write_row(self, thing: Product | Group | Device) -> dict[str, object]:
        return rows.write_row(thing)

    def read_connect(self, connect: Connect, peer: Peer, /) -> LoginClaim | None:
        """Who comes stands in the certificate that the peer shows."""
        identity = read_login(connect, peer.certificate)
        return None if identity is None else CertificateClaim(identity)

    def admit(self, claim: LoginClaim, credential: Credential) -> Admission:
        device = credential.device
        assert device is not None
        return Admission(
            identity=claim.identity, device_id=device.id, epoch=device.epoch,
            rights=rights(claim.identity.device, device.account), conduct=self, max_payload=LARGEST_PAYLOAD,
            limits=self._limits,
        )  # fmt: skip

    def reject(self, reason: Reason) -> Rejection:
        codes = CONNACKS[reason]
        return Rejection(reason=reason, code=codes.v3, code5=codes.v5)

    # --- the conduct of its sessions ---

    def on_message(self, identity: Identity, message: Message) -> Answer:  # noqa: ARG002 - nobody here answers
        return NOTHING

    def on_forbidden(self, identity: Identity, message: Message) -> Answer:  # noqa: ARG002
        return CLOSE

    def on_oversize(self, identity: Identity, message: Message) -> Answer:  # noqa: ARG002
        return CLOSE

    def throttled(self, identity: Identity) -> Message | None:
        return write_throttle(identity.device, datetime.now(UTC))

    def farewell(self, identity: Identity, reason: Reason) -> Notice | None:
        return farewell(identity, reason, datetime.now(UTC))
